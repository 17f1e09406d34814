"""Example images beside the images that the features call most alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from cmid.report.markup import Markup, tag
from cmid.report.page import Section
from cmid.report.pictures import RGB, picture

SIDE = 112


@dataclass(frozen=True)
class Thumb:
    """One image: `(H, W, 3)` uint8, its name, and its class where it is known."""

    image: RGB
    name: str
    label: str | None = None


@dataclass(frozen=True)
class Neighbours:
    """A query, its nearest images, and their cosine distances (0 to 2)."""

    query: Thumb
    found: Sequence[Thumb]
    distances: Sequence[float]


def neighbour_section(rows: Sequence[Neighbours], gallery: int) -> Section:
    """A row for each query; `gallery` is how many images were searched."""
    labelled = any(row.query.label is not None for row in rows)
    return Section(
        "neighbours",
        "Nearest neighbours",
        f"Each framed image is followed by the nearest of {gallery:,} images, with their cosine distance; the same "
        "kind of place should come back, not merely the same colour."
        + (" A tick marks the query's class, which training never saw." if labelled else ""),
        tag("div", *map(_row, rows), class_="neighbours"),
    )


def _row(row: Neighbours) -> Markup:
    found = []
    for thumb, distance in zip(row.found, row.distances, strict=True):
        same = row.query.label is not None and thumb.label == row.query.label
        found.append(_figure(thumb, f"{distance:.3f}", "same" if same else None))
    return tag("div", _figure(row.query, "query", "query"), *found, class_="row")


def _figure(thumb: Thumb, note: str, kind: str | None) -> Markup:
    said = tag("span", thumb.label, class_="label") if thumb.label is not None else None
    return tag(
        "figure",
        picture(thumb.image, thumb.name, SIDE),
        tag("figcaption", tag("b", note), said),
        title=thumb.name,
        class_=kind,
    )
