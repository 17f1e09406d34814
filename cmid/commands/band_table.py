"""What was measured of the bands, for the screen and for the run's folder."""

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
