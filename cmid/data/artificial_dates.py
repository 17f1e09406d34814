"""Dates that nobody saw: of single images, further dates are made up, so that a temporal method can be tried at all.

What is changed, in the order in which light meets it, is plain guesswork about what a season and a sky do to an image;
it is no season. The surface: a gain of each band, stronger in some parts of the image than in others, as fields and
slopes do not change alike, and stronger where the bands differ (leaves, soil) than on what is grey (roofs, roads). The
sun: one gain of all bands, which drifts a little. The air: haze, thicker in some parts, which lifts the dark. Nothing
moves, nothing is built, no leaf falls: what a method becomes invariant to are these changes and no others.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cmid.data.crops import generator_for
from cmid.data.decode import Decoded, Reduction
from cmid.data.sources import REPAIR, ImageSource

DATES = 4
"""Dates of each image; the first is the image itself."""
SEASON = 0.25
"""Standard deviation of the logarithm of a band's gain, where the season is at its strongest."""
GREY = 0.2
"""How much of that a surface takes whose bands are alike; one whose bands differ by half their greatest takes all."""
SUN, DRIFT = (0.8, 1.2), 0.05
"""Least and greatest gain of all bands together; standard deviation of the logarithm of its drift."""
HAZE = 0.25
"""Greatest share of the light that comes from haze."""
AIRLIGHT = 0.75
"""How bright haze is, on the scale 0 to 1 on which a band's bright ground is 1."""
GRID = 4
"""Points a side between which what drifts is interpolated."""
MADE_UP = (1 << 32) - 64
"""The crop number under which the first date that is made up is drawn; no view has it."""


class ArtificialDates:
    """Images of single dates as places of `DATES` dates. Date d of image i is fixed by (seed, i, d).

    Args:
        source: the images.
        seed: of the run.
    """

    def __init__(self, source: ImageSource, seed: int) -> None:
        self.source, self.seed = source, seed
        self.bands, self.dtype, self.fresh = source.bands, source.dtype, source.fresh
        self.block = getattr(source, "block", 1)  # of shards, which are read in long strokes
        self.repair = getattr(source, "repair", REPAIR)

    def __len__(self) -> int:
        return len(self.source)

    def name(self, i: int) -> str:
        """What the image is called."""
        return self.source.name(i)

    def date_count(self, i: int) -> int:
        """The same for every image."""
        return DATES

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """The image itself; raises `BadImage`."""
        return self.source.decode(i, reduction)

    def decode_date(self, i: int, date: int, reduction: Reduction | None = None) -> Decoded:
        """Image i as it is (date 0) or as made up; raises `BadImage`."""
        image = self.source.decode(i, reduction)
        if date == 0:
            return image
        pixels = another_date(image.pixels, generator_for(self.seed, 0, i, MADE_UP + date))
        return Decoded(pixels, image.width, image.height, image.factor)


def another_date(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """`(H, W, C)` uint8, or float32 around 0..1, as on a day that `generator` draws; a new array of the same kind.

    The draws do not depend on the size, so that an image that was shrunk while decoding has the same day.
    """
    height, width, bands = pixels.shape
    season = torch.from_numpy(generator.normal(0, SEASON, (bands, 1, 1))).float()
    light = np.log(generator.uniform(*SUN)) + generator.normal(0, DRIFT, (GRID, GRID))
    strength = generator.uniform(0.2, 1, (GRID, GRID))
    haze = generator.uniform(0, HAZE) * generator.uniform(0.5, 1, (GRID, GRID))
    sun, where, veil = _over_the_image(np.stack((light, strength, haze)), (height, width)).unbind()
    scale = 255.0 if pixels.dtype == np.uint8 else 1.0
    x = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32) / scale
    x.mul_((season * (where * _colourful(x))).add_(sun).exp_())
    veil.clamp_(0, 1)
    x.mul_(1 - veil).add_(veil, alpha=AIRLIGHT)
    if pixels.dtype == np.uint8:
        x = x.mul_(scale).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(x.permute(1, 2, 0).numpy())


def _colourful(x: Tensor) -> Tensor:
    """`(H, W)`, `GREY` to 1: how much a surface `(C, H, W)` changes with the season; 1 of a single band."""
    if len(x) == 1:
        return torch.ones_like(x[0])
    most, least = x.amax(0), x.amin(0)
    return (GREY + 2 * (1 - GREY) * (most - least) / most.abs().clamp(min=0.05)).clamp_(GREY, 1)


def _over_the_image(points: np.ndarray, size: Sequence[int]) -> Tensor:
    """`(K, GRID, GRID)` points as smooth fields `(K, H, W)` float32."""
    grid = torch.from_numpy(points.astype(np.float32))[None]
    return F.interpolate(grid, size=tuple(size), mode="bicubic", align_corners=True)[0]
