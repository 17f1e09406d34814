"""Masks on disk: what class each pixel of an image has, as numbers or as colours.

Pictures (PNG, BMP, JPEG ...) are read whole by Pillow, rasters (`.tif`, `.jp2`) window by window by GDAL. What a pixel
holds is its code: the value of an index mask (1, 8, 16 bits; a palette of its own is not looked at), or red, green and
blue in one number (`palettes.pack`).
"""

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from cmid.data.decode import FORMATS, MAX_PIXELS, BadImage, orientation_of
from cmid.data.palettes import Colour, Kind
from cmid.data.rasters import SUFFIXES as RASTERS
from cmid.data.rasters import OpenRasters, opened, reason_of

Window = tuple[int, int, int, int]
INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "LA", "PA")
MOST_CODES = 1 << 16
FEW_CODES = 32
NOTES_BYTES = 1 << 20
"""Of an `.aux.xml`: a longer one is not read for names."""


@dataclass(frozen=True)
class MaskHeader:
    """What a mask says of itself.

    Attributes:
        width: in pixels.
        height: in pixels.
        kind: what its codes are.
        lossy: it is a JPEG.
        colours: of values, where it has a table of them.
        names: of values, where it has some.
        place: of a raster, its coordinates: transform as six numbers, and the coordinate system's name.
        turn: of a picture, its EXIF orientation; width, height and what is read are as the file stores them.
    """

    width: int
    height: int
    kind: Kind
    lossy: bool = False
    colours: Mapping[int, Colour] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    place: tuple[tuple[float, ...], str] | None = None
    turn: int = 1


def is_raster(path: str) -> bool:
    """Whether a file is read by window."""
    return path.lower().endswith(RASTERS)


def mask_header(path: str, *, own_palette: bool = False) -> MaskHeader:
    """Size and kind of the mask at `path`, without its pixels.

    Args:
        path: a picture or a raster.
        own_palette: an index picture with a palette of its own is taken for one of colours.

    Raises:
        BadImage: it cannot be read as a mask.
    """
    if is_raster(path):
        return _raster_header(path)
    with _picture(path) as image:
        kind = _kind(path, image.mode, own_palette)
        return MaskHeader(*image.size, kind, image.format == "JPEG", _table(image), turn=orientation_of(image))


def read_mask(
    path: str, header_kind: Kind, window: Window | None = None, rasters: OpenRasters | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Codes `(H, W)` of a mask, uint8, uint16 or int32, and valid `(H, W)` bool, None where all are.

    Args:
        path: a picture or a raster.
        header_kind: its kind, as `mask_header` gave it.
        window: x0, y0, x1, y1; None: all of it. A picture is read whole all the same.
        rasters: what keeps rasters open.

    Raises:
        BadImage: it cannot be read, or holds values that no class can have.
    """
    if is_raster(path):
        if window is None:
            header = mask_header(path)
            window = (0, 0, header.width, header.height)
        bands = (1, 2, 3) if header_kind == "colour" else (1,)
        # black may be a nodata value of each band, and red is no nodata for that
        values, valid = (rasters or OpenRasters()).read(path, bands, window, together=header_kind == "colour")
        return _codes_of_values(path, values, header_kind, valid), None if valid.all() else valid
    x0, y0, x1, y1 = window or (0, 0, None, None)
    with _picture(path) as image:
        if header_kind == "colour":
            return _packed(np.asarray(image.convert("RGB")))[y0:y1, x0:x1], None
        return _codes_of_values(path, np.asarray(_one_band(image))[None, y0:y1, x0:x1], "value"), None


def count_codes(codes: np.ndarray) -> Counter[int]:
    """How many pixels hold each code; of more than 65,536 codes the rest are not told."""
    if codes.dtype.itemsize <= 2:
        counts = np.bincount(codes.reshape(-1))
        return Counter({int(code): int(counts[code]) for code in np.flatnonzero(counts)})
    found: Counter[int] = Counter()
    left = codes.reshape(-1)
    while left.size and len(found) < FEW_CODES:  # of few colours this takes a tenth of the time of sorting
        other = left != left[0]
        found[int(left[0])] = left.size - int(np.count_nonzero(other))
        left = left[other]
    if left.size:
        rest, counts = np.unique(left, return_counts=True)
        found.update(dict(zip(rest[:MOST_CODES].tolist(), counts.tolist(), strict=False)))
    return found


@contextmanager
def _picture(path: str) -> Iterator[Image.Image]:
    """Pillow's image of a file; raises `BadImage` for whatever fails on it, since decoders raise anything at all."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path, formats=FORMATS)
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(path, f"more than {MAX_PIXELS:,} pixels; cut it into tiles first")
            yield image
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage(path, "no such file") from None
    except Image.UnidentifiedImageError:
        raise BadImage(path, "not an image, or damaged at its start") from None
    except Exception as error:
        raise BadImage(path, " ".join(str(error).split())[:200] or type(error).__name__) from error


def _kind(path: str, mode: str, own_palette: bool) -> Kind:
    if mode in INDEX_MODES:
        return "colour" if own_palette and mode in ("P", "PA") else "value"
    if mode in ("RGB", "RGBA", "RGBX", "YCbCr", "CMYK"):
        return "colour"
    raise BadImage(path, f"its pixels are of Pillow's mode {mode}; a mask holds whole numbers or colours")


def _one_band(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "PA"):
        return image.getchannel(0)
    return image


def _table(image: Image.Image) -> dict[int, Colour]:
    """The colours of a picture with a palette of its own; none where they are the grey levels."""
    if image.mode not in ("P", "PA") or image.palette is None:
        return {}
    form, stored = image.palette.getdata()
    parts = stored if form == "RGB" else image.getpalette("RGB") or []  # which would decode every pixel
    table = {i: (parts[3 * i], parts[3 * i + 1], parts[3 * i + 2]) for i in range(len(parts) // 3)}
    return {} if all(colour == (i, i, i) for i, colour in table.items()) else table


def _codes_of_values(path: str, values: np.ndarray, kind: Kind, valid: np.ndarray | None = None) -> np.ndarray:
    """Codes of one or three bands `(C, H, W)`; where not valid, any."""
    if kind == "colour":
        return _packed(np.moveaxis(values, 0, -1))
    plane = values[0]
    if plane.dtype == np.bool_:
        return plane.astype(np.uint8)
    if plane.dtype in (np.uint8, np.uint16):
        return plane
    counted = plane if valid is None else np.where(valid, plane, 0)
    whole = np.issubdtype(plane.dtype, np.integer) or bool((counted == np.floor(counted)).all())
    if not whole or (counted.size and not 0 <= counted.min() <= counted.max() < 1 << 16):
        raise BadImage(
            path,
            f"its labels are from {counted.min():g} to {counted.max():g}{'' if whole else ', not whole'}; expected "
            "whole numbers from 0 to 65535",
        )
    return counted.astype(np.uint16)


def _packed(colours: np.ndarray) -> np.ndarray:
    wide = colours.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _raster_header(path: str) -> MaskHeader:
    from rasterio.enums import ColorInterp
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with opened(path) as raster:
            count, dtypes = raster.count, set(raster.dtypes)
            alpha = raster.colorinterp[-1] == ColorInterp.alpha
            if count - (alpha and count in (2, 4)) == 3 and dtypes == {"uint8"}:
                kind: Kind = "colour"
            elif count - (alpha and count == 2) == 1 and len(dtypes) == 1 and np.dtype(dtypes.pop()).kind in "uif":
                kind = "value"
            else:
                found = f"{count} bands of {', '.join(sorted(set(raster.dtypes)))}"
                raise BadImage(path, f"it has {found}; a mask has one band of numbers, or three 8-bit colours")
            colours: dict[int, Colour] = {}
            if kind == "value" and raster.colorinterp[0] == ColorInterp.palette:
                table = raster.colormap(1)
                colours = {int(i): (c[0], c[1], c[2]) for i, c in table.items() if c[3]}
            try:
                names = _names(path, raster.tags(), raster.tags(1))
            except OSError as error:
                raise BadImage(path, reason_of(error, path)) from error
            place = (tuple(raster.transform)[:6], raster.crs.to_string() if raster.crs else "")
            return MaskHeader(raster.width, raster.height, kind, False, colours, names, place)


def _names(path: str, tags: Mapping[str, str], of_band: Mapping[str, str]) -> dict[int, str]:
    """Names of values: of the tags that maps of this package have, else GDAL's category names beside the file."""
    try:
        told: Any = json.loads(tags.get("CLASSES", "[]"))
    except (ValueError, RecursionError):  # a tag may hold anything
        told = []
    if isinstance(told, list) and told and all(isinstance(name, str) for name in told):
        # JSON can spell halves of letters, which no file can hold
        return {i: name.encode(errors="replace").decode() for i, name in enumerate(told)}
    numbered = {int(m[1]): v for k, v in of_band.items() if (m := re.fullmatch(r"CLASS_(\d{1,5})", k))}
    if numbered:
        return numbered
    beside = Path(f"{path}.aux.xml")
    try:
        if not beside.is_file() or beside.stat().st_size > NOTES_BYTES:
            return {}
        root = ElementTree.fromstring(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, ElementTree.ParseError):
        return {}
    band = next((each for each in root.iter("PAMRasterBand") if each.get("band") == "1"), None)
    found = [] if band is None else [(each.text or "").strip() for each in band.iterfind("CategoryNames/Category")]
    return {i: name for i, name in enumerate(found) if name}
