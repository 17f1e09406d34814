"""What is asked of a scene that is to be mapped: how large it is, where it lies, and its pixels window by window."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cmid.errors import UsageError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Window = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the scene; x1 and y1 are the first beyond it."""


@dataclass(frozen=True)
class Georeference:
    """Where a scene's pixels lie, as far as its file says; nothing is guessed.

    Attributes:
        crs: the coordinate reference system as WKT; empty where there is none.
        transform: a, b, c, d, e, f of x = a column + b row + c, y = d column + e row + f; None where there is none.
        gcps: ground control points, each row, column, x, y, z.
        gcps_crs: their coordinate reference system as WKT.
        rpcs: rational polynomial coefficients by GDAL's names; empty where there are none.
    """

    crs: str = ""
    transform: tuple[float, float, float, float, float, float] | None = None
    gcps: tuple[tuple[float, float, float, float, float], ...] = ()
    gcps_crs: str = ""
    rpcs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, raster: "DatasetReader") -> "Georeference":
        """What the header of an open raster says."""
        points, system = raster.gcps
        t = raster.transform
        placed = bool(raster.crs) or not t.is_identity
        return cls(
            crs=raster.crs.to_wkt() if raster.crs else "",
            transform=(t.a, t.b, t.c, t.d, t.e, t.f) if placed else None,
            gcps=tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points),
            gcps_crs=system.to_wkt() if points and system else "",
            rpcs=tuple(sorted(raster.rpcs.to_gdal().items())) if raster.rpcs else (),
        )

    def notes(self) -> list[str]:
        """What a person should know of the map's place, a line each; empty where the place is plain."""
        if self.crs and self.transform:
            return []
        if self.gcps or self.rpcs:
            by = "ground control points" if self.gcps else "rational polynomial coefficients (RPC)"
            return [
                f"the scene is placed by {by} alone: the map has the scene's pixels and carries them over, and is not "
                "warped; polygons are in pixels, x to the right and y down"
            ]
        if self.transform:
            return [
                "the scene has no coordinate reference system: map and polygons keep the coordinates of its transform"
            ]
        return [
            "the scene has no coordinate reference system: the map has none either, and polygons are in pixels, x to "
            "the right and y down"
        ]


class Scene(Protocol):
    """A scene of any size, read window by window.

    `read` is called from a thread that ends with the map. GDAL wants threads that last, and handles of their own: a
    reader that uses it hands the work to such a thread (`cmid/data/lasting_threads.py`).

    Attributes:
        name: for messages, a path for example.
        width: in pixels.
        height: in pixels.
        bands: how many `read` gives.
        dtype: numpy's name of the type of the file's values.
        colours: which of them, from 0, are red, green and blue in the quick look; or one.
        place: where it lies.
        identity: changes where the file's pixels may have: a date of change and a size, for example.
        unreadable: parts that `read` could not read and gave as not valid, growing as it is called.
    """

    name: str
    width: int
    height: int
    bands: int
    dtype: str
    colours: tuple[int, ...]
    place: Georeference
    identity: str
    unreadable: list[Window]

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values `(C, h, w)` of any real type, and valid `(h, w)` bool, False where there is no measurement."""
        ...


@dataclass(frozen=True)
class Trained:
    """What a model was trained on, so that other scenes are refused.

    Attributes:
        bands: how many.
        dtypes: numpy's names of the types of the files' values; empty admits any.
        names: what the bands are called, for messages; empty where that is not known.
    """

    bands: int
    dtypes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def check(self, scene: Scene) -> None:
        """Raises `UsageError` where `scene` is of another kind."""
        if scene.bands != self.bands:
            which = f" ({', '.join(self.names)})" if self.names else ""
            found = f"{scene.bands} band{'s' * (scene.bands != 1)}"
            raise UsageError(
                f"{scene.name} gives {found}, and the model was trained on {self.bands}{which}: give the bands it was "
                "trained on, in their order"
            )
        if self.dtypes and scene.dtype not in self.dtypes:
            raise UsageError(
                f"{scene.name} holds {scene.dtype} values, and the model was trained on {' or '.join(self.dtypes)}: "
                "bring the scene to the same type and units as the training data"
            )


def as_model_input(values: np.ndarray) -> np.ndarray:
    """Values as torch can take them to a device: the types it converts stay, all others become float32."""
    kept: tuple[Any, ...] = (np.uint8, np.int16, np.int32, np.float32)
    return values if values.dtype in kept else values.astype(np.float32)
