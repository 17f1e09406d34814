"""What a segmenter got right and wrong: protocols, confusion matrix, each class, images with labels and answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmid.report.markup import Markup, tag
from cmid.report.page import Absent, Section
from cmid.report.pictures import RGB, fit, picture

SIDE = 320
QUALITY = 85
"""JPEG quality of pictures of the ground."""
FLAT = 95
"""JPEG quality of pictures of flat colours."""
UNLABELLED = 255
BLANK = (255, 255, 255)
"""The colour of pixels without a label."""
SHARE_OVER = 0.5
"""Of a class's colour where it lies over the image."""
Legend = Sequence[tuple[str, tuple[int, int, int]]]


@dataclass(frozen=True)
class Tile:
    """An image with what it is and what the model says.

    Attributes:
        image: `(H, W, 3)` uint8.
        labels: `(H, W)` uint8, 255 where there is none.
        predicted: `(H, W)` uint8.
        name: of the image.
        mean_iou: 0 to 1, over the classes that are in it; NaN where none is.
    """

    image: RGB
    labels: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    name: str
    mean_iou: float


def protocols_section(scores: Mapping[str, Any]) -> Section:
    """The figures by each protocol, so that none is read without it."""
    head = tag("tr", *(tag("th", word, scope="col") for word in ("protocol", "mIoU", "mF1", "OA", "pixels")))
    rows = [
        tag(
            "tr", tag("td", p["protocol"]),
            *(tag("td", _percent(p[key])) for key in ("mean_iou", "mean_f1", "overall_accuracy")),
            tag("td", f"{p['pixels']:,}"),
        )
        for p in scores["protocols"]
    ]  # fmt: skip
    low, high = (100 * each for each in scores["interval"])
    return Section(
        "protocols",
        "Scores",
        "In percent, of all test pixels together. Figures of other protocols, or other papers' without one, cannot be "
        f"compared. The first mIoU lies between {low:.2f} and {high:.2f} with 95 % over draws of the test images.",
        tag("div", tag("table", head, *rows, class_="scores"), class_="scroll"),
    )


def confusion_section(scores: Mapping[str, Any]) -> Section:
    """The confusion matrix in percent of each row, darker for more."""
    classes = [each["name"] for each in scores["protocols"][-1]["per_class"]]
    counts = np.asarray(scores["confusion"], dtype=float)
    head = tag("tr", tag("th", ""), *(tag("th", tag("span", name), scope="col") for name in classes))
    rows = []
    for own, (name, row) in enumerate(zip(classes, counts, strict=True)):
        shares = 100 * row / max(1.0, row.sum())
        cells = []
        for column, share in enumerate(shares.tolist()):
            colour = "var(--c0)" if column == own else "var(--c1)"
            shade = f"background: color-mix(in srgb, {colour} {round(0.85 * share)}%, transparent)"
            said = f"{share:.2f} % of {name} called {classes[column]} ({int(row[column]):,} pixels)"
            shown = f"{share:.1f}" if share >= 0.05 else ""
            cells.append(tag("td", shown, style=shade if share >= 0.5 else None, title=said))
        rows.append(tag("tr", tag("th", name, scope="row"), *cells))
    return Section(
        "confusion",
        "Confusion matrix",
        "Rows are what a pixel is, columns what it was called, in percent of the row; all on the diagonal would be "
        "right.",
        tag("div", tag("table", head, *rows, class_="confusion"), class_="scroll"),
    )


def classes_section(scores: Mapping[str, Any]) -> Section:
    """IoU, F1, precision and recall of each class by the first protocol, the worst first."""
    known = [each for each in scores["protocols"][0]["per_class"] if each["counts"]]
    worst = sorted(known, key=lambda each: -1.0 if each["iou"] is None else each["iou"])
    total = max(1, sum(each["pixels"] for each in known))
    head = tag(
        "tr", *(tag("th", w, scope="col") for w in ("class", "IoU", "F1", "precision", "recall", "share of pixels"))
    )
    rows = [
        tag(
            "tr", tag("td", c["name"]), *(tag("td", _percent(c[k])) for k in ("iou", "f1", "precision", "recall")),
            tag("td", _percent(c["pixels"] / total)),
        )
        for c in worst
    ]  # fmt: skip
    return Section(
        "classes",
        "Each class",
        "The worst first, in percent. Precision: of the pixels called so, how many are. Recall: of its pixels, how "
        "many were called so. IoU counts both kinds of mistake.",
        tag("div", tag("table", head, *rows, class_="scores"), class_="scroll"),
    )


def tiles_section(anchor: str, title: str, how_to_read: str, tiles: Sequence[Tile], legend: Legend) -> Section | Absent:
    """Image, labels, answer, and the answer over the image, each with its caption, and a legend."""
    if not tiles:
        return Absent(title, "There are no such test images.")
    colours = dict(enumerate(colour for _, colour in legend))
    shown = [
        tag(
            "figure",
            tag("div", *(_captioned(*each, t.name) for each in _pictures(t, colours)), class_="four"),
            tag("figcaption", tag("b", t.name), tag("span", f" mIoU {_percent(t.mean_iou)} %")),
        )
        for t in tiles
    ]
    keys = [
        tag("span", tag("i", class_="swatch", style=f"background: rgb({r} {g} {b})"), name)
        for name, (r, g, b) in legend
    ]
    return Section(
        anchor, title, how_to_read, tag("div", tag("p", *keys, class_="legend"), tag("div", *shown, class_="tiles"))
    )


def _pictures(tile: Tile, colours: Mapping[int, tuple[int, int, int]]) -> list[tuple[RGB, str, int]]:
    """What is shown of a tile: picture, caption, JPEG quality."""
    image, answer = fit(tile.image, SIDE), _drawn(tile.predicted, colours)
    return [
        (image, "image", QUALITY),
        (over(image, answer), "predicted, over the image", QUALITY),
        (_drawn(tile.labels, colours), "labels", FLAT),
        (answer, "predicted", FLAT),
    ]


def _captioned(image: RGB, caption: str, quality: int, name: str) -> Markup:
    return tag("div", picture(image, f"{name}, {caption}", SIDE, quality), tag("span", caption))


def over(image: RGB, colours: RGB) -> RGB:
    """`colours` `(H, W, 3)` blended over an image of the same size."""
    return np.rint((1 - SHARE_OVER) * image + SHARE_OVER * colours.astype(float)).astype(np.uint8)


def _drawn(classes: NDArray[np.uint8], colours: Mapping[int, tuple[int, int, int]]) -> RGB:
    """Classes in their colours, shrunk without mixing them."""
    table = np.full((256, 3), BLANK, np.uint8)
    for i, colour in colours.items():
        table[i] = colour
    height, width = classes.shape
    ratio = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return table[np.asarray(Image.fromarray(classes).resize(size, Image.Resampling.NEAREST))]


def _percent(share: float | None) -> Markup | str:
    return "none" if share is None or math.isnan(share) else f"{100 * share:.1f}"
