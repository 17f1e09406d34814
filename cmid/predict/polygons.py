"""The areas of a map's classes as polygons, in a GeoPackage or GeoJSON.

The map is read in stripes of full width. Areas that touch the border to the next stripe wait until what they go on with
has been read, and are joined: an area is one polygon however many stripes it crosses. Pixels of one class that meet
at a corner only are two areas. What is held is one stripe and the areas that are not closed.

A GeoPackage keeps the scene's coordinate system. GeoJSON is written by RFC 7946: longitude and latitude of WGS 84, by
GDAL, which also turns rings and cuts at the antimeridian.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmid.errors import UsageError
from cmid.predict.blend import NODATA
from cmid.predict.raster_output import Classes, gdal_errors
from cmid.predict.scene import Georeference
from cmid.predict.windows import TILE

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".json": "GeoJSON"}
STRIPE_PIXELS = 32 << 20
FURTHEST = (360.0, 90.001)
"""Longitude and latitude of a scene's corners that GeoJSON can still tell, in degrees."""
AT_ONCE = 20_000
"""Polygons written at a time."""
STRAIGHT_PX = 64
"""A side of a polygon is divided so finely before it becomes longitude and latitude, where straight lines bend."""


def check_polygons(out: Path, place: Georeference, width: int, height: int) -> None:
    """Raises `UsageError` where polygons could not be written to `out`, before anything is computed."""
    if out.suffix.lower() not in DRIVERS:
        raise UsageError(f"polygons go to {out}; expected a file ending in {', '.join(DRIVERS)}")
    if DRIVERS[out.suffix.lower()] == "GeoJSON" and place.crs and place.transform:
        from rasterio.crs import CRS
        from rasterio.warp import transform

        a, b, c, d, e, f = place.transform
        corners = [(a * x + b * y + c, d * x + e * y + f) for x in (0, width) for y in (0, height)]
        try:
            system = CRS.from_wkt(place.crs)
            x, y = transform(system, CRS.from_epsg(4326), *zip(*corners, strict=True))
            known = (system.is_geographic or system.is_projected) and bool(np.isfinite([*x, *y]).all())
            # GDAL turns longitudes beyond 180 degrees back, once round; latitudes may miss a pole by rounding
            known = known and max(map(abs, x)) <= FURTHEST[0] and max(map(abs, y)) <= FURTHEST[1]
        except gdal_errors():
            known = False
        if not known:
            raise UsageError(
                f"{out}: the scene's coordinates cannot be turned into longitude and latitude, which GeoJSON asks for: "
                "choose a .gpkg"
            )


@dataclass
class _Area:
    """Part of an area that is not closed: its class, and its polygons so far in pixels."""

    class_: int
    parts: list["BaseGeometry"] = field(default_factory=list)


def areas(raster: Any, min_area_px: int = 0, stripe_px: int = STRIPE_PIXELS) -> Iterator[tuple[int, "BaseGeometry"]]:
    """Class and polygon, in pixels of the map (x to the right, y down), of each area.

    Args:
        raster: the map, open in rasterio: one band, uint8.
        min_area_px: smaller ones are left out; their pixels belong to no polygon.
        stripe_px: pixels read at once.
    """
    rows = max(1, stripe_px // raster.width)
    rows = rows // TILE * TILE or rows  # whole tiles, where there is room for some
    above: NDArray[np.int64] | None = None  # of each pixel of the last row read, which open area it belongs to
    waiting: dict[int, _Area] = {}
    number = 0
    for y0 in range(0, raster.height, rows):
        y1 = min(y0 + rows, raster.height)
        found, top, bottom = _stripe(raster, y0, y1, number)
        number += len(found)
        joined = _Joined()
        if above is not None:
            for upper, lower in np.unique(np.stack((above, top))[:, (above >= 0) & (top >= 0)], axis=1).T.tolist():
                if waiting[upper].class_ == found[lower].class_:
                    joined.join(upper, lower)
        groups: dict[int, list[int]] = defaultdict(list)
        for each in (*waiting, *found):
            groups[joined.root(each)].append(each)
        open_ = set(np.unique(bottom[bottom >= 0]).tolist()) if y1 < raster.height else set()
        every, waiting, renamed = waiting | found, {}, {}
        for root, members in groups.items():
            area = _Area(every[root].class_, [part for each in members for part in every[each].parts])
            if open_.isdisjoint(members):
                yield from _closed(area, min_area_px)
            else:
                waiting[root] = area
                renamed.update(dict.fromkeys(members, root))
        above = np.full(raster.width, -1)
        for each in open_:
            above[bottom == each] = renamed[each]


class _Joined:
    """Which numbers belong together."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def root(self, each: int) -> int:
        while (parent := self._parent.get(each, each)) != each:
            self._parent[each] = self._parent.get(parent, parent)
            each = parent
        return each

    def join(self, a: int, b: int) -> None:
        self._parent[self.root(a)] = self.root(b)


def _stripe(
    raster: Any, y0: int, y1: int, number: int
) -> tuple[dict[int, _Area], NDArray[np.int64], NDArray[np.int64]]:
    """Areas of some rows by number, and which of them each pixel of the first and of the last row belongs to."""
    from rasterio import Affine
    from rasterio.features import shapes
    from rasterio.windows import Window
    from shapely.geometry import shape

    values = raster.read(1, window=Window(0, y0, raster.width, y1 - y0))
    found: dict[int, _Area] = {}
    top, bottom = np.full(raster.width, -1), np.full(raster.width, -1)
    for outline, class_ in shapes(values, mask=values != NODATA, connectivity=4, transform=Affine.translation(0, y0)):
        corners = outline["coordinates"][0]
        heights = [y for _, y in corners]
        for edge, owner in ((y0, top), (y1, bottom)):
            if edge not in heights:  # most areas lie inside
                continue
            ring = np.array(corners)
            for k in np.flatnonzero((ring[:-1, 1] == edge) & (ring[1:, 1] == edge)):
                a, b = sorted((int(ring[k, 0]), int(ring[k + 1, 0])))
                owner[a:b] = number
        found[number] = _Area(int(class_), [shape(outline)])
        number += 1
    return found, top, bottom


def _closed(area: _Area, min_area_px: int) -> Iterator[tuple[int, "BaseGeometry"]]:
    import shapely

    if sum(part.area for part in area.parts) < min_area_px:
        return
    whole = area.parts[0] if len(area.parts) == 1 else shapely.union_all(area.parts)
    if len(area.parts) > 1:
        whole = shapely.simplify(whole, 0)  # corners that were left on straight lines where stripes meet
    yield area.class_, whole if whole.is_valid else shapely.make_valid(whole)


def write_polygons(
    tiled: Path, out: Path, classes: Classes, place: Georeference, *, min_area_px: int = 0,
    stripe_px: int = STRIPE_PIXELS,
) -> int:  # fmt: skip
    """Writes the areas of the map at `tiled`, each with `class`, `class_id` and `area_px`; gives how many.

    Without a coordinate system the coordinates are those of the scene's transform, and without that, pixels.
    """
    import rasterio

    driver = DRIVERS[out.suffix.lower()]
    writer = _Writer(out, driver, classes, place)
    with rasterio.open(tiled) as raster:
        for class_, polygon in areas(raster, min_area_px, stripe_px):
            writer.put(class_, polygon)
    writer.flush()
    return writer.count


class _Writer:
    """Polygons to a file: a GeoPackage grows; GeoJSON, which cannot, is written at the end."""

    def __init__(self, out: Path, driver: str, classes: Classes, place: Georeference) -> None:
        self.count = 0
        self._out, self._driver, self._classes, self._place = out, driver, classes, place
        self._rows: list[tuple[int, BaseGeometry]] = []
        self._begun = False

    def put(self, class_: int, polygon: "BaseGeometry") -> None:
        self._rows.append((class_, polygon))
        self.count += 1
        if len(self._rows) >= AT_ONCE and self._driver == "GPKG":
            self.flush()

    def flush(self) -> None:
        import shapely
        from pyogrio.raw import write

        if not self._rows and self._begun:
            return
        placed = bool(self._place.crs and self._place.transform)
        polygons = np.array([polygon for _, polygon in self._rows], object)
        numbers = np.array([class_ for class_, _ in self._rows], np.int32)
        names = np.array([self._classes.names[i] for i in numbers], object)
        sizes = shapely.area(polygons).round().astype(np.int64)
        if self._driver == "GeoJSON" and placed:
            polygons = shapely.segmentize(polygons, STRAIGHT_PX)
        if self._place.transform:
            a, b, c, d, e, f = self._place.transform
            turn, move = np.array(((a, d), (b, e))), np.array((c, f))
            polygons = shapely.transform(polygons, lambda points: points @ turn + move)
        options: dict[str, Any] = {"RFC7946": "YES"} if self._driver == "GeoJSON" and placed else {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # where there is none, `Georeference` tells it
            write(
                str(self._out), geometry=shapely.to_wkb(polygons),
                field_data=[names, numbers, sizes], fields=["class", "class_id", "area_px"],
                geometry_type="MultiPolygon" if self._driver == "GPKG" else "Unknown", driver=self._driver,
                layer="classes",
                crs=self._place.crs if placed else None, append=self._begun,
                promote_to_multi=self._driver == "GPKG", **options,
            )  # fmt: skip
        self._rows, self._begun = [], True
