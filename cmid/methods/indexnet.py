"""IndexNet: index your position (Muhtar et al., IEEE TGRS 2022), for the segmentation of remote sensing images.

Cells of a grid on the ground are numbered. Wherever two crops of an image show the same cell, a student predicts, from
its position in one crop, what a teacher that follows it makes of the position in the other; beside it, BYOL's loss on
whole crops. CMID is of the same authors and came after.

    name in the published code               here
    img1, img2                               batch[0], batch[1]
    online_encoder, momentum_encoder         backbone, teacher_backbone
    projector, predictor                     index_projector, index_predictor
    linear_projector, linear_predictor       projector, predictor
    mask1, mask2 (output_size 7)             cells (index_grid)
    conv_loss, linear_loss                   the terms `index`, `global`
    loss_weight_alpha                        index_weight

The paper could not be read here; all of this is from its published code (`pUmpKin-Co/offical-IndexNet`).

Departure: the published grid lies on the whole image, and is cut, mirrored and shrunk with each crop. Crops here know
their place on the image but not its size: the grid lies on the smallest rectangle that holds both crops. Where one is
the whole image it is the same; else the cells are smaller. A position's cell is the one under its centre.
Departure: the published predictors learn at ten times the rate, without its decline; here one rate holds for all.
Departure: the published optimiser is not given the predictor of whole crops; here it learns.
Our reading: one head on the last map. The published code can take four stages, but its settings give one head, twice as
wide as 2,048 channels, and maps of 7 x 7, which fit the last alone.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmid.config import IndexNetConfig
from cmid.contracts import Backbone, Learner, Look, Progress, Views
from cmid.layers.projection import Projector
from cmid.layers.teacher import teacher_of
from cmid.ops import gather
from cmid.ops.matching import cells_under, nearest_positions
from cmid.ops.momentum import cosine_momentum, follow
from cmid.ops.pooling import pooled

SHOWN = 20
"""Matches of a pair in `look`."""


class Seen(NamedTuple):
    """What the teacher made of one view, without gradient.

    Attributes:
        whole: `(B, D)` unit rows.
        positions: `(B, N, D)` unit rows, of each position of the last map, row by row.
    """

    whole: Tensor
    positions: Tensor


class IndexNet(Learner):
    """The method on any backbone.

    Args:
        backbone: the student; the teacher is a copy.
        config: the method's numbers.
    """

    parts = 2

    def __init__(self, backbone: Backbone, config: IndexNetConfig) -> None:
        super().__init__()
        c = self.config = config
        width = backbone.channels[-1]
        self.backbone = backbone
        self.projector = Projector(width, c.hidden, c.dim, batch_norm=True)
        self.predictor = Projector(c.dim, c.predictor_hidden, c.dim, batch_norm=True)
        self.index_projector = Projector(width, c.hidden, c.dim, batch_norm=True)
        self.index_predictor = Projector(c.dim, c.predictor_hidden, c.dim, batch_norm=True)
        self.teacher_backbone = teacher_of(backbone)
        self.teacher_projector = teacher_of(self.projector)
        self.teacher_index_projector = teacher_of(self.index_projector)
        self._seen: list[Seen] = []
        self._matched: dict[int, Tensor] = {}

    # ---------------------------------------------------------------- the paper, in its order

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The terms `global` and `index` of two augmented views `(B, C, H, W)`, both directions summed.

        The views meet only through the teacher, so each direction is a part whose gradient can be taken alone.
        """
        if part in (None, 0):
            self._seen = [self._see(view.images) for view in batch]
        directions = [self._direction(batch, here) for here in ((0, 1) if part is None else (part,))]
        if part != 0:
            self._seen = []  # lets go of the batch
        return {name: torch.stack([terms[name] for terms in directions]).sum() for name in directions[0]}

    @torch.no_grad()
    def _see(self, images: Tensor) -> Seen:
        last = self.teacher_backbone(images).last
        return Seen(unit(self.teacher_projector(pooled(last))), by_position(last, self.teacher_index_projector))

    def _direction(self, batch: Views, here: int) -> dict[str, Tensor]:
        """Both terms of the student's view `here` and the teacher's other view."""
        seen, last = self._seen[1 - here], self.backbone(batch[here].images).last
        whole = unit(self.predictor(self.projector(pooled(last))))
        positions = by_position(last, self.index_projector, self.index_predictor)
        return {
            "global": (2 - 2 * (whole * seen.whole).sum(1)).mean(),
            "index": self.config.index_weight * self._index(positions, seen.positions, batch, here, last.shape[-2:]),
        }

    def _index(self, student: Tensor, teacher: Tensor, batch: Views, here: int, grid: tuple[int, ...]) -> Tensor:
        """2 - 2 cos of the pairs of positions `(B, N, D)` that show one cell, their mean over all images' pairs."""
        ours, theirs = self._cells(batch, (grid[0], grid[1]))[:: 1 if here == 0 else -1]
        same = ours[:, :, None] == theirs[:, None, :]
        self._matched[here] = same.any(2).float().mean()
        with torch.autocast(student.device.type, enabled=False):  # bf16 would round cosines near 1 to steps of 0.004
            distance = 2 - 2 * student @ teacher.transpose(1, 2)
        # Divided by the mean count over the processes, so that DDP's average is one process' loss.
        pairs = gather.total(same.sum()) / gather.processes()
        return (distance * same).sum() / pairs.clamp(min=1e-6)

    def _cells(self, batch: Views, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The number `(B, N)` of the cell under each position of both views' maps, of one grid for each image."""
        first, second = batch[0].boxes, batch[1].boxes
        around = torch.cat((torch.minimum(first, second)[:, :2], torch.maximum(first, second)[:, 2:]), 1)
        centres = [view.centres(grid) for view in (batch[0], batch[1])]
        side = self.config.index_grid
        return cells_under(centres[0], around, (side, side)), cells_under(centres[1], around, (side, side))

    # ---------------------------------------------------------------- state between steps

    def after_step(self, progress: Progress) -> None:
        """Let the teacher follow the student that the optimiser has just moved."""
        c = self.config
        momentum = cosine_momentum(progress.step - 1, progress.total_steps, c.momentum, c.momentum_end)
        for teacher, student in self._followers():
            follow(teacher, student, momentum)

    def _followers(self) -> list[tuple[nn.Module, nn.Module]]:
        return [
            (self.teacher_backbone, self.backbone),
            (self.teacher_projector, self.projector),
            (self.teacher_index_projector, self.index_projector),
        ]

    @torch.no_grad()
    def look(self, batch: Views) -> Look:
        """Positions of view 0 and of view 1 that show one cell: of the pairs learned from, the nearest."""
        rows, columns = self.backbone(batch[0].images).last.shape[-2:]
        first, second = (view.centres((rows, columns)) for view in (batch[0], batch[1]))
        near = nearest_positions(first, second, SHOWN, batch[1].boxes)
        ours, theirs = self._cells(batch, (rows, columns))
        same = ours.gather(1, near.first) == theirs.gather(1, near.second)
        return Look((), (), (), near._replace(valid=near.valid & same), (rows, columns))

    def extra_logs(self) -> dict[str, Tensor]:
        """Share of positions that have a partner in the other view, 0 to 1."""
        return {"matched_share": torch.stack(list(self._matched.values())).mean()} if self._matched else {}

    def exported_backbones(self) -> dict[str, Backbone]:
        """The student and the teacher."""
        return {"student": self.backbone, "teacher": self.teacher_backbone}


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1, float32: `(..., D)`."""
    return F.normalize(rows.float(), dim=-1)


def by_position(features: Tensor, *heads: nn.Module) -> Tensor:
    """Heads on each position of a map `(B, C, H, W)`, batch-norm over all positions: unit rows `(B, H * W, D)`."""
    rows = features.flatten(2).transpose(1, 2).flatten(0, 1)
    for head in heads:
        rows = head(rows)
    return unit(rows).unflatten(0, (features.shape[0], -1))
