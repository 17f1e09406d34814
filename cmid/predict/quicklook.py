"""A picture of at most 1600 px: the scene and its map side by side, with a legend."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cmid.predict.blend import NODATA
from cmid.predict.raster_output import Classes

SIDE = 760
"""Pixels of the longer side of each of the two."""
GAP, LINE, PAPER, INK = 16, 24, (255, 255, 255), (34, 34, 34)
EMPTY = (235, 235, 235)
LEGEND_AT_MOST = 60


def natural_colours(values: NDArray[np.float32], *, eight_bit: bool) -> NDArray[np.uint8]:
    """`(1 or 3, h, w)` measurements, NaN where there are none, as `(h, w, 3)` for the eye.

    Eight bits are shown as they are; other values are stretched from the 2nd to the 98th percentile of each band.
    """
    shown = np.empty((*values.shape[1:], 3), np.uint8)
    for channel in range(3):
        band = values[channel % len(values)]
        measured = np.isfinite(band)
        low, high = (0.0, 255.0) if eight_bit or not measured.any() else np.percentile(band[measured], (2, 98))
        level = (band - low) / max(float(high - low), 1e-12) * 255
        shown[..., channel] = np.where(measured, np.nan_to_num(level).clip(0, 255).round(), EMPTY[channel])
    return shown


def write_quicklook(
    out: Path, picture: NDArray[np.uint8], map_: NDArray[np.uint8], classes: Classes, counts: NDArray[np.int64]
) -> None:
    """Writes the picture as PNG.

    Args:
        out: the file.
        picture: `(h, w, 3)`, the scene.
        map_: `(h, w)`, its classes at the same pixels.
        classes: names and colours.
        counts: pixels of each class in the whole map.
    """
    table = np.array([*classes.table, *[EMPTY] * (256 - len(classes))], np.uint8)
    height, width = map_.shape
    factor = max(1, min(SIDE // max(height, width), 8))  # a small scene is enlarged, pixel by pixel
    both = [np.kron(each, np.ones((factor, factor, 1), np.uint8)) for each in (picture, table[map_])]
    height, width = height * factor, width * factor
    rows = _legend(classes, counts)
    # the legend lies below, in as many columns as fit
    font = ImageFont.load_default(15)
    wide = max((int(font.getlength(text)) for _, text in rows), default=0) + 2 * LINE
    whole = max(2 * width + 3 * GAP, min(wide + 2 * GAP, 2 * SIDE + 3 * GAP))
    columns = max(1, (whole - 2 * GAP) // max(wide, 1))
    deep = -(-len(rows) // columns)
    page = Image.new("RGB", (whole, height + deep * LINE + 3 * GAP), PAPER)
    page.paste(Image.fromarray(both[0]), (GAP, GAP))
    page.paste(Image.fromarray(both[1]), (2 * GAP + width, GAP))
    pen = ImageDraw.Draw(page)
    for k, (colour, text) in enumerate(rows):
        x, y = GAP + (k // deep) * wide, height + 2 * GAP + (k % deep) * LINE
        pen.rectangle((x, y + 3, x + 15, y + 18), fill=colour, outline=INK)
        pen.text((x + LINE, y + 2), text, fill=INK, font=font)
    page.save(out, format="PNG")


def _legend(classes: Classes, counts: NDArray[np.int64]) -> list[tuple[tuple[int, int, int], str]]:
    """Colour and text of each class that is in the map, the most frequent first where there are too many to show."""
    total = max(1, int(counts[:NODATA].sum()))
    found = [i for i in range(len(classes)) if counts[i]]
    most = sorted(sorted(found, key=lambda i: -counts[i])[:LEGEND_AT_MOST])
    return [(classes.table[i], f"{classes.names[i][:40]}  {100 * counts[i] / total:.1f} %") for i in most]
