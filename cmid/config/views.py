"""Where images come from and how crops of them are cut and recoloured."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class ViewConfig:
    """How the crops of an image are cut and recoloured."""

    size: int = 224
    """Side of each crop in pixels, after resizing."""
    scale: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest share of the image's area that a crop covers."""
    ratio: tuple[float, float] = (0.75, 1.3333333)
    """Smallest and largest width-to-height ratio of a crop."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    turn: float = 0.0
    """Probability of turning by 0, 90, 180 or 270 degrees, each equally likely: images from above have no upside."""
    small_crops: int = 0
    """Additional small crops per image, for methods that use them (SwAV's multi-crop)."""
    small_size: int = 96
    """Side of each small crop in pixels, after resizing."""
    small_scale: tuple[float, float] = (0.05, 0.14)
    """Smallest and largest share of the image's area that a small crop covers."""
    recoloured: Literal["method", "later", "all", "none", "alternate"] = "method"
    """Which crops are recoloured. method: as in the method's paper; later: all but the first; alternate: the second,
    fourth ..., and only these are mirrored."""
    squash: bool = False
    """First squash the whole image to size x size, ignoring its aspect, as the published code does (bicubic)."""
    colour_jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Strength of brightness, contrast, saturation and hue jitter on a recoloured crop."""
    colour_jitter_p: float = 0.8
    """Probability of colour jitter."""
    blur_p: float = 1.0
    """Probability of Gaussian blur, kernel 3 to 7 px."""
    second_blur_p: float | None = None
    """Blur probability of the second crop, if a paper treats two crops differently; unset: `blur_p`."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest sigma of the blur in pixels."""
    noise_p: float = 0.6
    """Probability of Gaussian noise."""
    noise_var: tuple[float, float] = (10.0, 50.0)
    """Smallest and largest variance of the noise, in squared grey levels of 0 to 255."""
    solarize_p: float = 0.2
    """Probability of solarisation at grey level 128."""
    second_solarize_p: float | None = None
    """Solarisation probability of the second crop; unset: `solarize_p`."""
    grey_p: float = 0.2
    """Probability of conversion to grey."""
    mean: tuple[float, ...] = (0.33797, 0.3605, 0.3348)
    """Per-band mean to subtract, for values scaled to 0..1."""
    std: tuple[float, ...] = (0.1359, 0.1352, 0.1407)
    """Per-band standard deviation to divide by, for values scaled to 0..1."""
    low: tuple[float, ...] = ()
    """Value per band that is mapped to 0, for data deeper than 8 bits (measured); empty: 8-bit data, divided by 255."""
    high: tuple[float, ...] = ()
    """Value per band that is mapped to 1, likewise."""
    bands: tuple[str, ...] = ()
    """Names of the bands, taken from the data; empty: red, green, blue."""
    colours: Literal["auto", "rgb", "bands"] = "auto"
    """rgb: the operations above; bands: gain, offset and band drop instead of the operations that assume RGB."""
    band_gain: float = 0.2
    """Largest change of each band's gain, and of their common gain, on the strong view (bands only)."""
    band_offset: float = 0.1
    """Largest offset of each band, in standard deviations (bands only)."""
    band_drop_p: float = 0.1
    """Probability of replacing one band of the strong view by its mean (bands only)."""


@dataclass
class SceneConfig:
    """Windows of large scenes; used if `source` is scenes."""

    windows: int = 0
    """Windows per epoch; 0: as many as would cover the scenes' area once."""
    window_px: int = 0
    """Side of a window in the scene's pixels, from which crops are cut; 0: one and a half times views.size."""
    bands: tuple[str, ...] = ()
    """Bands by number (from 1) or by name, in the order for the backbone; empty: all."""
    max_nodata: float = 0.25
    """Windows with a larger share of nodata are redrawn; remaining nodata becomes the band's mean."""
    nodata: float | None = None
    """Value that means no data in files that do not say; unset: what each file declares."""
    statistics: int = 256
    """Number of windows, or samples of a torchgeo set, used to measure the bands before training."""
    remote: bool = False
    """Let GDAL read addresses (https, s3 ...) from a list file."""
