"""The places of a run, seen at several dates, that a temporal method learns from."""

from dataclasses import replace

from cmid.commands.sources import Opened
from cmid.config import PretrainConfig
from cmid.data.artificial_dates import DATES, ArtificialDates
from cmid.data.folder import FolderSource
from cmid.data.places import Found, Places, group, places_of_folder
from cmid.data.sources import ImageSource
from cmid.data.torchgeo_datasets import TorchgeoSource
from cmid.errors import UsageError

INSTEAD = (
    "Give a folder for each place with a file for each date (place/2019-05-01.tif), or "
    "torchgeo:SeasonalContrastS2?root=DIR; or have further dates made up: --seco.dates artificial, and in a comparison "
    "the row seco?dates=artificial"
)


def with_dates(opened: Opened) -> Opened:
    """The same data as places seen at several dates, or, where the settings ask for it, at dates that are made up.

    Raises:
        UsageError: nothing in the data is seen at several dates.
    """
    config = opened.config
    if config.seco.dates == "artificial":
        note = (
            f"the dates are artificial (seco.dates): of each image {DATES - 1} further ones are made up by gains that "
            "drift over it, sunlight and haze; of real seasons nothing can be learned from them"
        )
        return replace(opened, source=ArtificialDates(opened.source, config.seed), notes=(*opened.notes, note))
    source = opened.source
    if config.limit:  # counts places here
        source = FolderSource(config.data)
    found = _places(source, config)
    if not found.groups:
        raise UsageError(f"{_single(found, config)}, but {config.method} contrasts the dates of one place. {INSTEAD}")
    places = Places(source, found, limit=config.limit, seed=config.seed)
    counts = [places.date_count(i) for i in range(len(places))]
    least, most = min(counts), max(counts)
    notes = [f"{len(places):,} places, each seen at {least if least == most else f'{least} to {most}'} dates"]
    if found.alone:
        notes.append(f"{len(found.alone):,} places have one date only and are left out, first {found.alone[0]}")
    if found.undated:
        notes.append(f"{len(found.undated):,} images say no date and are left out, first {found.undated[0]}")
    return replace(opened, source=places, notes=(*opened.notes, *notes))


def _places(source: ImageSource, config: PretrainConfig) -> Found:
    if isinstance(source, FolderSource):
        return places_of_folder(source)
    if isinstance(source, TorchgeoSource) and (patches := source.patches()):
        return group([(place, date, i) for i, (place, date) in enumerate(patches)], source.name)
    return Found((), ())


def _single(found: Found, config: PretrainConfig) -> str:
    """What the data are instead."""
    if found.alone:
        return f"all {len(found.alone):,} places of {config.data} have one date only, {found.alone[0]} the first"
    if found.undated:
        return f"no image of {config.data} says its date ({found.undated[0]} is the first)"
    what = "windows of scenes" if config.source == "scenes" else "images"
    return f"the {what} of {config.data} are of single dates"
