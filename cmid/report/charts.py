"""Line charts as stretched inline SVG under HTML labels: crisp and readable at any width, in print and without JS."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cmid.report.markup import Markup, tag

BINS = 120  # points drawn for a long curve; more would only thicken the line
FEW = 30  # points that are marked one by one
COLOURS = 8  # classes c0 to c7 of page.css


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        label: its name.
        x: `(N,)` float, ascending.
        y: `(N,)` float; values that are not finite are left out.
        colour: 0 to 7, its place in the page's palette.
    """

    label: str
    x: NDArray
    y: NDArray
    colour: int = 0


@dataclass(frozen=True)
class Chart:
    """What one chart shows.

    Attributes:
        title: what is plotted, with its unit.
        x_label: what the horizontal axis counts.
        series: the curves; those without a finite value are left out.
        reference: a level worth a dashed line, and what it is; drawn where it lies near the curves.
        zero: whether the axis starts at zero.
        unit: written after values.
    """

    title: str
    x_label: str
    series: Sequence[Series]
    reference: tuple[float, str] | None = None
    zero: bool = False
    unit: str = ""


@dataclass(frozen=True)
class Binned:
    """A curve as drawn: mean, least and greatest value of each bin of neighbouring points."""

    x: NDArray
    mean: NDArray
    low: NDArray
    high: NDArray
    width: int


def binned(x: NDArray, y: NDArray, bins: int = BINS) -> Binned:
    """At most `bins` points of a curve `(N,)`, `(N,)`; `width` is how many points each stands for."""
    width = max(1, -(-len(x) // bins))
    starts = np.arange(0, len(x), width)
    counts = np.diff(np.append(starts, len(x)))
    return Binned(
        np.add.reduceat(x, starts) / counts,
        np.add.reduceat(y, starts) / counts,
        np.minimum.reduceat(y, starts),
        np.maximum.reduceat(y, starts),
        width,
    )


def short(value: float) -> str:
    """A number in at most four significant digits: 0.01234 -> 0.01234, 12345.6 -> 12,350."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-3:
        return f"{value:.3g}"
    rounded = float(f"{value:.4g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers within low..high, about `count` of them."""
    values = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(v) for v in values if low - slack <= v <= high + slack]


def _path(x: NDArray, y: NDArray) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _finite(series: Series) -> Series:
    good = np.isfinite(series.x) & np.isfinite(series.y)
    return Series(series.label, series.x[good].astype(float), series.y[good].astype(float), series.colour)


def line_chart(chart: Chart) -> Markup | None:
    """The chart as a `figure`, or None where no series has a finite value."""
    series = [s for s in map(_finite, chart.series) if len(s.x)]
    if not series:
        return None
    drawn = [binned(s.x, s.y) for s in series]
    x0, x1 = min(s.x[0] for s in series), max(s.x[-1] for s in series)
    x0, x1 = (x0, x1) if x1 > x0 else (x0 - 0.5, x1 + 0.5)
    low, high = min(d.low.min() for d in drawn), max(d.high.max() for d in drawn)
    reference = chart.reference
    if reference is not None and not low - (high - low) <= reference[0] <= high + (high - low):
        reference = None
    if reference is not None:
        low, high = min(low, reference[0]), max(high, reference[0])
    low = min(low, 0.0) if chart.zero else low
    pad = 0.06 * (high - low) or max(abs(high) * 0.1, 0.5)
    low, high = low - (0 if chart.zero and low == 0 else pad), high + pad

    def across(x: NDArray | float) -> NDArray:
        return (np.asarray(x) - x0) / (x1 - x0) * 1000

    def down(y: NDArray | float) -> NDArray:
        return (high - np.asarray(y)) / (high - low) * 400

    shapes, labels = [], []
    for value in ticks(low, high, 4):
        y = float(down(value))
        shapes.append(tag("path", class_="grid", d=f"M0 {y:.1f}H1000"))
        labels.append(tag("span", short(value), class_="y", style=f"top:{y / 4:.2f}%"))
    x_ticks = ticks(x0, x1, 5)
    for value in x_ticks:
        labels.append(tag("span", short(value), class_="x", style=f"left:{float(across(value)) / 10:.2f}%"))
    if reference is not None:
        y = float(down(reference[0]))
        shapes.append(tag("path", class_="reference", d=f"M0 {y:.1f}H1000"))
        labels.append(tag("span", reference[1], class_="note", style=f"top:{y / 4:.2f}%"))
    for s, d in zip(series, drawn, strict=True):
        if d.width > 1:
            outline = _path(np.append(across(d.x), across(d.x[::-1])), np.append(down(d.high), down(d.low[::-1])))
            shapes.append(tag("path", class_=f"band c{s.colour % COLOURS}", d=outline + "Z"))
        shapes.append(tag("path", class_=f"line c{s.colour % COLOURS}", d=_path(across(d.x), down(d.mean))))
        if len(d.x) <= FEW:
            points = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(across(d.x), down(d.mean), strict=True))
            shapes.append(tag("path", class_=f"points c{s.colour % COLOURS}", d=points))
    plot = tag(
        "div",
        tag("svg", *shapes, view_box="0 0 1000 400", preserveaspectratio="none", aria_hidden="true"),
        *labels,
        class_="plot",
        data_chart=_hover(series, drawn, (x0, x1), (low, high), chart),
    )
    return tag(
        "figure",
        tag("figcaption", tag("b", chart.title), _legend(series, chart.unit)),
        plot,
        tag("p", chart.x_label, _binning_note(drawn), class_="axis"),
        class_="chart",
    )


def _legend(series: Sequence[Series], unit: str) -> Markup:
    keys = (
        tag(
            "span",
            tag("i", class_=f"key c{s.colour % COLOURS}"),
            f"{s.label} " if len(series) > 1 else "",
            tag("b", short(float(s.y[-1])) + unit),
        )
        for s in series
    )
    return tag("span", *keys, class_="legend")


def _binning_note(drawn: Sequence[Binned]) -> str | None:
    width = max(d.width for d in drawn)
    return f" · line: mean of {width} rows, band: their range" if width > 1 else None


def _hover(
    series: Sequence[Series],
    drawn: Sequence[Binned],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    chart: Chart,
) -> str:
    def numbers(values: NDArray) -> list[float]:
        return [float(f"{v:.4g}") for v in values]

    curves = [
        {"label": s.label, "colour": s.colour % COLOURS, "x": [float(f"{v:.6g}") for v in d.x], "y": numbers(d.mean)}
        for s, d in zip(series, drawn, strict=True)
    ]
    whole = {"x": x_range, "y": y_range, "unit": chart.unit, "name": chart.x_label, "curves": curves}
    return json.dumps(whole, separators=(",", ":"))


def charts(*wanted: Chart) -> Markup | None:
    """Several charts in a grid, or None where none has data."""
    made = [figure for figure in map(line_chart, wanted) if figure is not None]
    return tag("div", *made, class_="charts") if made else None
