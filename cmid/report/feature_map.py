"""All images on one plane, near where their features are alike."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmid.report.markup import Markup, tag
from cmid.report.neighbours import Thumb
from cmid.report.page import Section
from cmid.report.pictures import data_uri, square

SIDE = 48  # of a thumbnail in the sheet
SHAPES = ("round", "square", "diamond", "ring", "hollow")
COLOURS = 7
METHODS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}


def map_section(thumbs: Sequence[Thumb], places: NDArray, method: str) -> Section:
    """The images as thumbnails, or as dots in the colours of their classes.

    Args:
        thumbs: N images, with labels or without.
        places: `(N, 2)` float in 0..1.
        method: pca, tsne or umap.
    """
    sheet, columns = _sheet(thumbs)
    rows = math.ceil(len(thumbs) / columns)
    classes = sorted({t.label for t in thumbs if t.label is not None})
    points = []
    for i, (thumb, (x, y)) in enumerate(zip(thumbs, places, strict=True)):
        column, row = i % columns, i // columns
        sheet_x = 100 * column / max(1, columns - 1)
        sheet_y = 100 * row / max(1, rows - 1)
        number = classes.index(thumb.label) if thumb.label is not None else 0
        said = thumb.name if thumb.label is None else f"{thumb.label}: {thumb.name}"
        style = f"left:{100 * x:.2f}%;top:{100 * (1 - y):.2f}%;background-position:{sheet_x:.3f}% {sheet_y:.3f}%"
        points.append(tag("i", class_=_mark(number), style=style, title=said, data_class=number if classes else None))
    plane = tag("div", tag("div", *points, class_="points"), class_="plane", role="img", aria_label="map of features")
    style = f".plane i{{background-image:url({sheet});background-size:{100 * columns}% {100 * rows}%}}"
    legend = tag("div", *(_key(i, name) for i, name in enumerate(classes)), class_="classes") if classes else None
    switch = tag(
        "div",
        tag("label", tag("input", type="radio", name="marks", value="thumbs", checked=not classes), " thumbnails"),
        tag("label", tag("input", type="radio", name="marks", value="dots", checked=bool(classes)), " dots"),
        class_="switch",
    )
    name = METHODS.get(method, method)
    distances = (
        "The axes are the two directions of greatest spread."
        if method == "pca"
        else "Only nearness counts: the axes, the gaps and the sizes of groups mean nothing."
    )
    coloured = " Colour and shape are the class, which training never saw." if classes else ""
    return Section(
        "map",
        "Feature map",
        f"Each mark is one of {len(thumbs):,} images, placed by {name} so that alike features lie close: kinds of "
        f"place should gather. {distances}{coloured}",
        tag("div", tag("style", Markup(style)), switch, plane, legend, class_="map" if not classes else "map dots"),
    )


def _mark(number: int) -> str:
    return f"c{number % COLOURS} {SHAPES[number // COLOURS % len(SHAPES)]}"


def _key(number: int, name: str) -> Markup:
    return tag("button", tag("i", class_=_mark(number)), f" {name}", type="button", data_class=number)


def _sheet(thumbs: Sequence[Thumb]) -> tuple[str, int]:
    """All thumbnails in one picture, and how many stand in a row: one data URI instead of hundreds."""
    columns = max(1, math.ceil(math.sqrt(len(thumbs))))
    rows = max(1, math.ceil(len(thumbs) / columns))
    sheet = np.zeros((rows * SIDE, columns * SIDE, 3), np.uint8)
    for i, thumb in enumerate(thumbs):
        y, x = i // columns * SIDE, i % columns * SIDE
        sheet[y : y + SIDE, x : x + SIDE] = square(thumb.image, SIDE)
    return data_uri(sheet, quality=72), columns
