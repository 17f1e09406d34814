"""Torchgeo's data sets with a class for each pixel, opened by the settings of labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from cmid.commands.sources import progress
from cmid.config import PixelLabelsConfig
from cmid.data.palettes import Palette, read_palette
from cmid.data.pixel_splits import TRAIN_SHARE
from cmid.data.torchgeo_datasets import Named, TorchgeoSource, parse_name, takes_split
from cmid.data.torchgeo_pixels import (
    NOT_OUR_ORDER,
    TorchgeoPixels,
    check_masks,
    palette_of,
    sides_of,
    split_for_test,
    take_mask_argument,
)
from cmid.errors import UsageError


@dataclass(frozen=True)
class TorchgeoSides:
    """Train and test of a data set, and what is to be told; as `PixelSides`."""

    train: TorchgeoPixels
    test: TorchgeoPixels
    account: dict[str, Any]
    notes: tuple[str, ...]


def open_torchgeo_sides(data: str, labels: PixelLabelsConfig, seed: int, console: Console | None) -> TorchgeoSides:
    """Train and test: the data set's own splits, or a seeded 80 % of its images and the rest.

    Raises:
        UsageError: no such data set, no masks, or settings that are for folders.
    """
    _no_folder_settings(data, labels)
    named, mask = take_mask_argument(parse_name(data))
    first, second, split = sides_of(named, mask)
    palette = _palette(first, mask, labels, console)
    ignore = labels.unknown == "ignore"
    if second is not None:
        train, test = (TorchgeoPixels(each, mask, palette, ignore_unknown=ignore) for each in (first, second))
        how = f"by the data set's own splits train and {split}"
        names: dict[str, Any] = {}
    else:
        order = np.random.default_rng([seed & (1 << 64) - 1, len(first)]).permutation(len(first))
        count = min(max(round(TRAIN_SHARE * len(first)), 1), len(first) - 1)
        places = [sorted(part.tolist()) for part in (order[:count], order[count:])]
        train, test = (TorchgeoPixels(first, mask, palette, each, ignore_unknown=ignore) for each in places)
        how = f"by a draw of {count} of {len(first)} images with seed {seed}"
        names = {"train": places[0], "test": places[1]}
    account = {
        "classes": list(palette.classes),
        "colours": [list(colour) for colour in palette.colours],
        "palette": palette.to_plain(),
        "split": {"how": how} | names,
        "counts": {"train": len(train), "test": len(test)},
    }
    notes = (*_notes(named), f"{len(train)} images to train on and {len(test)} for test, split {how}")
    return TorchgeoSides(train, test, account, notes)


def open_torchgeo_whole(
    data: str, labels: PixelLabelsConfig, console: Console | None
) -> tuple[TorchgeoPixels, tuple[str, ...]]:
    """The split that is named, or the one for test, or all images of a data set without splits; raises as above."""
    _no_folder_settings(data, labels)
    named, mask = take_mask_argument(parse_name(data))
    if takes_split(named) and "split" not in named.arguments:
        source, _ = split_for_test(named, mask)
    else:
        source = TorchgeoSource(named)
    palette = _palette(source, mask, labels, console)
    return TorchgeoPixels(source, mask, palette, ignore_unknown=labels.unknown == "ignore"), _notes(named)


def _palette(source: TorchgeoSource, mask: str, labels: PixelLabelsConfig, console: Console | None) -> Palette:
    check_masks(source, mask)  # says what is wrong before all of them are looked at
    if labels.palette:
        palette = read_palette(Path(labels.palette))
    else:
        with progress(console, "looking at masks") as tick:
            palette = palette_of(source, mask, tick)
    return palette.without(labels.unlabelled) if labels.unlabelled else palette


def _no_folder_settings(data: str, labels: PixelLabelsConfig) -> None:
    for name in ("train_list", "test_list", "test_groups", "bands"):
        if getattr(labels, name):
            raise UsageError(
                f"labels.{name} is for folders: {data} takes torchgeo's own arguments, as in &split=train or &bands=..."
            )


def _notes(named: Named) -> tuple[str, ...]:
    if named.name in NOT_OUR_ORDER:
        return (
            f"torchgeo's {named.name} has clutter as class 0, labels with borders and whole tiles: figures are not "
            "those of the ISPRS protocols; `cmid prepare` makes the windows of those",
        )
    return ()
