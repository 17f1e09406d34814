"""Images with labels brought to the scale that a backbone knows: bytes as they are, deeper values stretched."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

from cmid.commands.image_scale import MEASURED
from cmid.commands.sources import progress
from cmid.config import FinetuneSegmentationConfig
from cmid.data.pixel_labels import PixelSource
from cmid.data.pixel_pairs import PixelPairs
from cmid.data.statistics import Stretch, measure
from cmid.errors import UsageError
from cmid.zoo.backbone_files import BackboneMetadata


def read_by_name(sources: Sequence[PixelSource], names: Sequence[str]) -> bool:
    """Has images give the bands that a model or backbone knows by `names`, in its order, as maps of scenes do.

    Only where all of them are rasters that name all of these; else nothing is changed, and it says so.
    """
    pairs = []
    for source in sources:
        found: Any = source
        while hasattr(found, "source"):  # the images of a subset are another's
            found = found.source
        if not isinstance(found, PixelPairs) or not found.has_bands(names):
            return False
        pairs.append(found)
    for each in pairs:
        each.read_bands(names)
    return True


def bring_to_scale(sources: Sequence[PixelSource], about: BackboneMetadata, data: str) -> None:
    """Makes the images give pixels on the scale that a backbone was trained on.

    Raises:
        UsageError: other bands, or bytes where the backbone knows deeper values, or the other way round.
    """
    for source in sources:
        if source.bands != about.in_chans:
            raise UsageError(
                f"the weights are for {about.in_chans} bands, but {source.bands} are read of the images of {data}: "
                "choose them by --labels.bands"
            )
        if (source.dtype == torch.uint8) == bool(about.low):
            here, there = ("8 bits", "deeper values") if about.low else ("deeper values", "8 bits")
            raise UsageError(f"the images of {data} are of {here}, but the weights were trained on {there}")
        if source.dtype != torch.uint8:
            assert about.low and about.high and about.mean
            _set(source, Stretch(about.low, about.high, about.mean))
        elif about.mean:  # what lies under nodata is neutral, as it is when scenes are mapped
            _set(source, Stretch((), (), about.mean))


def measured(
    source: PixelSource, about: BackboneMetadata, config: FinetuneSegmentationConfig, console: Console
) -> BackboneMetadata:
    """`about` with the images' own percentiles, mean and deviation, where it has none: of random weights."""
    deep = source.dtype != torch.uint8
    if about.which != "random" or (about.mean is not None and not deep):
        return about
    sampled: Any = source
    with progress(console, "measuring bands") as tick:
        found = measure(
            sampled, source.names, images=min(len(source), MEASURED), seed=config.seed, workers=config.train.workers,
            read_timeout_s=config.read_timeout_s, tick=tick,
        )  # fmt: skip
    about = replace(about, mean=found.mean, std=found.std)
    return replace(about, low=found.low, high=found.high) if deep else about


def _set(source: Any, stretch: Stretch) -> None:
    while hasattr(source, "source"):  # the images of a subset are another's
        source = source.source
    if stretch.low or isinstance(source, PixelPairs):
        source.stretch = stretch
