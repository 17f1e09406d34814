"""Files to 8-bit RGB pixels, whatever they hold.

What is chosen where a file leaves a choice:

- Grey, palette, CMYK and bilevel images become RGB. Alpha is dropped, not composited: under a transparent pixel of
  overhead imagery lies its true colour or the nodata value, and a made-up background would be learned.
- More than 8 bits (16-bit or float PNG, TIFF, JPEG 2000) are stretched linearly so that the 2nd to 98th percentile
  of the image's own values, over all bands together, fills 0..255: sensors use 10 to 14 of their 16 bits, so dividing
  by 257 would leave them black. Nodata, zeros and NaN do not count. The colours keep their balance.
- Of more than 3 bands the first three are taken; of two, the first.
- The EXIF orientation is applied, unless pixels are asked for as the file stores them. Of several frames or pages the
  first is read.
- JPEGs go to torchvision's decoder, which gives Pillow's pixels sooner (benchmarks/views.py); what it refuses, and
  what may be decoded at 1/2, 1/4 or 1/8 because the caller says that suffices, goes to Pillow.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps
from torchvision.io import ImageReadMode, decode_jpeg

from cmid.errors import CmidError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2")
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000")
RASTERIO_DRIVERS = {"TIFF": "GTiff", "PNG": "PNG", "JPEG2000": "JP2OpenJPEG"}
UNKNOWN_TO_PILLOW = {".tif": "TIFF", ".tiff": "TIFF", ".jp2": "JPEG2000"}
MAX_PIXELS = 178_956_970  # Pillow's own bound on decompression bombs: half a gigabyte as RGB

Kind = Literal["colours", "grey", "deep colours", "deep grey"]
Reduction = Callable[[int, int], int]
"""(width, height) of the source, oriented -> by how much (1, 2, 4 or 8) decoding may shrink it."""


class BadImage(CmidError):
    """A file that cannot be read as an image; `path` and `reason` say which and why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path  # as it is: a Path would make `http:/` of an address
        self.reason = reason

    def __reduce__(self) -> tuple:
        return BadImage, (self.path, self.reason)


@dataclass(frozen=True)
class Decoded:
    """Pixels of one image, possibly decoded at a fraction of its size.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB, contiguous and writable.
        width: of the source in pixels, after orientation.
        height: of the source in pixels, after orientation.
        factor: source pixels per pixel of `pixels`, 1, 2, 4 or 8; pixel k covers source pixels k * factor onwards,
            and the last one may reach over the edge.
    """

    pixels: np.ndarray
    width: int
    height: int
    factor: int = 1


def decode(
    path: Path | str, reduction: Reduction | None = None, *, data: bytes | None = None, as_stored: bool = False
) -> Decoded:
    """Read one image file as 8-bit RGB, by the rules above.

    Args:
        path: the file; with `data` only what it is called.
        data: the file's bytes, where they have been read already.
        reduction: asked once, with the source's size, how far a JPEG may be shrunk while decoding; other formats
            are always read whole.
        as_stored: leave the pixels where they lie in the file, whatever its EXIF orientation is; not of a TIFF, which
            `cmid.data.rasters` reads so.

    Raises:
        BadImage: where it is missing, truncated, no image, or larger than `MAX_PIXELS`.
    """
    with _told(path, data):
        try:
            with _opened(path, data) as file, Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                # Pillow keeps the upper byte of deep colours only; of JPEG 2000 it does not say that they are deep
                deep = kind_of_image(image).startswith("deep") or image.format == "JPEG2000"
                if deep and len(image.getbands()) > 1:
                    return _whole(_read_deep(path, data, str(image.format)))
                return _read_usual(image, file, reduction, as_stored)
        except Image.UnidentifiedImageError:
            if (suffix := Path(path).suffix.lower()) not in UNKNOWN_TO_PILLOW:
                raise
            return _whole(_read_deep(path, data, UNKNOWN_TO_PILLOW[suffix]))


def look_at_image(path: Path | str) -> tuple[Kind, np.ndarray | None]:
    """What an image file holds before it is made RGB, and where it is not transparent, as the file stores it.

    Returns:
        its kind; and `(H, W)` bool, False where alpha is 0, None of a file without transparency or of more than 8 bits.

    Raises:
        BadImage: as `decode`.
    """
    with _told(path), Image.open(path, formats=FORMATS) as image:
        kind = _kind(path, image)
        if kind.startswith("deep") or not image.has_transparency_data:
            return kind, None
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        return kind, np.asarray(image.convert("RGBA").getchannel("A")) > 0


def look_at_header(path: Path | str) -> tuple[int, int, Kind, bool]:
    """Of an image file that Pillow reads: longer side in pixels, bands without alpha, kind, and whether it has alpha.

    Raises:
        BadImage: as `decode`, and where only `cmid.data.rasters` reads it.
    """
    with _told(path), Image.open(path, formats=FORMATS) as image:
        bands = 3 if image.mode == "CMYK" else len([band for band in image.getbands() if band not in "Aa"])
        return max(image.size), bands, _kind(path, image), image.has_transparency_data


def kind_of_image(image: ImageFile.ImageFile) -> Kind:
    """What an open file holds: colours (a palette's, too) or grey, beside alpha; deep: of more than 8 bits.

    Of JPEG 2000, Pillow does not say whether colours are deep.
    """
    grey = image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")
    if image.mode in ("I", "F") or ";16" in f"{image.mode}{image.tile[0].args if image.tile else ''}":
        return "deep grey" if grey else "deep colours"
    return "grey" if grey else "colours"


def _kind(path: Path | str, image: ImageFile.ImageFile) -> Kind:
    """`kind_of_image`, also of JPEG 2000."""
    kind = kind_of_image(image)
    if kind == "colours" and image.format == "JPEG2000":
        with _raster(path, None, image.format) as raster:
            return "colours" if raster.dtypes[0] == "uint8" else "deep colours"
    return kind


@contextmanager
def _told(path: Path | str, data: bytes | None = None) -> Iterator[None]:
    """Whatever goes wrong in a `with` as `BadImage`; warnings are not shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no news among a million files
            yield
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage(path, "no such file") from None
    except Image.UnidentifiedImageError:
        empty = not data if data is not None else Path(path).stat().st_size == 0
        raise BadImage(path, "empty file" if empty else "not an image, or damaged at its start") from None
    except Image.DecompressionBombError:
        raise BadImage(path, f"more than {MAX_PIXELS:,} pixels; cut it into tiles first") from None
    except Exception as error:  # decoders raise anything at all on damaged bytes
        raise BadImage(path, _reason(error)) from error


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an open file, 2 to 8; 1 where it has none or no such, and of a TIFF.

    A TIFF has its turned size from the start, and Pillow turns it while loading.
    """
    if "exif" not in image.info:
        return 1
    turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    return turn if turn in range(2, 9) else 1


def _opened(path: Path | str, data: bytes | None) -> BinaryIO:
    return open(path, "rb") if data is None else BytesIO(data)  # noqa: PTH123 - the caller closes it


def _whole(pixels: np.ndarray) -> Decoded:
    return Decoded(pixels, width=pixels.shape[1], height=pixels.shape[0])


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def _read_usual(image: Image.Image, file: BinaryIO, reduction: Reduction | None, as_stored: bool) -> Decoded:
    turn = 1 if as_stored else orientation_of(image)
    width, height = image.size
    if turn in (5, 6, 7, 8):
        width, height = height, width
    factor = 1
    if reduction is not None and image.format in ("JPEG", "MPO") and turn == 1:
        factor = reduction(width, height)
        if factor > 1:
            image.draft(None, (max(1, width // factor), max(1, height // factor)))
            factor = round(width / image.width)  # what the decoder could do: a power of two, at most what was asked
    if factor == 1 and turn == 1 and image.format == "JPEG" and image.mode in ("RGB", "L"):
        try:
            return _whole(_jpeg_pixels(file))
        except RuntimeError:
            pass  # Pillow reads it after all, or says what is wrong
    image.load()
    if turn != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _whole(_three_bands(_stretch(np.asarray(image))))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    pixels = np.array(image)
    if factor > 1:
        return Decoded(pixels, width, height, factor)
    return _whole(pixels)  # a TIFF turns itself while loading, so its size is known only now


def _jpeg_pixels(file: BinaryIO) -> np.ndarray:
    file.seek(0)
    data = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    return decode_jpeg(data, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()


def name_of_file(path: str) -> str:
    """A name that GDAL takes for nothing but the file; `BadImage` where there is none."""
    if path.startswith("/vsi"):
        raise BadImage(path, "GDAL takes a path that begins with /vsi for one of its own: move or link the folder")
    # drivers know names such as `GTIFF_DIR:1:/vsicurl/...`; an absolute path would ask all folders to be UTF-8
    return os.path.join(".", path)  # noqa: PTH118 - Path leaves the dot out


@contextmanager
def _raster(path: Path | str, data: bytes | None, kind: str) -> Iterator[Any]:
    """A file of Pillow's format `kind`, open in rasterio."""
    import rasterio  # not needed for ordinary photographs, and slow to import

    # the driver is fixed, because others open files that name further files and addresses
    file = name_of_file(str(path)) if data is None else BytesIO(data)
    nothing_beside = rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")  # and so may files that lie beside it
    with nothing_beside, rasterio.open(file, driver=RASTERIO_DRIVERS[kind]) as raster:
        yield raster


def _read_deep(path: Path | str, data: bytes | None, kind: str) -> np.ndarray:
    """`(H, W, 3)` uint8 of a file of Pillow's format `kind` that Pillow cannot read, or not in full depth."""
    with _raster(path, data, kind) as raster:
        if raster.width * raster.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        values, nodata = raster.read([1, 2, 3] if raster.count >= 3 else [1]), raster.nodata
    values = np.moveaxis(values, 0, -1)
    if values.dtype != np.uint8:
        values = _stretch(values, nodata)
    return _three_bands(values)


def _three_bands(values: np.ndarray) -> np.ndarray:
    if values.ndim == 2 or values.shape[-1] == 1:
        values = np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=-1)
    return np.ascontiguousarray(values)


def _stretch(values: np.ndarray, nodata: float | None = None) -> np.ndarray:
    """uint8 of the same shape: the 2nd to 98th percentile of the valid values becomes 0 to 255."""
    if np.iscomplexobj(values):
        values = np.abs(values)
    numbers = values.astype(np.float32)
    valid = np.isfinite(numbers) & (numbers != 0)
    if nodata is not None:
        valid &= numbers != np.float32(nodata)
    sample = numbers[valid]
    sample = sample[:: max(1, sample.size // 1_000_000)]
    if sample.size == 0:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = np.percentile(sample, (2, 98))
    if high <= low:  # one value: nothing to stretch, so mid-grey for what is there
        low, high = low - 1, low + 1
    scaled = np.clip((numbers - low) * (255 / (high - low)), 0, 255)
    return np.nan_to_num(scaled).round().astype(np.uint8)
