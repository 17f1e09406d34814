"""Finished blocks to Cloud-Optimised GeoTIFFs: the map, and the probabilities of its classes."""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import torch

from cmid.errors import CmidError, UsageError
from cmid.predict.blend import FULL, NODATA
from cmid.predict.scene import Georeference
from cmid.predict.windows import TILE, Block

CACHE_BYTES = 64 << 20
"""GDAL's cache of blocks while a map is made; its default is a share of the machine's memory."""
PALETTE = (
    (228, 26, 28), (55, 126, 184), (77, 175, 74), (152, 78, 163), (255, 127, 0), (255, 255, 51), (166, 86, 40),
    (247, 129, 191), (153, 153, 153), (102, 194, 165), (252, 141, 98), (141, 160, 203), (231, 138, 195),
    (166, 216, 84), (255, 217, 47), (229, 196, 148),
)  # fmt: skip
"""ColorBrewer's Set1 and, after it, Set2."""


@dataclass(frozen=True)
class Classes:
    """Names of a map's classes, by number from 0, and their colours.

    Attributes:
        names: 1 to 255 of them.
        colours: red, green, blue of each, 0 to 255; empty takes `PALETTE`, and then hues.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= NODATA:
            raise UsageError(f"{len(self.names)} classes; a map holds 1 to {NODATA}, since {NODATA} is nodata")
        if self.colours and len(self.colours) != len(self.names):
            raise UsageError(f"{len(self.colours)} colours for {len(self.names)} classes: give one for each, or none")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def table(self) -> tuple[tuple[int, int, int], ...]:
        """One colour a class."""
        return self.colours or tuple(PALETTE[i] if i < len(PALETTE) else _hue(i) for i in range(len(self.names)))


def _hue(i: int) -> tuple[int, int, int]:
    import colorsys

    r, g, b = colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.5 + 0.2 * (i % 3), 0.95 - 0.15 * (i % 4))
    return round(255 * r), round(255 * g), round(255 * b)


@contextmanager
def gdal_for_maps() -> Iterator[None]:
    """GDAL with a small cache, for the length of a `with`; a scene without coordinates is no warning in it.

    The cache is one for the process; what it was before is restored.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _placed(place: Georeference) -> dict[str, Any]:
    """Rasterio's options for a file that lies where the scene does."""
    from rasterio import Affine
    from rasterio.control import GroundControlPoint
    from rasterio.crs import CRS
    from rasterio.rpc import RPC

    options: dict[str, Any] = {}
    if place.transform:
        options["transform"] = Affine(*place.transform)
    if place.crs:
        options["crs"] = CRS.from_wkt(place.crs)
    if place.gcps and not place.transform:
        options["gcps"] = [GroundControlPoint(row=r, col=c, x=x, y=y, z=z) for r, c, x, y, z in place.gcps]
        options["crs"] = CRS.from_wkt(place.gcps_crs) if place.gcps_crs else None
    if place.rpcs:
        options["rpcs"] = RPC.from_gdal(dict(place.rpcs))
    return options


class TiledFile:
    """A GeoTIFF filled from top to bottom, panel by panel, in whole tiles: none is written twice.

    Args:
        path: must not exist.
        width: in pixels.
        height: in pixels.
        bands: how many; one is taken for classes, which hardly need compression to be small, several for numbers.
        place: where it lies.
    """

    def __init__(self, path: Path, width: int, height: int, bands: int, place: Georeference) -> None:
        import rasterio

        packed: dict[str, Any] = {"compress": "deflate", "zlevel": 1} if bands > 1 else {"compress": "packbits"}
        self.raster = rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=bands, dtype="uint8", nodata=NODATA,
            tiled=True, blockxsize=TILE, blockysize=TILE, interleave="band", bigtiff="if_safer", **packed,
            **_placed(place),
        )  # fmt: skip
        self._waiting: list[np.ndarray] = []
        self._row = 0

    def put(self, block: Block, values: np.ndarray) -> None:
        """The next rows of a panel, `(bands, h, w)` uint8."""
        from rasterio.windows import Window

        self._waiting.append(values)
        have = sum(each.shape[1] for each in self._waiting)
        ends = block.y1 == self.raster.height
        write = have if ends else have // TILE * TILE
        if not write:
            return
        rows = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting, axis=1)
        self.raster.write(rows[:, :write], window=Window(block.x0, self._row, block.x1 - block.x0, write))
        self._waiting = [] if write == have else [rows[:, write:].copy()]
        self._row = 0 if ends else self._row + write


def describe_map(raster: Any, classes: Classes) -> None:
    """Colour table, names and tags of the map."""
    colours = {i: (*rgb, 255) for i, rgb in enumerate(classes.table)}
    raster.write_colormap(1, colours | {NODATA: (0, 0, 0, 0)})
    raster.set_band_description(1, "class")
    raster.update_tags(CLASSES=json.dumps(list(classes.names), ensure_ascii=False))
    raster.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(classes.names)})


def describe_probabilities(raster: Any, classes: Classes) -> None:
    """Names, scale and tags of the probabilities."""
    raster.descriptions = classes.names
    raster.scales = (1 / FULL,) * len(classes)
    raster.offsets = (0.0,) * len(classes)
    raster.update_tags(
        CLASSES=json.dumps(list(classes.names), ensure_ascii=False),
        SCALE=f"probability = value / {FULL}; {NODATA} is nodata",
    )


def as_cog(tiled: Path, out: Path, *, overviews: str) -> None:
    """The tiled file at `tiled` as a Cloud-Optimised GeoTIFF.

    Args:
        tiled: what `TiledFile` wrote, closed.
        out: the file to write.
        overviews: how smaller versions are made: `mode` for classes, `average` for probabilities.
    """
    import rasterio.shutil

    rasterio.shutil.copy(
        str(tiled), str(out), driver="COG", compress="DEFLATE", blocksize=TILE, bigtiff="IF_SAFER",
        overview_resampling=overviews.upper(), num_threads=str(torch.get_num_threads()),
    )  # fmt: skip


def write_category_names(out: Path, classes: Classes) -> None:
    """Names of the classes where GDAL looks for them: GeoTIFF has no place for them in the file.

    Args:
        out: `NAME.tif.aux.xml`, beside the map.
        classes: of the map.
    """
    names = "".join(f"<Category>{escape(name)}</Category>" for name in classes.names)
    out.write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>\n',
        encoding="utf-8",
    )


def gdal_errors() -> tuple[type[Exception], ...]:
    """What rasterio and pyogrio raise, and the system: not all of theirs is a `RasterioError`."""
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    return OSError, RasterioError, CPLE_BaseError, DataSourceError, DataLayerError, FeatureError, GeometryError


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Errors of the disk or of GDAL, in words; what is finished is in the journal.

    Raises:
        CmidError: with GDAL's or the system's reason.
    """
    try:
        yield
    except gdal_errors() as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error.__cause__ or error).split())[:200]
        raise CmidError(
            f"{out} cannot be written ({reason}). What is finished is kept: make room and repeat the command to go on."
        ) from error


def check_outputs(paths: Sequence[Path], *, allowed: bool) -> None:
    """Raises `UsageError` where one of `paths` exists, unless `allowed`, cannot be written, or is there twice."""
    if len(set(paths)) < len(paths):
        raise UsageError(f"two outputs have the same name: {', '.join(map(str, paths))}")
    for path in paths:
        if path.is_dir():
            raise UsageError(f"{path} is a folder; expected a file to write")
        there = next(folder for folder in path.absolute().parents if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UsageError(f"{path} cannot be written ({there} is no folder to write in): choose another place")
        if path.exists() and not allowed:
            raise UsageError(f"{path} exists. Give another name, or overwrite to replace it.")
