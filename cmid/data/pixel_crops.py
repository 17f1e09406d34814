"""Crops of images with a class for every pixel, as published segmentation recipes draw them.

An image is enlarged by a factor, a square is cut out anywhere, and what lies beyond the image's right and lower edge is
padding; where one class has too much of the square another is drawn. Source: mmsegmentation's `Resize`, `RandomCrop`
with `cat_max_ratio`, `RandomFlip` and `Pad`, in the spec of CMID's fine-tuning.

Departure: the square is cut first and then resized, so an image of any size costs what its crop costs; and shrinking is
antialiased, as everywhere here.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from cmid.config import PixelCropConfig
from cmid.data.batches import Batches
from cmid.data.crops import Box, Crop, as_planes, draw_turns, generator_for
from cmid.data.decode import BadImage
from cmid.data.pixel_labels import UNLABELLED, LabelledPixels, PixelSource

PADDING = 254
"""The label of pixels beyond the image's edge, until the device has made them neutral."""
ATTEMPTS = 10


def draw_window(
    generator: np.random.Generator, labels: np.ndarray, size: int, crops: PixelCropConfig
) -> tuple[Box, float]:
    """Where a crop is cut, in pixels of the image, and by how much it is enlarged.

    Args:
        generator: of this crop alone.
        labels: `(H, W)` uint8.
        size: side of the crop after resizing.
        crops: the settings.
    """
    height, width = labels.shape
    low, high = crops.scale
    factor = low + (high - low) * generator.random()
    side = max(1, round(size / factor))
    across, down = min(side, width), min(side, height)
    box = (0, 0, across, down)
    for _ in range(ATTEMPTS):
        x, y = (int(generator.integers(room + 1)) for room in (width - across, height - down))
        box = x, y, x + across, y + down
        if crops.max_share >= 1:
            break
        counts = np.bincount(labels[y : y + down, x : x + across].ravel(), minlength=UNLABELLED + 1)[:UNLABELLED]
        if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < crops.max_share:
            break
    return box, size / side


def cut_labelled(
    image: LabelledPixels,
    box: Box,
    factor: float,
    out: Tensor,
    labels: Tensor,
    *,
    flipped: bool = False,
    turns: int = 0,
) -> None:
    """Write one crop and its labels, enlarged by `factor`, then turned, then mirrored, the rest padding.

    Args:
        image: whole.
        box: in its pixels.
        factor: by how much it is enlarged.
        out: `(C, S, S)` of the image's dtype, overwritten.
        labels: `(S, S)` uint8, overwritten; beyond the image it is `PADDING`.
        flipped: mirror left to right.
        turns: quarter turns, anticlockwise.
    """
    x0, y0, x1, y1 = box
    size = out.shape[-1]
    shape = tuple(min(size, max(1, round(factor * n))) for n in (y1 - y0, x1 - x0))
    piece = as_planes(image.pixels)[:, :, y0:y1, x0:x1]
    marks = torch.from_numpy(np.ascontiguousarray(image.labels[y0:y1, x0:x1]))[None, None]
    if tuple(piece.shape[-2:]) != shape:
        piece = F.interpolate(piece, size=shape, mode="bilinear", antialias=True)
        marks = F.interpolate(marks, size=shape, mode="nearest-exact")
    if shape != (size, size):
        edges = (0, size - shape[1], 0, size - shape[0])
        piece, marks = F.pad(piece, edges), F.pad(marks, edges, value=PADDING)
    piece, marks = piece[0], marks[0, 0]
    if turns:
        piece, marks = piece.rot90(turns, (-2, -1)), marks.rot90(turns, (-2, -1))
    if flipped:
        piece, marks = piece.flip(-1), marks.flip(-1)
    out.copy_(piece)
    labels.copy_(marks)


class PixelBatches(Batches):
    """Batches of crops with a class for every pixel; `functools.partial` gives the settings, `ViewLoader` the rest.

    Their labels are `(B, S, S)` uint8: classes, `UNLABELLED` or `PADDING`.

    Args:
        pixel_crops: how crops are drawn.
        untrained: positions of classes whose pixels count as unlabelled.
        more: as for `Batches`; of its views only the size counts.
    """

    def __init__(self, *more: Any, pixel_crops: PixelCropConfig, untrained: tuple[int, ...] = ()) -> None:
        super().__init__(*more)
        self.labels, self.pixel_crops, self.turned = None, pixel_crops, pixel_crops.turn > 0
        self.pixels = cast(PixelSource, self.source)
        self.marks = torch.empty(0, dtype=torch.uint8)
        self.becomes = np.arange(256, dtype=np.uint8)
        self.becomes[list(untrained)] = UNLABELLED

    def labels_of(self, used: np.ndarray) -> Tensor:
        """Those of the crops just cut, `(B, S, S)` uint8."""
        return default_collate(list(self.marks))

    def cut(self, epoch: int, index: int, outs: list[Tensor], row: int) -> list[Crop]:
        """As `Batches.cut`, with the labels."""
        if index in self.hung:
            raise BadImage(*self.hung[index])
        count, size = len(self.scratch[0]), self.views.size
        if len(self.marks) != count:
            self.marks = torch.empty((count, size, size), dtype=torch.uint8)
        self.reading.begin(index)
        try:
            image = self.pixels.read(index)
        finally:
            self.reading.end()
        draws, settings = generator_for(self.seed, epoch, index, 0), self.pixel_crops
        flipped = bool(draws.random() < settings.flip)
        turns = draw_turns(draws, settings.turn)
        image = LabelledPixels(image.pixels, self.becomes[image.labels])
        box, factor = draw_window(draws, image.labels, size, settings)
        cut_labelled(image, box, factor, outs[0], self.marks[row], flipped=flipped, turns=turns)
        side = round(size / factor)  # what `draw_window` drew
        return [Crop((box[0], box[1], box[0] + side, box[1] + side), flipped, turns)]
