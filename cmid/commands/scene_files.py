"""Files as `cmid.predict` wants scenes: GeoTIFF and JPEG 2000 window by window, other images decoded whole."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmid.data.decode import SUFFIXES as IMAGES
from cmid.data.decode import decode
from cmid.data.folder import is_remote
from cmid.data.rasters import SUFFIXES as RASTERS
from cmid.data.rasters import OpenRasters, choose_bands, opened, read_header
from cmid.data.statistics import Stretch
from cmid.errors import UsageError
from cmid.predict.scene import Georeference, Scene, Window


class RasterScene:
    """A GeoTIFF or JPEG 2000; GDAL is used in a thread that lasts, so `read` may be called from any.

    Args:
        path: a file, or an address.
        bands: which are read, by number from 1 or by name; empty reads all but alpha.
        stretch: brings the values to the scale the model was trained on, with the mean where there is none; None
            leaves them as they are.
    """

    def __init__(self, path: str, bands: Sequence[str] = (), stretch: Stretch | None = None) -> None:
        from rasterio.errors import NotGeoreferencedWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # `Georeference.notes` tells it
            header = read_header(path)
            with opened(path) as raster:
                self.place = Georeference.of(raster)
        self._bands = choose_bands([header], bands)[path]
        self._rasters, self._stretch = OpenRasters(), stretch
        self.name, self.width, self.height, self.dtype = path, header.width, header.height, header.dtype
        self.bands = len(self._bands)
        self.colours = _natural([header.names[band - 1] for band in self._bands])
        self.identity = "" if is_remote(path) else _identity(path)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """As `Scene.read`; raises `BadImage`."""
        values, valid = self._rasters.read(self.name, self._bands, window)
        return _stretched(values, valid, self._stretch), valid


class ImageScene:
    """A PNG, JPEG or another image, as three 8-bit colours; it has no place, and every pixel is valid."""

    def __init__(self, path: str, stretch: Stretch | None = None) -> None:
        self._pixels = np.ascontiguousarray(np.moveaxis(decode(path).pixels, -1, 0))
        self._stretch = stretch
        self.bands, self.height, self.width = self._pixels.shape
        self.colours: tuple[int, ...] = (0, 1, 2)
        self.name, self.dtype, self.place = path, "uint8", Georeference()
        self.identity = _identity(path)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """As `Scene.read`."""
        x0, y0, x1, y1 = window
        values, valid = self._pixels[:, y0:y1, x0:x1], np.ones((y1 - y0, x1 - x0), np.bool_)
        return _stretched(values, valid, self._stretch), valid


def open_scene(path: str, bands: Sequence[str] = (), stretch: Stretch | None = None) -> Scene:
    """The scene in a file, for `cmid.predict.scene_to_map`.

    Raises:
        UsageError: no such kind of file, or bands that it lacks.
        BadImage: it cannot be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix in RASTERS:
        return RasterScene(path, bands, stretch)
    if suffix not in IMAGES:
        raise UsageError(f"{path} is no scene; expected a file ending in {' '.join(dict.fromkeys(RASTERS + IMAGES))}")
    if bands:
        raise UsageError(f"{path} is read as three colours: bands can be chosen of {' '.join(RASTERS)} alone")
    return ImageScene(path, stretch)


def _stretched(values: np.ndarray, valid: np.ndarray, stretch: Stretch | None) -> np.ndarray:
    return values if stretch is None else np.moveaxis(stretch.pixels(values, valid), -1, 0)


def _identity(path: str) -> str:
    status = Path(path).stat()
    return f"{status.st_size} bytes of {status.st_mtime_ns}"


def _natural(names: list[str]) -> tuple[int, ...]:
    """Positions of red, green and blue, where bands are named so; else the first three, or the first."""
    folded = [name.casefold() for name in names]
    if all(colour in folded for colour in ("red", "green", "blue")):
        return tuple(folded.index(colour) for colour in ("red", "green", "blue"))
    return (0, 1, 2) if len(names) >= 3 else (0,)
