"""Where images come from and how crops of them are cut and recoloured."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class ViewConfig:
    """How the crops of an image are cut and recoloured."""

    size: int = 224
    """Side of each crop in pixels, after resizing."""
    scale: tuple[float, float] = (0.3, 1.0)
    """Least and greatest share of the image's area that a crop covers."""
    ratio: tuple[float, float] = (0.75, 1.3333333)
    """Least and greatest width to height ratio of a crop."""
    flip: float = 0.5
    """Probability of a left-right mirror."""
    turn: float = 0.0
    """Probability of a turn by 0, 90, 180 or 270 degrees, each alike: pictures from above have no upside."""
    small_crops: int = 0
    """Further, small crops of each image, for methods that take some (SwAV's multi-crop)."""
    small_size: int = 96
    """Side of each small crop in pixels, after resizing."""
    small_scale: tuple[float, float] = (0.05, 0.14)
    """Least and greatest share of the image's area that a small crop covers."""
    recoloured: Literal["method", "later", "all", "none", "alternate"] = "method"
    """Which crops get other colours; later: all but the first; alternate: the second, fourth ..., which alone are
    mirrored, too. method: as the method's paper has it."""
    squash: bool = False
    """First squash the whole image to size x size whatever its aspect, as the published code does (bicubic)."""
    colour_jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Strength of brightness, contrast, saturation and hue jitter on a recoloured crop."""
    colour_jitter_p: float = 0.8
    """Probability of colour jitter."""
    blur_p: float = 1.0
    """Probability of Gaussian blur, kernel 3 to 7 px."""
    second_blur_p: float | None = None
    """The same for the second crop, where a paper treats two crops differently; unset: as the others."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Least and greatest sigma of the blur in pixels."""
    noise_p: float = 0.6
    """Probability of Gaussian noise."""
    noise_var: tuple[float, float] = (10.0, 50.0)
    """Least and greatest variance of the noise, in squared grey levels of 0 to 255."""
    solarize_p: float = 0.2
    """Probability of solarisation at grey level 128."""
    second_solarize_p: float | None = None
    """The same for the second crop; unset: as the others."""
    grey_p: float = 0.2
    """Probability of dropping colour."""
    mean: tuple[float, ...] = (0.33797, 0.3605, 0.3348)
    """Per-band mean subtracted, for values scaled to 0..1."""
    std: tuple[float, ...] = (0.1359, 0.1352, 0.1407)
    """Per-band standard deviation divided by, for values scaled to 0..1."""
    low: tuple[float, ...] = ()
    """Value of each band that becomes 0, for data of more than 8 bits (measured); empty: 8-bit data, scaled by 255."""
    high: tuple[float, ...] = ()
    """Value of each band that becomes 1, likewise."""
    bands: tuple[str, ...] = ()
    """What the bands are called, as the data say; empty: red, green, blue."""
    colours: Literal["auto", "rgb", "bands"] = "auto"
    """rgb: the operations above; bands: gain, offset and band drop instead of all that takes bands for colours."""
    band_gain: float = 0.2
    """Greatest change of each band's gain, and of their common one, on the strong view (bands only)."""
    band_offset: float = 0.1
    """Greatest offset of each band, in standard deviations (bands only)."""
    band_drop_p: float = 0.1
    """Probability that one band of the strong view is replaced by its mean (bands only)."""


@dataclass
class SceneConfig:
    """Windows of large scenes, where `source` is scenes."""

    windows: int = 0
    """Windows that make an epoch; 0: as many as would cover the scenes' area once."""
    window_px: int = 0
    """Side of a window in the scene's pixels, out of which crops are cut; 0: one and a half times views.size."""
    bands: tuple[str, ...] = ()
    """Bands by number (from 1) or by name, in the order the backbone shall see them; empty: all."""
    max_nodata: float = 0.25
    """Share of a window that may be nodata; what is becomes the band's mean."""
    statistics: int = 256
    """Windows looked at to measure the bands before training."""
    remote: bool = False
    """Let GDAL read the addresses (https, s3 ...) that a list file names."""
