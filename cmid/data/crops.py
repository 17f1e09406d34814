"""Where crops are cut, and cutting them: random resized crops that stay in pixels of the source image.

The draws follow torchvision's RandomResizedCrop, but are a function of (seed, epoch, image, crop) through a
counter-based generator: no state, so neither the number of workers nor a resume changes them.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cmid.config import ViewConfig
from cmid.data.decode import Decoded

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, x1 and y1 exclusive."""


class Crop(NamedTuple):
    """One crop of an image.

    Attributes:
        box: what is cut.
        flipped: mirrored left to right, after it was turned.
        turns: quarter turns anticlockwise.
    """

    box: Box
    flipped: bool = False
    turns: int = 0


ATTEMPTS = 10
SHRINK_MARGIN = 2.0
"""A crop out of a JPEG that was shrunk while decoding keeps at least so many times the pixels a side it needs."""


def generator_for(seed: int, epoch: int, index: int, crop: int) -> np.random.Generator:
    """The random numbers of one crop of one image in one epoch; independent for any two different keys."""
    word = (1 << 64) - 1
    # the first word of the counter is left at 0: it counts the numbers drawn
    key = np.array([seed & word, epoch & word], dtype=np.uint64)
    counter = np.array([0, crop, index, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


def draw_box(generator: np.random.Generator, width: int, height: int, views: ViewConfig) -> Box:
    """One crop of a `width` x `height` image: area by `views.scale`, aspect log-uniform in `views.ratio`.

    Where none of ten attempts fits, the largest central crop whose aspect is within `views.ratio`. The box is never
    empty. Follows `torchvision.transforms.RandomResizedCrop.get_params` in distribution.
    """
    low, high = math.log(views.ratio[0]), math.log(views.ratio[1])
    least, most = views.scale
    numbers = iter(generator.random(2 * ATTEMPTS + 2).tolist())
    for_x, for_y = next(numbers), next(numbers)
    for _ in range(ATTEMPTS):
        area = (least + (most - least) * next(numbers)) * width * height
        ratio = math.exp(low + (high - low) * next(numbers))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(for_x * (width - w + 1)), int(for_y * (height - h + 1))
            return x, y, x + w, y + h
    return central_box(width, height, views.ratio)


def central_box(width: int, height: int, ratio: tuple[float, float]) -> Box:
    """The largest central crop whose width to height ratio lies within `ratio`; at least one pixel."""
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, max(1, round(width / ratio[0])))
    elif width / height > ratio[1]:
        w = min(width, max(1, round(height * ratio[1])))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def draw_crop(generator: np.random.Generator, width: int, height: int, views: ViewConfig) -> Crop:
    """One crop. With `views.squash` its box is in squashed pixels."""
    flipped = generator.random() < views.flip
    if views.squash:
        width = height = views.size
    box = draw_box(generator, width, height, views)
    return Crop(box, flipped, draw_turns(generator, views.turn))


def draw_turns(generator: np.random.Generator, probability: float) -> int:
    """Quarter turns: with `probability` 0 to 3, each alike, else 0."""
    if probability == 0:
        return 0  # draws nothing, so that other numbers stay as they were
    turns = int(generator.integers(4))
    return turns if probability == 1 or generator.random() < probability else 0


def small(views: ViewConfig) -> ViewConfig:
    """The settings by which a small crop is drawn."""
    return replace(views, size=views.small_size, scale=views.small_scale)


def kinds_of_crops(views: ViewConfig, crops: int) -> list[ViewConfig]:
    """The settings by which each of `crops` crops is drawn, and each of the small ones after them."""
    still = replace(views, flip=0.0, turn=0.0)
    large = [still if views.recoloured == "alternate" and crop % 2 == 0 else views for crop in range(crops)]
    return large + [small(views)] * views.small_crops


def largest_reduction(width: int, height: int, boxes: list[Box], sizes: Sequence[int], views: ViewConfig) -> int:
    """By how much a JPEG may be shrunk while decoding (1, 2, 4, 8) so that every crop keeps `SHRINK_MARGIN`."""
    if views.squash:
        return reduction_for(min(width, height), views.size)
    return min(reduction_for(min(x1 - x0, y1 - y0), size) for (x0, y0, x1, y1), size in zip(boxes, sizes, strict=True))


def reduction_for(side: int, size: int) -> int:
    """The largest of 1, 2, 4, 8 by which `side` pixels may be divided and keep `SHRINK_MARGIN` times `size`."""
    return next((factor for factor in (8, 4, 2) if side >= factor * SHRINK_MARGIN * size), 1)


def align_box(box: Box, factor: int, width: int, height: int) -> Box:
    """`box` with its edges on multiples of `factor`, so that it is also whole pixels of the shrunk image.

    The last, partly filled pixel of a shrunk image is left out.
    """
    ends = (width // factor, height // factor)
    x0, y0, x1, y1 = (math.floor(edge / factor + 0.5) for edge in box)
    return x0 * factor, y0 * factor, min(x1, ends[0]) * factor, min(y1, ends[1]) * factor


def as_planes(pixels: np.ndarray) -> Tensor:
    """`(H, W, C)` uint8 as a `(1, C, H, W)` tensor on the same memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)


def squash(pixels: np.ndarray, size: int) -> np.ndarray:
    """The whole `(H, W, C)` uint8 image as `(size, size, C)`, bicubic, as the published code prepares its images."""
    planes = F.interpolate(as_planes(pixels), size=(size, size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(planes[0].permute(1, 2, 0).numpy())


def cut(planes: Tensor, crop: Crop, size: int, out: Tensor) -> None:
    """Write one crop, resized to `size` x `size` (bilinear, antialiased), turned and mirrored, into `out`.

    Args:
        planes: `(1, C, H, W)` uint8, fastest where its memory is `(H, W, C)`.
        crop: in pixels of `planes`.
        size: side of the crop in pixels after resizing.
        out: `(C, size, size)` uint8, overwritten.
    """
    x0, y0, x1, y1 = crop.box
    piece = planes[:, :, y0:y1, x0:x1]
    if tuple(piece.shape[-2:]) != (size, size):
        piece = F.interpolate(piece, size=(size, size), mode="bilinear", antialias=True)
    if crop.turns:
        piece = piece.rot90(crop.turns, (-2, -1))
    out.copy_(piece[0].flip(-1) if crop.flipped else piece[0])


def cut_crops(image: Decoded, crops: list[Crop], views: ViewConfig, outs: list[Tensor]) -> list[Crop]:
    """Cut every crop of one image into `outs`, and give what was really cut, in source (or squashed) pixels.

    Args:
        image: possibly shrunk while decoding; then boxes move by less than its factor.
        crops: from `draw_crop`.
        views: whether, and to what size, to squash first.
        outs: one `(C, size, size)` uint8 tensor per crop, each of the size that crop shall have, overwritten.
    """
    factor = image.factor
    pixels = image.pixels
    if views.squash:
        pixels, factor = squash(pixels, views.size), 1
    planes = as_planes(pixels)
    done = []
    for crop, out in zip(crops, outs, strict=True):
        if factor > 1:
            crop = crop._replace(box=align_box(crop.box, factor, image.width, image.height))
        x0, y0, x1, y1 = crop.box
        shrunk = (x0 // factor, y0 // factor, x1 // factor, y1 // factor)
        cut(planes, crop._replace(box=shrunk), out.shape[-1], out)
        done.append(crop)
    return done
