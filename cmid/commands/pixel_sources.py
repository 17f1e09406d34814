"""Names to images with a class for each pixel: the one place where the kinds of such data are known."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console

from cmid.commands.pixel_folders import open_folder
from cmid.commands.pixel_prepared import prepared_sides, prepared_tiles
from cmid.commands.pixel_torchgeo import open_torchgeo_sides, open_torchgeo_whole
from cmid.config import PixelLabelsConfig
from cmid.data.pixel_labels import PixelSource
from cmid.data.pixel_splits import named_split, split_pairs
from cmid.data.prepared import is_prepared
from cmid.data.torchgeo_datasets import is_named
from cmid.errors import UsageError


@dataclass(frozen=True)
class PixelSides:
    """Images to train on and to test on.

    Attributes:
        train: to train on.
        test: to test on.
        account: what the data are, plain values, for the run's folder: classes, colours, palette, split, counts.
        notes: what the user should hear, one sentence each.
    """

    train: PixelSource
    test: PixelSource
    account: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class ToScore(NamedTuple):
    """Images to score, what they are, plain values, and what the user should hear."""

    source: PixelSource
    account: dict[str, Any]
    notes: tuple[str, ...]


def open_pixel_labelled(data: str, labels: PixelLabelsConfig, seed: int, console: Console | None = None) -> PixelSides:
    """Train and test of a folder of images and masks, a prepared set, or one of torchgeo's data sets.

    Args:
        data: the folder, or `torchgeo:NAME?root=DIR`.
        labels: how masks are read, and what is for test.
        seed: fixes the draw where nothing else says what is for test.
        console: where progress and the table of the classes are shown; None keeps quiet.

    Raises:
        UsageError: nothing there, or images and masks that do not fit together.
    """
    if is_named(data):
        named = open_torchgeo_sides(data, labels, seed, console)
        return PixelSides(named.train, named.test, named.account, named.notes)
    if is_prepared(Path(data)):
        return PixelSides(*prepared_sides(data, labels))
    opened = open_folder(data, labels, console)
    split = split_pairs(
        opened.pairs, data=data, train_list=labels.train_list, test_list=labels.test_list,
        test_groups=labels.test_groups, seed=seed,
    )  # fmt: skip
    train, test = (opened.source_of(places) for places in (split.train, split.test))
    account = opened.account | {
        "split": split.to_plain(opened.pairs),
        "counts": {"train": len(train), "test": len(test)},
    }
    notes = (*opened.notes, f"{len(train)} images to train on and {len(test)} for test, split {split.how}")
    return PixelSides(train, test, account, notes)


def open_pixel_labelled_whole(
    data: str, labels: PixelLabelsConfig, console: Console | None = None
) -> tuple[PixelSource, tuple[str, ...]]:
    """All images of a folder, or those for test of a data set of torchgeo, and what is to be told; same errors."""
    if is_named(data):
        return open_torchgeo_whole(data, labels, console)
    opened = open_folder(data, labels, console)
    return opened.source_of(range(len(opened.pairs))), opened.notes


def open_to_score(
    data: str,
    labels: PixelLabelsConfig,
    part: Literal["auto", "test", "all"],
    seed: int,
    console: Console | None = None,
) -> ToScore:
    """The images that a finished model is scored on; other arguments and errors as for `open_pixel_labelled`.

    Args:
        part: `auto`: those for test where something says which, else all; `test`: drawn by `seed` where nothing does.
    """
    if part == "all":
        named = [name for name in ("train_list", "test_list", "test_groups") if getattr(labels, name)]
        if named:
            raise UsageError(f"part is all, but labels.{named[0]} names some: leave one of them out")
        if is_prepared(Path(data)):
            raise UsageError(f"part is all, but {data} is a benchmark with a split: leave part out")
    elif part == "test" or is_prepared(Path(data)):
        sides = open_pixel_labelled(data, labels, seed, console)
        return ToScore(sides.test, sides.account, sides.notes)
    elif not is_named(data):
        opened = open_folder(data, labels, console)
        split = named_split(
            opened.pairs, data=data, train_list=labels.train_list, test_list=labels.test_list,
            test_groups=labels.test_groups,
        )  # fmt: skip
        places = range(len(opened.pairs)) if split is None else split.test
        return ToScore(opened.source_of(places), opened.account, opened.notes)
    source, notes = open_pixel_labelled_whole(data, labels, console)
    return ToScore(source, {}, notes)


def open_prepared_tiles(data: str, labels: PixelLabelsConfig) -> tuple[PixelSource, dict[str, Any]]:
    """The tiles for test of a prepared ISPRS set, whole, for figures over tiles instead of overlapping windows.

    Args:
        data: the folder that `cmid prepare` wrote.
        labels: which labels, and the greatest side of the windows that each tile is read in.

    Returns:
        The windows, which do not overlap and tell tile (`group`) and `place`; and dataset, bands and labels.

    Raises:
        UsageError: no prepared set, or not as it was prepared.
    """
    if not is_prepared(Path(data)):
        raise UsageError(f"{data} is no prepared set: whole tiles are kept by `cmid prepare`")
    return prepared_tiles(data, labels)
