"""Files as `cmid.predict` wants scenes: GeoTIFF and JPEG 2000 window by window, other images decoded whole."""

import warnings
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmid.data.decode import SUFFIXES as IMAGES
from cmid.data.decode import BadImage, decode, look_at_image
from cmid.data.folder import is_remote
from cmid.data.nodata import hide_undeclared
from cmid.data.rasters import SUFFIXES as RASTERS
from cmid.data.rasters import OpenRasters, choose_bands, opened, read_header
from cmid.data.statistics import Stretch
from cmid.errors import UsageError
from cmid.predict.scene import Georeference, Scene, Window

if TYPE_CHECKING:
    from affine import Affine


class RasterScene:
    """A GeoTIFF or JPEG 2000; GDAL is used in a thread that lasts, so `read` may be called from any.

    Args:
        path: a file, or an address.
        bands: which are read, by number from 1 or by name; empty reads all but alpha.
        stretch: brings the values to the scale the model was trained on, with the mean where there is none; None
            leaves them as they are.
        max_bad_share: of the pixels, how many may be unreadable, as in a file with a corrupt block: they are not
            valid, and `unreadable` says where. Not of a file behind an address, which may answer the next time.
        nodata: the value that is none in bands of which the file names none.
    """

    def __init__(
        self,
        path: str,
        bands: Sequence[str] = (),
        stretch: Stretch | None = None,
        max_bad_share: float = 0.0,
        nodata: float | None = None,
    ) -> None:
        from rasterio.errors import NotGeoreferencedWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # `Georeference.notes` tells it
            header = read_header(path)
            with opened(path) as raster:
                _check_transform(path, raster.transform)
                self.place = Georeference.of(raster)
                self._block = raster.block_shapes[0]
        self._bands = choose_bands([header], bands)[path]
        self._rasters, self._stretch = OpenRasters(), stretch
        self.name, self.width, self.height, self.dtype = path, header.width, header.height, header.dtype
        self.bands = len(self._bands)
        self._declared, self._nodata = header.declared, nodata
        self.colours = _natural([header.names[band - 1] for band in self._bands])
        self.identity = identity_of(path)
        self.unreadable: list[Window] = []
        self._lost: set[Window] = set()
        self._bearable = 0 if is_remote(path) else int(max_bad_share * self.width * self.height)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """As `Scene.read`; raises `BadImage` where more is unreadable than may be, or the file is another by now."""
        try:
            values, valid = self._rasters.read(self.name, self._bands, window)
        except BadImage:
            if not self._bearable:
                raise
            values, valid = self._by_blocks(window)
        if self._nodata is not None:
            hide_undeclared(values, valid, self._bands, self._declared, self._nodata)
        return _stretched(values, valid, self._stretch), valid

    def _by_blocks(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """A window of which some blocks of the file cannot be read, block by block."""
        x0, y0, x1, y1 = window
        values = np.zeros((self.bands, y1 - y0, x1 - x0), self.dtype)
        valid = np.zeros(values.shape[1:], np.bool_)
        high, wide = self._block
        for top in range(y0 // high * high, y1, high):
            for left in range(x0 // wide * wide, x1, wide):
                block = (left, top, min(left + wide, self.width), min(top + high, self.height))
                if block in self._lost:
                    continue
                part = (max(left, x0), max(top, y0), min(block[2], x1), min(block[3], y1))
                here = slice(part[1] - y0, part[3] - y0), slice(part[0] - x0, part[2] - x0)
                try:
                    values[:, *here], valid[here] = self._rasters.read(self.name, self._bands, part)
                except BadImage as why:
                    self._give_up(block, why)
        return values, valid

    def _give_up(self, block: Window, error: BadImage) -> None:
        """Notes a block that cannot be read; raises `BadImage` where the file changed, or it is one too many."""
        try:
            same = identity_of(self.name) == self.identity
        except OSError:
            same = False
        if not same:
            raise BadImage(self.name, f"it was changed or removed while it was read ({error.reason})") from error
        self.unreadable.append(block)
        self._lost.add(block)
        lost = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in self.unreadable)
        if lost > self._bearable:
            raise BadImage(
                self.name,
                f"{lost:,} of its {self.width * self.height:,} px cannot be read so far, first at column "
                f"{self.unreadable[0][0]}, row {self.unreadable[0][1]} ({error.reason}): over max_bad_share",
            ) from error


def _check_transform(path: str, transform: "Affine") -> None:
    """Raises `BadImage` where a raster says of its pixels that they lie nowhere, or all on one point or line."""
    if not all(map(isfinite, transform[:6])) or transform.determinant == 0:
        told = ", ".join(f"{number:g}" for number in transform[:6])
        raise BadImage(
            path,
            f"its geotransform ({told}) gives its pixels no place: put it right, or remove it (gdal_edit -unsetgt)",
        )


class ImageScene:
    """A PNG, JPEG or another image, as three 8-bit colours or one band of grey; it has no place.

    Transparent pixels (alpha 0) are not valid. A palette stands for its colours. The image is not turned by its EXIF
    orientation: GDAL does not turn it either, and the map is to lie on what GDAL shows.

    Args:
        path: a file.
        stretch: as of `RasterScene`.
        pictures: kinds of image that are made three 8-bit colours, as `decode` does for training.

    Raises:
        UsageError: it holds more than 8 bits a band.
        BadImage: it cannot be read.
    """

    def __init__(self, path: str, stretch: Stretch | None = None, pictures: Sequence[str] = ()) -> None:
        kind, self._opaque = look_at_image(path)
        if kind.startswith("deep") and kind not in pictures:
            raise UsageError(
                f"{path} is an image of more than 8 bits a band, and none such was trained on: expected 8 bits. Write "
                "it as the training data are, or as a GeoTIFF of their type and units"
            )
        pixels = decode(path, as_stored=True).pixels
        pixels = pixels[..., :1] if kind == "grey" and kind not in pictures else pixels
        self._pixels, self._stretch = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)), stretch
        self.bands, self.height, self.width = self._pixels.shape
        self.colours: tuple[int, ...] = tuple(range(self.bands))
        self.name, self.dtype, self.place = path, "uint8", Georeference()
        self.identity = identity_of(path)
        self.unreadable: list[Window] = []

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """As `Scene.read`."""
        x0, y0, x1, y1 = window
        values, valid = self._pixels[:, y0:y1, x0:x1], np.ones((y1 - y0, x1 - x0), np.bool_)
        valid = valid if self._opaque is None else self._opaque[y0:y1, x0:x1]
        return _stretched(values, valid, self._stretch), valid


def open_scene(
    path: str,
    bands: Sequence[str] = (),
    stretch: Stretch | None = None,
    max_bad_share: float = 0.0,
    pictures: Sequence[str] = (),
    nodata: float | None = None,
) -> Scene:
    """The scene in a file, for `cmid.predict.scene_to_map`; arguments as of `RasterScene` and `ImageScene`.

    Raises:
        UsageError: no such kind of file, bands that it lacks, or an image that has more than 8 bits a band, or of
            which bands or `nodata` are asked.
        BadImage: it cannot be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix in RASTERS:
        return RasterScene(path, bands, stretch, max_bad_share, nodata)
    if suffix not in IMAGES:
        raise UsageError(f"{path} is no scene; expected a file ending in {' '.join(dict.fromkeys(RASTERS + IMAGES))}")
    if bands:
        raise UsageError(
            f"{path} is an image, whose bands are its colours: others can be chosen of {' '.join(RASTERS)} alone"
        )
    if nodata is not None:
        raise UsageError(
            f"{path} is an image, which has no nodata value but transparency: --nodata is for {' '.join(RASTERS)} alone"
        )
    return ImageScene(path, stretch, pictures)


def _stretched(values: np.ndarray, valid: np.ndarray, stretch: Stretch | None) -> np.ndarray:
    return values if stretch is None else np.moveaxis(stretch.pixels(values, valid), -1, 0)


def identity_of(path: str) -> str:
    """What changes where the file's pixels may have: bytes and date; empty of an address, which tells neither."""
    if is_remote(path):
        return ""
    status = Path(path).stat()
    return f"{status.st_size} bytes of {status.st_mtime_ns}"


def _natural(names: list[str]) -> tuple[int, ...]:
    """Positions of red, green and blue, where bands are named so; else the first three, or the first."""
    folded = [name.casefold() for name in names]
    if all(colour in folded for colour in ("red", "green", "blue")):
        return tuple(folded.index(colour) for colour in ("red", "green", "blue"))
    return (0, 1, 2) if len(names) >= 3 else (0,)
