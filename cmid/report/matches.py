"""The geometry between the two views: which position of one shows the same ground as which of the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmid.report.markup import Markup, tag
from cmid.report.page import Section
from cmid.report.pictures import RGB, data_uri, fit, picture

SIDE = 224
GAP = 24  # between the two crops, in the drawing's units


@dataclass(frozen=True)
class MatchedPair:
    """Two crops of one image and the positions that are matched between them.

    Attributes:
        name: of the image.
        crops: two `(S, S, 3)` uint8.
        grid: rows and columns of the positions.
        matches: `(n, 2)` int, position in the first crop's grid and in the second's, counted row by row.
        source: the image they were cut from `(H, W, 3)` uint8, or None.
        boxes: `(2, 4)` float, x0, y0, x1, y1 of the crops in pixels of the source.
        changes: how each crop was turned and mirrored, in words; empty where it was not.
    """

    name: str
    crops: tuple[RGB, RGB]
    grid: tuple[int, int]
    matches: NDArray[np.int64]
    source: RGB | None
    boxes: NDArray
    changes: tuple[str, str]


def centres(positions: NDArray[np.int64], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Centres `(n, 2)` of grid positions `(n,)` as x and y in 0..1 of the crop as it is shown."""
    rows, columns = grid
    return np.stack(((positions % columns + 0.5) / columns, (positions // columns + 0.5) / rows), -1)


def match_section(pairs: Sequence[MatchedPair]) -> Section:
    """Source with both crop boxes, and the crops side by side with a line for each match."""
    return Section(
        "matches",
        "Matches",
        "Every line should join the same spot on the ground; the method learns that both ends deserve the same "
        "feature.",
        tag("div", *map(_card, pairs), class_="cards wide"),
    )


def _card(pair: MatchedPair) -> Markup:
    changes = [
        f"{name} crop {change}" for name, change in zip(("first", "second"), pair.changes, strict=True) if change
    ]
    count = len(pair.matches)
    said = f"{count} match{'' if count == 1 else 'es'}" if count else "no overlap, so no matches"
    said = "; ".join([said, *changes])
    return tag(
        "figure",
        tag("div", _source(pair), _crops(pair), class_="matched"),
        tag("figcaption", pair.name, tag("span", said, class_="aside")),
    )


def _source(pair: MatchedPair) -> Markup | None:
    if pair.source is None:
        return None
    height, width = pair.source.shape[:2]
    frames = []
    for i, (x0, y0, x1, y1) in enumerate(pair.boxes.astype(float)):
        place = {"x": f"{x0:.1f}", "y": f"{y0:.1f}", "width": f"{x1 - x0:.1f}", "height": f"{y1 - y0:.1f}"}
        frames += [tag("rect", class_="under", **place), tag("rect", class_=f"frame f{i}", **place)]
    overlay = tag("svg", *frames, view_box=f"0 0 {width} {height}", aria_hidden="true")
    return tag("div", picture(pair.source, f"{pair.name} with both crops", SIDE), overlay, class_="over")


def _crops(pair: MatchedPair) -> Markup:
    images = [
        tag("image", href=data_uri(fit(crop, SIDE)), x=i * (SIDE + GAP), width=SIDE, height=SIDE)
        for i, crop in enumerate(pair.crops)
    ]
    frames = [
        tag("rect", class_=f"frame f{i}", x=i * (SIDE + GAP) + 1, y=1, width=SIDE - 2, height=SIDE - 2)
        for i in range(2)
    ]
    starts = centres(pair.matches[:, 0], pair.grid) * SIDE
    ends = centres(pair.matches[:, 1], pair.grid) * SIDE + (SIDE + GAP, 0)
    lines = []
    for i, ((xa, ya), (xb, yb)) in enumerate(zip(starts, ends, strict=True)):
        bend = (i % 5 - 2) * 7  # lines of one row of positions would hide each other
        path = f"M{xa:.1f} {ya:.1f}Q{(xa + xb) / 2:.1f} {(ya + yb) / 2 + bend:.1f} {xb:.1f} {yb:.1f}"
        lines += [
            tag("path", class_="under", d=path),
            tag("path", class_=f"line c{i % 6}", d=path),
            *(
                tag("circle", class_=f"end c{i % 6}", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4)
                for x, y in ((xa, ya), (xb, yb))
            ),
        ]
    return tag(
        "svg",
        *images,
        *frames,
        *lines,
        view_box=f"0 0 {2 * SIDE + GAP} {SIDE}",
        class_="crops",
        role="img",
        aria_label=f"matches between two crops of {pair.name}",
    )
