"""Tiles of the ISPRS benchmarks read strip by strip, and written as GeoTIFFs that can be read by window."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmid.data.decode import MAX_PIXELS, BadImage
from cmid.data.isprs import COLOURS, nearest_class, palette
from cmid.data.masks import mask_header, read_mask
from cmid.data.palettes import UNKNOWN, shown
from cmid.data.pixel_labels import UNLABELLED
from cmid.data.rasters import OpenRasters, opened, read_header
from cmid.errors import CmidError, UsageError
from cmid.predict.raster_output import Classes, describe_map, gdal_errors

STRIP_PX = 512
BLOCK_PX = 512


@dataclass(frozen=True)
class TileImage:
    """An image, and where it lies.

    Attributes:
        pixels: `(H, W, 3)` uint8.
        place: rasterio's options `transform` and `crs`, as far as the file has them.
    """

    pixels: np.ndarray
    place: dict[str, Any]


def read_image(path: Path, told: str) -> TileImage:
    """The three bands of a tile of at most `MAX_PIXELS`; raises `UsageError` in which it is called `told`."""
    from rasterio.errors import NotGeoreferencedWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            header = read_header(str(path))
            with opened(str(path)) as raster:
                place: dict[str, Any] = {} if raster.transform.is_identity else {"transform": raster.transform}
                place |= {"crs": raster.crs} if raster.crs else {}
            if header.bands != 3 or header.dtype != "uint8":
                raise UsageError(f"{told} has {header.bands} bands of {header.dtype}; expected three of 8 bits")
            if header.width * header.height > MAX_PIXELS:
                raise UsageError(
                    f"{told} says it is {header.width:,} x {header.height:,} px, where a tile has at most "
                    f"{MAX_PIXELS:,} pixels: is this the benchmark as it was shipped?"
                )
            rasters = OpenRasters()
            strips = [
                np.moveaxis(rasters.read(str(path), (1, 2, 3), (0, y, header.width, y1))[0], 0, -1)
                for y, y1 in _strips(header.height)
            ]
    except BadImage as error:
        raise UsageError(f"{told} cannot be read: {error.reason}; fetch it again") from None
    return TileImage(np.concatenate(strips), place)


def read_labels(
    path: Path, told: str, size: tuple[int, int], classes: Sequence[str], unknown: str
) -> tuple[np.ndarray, dict[str, int]]:
    """The labels of a tile by their colours.

    Args:
        path: of the file.
        told: what it is called in errors.
        size: width and height of its image.
        classes: names, in the order of the benchmark.
        unknown: `refuse`, `nearest` or `ignore` colours that are none of the benchmark's.

    Returns:
        labels `(H, W)` uint8, and how many pixels had which unknown colour.

    Raises:
        UsageError: another size, no colours, unknown ones, or a file that is damaged.
    """
    known, strangers, strips = palette(classes, values=False), Counter[int](), []
    try:
        header = mask_header(str(path))
        if (header.width, header.height) != size:
            raise UsageError(f"{told} is {header.width} x {header.height}, its image {size[0]} x {size[1]}")
        if header.kind != "colour":
            raise UsageError(f"{told} holds numbers; expected labels in colours, as ISPRS ships them")
        rasters = OpenRasters()
        for y, y1 in _strips(header.height):
            codes, _ = read_mask(str(path), "colour", (0, y, header.width, y1), rasters)
            labels = known.encode(codes, "colour")
            away = labels == UNKNOWN
            if away.any():
                found, inverse, counts = np.unique(codes[away], return_inverse=True, return_counts=True)
                strangers.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
                labels[away] = nearest_class(found)[inverse] if unknown == "nearest" else UNLABELLED
            strips.append(labels)
    except BadImage as error:
        raise UsageError(f"{told} cannot be read: {error.reason}; fetch it again") from None
    if strangers and unknown == "refuse":
        worst = ", ".join(f"{shown(code, 'colour')} in {n:,} pixels" for code, n in strangers.most_common(4))
        more = f" and {len(strangers) - 4} more" if len(strangers) > 4 else ""
        raise UsageError(
            f"{told} holds {len(strangers)} colours that are none of the benchmark's: {worst}{more}. Potsdam's tile "
            "4_12 is known for it. Take the nearest class with --unknown nearest, or leave these pixels out, as "
            "mmsegmentation does, with --unknown ignore; what is finished is kept"
        )
    return np.concatenate(strips), {shown(code, "colour"): n for code, n in strangers.most_common(64)}


def write_tile(path: Path, array: np.ndarray, image: TileImage, classes: Sequence[str]) -> None:
    """An image `(H, W, 3)`, or labels `(H, W)` with the names and colours of `classes`, uint8, as a tiled GeoTIFF.

    Raises:
        CmidError: it cannot be written.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    bands = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    options: dict[str, Any] = {"nodata": UNLABELLED} if classes else {"photometric": "RGB", "predictor": 2}
    part = path.with_name(f".{path.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                part, "w", driver="GTiff", width=array.shape[1], height=array.shape[0], count=len(bands), dtype="uint8",
                tiled=True, blockxsize=BLOCK_PX, blockysize=BLOCK_PX, compress="deflate", **options, **image.place,
            ) as raster:  # fmt: skip
                raster.write(bands)
                if classes:
                    describe_map(raster, Classes(tuple(classes), COLOURS))
        with opened(str(part)) as raster:  # a disk that is full is not always told of while writing
            raster.checksum(len(bands))
    except BadImage as error:
        raise CmidError(f"{path} cannot be written: {error.reason}; make room, or choose another --out") from error
    except gdal_errors() as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error.__cause__ or error).split())[:200]
        raise CmidError(f"{path} cannot be written: {reason}; make room, or choose another --out") from error
    part.replace(path)


def _strips(height: int) -> list[tuple[int, int]]:
    return [(y, min(y + STRIP_PX, height)) for y in range(0, height, STRIP_PX)]
