"""Numbers and names of bands (`views.mean`, `std`, `low`, `high`, `bands`, `colours`) held against the data.

A user may give them, and a run or shards bring theirs; what does not fit is refused rather than mixed or passed over.
"""

from dataclasses import replace
from typing import Any

import torch

from cmid.config import PretrainConfig, ViewConfig
from cmid.data.sources import ImageSource
from cmid.errors import UsageError


def is_own(views: ViewConfig, name: str) -> bool:
    """Whether the user gave his own."""
    return getattr(views, name) != getattr(ViewConfig(), name)


def check_names(views: ViewConfig, names: tuple[str, ...]) -> None:
    """That the user calls the bands as the data do, else `UsageError`; empty `names`: they do not say."""
    if views.bands and names and views.bands != names:
        raise UsageError(
            f"views.bands is {', '.join(views.bands)}, but the bands that are read are {', '.join(names)}: leave it "
            "out; --scenes.bands, or bands= in the name of a data set, chooses others"
        )


def check_given(views: ViewConfig, bands: int, names: tuple[str, ...], *, deep: bool) -> None:
    """That what the user gave fits the bands, and comes in pairs, before other numbers are put beside it.

    Args:
        views: with what he gave; what is as by default counts as not given.
        bands: how many are read.
        names: of them, as far as the data say; else empty.
        deep: the values are no bytes.

    Raises:
        UsageError: it does not.
    """
    check_names(views, names)
    others: dict[str, Any] = {name: (1.0,) * bands for name in ("mean", "std") if not is_own(views, name)}
    _check_views(replace(views, **others), bands, deep=deep)
    for pair in (("mean", "std"), ("low", "high")):
        given, lacking = sorted(pair, key=lambda name: not is_own(views, name))
        if is_own(views, given) and not is_own(views, lacking):
            raise UsageError(
                f"views.{given} is given without views.{lacking}, and both are of one scale: give both, or leave both "
                "out and they are taken from the data"
            )
    if views.colours == "rgb" and (deep or bands != 3):
        kind = "deeper values" if deep else "8 bits"
        raise UsageError(f"views.colours is rgb, which needs three 8-bit bands; found {bands} of {kind}: leave it out")


def check_bands(source: ImageSource, in_chans: int, views: ViewConfig) -> None:
    """That the settings speak of the bands that are read, whatever they are read from; else `UsageError`."""
    if in_chans not in (PretrainConfig().in_chans, source.bands):
        raise UsageError(f"in_chans is {in_chans}, but the images have {source.bands} bands: leave it out")
    _check_views(views, source.bands, deep=source.dtype != torch.uint8)


def _check_views(views: ViewConfig, bands: int, *, deep: bool) -> None:
    if (views.low or views.high) and not deep:
        raise UsageError(
            "views.low and views.high stretch values deeper than 8 bits, and these are bytes: leave them out"
        )
    for name in ("mean", "std", "bands", "low", "high"):
        count = len(getattr(views, name))
        if count != bands and (count or name in ("mean", "std")):
            raise UsageError(f"views.{name} has {count} values for {bands} bands: give one a band, or leave it out")
    if any(low >= high for low, high in zip(views.low, views.high, strict=False)):  # one may not be given at all
        raise UsageError(
            "views.high must be above views.low in every band, or leave them out: they are measured; found "
            f"{list(views.low)} and {list(views.high)}"
        )


def check_numbers(views: ViewConfig, bands: int, names: tuple[str, ...], data: str, *, deep: bool) -> None:
    """That the numbers of a run, or of shards, are of the bands that are read, else `UsageError`; `deep`: no bytes."""
    if names and views.bands and views.bands != names:
        raise UsageError(
            f"mean and deviation are known for the bands {', '.join(views.bands)}, but those of {data} are "
            f"{', '.join(names)}: give the data they were measured on, or start a new run"
        )
    if len(views.mean) != bands or len(views.low) != len(views.high) or len(views.low) not in (0, bands):
        raise UsageError(
            f"mean and deviation are known for {len(views.mean)} bands, but {data} has {bands}: give the data they "
            "were measured on, or start a new run"
        )
    if bool(views.low) != deep:
        here, there = ("deeper values", "8 bits") if deep else ("8 bits", "deeper values")
        raise UsageError(
            f"mean and deviation are known for bands of {there}, but those of {data} are of {here}: give the data they "
            "were measured on, or start a new run"
        )
