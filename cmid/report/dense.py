"""Features position by position: as colours, and as an answer to `where else is this spot?`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmid.report.features import principal_colours
from cmid.report.heat import heat_over
from cmid.report.markup import Markup, tag
from cmid.report.matches import centres
from cmid.report.page import Section
from cmid.report.pictures import RGB, fit, picture, square

SIDE = 224
HEAT_SIDE = 176


@dataclass(frozen=True)
class Correspondence:
    """Where the features of picked points of one image are found in another.

    Attributes:
        name: of the images.
        first: `(H, W, 3)` uint8.
        second: `(H, W, 3)` uint8.
        grid: rows and columns of the feature map of both.
        points: `(P,)` int, picked positions of the first grid, counted row by row.
        heat: `(P, h, w)` float, cosine of each point's feature with every position of the second image.
        truth: `(P, 2)` float, where each point really is, x and y in 0..1 of the second image; NaN where unknown.
    """

    name: str
    first: RGB
    second: RGB
    grid: tuple[int, int]
    points: NDArray[np.int64]
    heat: NDArray
    truth: NDArray


def colour_section(images: Sequence[tuple[str, RGB]], maps: NDArray, stride: int) -> Section:
    """Each image beside its dense features as colours.

    Args:
        images: name and `(S, S, 3)` uint8.
        maps: `(N, C, h, w)` float, their features.
        stride: pixels per position of the maps.
    """
    colours = principal_colours(maps)
    height, width = maps.shape[2:]
    cards = (
        tag(
            "figure",
            tag(
                "div", picture(image, name, SIDE), picture(enlarged(c, SIDE), f"features of {name}", SIDE), class_="two"
            ),
            tag("figcaption", name),
        )
        for (name, image), c in zip(images, colours, strict=True)
    )
    return Section(
        "dense",
        "Dense features",
        "Positions with alike features have alike colours, in all images: roofs, roads, water and fields should "
        f"separate without any label. Three principal components of {height} × {width} positions (the map of stride "
        f"{stride}), smoothly enlarged.",
        tag("div", *cards, class_="cards"),
    )


def enlarged(image: NDArray[np.uint8], side: int) -> RGB:
    """A small `(h, w, 3)` or `(h, w)` uint8 array, bicubically enlarged to `side` pixels."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BICUBIC))


def correspondence_section(pairs: Sequence[Correspondence]) -> Section:
    """The first image with its picked points, and a heat map over the second for each of them."""
    return Section(
        "correspondences",
        "Correspondences",
        "For each numbered point of the first image, bright places in the second have the most similar feature; the "
        "cross is the best match, with its cosine below, and the ring is where the point really is: they should meet.",
        tag("div", *map(_pair, pairs), class_="correspondences"),
    )


def _pair(pair: Correspondence) -> Markup:
    picked = centres(pair.points, pair.grid)
    dots = [_dot(x, y, i) for i, (x, y) in enumerate(picked)]
    first = tag("div", picture(fit(pair.first, SIDE), f"{pair.name}, first view", SIDE), *dots, class_="over")
    panels = []
    for i, (heat, truth) in enumerate(zip(pair.heat, pair.truth, strict=True)):
        best = centres(np.array([int(heat.argmax())]), (heat.shape[0], heat.shape[1]))[0]
        said = f"{heat.max():.2f}"
        panels.append(
            tag(
                "figure",
                tag(
                    "div",
                    picture(heat_over(square(pair.second, HEAT_SIDE), heat), f"similarity to point {i + 1}", HEAT_SIDE),
                    _ring(*truth) if np.isfinite(truth).all() else None,
                    tag("i", class_="cross", style=_place(*best)),
                    class_="over",
                ),
                tag("figcaption", tag("i", str(i + 1), class_=f"number c{i % 6}"), f" {said}"),
            )
        )
    second = picture(fit(pair.second, SIDE), f"{pair.name}, second view", SIDE)
    return tag(
        "figure",
        tag("div", tag("div", first, second, class_="two"), tag("div", *panels, class_="heats"), class_="pair"),
        tag("figcaption", pair.name),
    )


def _place(x: float, y: float) -> str:
    return f"left:{100 * x:.1f}%;top:{100 * y:.1f}%"


def _dot(x: float, y: float, i: int) -> Markup:
    return tag("i", str(i + 1), class_=f"number at c{i % 6}", style=_place(x, y))


def _ring(x: float, y: float) -> Markup:
    return tag("i", class_="ring", style=_place(x, y))
