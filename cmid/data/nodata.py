"""Which pixels of an open raster are no measurement: by nodata values, masks, transparency, and what is no number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class OpenRaster:
    """A raster that is kept open, and what says of each of its bands which pixels are no measurement.

    Asking GDAL for the latter at each window would take longer than many a window. For each band, in order:

    Attributes:
        raster: of rasterio.
        nodata: the value that is none, in the band's own type where it can hold it; None where there is no such value.
        mask: "" where no mask need be read; else "band", or "alpha" or "file" for one that all bands share.
        alpha: whether the band is marked as transparency.
    """

    raster: Any
    nodata: tuple[Any, ...]
    mask: tuple[str, ...]
    alpha: tuple[bool, ...]

    @classmethod
    def of(cls, raster: Any) -> "OpenRaster":
        """What rasterio says of an open raster."""
        from rasterio.enums import ColorInterp, MaskFlags

        nodata, mask = [], []
        for flags, value, dtype in zip(raster.mask_flag_enums, raster.nodatavals, raster.dtypes, strict=True):
            by_value = MaskFlags.nodata in flags and value is not None
            nodata.append(_in_type(value, np.dtype(dtype)) if by_value else None)
            if by_value or MaskFlags.all_valid in flags:
                mask.append("")
            elif MaskFlags.alpha in flags:
                mask.append("alpha")
            else:
                mask.append("file" if MaskFlags.per_dataset in flags else "band")
        alpha = tuple(interp == ColorInterp.alpha for interp in raster.colorinterp)
        return cls(raster, tuple(nodata), tuple(mask), alpha)

    def valid(self, bands: Sequence[int], values: np.ndarray, where: Any, *, together: bool = False) -> np.ndarray:
        """Which pixels of a window hold a measurement, `(h, w)` bool.

        Args:
            bands: numbers from 1.
            values: `(C, h, w)`, what was read of those bands.
            where: rasterio's window.
            together: a nodata value hides a pixel only where all of the bands hold theirs.
        """
        valid = np.ones(values.shape[1:], np.bool_)
        measured_alpha = any(self.alpha[band - 1] for band in bands)
        seen = {""} | ({"alpha"} if measured_alpha else set())
        for band in bands:
            if (mask := self.mask[band - 1]) not in seen:
                valid &= self.raster.read_masks(band, window=where) > 0
                seen |= {mask} - {"band"}  # the others are the same for all bands
        there = np.zeros_like(valid)
        for band, plane in zip(bands, values, strict=True):
            if (nodata := self.nodata[band - 1]) is not None:
                # from the values at hand: `read_masks` would read the window again
                if together:
                    there |= plane != nodata
                else:
                    valid &= plane != nodata
            else:
                there[:] = True
            if plane.dtype.kind == "f":
                valid &= np.isfinite(plane)
        return valid & there if together else valid


def hide_undeclared(
    values: np.ndarray, valid: np.ndarray, bands: Sequence[int], declared: Sequence[bool], nodata: float
) -> None:
    """Takes `nodata` for the nodata value of those bands of a raster of which the file names none.

    Args:
        values: `(C, h, w)`, in the file's type.
        valid: `(h, w)` bool, in which what holds no data becomes False.
        bands: which were read, numbers from 1.
        declared: of each band of the file, whether it names a value.
        nodata: the value; what the file's type cannot hold hides nothing.
    """
    if not can_hold(values.dtype, nodata):
        return
    with np.errstate(over="ignore"):
        # compared with a real number, integers would all be made real first
        value = values.dtype.type(nodata if values.dtype.kind == "f" else int(nodata))
    for band, plane in zip(bands, values, strict=True):
        if not declared[band - 1]:
            valid &= plane != value


def can_hold(dtype: np.dtype | str, nodata: float) -> bool:
    """Whether a pixel of this type can have the value `nodata`; real numbers are rounded to theirs."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return True
    return float(nodata).is_integer() and np.iinfo(dtype).min <= int(nodata) <= np.iinfo(dtype).max


def _in_type(nodata: float, dtype: np.dtype) -> Any:
    """`nodata` as a number that an array of `dtype` is compared with soonest; None where no value can equal it."""
    if dtype.kind == "f" or dtype.itemsize > 4:  # 64 bits: GDAL's real number is not exact, so compared as reals
        return None if np.isnan(nodata) else nodata
    # compared with a real number all values would be made real first, which takes eight times as long
    return dtype.type(nodata) if can_hold(dtype, nodata) else None
