"""CMID: contrastive mask image distillation (Muhtar et al., arXiv 2304.09670; IEEE TGRS 2023).

A student sees two masked crops of an image, a teacher that follows it sees them whole. The student paints the
hidden pixels (reconstruction), tells its image from others (global), and agrees with the teacher, position by
position, wherever both crops show the same ground (local).

    symbol in the paper or its code          here
    image, view (weak, strong crop)          batch[0], batch[1]
    online encoder, branch encoder           backbone, teacher_backbone
    mim2org, decoder_pred                    pixel_head
    online, branch projector                 projector, teacher_projector
    class, branch class projector            local_head, teacher_local_head
    queue, T, tau, C (centre)                queue, temperature, momentum, centre

Two modes: `exact` does what the paper's idea asks for; `parity` does what the published code (commit 6e1de74) does.
Every place where they part is marked `Departure:`.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmid.config import CMIDConfig
from cmid.contracts import Backbone, Learner, Look, Progress, View, Views
from cmid.layers.projection import PixelHead, Projector, PrototypeHead
from cmid.layers.teacher import teacher_of
from cmid.ops import gather
from cmid.ops.contrast import info_nce
from cmid.ops.masking import draw_masks, fill_with_mean, hidden_positions, to_pixels
from cmid.ops.matching import Matches, nearest_positions, take_positions, take_rows
from cmid.ops.momentum import cosine_momentum, follow
from cmid.ops.patches import to_patches
from cmid.ops.pooling import pooled
from cmid.ops.queue import enqueue, new_queue
from cmid.ops.spectrum import focal_frequency, focal_l1


class Seen(NamedTuple):
    """A batch between its parts: two views with their masks, and what the teacher made of them, all without gradient.

    Attributes:
        batch: the augmented views.
        masks: bool `(B, h, w)`, True = hidden.
        masked: `(B, C, H, W)`, hidden pixels at their mean.
        keys: `(B, D)` unit rows of the teacher's global head; empty where that branch is off.
        local: maps `(B, C, h, w)` of the teacher that feed the local branch; empty where that branch is off.
    """

    batch: Views
    masks: tuple[Tensor, ...]
    masked: tuple[Tensor, ...]
    keys: list[Tensor]
    local: list[Tensor]


class CMID(Learner):
    """The method on any backbone that takes a mask.

    Args:
        backbone: the student; its mask token is built in, the teacher is a copy that is never masked.
        config: the method's numbers.

    Raises:
        ValueError: where all three branches are off, or in parity mode a batch does not divide the queue.
    """

    parts = 2
    queue: Tensor
    queue_pointer: Tensor
    centre: Tensor
    progress: Progress

    def __init__(self, backbone: Backbone, config: CMIDConfig) -> None:
        super().__init__()
        c = self.config = config
        if not (c.reconstruction_weight or c.global_weight or c.local_weight):
            raise ValueError("all three branches have weight 0: give at least one of them a weight above 0")
        self.exact = c.mode == "exact"
        self.backbone = backbone
        self.teacher_backbone = teacher_of(backbone)
        self._matched: dict[int, Tensor] = {}
        width = backbone.channels[-1]
        if c.reconstruction_weight:
            self.pixel_head = PixelHead(width, backbone.in_chans, backbone.strides[-1])
        if c.global_weight:
            byol = c.global_form == "byol"
            self.projector = Projector(width, c.global_hidden, c.global_dim, batch_norm=byol)
            self.teacher_projector = teacher_of(self.projector)
            if byol:
                self.predictor = Projector(c.global_dim, c.predictor_hidden, c.global_dim, batch_norm=True)
            else:
                self.register_buffer("queue", new_queue(c.queue_size, c.global_dim))
                self.register_buffer("queue_pointer", torch.zeros(1, dtype=torch.int64))
        if c.local_weight:
            sizes = (backbone.channels[c.local_stage], c.local_hidden, c.local_bottleneck, c.local_prototypes)
            self.local_head = PrototypeHead(*sizes, norm=backbone.norm)
            if self.exact:  # Departure: the published initialisation never reaches this head.
                self.local_head.initialise()
            self.teacher_local_head = teacher_of(self.local_head)
            self.register_buffer("centre", torch.zeros(c.local_prototypes))
        if not self.exact:
            self._initialise_as_published()
        self.before_step(Progress())

    # ---------------------------------------------------------------- the paper, in its order

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """Weighted terms `reconstruction`, `global` and `local` of two augmented views `(B, C, H, W)`.

        The student's two views meet only through the teacher, so each is a part whose gradient can be taken alone.
        """
        if part in (None, 0):
            masks, masked = self._hide(batch)
            self._seen: Seen | None = self._see(batch, masks, masked)
        assert self._seen is not None, "the first part comes first"
        terms = self._terms(self._seen, (0, 1) if part is None else (part,))
        if part != 0:
            self._seen = None  # lets go of the batch
        return terms

    def terms(self, batch: Views, masks: tuple[Tensor, ...], masked: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The loss terms for masks `(B, h, w)` as drawn, and masked images `(B, C, H, W)`, one of each a view."""
        return self._terms(self._see(batch, masks, masked), (0, 1))

    @torch.no_grad()
    def _see(self, batch: Views, masks: tuple[Tensor, ...], masked: tuple[Tensor, ...]) -> Seen:
        """What the teacher makes of both whole views, beside what the student will get.

        It looks at them even where no branch does: the statistics of its batch-norm are exported with it.
        """
        teacher = [self.teacher_backbone(view.images) for view in batch]
        keys, local = [], []
        if self.config.global_weight:
            keys = [F.normalize(self.teacher_projector(pooled(t.last)).float(), dim=1) for t in teacher]
        if self.config.local_weight:
            local = [t[self.config.local_stage] for t in teacher]
        return Seen(batch, masks, masked, keys, local)

    def _terms(self, seen: Seen, which: tuple[int, ...]) -> dict[str, Tensor]:
        """The terms of the student's views `which`; both together are the loss, each branch the mean of the two."""
        c, terms = self.config, dict[str, Tensor]()
        for here in which:
            there = 1 - here
            student = self.backbone(seen.masked[here], seen.masks[here])
            found = {}
            if c.reconstruction_weight:
                images, mask = seen.batch[here].images, seen.masks[here]
                found["reconstruction"] = c.reconstruction_weight * self._reconstruction(student.last, images, mask)
            if c.global_weight:
                found["global"] = c.global_weight * self._global(student.last, seen.keys[there])
            if c.local_weight:
                # Departure: before its first epoch the published code leaves this branch out; here it has weight 0,
                # so that under DDP no parameter goes without a gradient.
                local = self._local(student[c.local_stage], seen, here)
                found["local"] = c.local_weight * self.local_gate * local
                if len(found) == 1 and student[c.local_stage] is not student.last:
                    # No branch reads the last map, but DDP waits for the gradients of its stage, too. A sum over no
                    # image at all is 0 whatever the map holds, and its gradient is zeros.
                    found["local"] = found["local"] + student.last[:0].sum()
            for name, value in found.items():
                terms[name] = terms[name] + value / 2 if name in terms else value / 2
        if 1 in which:
            self._end_of_forward(seen)
        return terms

    def _reconstruction(self, features: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """Focal L1 over hidden pixels plus focal frequency distance, of one view."""
        whole = all(n % cells == 0 for n, cells in zip(features.shape[-2:], mask.shape[-2:], strict=True))
        errors = self._errors_by_position if whole else self._errors_by_pixel
        hidden, mean_of_hidden, mean_of_visible = errors(features, images, mask)
        pixels = mask.sum() * (images[0].numel() // mask[0].numel())  # those hidden, of all bands
        spatial = focal_l1(hidden).sum() / (pixels + 1e-5 * images.shape[1])
        if not self.config.frequency_weight:
            return spatial
        # Visible pixels hardly count: there, half of the prediction is replaced by the truth, and all but 0.001 of the
        # rest gets no gradient. The spectra are averaged anyhow; averaged first, that is done on one image.
        mixed = mean_of_hidden + 0.001 * mean_of_visible + 0.4995 * mean_of_visible.detach()
        # Departure: the published code averages the spectrum over the images of each process alone.
        return spatial + self.config.frequency_weight * focal_frequency(mixed, over_all=self.exact)

    def _errors_by_pixel(self, features: Tensor, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prediction minus image: of hidden pixels, then the batch's mean of hidden and of visible ones; else 0."""
        error = self.pixel_head(features).float() - images.float()
        hidden = error * to_pixels(mask, images.shape[-2:])
        mean = hidden.mean(0, keepdim=True)
        return hidden, mean, error.mean(0, keepdim=True) - mean

    def _errors_by_position(self, features: Tensor, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same, where a position is hidden whole or not at all: only hidden ones and two means are painted."""
        grid, stride = features.shape[-2:], images.shape[-1] // features.shape[-1]
        patches = to_patches(images.float(), stride)
        at = hidden_positions(mask, grid, self.config.mask_ratio)
        hidden = self.pixel_head.of_rows(take_positions(features, at)).float() - take_rows(patches, at)
        is_hidden = to_pixels(mask, grid).flatten(1)
        weights = torch.stack((is_hidden, ~is_hidden)).float() / len(images)
        painted = self.pixel_head.mean_of_rows(features.flatten(2).transpose(1, 2), weights)
        with torch.autocast(images.device.type, enabled=False):
            means = painted - torch.einsum("kbn,bnp->knp", weights, patches)
        means = F.pixel_shuffle(means.transpose(1, 2).unflatten(2, grid), stride)
        return hidden, means[:1], means[1:]

    def _global(self, features: Tensor, keys: Tensor) -> Tensor:
        """The image told from others: the student of one view, the teacher's keys `(B, D)` of the other."""
        query = self.projector(pooled(features))
        if self.config.global_form == "byol":
            query = F.normalize(self.predictor(query).float(), dim=1)
            return (2 - 2 * (query * keys).sum(1)).mean()
        return info_nce(F.normalize(query.float(), dim=1), keys, self.queue, self.config.temperature)

    def _local(self, student: Tensor, seen: Seen, here: int) -> Tensor:
        """Agreement on the positions that show the same ground: the student's map `(B, C, h, w)` of view `here`."""
        there = 1 - here
        found = self._match(seen.batch[here], seen.batch[there], student.shape[-2:])
        scores = self.local_head(take_positions(student, found.first)).float()
        with torch.no_grad():
            targets = self.teacher_local_head(take_positions(seen.local[there], found.second)).float()
        self._matched[here] = found.valid.float().mean()
        return self._distil(scores, targets, found.valid)

    def _distil(self, scores: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
        """Cross-entropy of sharpened, centred targets and scores, both `(B, n, D)`, over the valid positions."""
        sharpened = ((targets - self.centre) / self.teacher_temperature).softmax(-1)
        loss = -(sharpened * (scores / self.config.local_temperature).log_softmax(-1)).sum(-1)
        weight = valid.to(loss.dtype)
        # Divided by the mean count over the processes, so that DDP's average is one process' loss.
        loss = (loss * weight).sum() / (gather.total(weight.sum()) / gather.processes()).clamp(min=1e-6)
        if self.local_gate:
            self._move_centre(targets, weight)
        return loss

    # ---------------------------------------------------------------- state between steps

    def before_step(self, progress: Progress) -> None:
        """Set the teacher's temperature, and whether the local branch has begun, for the step to come."""
        c, epoch = self.config, int(progress.epoch)
        self.progress = progress
        self.local_gate = float(epoch >= c.local_start_epoch)
        # Departure: the published ResNet-50 settings begin at epoch -1, and so read this schedule one epoch ahead.
        since = epoch - (max(0, c.local_start_epoch) if self.exact else c.local_start_epoch)
        low, high = c.local_teacher_temperature
        share = min(1.0, max(0, since) / max(1, c.local_temperature_epochs - 1))
        self.teacher_temperature = low + (high - low) * share

    def after_step(self, progress: Progress) -> None:
        """Let the teacher follow the student that the optimiser has just moved."""
        if self.exact:
            self._follow(progress.step - 1)

    def _follow(self, step: int) -> None:
        if step < 0:
            return
        c = self.config
        self.momentum = cosine_momentum(step, self.progress.total_steps, c.momentum, c.momentum_end)
        follow(self.teacher_backbone, self.backbone, self.momentum)
        if c.global_weight:
            follow(self.teacher_projector, self.projector, self.momentum)
        if c.local_weight:
            follow(self.teacher_local_head, self.local_head, self.momentum)

    def _end_of_forward(self, seen: Seen) -> None:
        """What changes once both views have been seen."""
        if self.config.global_weight and self.config.global_form == "moco":
            self._remember(seen.keys)
        if not self.exact:  # Departure: the published teacher moves before the optimiser steps, and not at first.
            self._follow(self.progress.step - 1)

    def _remember(self, keys: list[Tensor]) -> None:
        """Put the teacher's keys of both views into the queue, the strong view's first."""
        keys = [gather.rows(key) for key in keys[::-1]]
        if not self.exact:
            # Departure: under DDP the published code gathers what it has gathered, so that each key comes
            # once a process; and its queue must be a multiple of what a step writes.
            keys = [key.repeat(gather.processes(), 1) for key in keys]
            if self.queue.shape[0] % keys[0].shape[0]:
                raise ValueError(
                    f"in parity mode the queue must be a multiple of the keys a step writes: "
                    f"{self.queue.shape[0]} is not one of {keys[0].shape[0]}; change cmid.queue_size or batch_size"
                )
        for key in keys:
            enqueue(self.queue, self.queue_pointer, key)

    @torch.no_grad()
    def _move_centre(self, targets: Tensor, weight: Tensor) -> None:
        """Let the centre follow the mean of the teacher's raw scores `(B, n, D)` over valid positions."""
        sums, count = gather.total((targets * weight[..., None]).sum((0, 1))), weight.sum()
        # Departure: the published code divides the mean of the processes' sums by the count of one.
        count = gather.total(count) if self.exact else count * gather.processes()
        m = self.config.centre_momentum
        moved = self.centre * m + sums / count.clamp(min=1e-6) * (1 - m)
        self.centre.copy_(torch.where(count > 0, moved, self.centre))

    # ---------------------------------------------------------------- masks, matches, pictures

    def _draw_mask(self, view: View) -> Tensor:
        height, width = view.images.shape[-2:]
        cell = self.config.mask_cell_px
        if height % cell or width % cell:
            raise ValueError(
                f"views of {height} x {width} px are no whole number of {cell} px mask cells: change views.size, or "
                f"cmid.mask_cell_px to a divisor of it"
            )
        grid = (height // cell, width // cell)
        return draw_masks(view.images.shape[0], grid, self.config.mask_ratio, device=view.images.device)

    def _hide(self, batch: Views) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Masks `(B, h, w)` drawn for each view, and the views' images with hidden pixels at their mean."""
        masks = tuple(self._draw_mask(view) for view in batch)
        masked = tuple(
            fill_with_mean(view.images, to_pixels(mask, view.images.shape[-2:]))
            for view, mask in zip(batch, masks, strict=True)
        )
        return masks, masked

    def _match(self, here: View, there: View, grid: tuple[int, ...]) -> Matches:
        """Positions of `here` and their nearest in `there`."""
        rows, columns = grid
        first, second = (replace(v, boxes=self._boxes(v)).centres((rows, columns)) for v in (here, there))
        # Departure: the published code matches positions that the other crop does not show at all.
        inside = there.boxes if self.exact else None
        return nearest_positions(first, second, self.config.local_matches, inside)

    def _boxes(self, view: View) -> Tensor:
        if self.exact:
            return view.boxes
        # Departure: the published code takes the crop's start, a share of the free range, for pixels.
        x0, y0, x1, y1 = view.boxes.unbind(1)
        height, width = view.images.shape[-2:]  # parity squashes the source image to the size of the view
        w, h = x1 - x0, y1 - y0
        x, y = x0 / (width - w).clamp(min=1), y0 / (height - h).clamp(min=1)
        return torch.stack((x, y, x + w, y + h), 1)

    @torch.no_grad()
    def look(self, batch: Views) -> Look:
        """What the method sees in two augmented views; masks are drawn from torch's default generator."""
        masks, masked = self._hide(batch)
        student = [self.backbone(images, mask) for images, mask in zip(masked, masks, strict=True)]
        paint = self.config.reconstruction_weight > 0
        predictions = tuple(self.pixel_head(s.last).float() for s in student) if paint else ()
        if not self.config.local_weight:
            return Look(masks, masked, predictions)
        grid = student[0][self.config.local_stage].shape[-2:]
        return Look(masks, masked, predictions, self._match(batch[0], batch[1], grid), (grid[0], grid[1]))

    def extra_logs(self) -> dict[str, Tensor]:
        """Share of the local branch's positions that had a match, 0 to 1."""
        return {"matched_share": torch.stack(list(self._matched.values())).mean()} if self._matched else {}

    def exported_backbones(self) -> dict[str, Backbone]:
        """The student (what the published code exports) and the teacher."""
        return {"student": self.backbone, "teacher": self.teacher_backbone}

    def _initialise_as_published(self) -> None:
        """Departure: torch's default linear layers in a transformer, and a queue normalised across its keys."""
        if self.backbone.norm == "layer":
            for module in self.backbone.modules():
                if isinstance(module, nn.Linear):
                    module.reset_parameters()
            for name, parameter in self.backbone.named_parameters():
                if name.endswith("relative_position_bias_table"):
                    nn.init.zeros_(parameter)
            self.teacher_backbone.load_state_dict(self.backbone.state_dict())
        if self.config.global_weight and self.config.global_form == "moco":
            self.queue.copy_(F.normalize(torch.randn_like(self.queue), dim=0))
