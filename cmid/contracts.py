"""The four contracts between the rooms: Views, Pyramid, Backbone, Learner. START HERE.

Data makes Views. A Backbone turns images (and a mask) into a Pyramid. A method or a task is a Learner: it
turns Views into named loss terms. The trainer sees only a Learner, a method is given a Backbone, and data
never knows a stride.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cmid.ops.matching import Matches, cell_centres
from cmid.ops.transfer import to_device


@dataclass(frozen=True)
class View:
    """One crop of each image of a batch, and where it was cut.

    Attributes:
        images: `(B, C, H, W)`; uint8 in [0, 255] as the workers cut it, float32 and normalised once it has been
            augmented on the device.
        boxes: `(B, 4)` float32, the crop as x0, y0, x1, y1 in pixels of the source image.
        flipped: `(B,)` bool, True where the crop was mirrored left to right after it was cut, and turned.
        turns: `(B,)` int64, quarter turns anticlockwise that the crop was turned by; None where no crop was.
    """

    images: Tensor
    boxes: Tensor
    flipped: Tensor
    turns: Tensor | None = None

    def to(self, device: torch.device | str) -> "View":
        """The same view on `device`; a CUDA device is not waited for."""
        return self._each(lambda tensor: to_device(tensor, device))

    def pin_memory(self) -> "View":
        """Page-locked copies."""
        return self._each(Tensor.pin_memory)

    def rows(self, chosen: Tensor | slice) -> "View":
        """The crops of the `chosen` images of the batch, in their order."""
        return self._each(lambda tensor: tensor[chosen])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "View":
        turns = None if self.turns is None else change(self.turns)
        return View(change(self.images), change(self.boxes), change(self.flipped), turns)

    def centres(self, grid: tuple[int, int]) -> Tensor:
        """Centres `(B, rows * columns, 2)` of a grid of cells on the crops, x and y in pixels of the source image."""
        return cell_centres(self.boxes, self.flipped, grid, self.turns)

    def with_images(self, images: Tensor) -> "View":
        """The same crops with other pixel values, `images` of shape `(B, C, H, W)`."""
        return replace(self, images=images)


@dataclass(frozen=True)
class Views:
    """The crops cut from a batch of images. Carries no masks: a method draws them on the backbone's own grid.

    Attributes:
        crops: one `View` per crop of each image; for CMID the first is weak, the second strong.
        indices: `(B,)` int64, the position of each image in its source, so that a batch can name its files.
        epoch: the epoch the crops were drawn for; with (seed, index) it fixes every random draw.
        labels: what is known of the images, for tasks: `(B,)` int64 classes, or `(B, K)` float where an image has
            several or was mixed of two, or `(B, H, W)` int64 for each pixel of the first crop; None where nothing is
            known.
    """

    crops: tuple[View, ...]
    indices: Tensor
    epoch: int = 0
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, i: int) -> View:
        return self.crops[i]

    def __iter__(self) -> Iterator[View]:
        return iter(self.crops)

    @property
    def batch_size(self) -> int:
        """Number of source images B."""
        return self.indices.shape[0]

    def to(self, device: torch.device | str) -> "Views":
        """The same views on `device`; a CUDA device is not waited for."""
        moved = tuple(v.to(device) for v in self.crops)
        labels = None if self.labels is None else to_device(self.labels, device)
        return replace(self, crops=moved, indices=to_device(self.indices, device), labels=labels)

    def pin_memory(self) -> "Views":
        """Page-locked copies; `DataLoader(pin_memory=True)` calls this."""
        pinned = tuple(v.pin_memory() for v in self)
        labels = None if self.labels is None else self.labels.pin_memory()
        return replace(self, crops=pinned, indices=self.indices.pin_memory(), labels=labels)


@dataclass(frozen=True)
class Pyramid:
    """Feature maps of one batch, finest first.

    Attributes:
        maps: each `(B, C_i, H_i, W_i)`, NCHW in meaning whatever its memory format.
        strides: pixels of the input per position of each map, ascending or equal (a plain ViT repeats 16).
    """

    maps: tuple[Tensor, ...]
    strides: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, i: int) -> Tensor:
        return self.maps[i]

    @property
    def last(self) -> Tensor:
        """The coarsest map, `(B, C, H, W)`."""
        return self.maps[-1]


class Backbone(nn.Module, ABC):
    """Images (and a mask) to a Pyramid.

    Attributes:
        name: what `create_backbone` was asked for.
        in_chans: number of bands of the images.
        channels: C_i of each map, known before the first forward.
        strides: stride_px of each map, known before the first forward.
        norm: which normalisation the backbone is built with; heads on top follow it.
    """

    name: str
    in_chans: int
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    norm: Literal["batch", "layer"]

    @abstractmethod
    def forward(self, images: Tensor, mask: Tensor | None = None) -> Pyramid:
        """Features of `images`.

        Args:
            images: `(B, in_chans, H, W)` float, normalised; H and W divisible by the coarsest stride.
            mask: bool `(B, h, w)`, True = hidden; h and w divide the token grid of the stage that takes the
                mask token. Hidden positions get the token (added, or put in place, as the backbone was built).

        Raises:
            ValueError: where the sizes do not fit, saying which would.
        """

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """What is exported: the state under timm's names (for ResNets torchvision's, too), without mask tokens."""

    def depths(self) -> dict[str, int]:
        """How deep each of `named_parameters()` lies, 0 nearest the image; empty where that is not known."""
        return {}


class PatchBackbone(Backbone):
    """A backbone of patches that are embedded one by one: some can be left out before they cost anything.

    Attributes:
        patch_px: side of a patch in pixels; patches are counted row by row.
        prefix_tokens: how many tokens come before those of the patches (class, registers).
    """

    patch_px: int
    prefix_tokens: int

    @abstractmethod
    def visible_tokens(self, images: Tensor, keep: Tensor) -> Tensor:
        """Tokens of some patches, which see one another and nothing of the rest.

        Args:
            images: as for `forward`.
            keep: int64 `(B, n)`, which patches of each image, none twice.

        Returns:
            `(B, prefix_tokens + n, channels[-1])` after the final norm, in the order of `keep`. With all patches that
            is what the last map of `forward` holds.

        Raises:
            ValueError: where the sizes do not fit.
        """

    @abstractmethod
    def fix_positions(self) -> None:
        """Put a sine-cosine table in the place of the position embeddings, and train them no more."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: counts of what has been completed.

    Attributes:
        step: optimiser steps done.
        total_steps: optimiser steps of the whole run.
        epoch: epochs done, as a fraction: 2.5 is the middle of the third epoch.
        total_epochs: epochs of the whole run.
    """

    step: int = 0
    total_steps: int = 1
    epoch: float = 0.0
    total_epochs: int = 1

    @property
    def fraction(self) -> float:
        """Share of the run's steps that is done, 0 to 1."""
        return min(1.0, self.step / max(1, self.total_steps))


class Look(NamedTuple):
    """What a method sees in a batch, for pictures; a tuple has one entry a view.

    Attributes:
        masks: bool `(B, h, w)`, True = hidden.
        masked: `(B, C, H, W)`, the images with hidden pixels at their mean.
        predictions: `(B, C, H, W)`, the reconstructions; empty where there are none.
        matches: positions of view 0 and their nearest in view 1, on `grid`; None where nothing is matched.
        grid: rows and columns of the map whose positions are matched.
    """

    masks: tuple[Tensor, ...]
    masked: tuple[Tensor, ...]
    predictions: tuple[Tensor, ...]
    matches: Matches | None = None
    grid: tuple[int, int] = (0, 0)


class Learner(nn.Module, ABC):
    """A method or a task: views to named loss terms.

    One step of the trainer is: `before_step(progress)`, `forward(batch)`, sum of the terms, backward, optimiser
    step, `after_step(progress)`. All state that a later step reads is in parameters and buffers, or follows from
    `progress`; so a checkpoint is `state_dict()` and nothing else.

    Attributes:
        backbone: what is exported.
        parts: into how many parts the loss of a batch falls whose gradients can be taken one after the other; the
            trainer does so, and holds the activations of one part at a time.
    """

    backbone: Backbone
    parts: int = 1

    def before_step(self, progress: Progress) -> None:
        """Called before each forward with what has been completed so far; sets temperatures and the like."""

    @abstractmethod
    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The loss terms of the paper, by name, each a scalar already weighted; the trainer adds them up.

        Args:
            batch: augmented views on the learner's device.
            part: which part of the terms, 0 to `parts - 1`, asked for in this order and with the same batch; their
                sum is the whole. None gives the whole at once.
        """

    def after_step(self, progress: Progress) -> None:
        """Called after each optimiser step, without gradient; updates teachers and queues."""

    def look(self, batch: Views) -> Look | None:
        """What the method sees in augmented views, for the report; None where it neither hides nor matches."""
        return None

    def extra_logs(self) -> dict[str, Tensor]:
        """Detached scalars worth a curve beside the losses (matches per pair, momentum ...).

        Of several processes the mean is written down.
        """
        return {}

    def exported_backbones(self) -> dict[str, Backbone]:
        """The backbones that `extract` can write, by name; a method with a teacher adds it."""
        return {"student": self.backbone}
