"""What was measured of the bands, for the screen and for the run's folder."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table

from cmid.data.scenes import Scenes
from cmid.data.statistics import BandStatistics


def account_of(scenes: Scenes, statistics: BandStatistics) -> dict[str, Any]:
    """Bands, files, and what could not be read, plain values."""
    return {
        "bands": asdict(statistics),
        "scenes": [
            {"path": r.path, "width": r.width, "height": r.height, "dtype": r.dtype, "crs": r.crs}
            for r in scenes.rasters
        ],
        "unreadable": scenes.bad,
    }


def nodata_notes(scenes: Scenes, statistics: BandStatistics) -> Iterator[str]:
    """A note for each value that looks like nodata which nothing declares, with the band in which it is most frequent.

    Args:
        scenes: what was measured.
        statistics: of it.
    """
    found: dict[float, tuple[float, str]] = {}
    for name, value, share in zip(statistics.names, statistics.suspect, statistics.suspect_share, strict=True):
        if value is not None and share > found.get(value, (0.0, ""))[0]:
            found[value] = (share, name)
    silent = any(not all(r.declared[band - 1] for band in scenes.bands[r.path]) for r in scenes.rasters)
    for value, (share, name) in found.items():
        number = f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
        if silent and scenes.nodata is None:
            advice = f"that the files do not declare; if it is: --scenes.nodata {number}"
        else:  # a file has one such value
            advice = "besides the value that is known for it; if it is, write one value for both into the files"
        yield f"{share:.1%} of the pixels looked at are {value:.6g} in band {name}: it looks like nodata {advice}"


def band_table(statistics: BandStatistics) -> Table:
    """What was measured, a row a band."""
    kind = f"{statistics.dtype}, {statistics.pixels:,} valid pixels looked at, {statistics.nodata:.1%} nodata"
    table = Table(title=f"Bands ({kind})", title_justify="left")
    for column in ("band", "least", "2 %", "98 %", "greatest", "mean", "std"):
        table.add_column(column, justify="left" if column == "band" else "right")
    rows = zip(
        statistics.names, statistics.minimum, statistics.low, statistics.high, statistics.maximum, statistics.mean,
        statistics.std, strict=True,
    )  # fmt: skip
    for name, *numbers in rows:
        table.add_row(name, *(f"{number:.4g}" for number in numbers))
    return table
