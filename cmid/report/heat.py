"""Numbers on a coarse grid as colours over an image, and pictures of both side by side with words below."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cmid.report.pictures import RGB

COLOURS = "inferno"
HEAT, UNSEEN = 0.7, 0.45
"""Share of the colour where there is heat; brightness that is left of what the model was not shown."""
LEAST, MOST = 256, 512
"""Longer side of a panel in pixels: smaller images are enlarged, larger ones shrunk."""
GAP, MARGIN, LINE = 8, 6, 20

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels, x1 and y1 exclusive."""


@dataclass(frozen=True)
class Panel:
    """One picture of several side by side.

    Attributes:
        image: `(H, W, 3)` uint8, the same size for all.
        words: what stands below it; shortened where they are too long.
        ends: the numbers of the darkest and the brightest colour; None for a picture that is no heat map.
    """

    image: RGB
    words: str
    ends: tuple[str, str] | None = None


def spread(heat: NDArray, box: Box, height: int, width: int) -> NDArray[np.float32]:
    """`heat` `(h, w)` on the pixels of an image, of which it covers `box`: between the centres of its cells linear.

    Returns:
        `(height, width)` float32; NaN where the centre of a pixel lies outside the box.
    """
    x0, y0, x1, y1 = box
    rows = _weights(np.arange(height), y0, y1, heat.shape[0])
    columns = _weights(np.arange(width), x0, x1, heat.shape[1])
    return (rows @ heat.astype(np.float64) @ columns.T).astype(np.float32)


def _weights(pixels: NDArray, start: float, end: float, cells: int) -> NDArray[np.float64]:
    """`(pixels, cells)`: how much of each cell is in each pixel's value; rows of NaN outside."""
    place = (pixels + 0.5 - start) / (end - start) * cells
    outside = (place < 0) | (place > cells)
    place = np.clip(place - 0.5, 0, cells - 1)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells)))
    weights[outside] = np.nan
    return weights


def heat_over(image: RGB, heat: NDArray, box: Box | None = None) -> RGB:
    """Numbers `(h, w)` as colours over the grey image, from the least to the greatest of them.

    Args:
        image: `(H, W, 3)` uint8.
        heat: finite.
        box: the part of the image that `heat` covers, in its pixels; None: all. Outside it, the image is dark.

    Returns:
        `(H, W, 3)` uint8.
    """
    height, width = image.shape[:2]
    low, high = float(np.min(heat)), float(np.max(heat))
    values = spread((heat - low) / max(high - low, 1e-9), box or (0, 0, width, height), height, width)
    colours = colormaps[COLOURS](np.nan_to_num(np.clip(values, 0, 1)))[..., :3]
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., None] / 255
    drawn = HEAT * colours + (1 - HEAT) * grey
    return np.rint(255 * np.where(np.isnan(values)[..., None], UNSEEN * grey, drawn)).astype(np.uint8)


def panel_sized(image: RGB) -> RGB:
    """`image` resized so that its longer side is from `LEAST` to `MOST` pixels; as it is where it is so already."""
    height, width = image.shape[:2]
    longer = max(height, width)
    ratio = min(max(longer, LEAST), MOST) / longer
    if ratio == 1:
        return image
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def side_by_side(panels: Sequence[Panel]) -> Image.Image:
    """The panels in a row on white, with their words and, for heat, its colours from end to end."""
    height, width = panels[0].image.shape[:2]
    cell = max(width, LEAST)  # narrow images keep room for words
    sheet = Image.new("RGB", (len(panels) * (cell + GAP) + GAP, GAP + height + MARGIN + 2 * LINE + MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), _font()
    for i, panel in enumerate(panels):
        left, below = GAP + i * (cell + GAP), GAP + height + MARGIN
        sheet.paste(Image.fromarray(np.ascontiguousarray(panel.image)), (left, GAP))
        pen.text((left, below), _shortened(panel.words, cell, font), fill="black", font=font)
        if panel.ends is not None:
            _draw_scale(sheet, panel.ends, left, below + LINE, min(width, cell))
    return sheet


def _draw_scale(sheet: Image.Image, ends: tuple[str, str], left: int, top: int, width: int) -> None:
    pen, font = ImageDraw.Draw(sheet), _font()
    room = [round(font.getlength(end)) + MARGIN for end in ends]
    bar = max(8, width - sum(room))
    ramp = np.rint(255 * colormaps[COLOURS](np.linspace(0, 1, bar))[None, :, :3]).astype(np.uint8)
    pen.text((left, top), ends[0], fill="black", font=font)
    sheet.paste(Image.fromarray(np.repeat(ramp, LINE - 8, axis=0)), (left + room[0], top + 3))
    pen.text((left + room[0] + bar + MARGIN, top), ends[1], fill="black", font=font)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The letters matplotlib brings along: they know more of the world's alphabets than Pillow's own."""
    try:
        return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 13)
    except OSError:
        return ImageFont.load_default()


def _shortened(words: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`words` on one line, with dots in place of their beginning where they are too long."""
    words = "".join(letter if letter.isprintable() else "?" for letter in words)
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(f"...{words}") > width:
        words = words[1:]
    return f"...{words}"
