"""Pixels for a page: colours as the camera saw them, small, inside the page itself."""

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmid.report.markup import Markup, tag

RGB = NDArray[np.uint8]  # (H, W, 3)


def as_rgb(values: NDArray, shown: Sequence[int] = (0, 1, 2)) -> NDArray[np.uint8]:
    """Colours to draw.

    Args:
        values: `(..., C, H, W)` uint8, or float in 0..1. Values outside are clipped; NaN becomes black.
        shown: the bands that are red, green and blue; where there are fewer, the first of them as grey.

    Returns:
        `(..., H, W, 3)` uint8.
    """
    count = values.shape[-3]
    bands = np.moveaxis(
        values[..., list(shown) if len(shown) == 3 and max(shown) < count else [shown[0]], :, :], -3, -1
    )
    numbers = bands
    if bands.dtype != np.uint8:
        numbers = np.rint(np.clip(np.nan_to_num(bands, nan=0.0), 0, 1) * 255).astype(np.uint8)
    return numbers if numbers.shape[-1] == 3 else np.repeat(numbers, 3, axis=-1)


def fit(image: RGB, side: int) -> RGB:
    """`image` shrunk so that its longer side is at most `side` pixels; never enlarged."""
    height, width = image.shape[:2]
    ratio = side / max(height, width)
    if ratio >= 1:
        return image
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def square(image: RGB, side: int) -> RGB:
    """The central square of `image`, resized to `side` pixels."""
    height, width = image.shape[:2]
    edge = min(height, width)
    left, top = (width - edge) // 2, (height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS, box=box))


def data_uri(image: RGB, quality: int = 85) -> str:
    """`image` as a JPEG in a data URI; full chroma, so that colours stay where they are."""
    buffer = BytesIO()
    # neither optimised nor progressive, which is 6 % smaller: Pillow has a byte a pixel for those, too little for noise
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def picture(image: RGB, alt: str, side: int = 224, quality: int = 85) -> Markup:
    """An `img` element that holds `image`, at most `side` pixels long."""
    small = fit(image, side)
    height, width = small.shape[:2]
    return tag("img", src=data_uri(small, quality), alt=alt, width=width, height=height)
