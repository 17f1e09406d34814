"""Several methods side by side: the table, the differences with their intervals, the curves, the pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmid.report.charts import COLOURS, Chart, Series, charts
from cmid.report.markup import Markup, join, tag
from cmid.report.page import Absent, Section


@dataclass(frozen=True)
class Curve:
    """A row's journal: columns of `steps.csv` and of `metrics.csv`, each `(N,)` float."""

    title: str
    steps: Mapping[str, NDArray]
    metrics: Mapping[str, NDArray]


def full_name(row: Any) -> str:
    """A row among others: its title and backbone, and a mark where others trained it."""
    return f"{row.title}, {row.backbone}" + (" (external)" if row.kind == "external" else "")


def no_differences(rows: Sequence[Any], reference: str) -> str | None:
    """Why there are none to the row that is labelled `reference`; None where there are some."""
    to = next(row for row in rows if row.label == reference)
    if len(rows) < 2:
        return "There is only one row."
    if not to.outcomes:
        return (
            f"{full_name(to)}, to which differences are taken, has no run that reached its end: name another row by "
            "--reference, or train it anew by --retry."
        )
    if not any(row.outcomes for row in rows if row is not to):
        return f"No row but {full_name(to)} has a run that reached its end: --retry trains the others anew."
    return None


def table_section(
    rows: Sequence[Any], figures: Mapping[tuple[str, str], Any], probes: Sequence[str], notes: Sequence[str] = ()
) -> Section:
    """Every row with every probe; the greatest of a column is bold.

    Args:
        rows: with label, title, kind, backbone, effective_rank and diverged by seed, images_per_s, peak_memory_gb.
        figures: (label, probe) to value, low, high, spread and difference, in percent.
        probes: in the order of the columns.
        notes: what is to be known of the figures, below them.
    """
    shown = [p for p in probes if any((row.label, p) in figures for row in rows)]
    head = tag("tr", *(tag("th", w, scope="col") for w in ("", "backbone", *shown, "rank", "images/s", "GB")))
    body = []
    for row in rows:
        cells = [_cell(figures.get((row.label, p)), _is_best(row.label, p, rows, figures)) for p in shown]
        rank = list(row.effective_rank.values())
        more = (f"{np.mean(rank):.1f}" if rank else "", _short(row.images_per_s), _short(row.peak_memory_gb))
        name = row.title + ("" if row.kind == "trained here" else f" ({row.kind})")
        note = f" {len(row.diverged)} run diverged" if row.diverged else ""
        body.append(
            tag("tr", tag("th", name, tag("small", note), scope="row"), tag("td", row.backbone), *cells,
                *(tag("td", each) for each in more))
        )  # fmt: skip
    return Section(
        "table",
        "The table",
        "Accuracy in percent on frozen features, mean over runs, with the 95 % interval over test images below it. "
        "Rank: in how many directions the features spread.",
        join((tag("div", tag("table", head, *body, class_="scores"), class_="scroll"), [tag("p", n) for n in notes])),
    )


def _is_best(label: str, probe: str, rows: Sequence[Any], figures: Mapping[tuple[str, str], Any]) -> bool:
    values = {row.label: figures[row.label, probe].value for row in rows if (row.label, probe) in figures}
    return label in values and values[label] == max(values.values())


def _cell(figure: Any, best: bool) -> Markup:
    if figure is None:
        return tag("td", "")
    value = f"{figure.value:.1f}" + ("" if math.isnan(figure.spread) else f" ± {figure.spread:.1f}")
    interval = tag("small", f"{figure.low:.1f} to {figure.high:.1f}")
    return tag("td", tag("b", value) if best else value, tag("br"), interval)


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def differences_section(
    rows: Sequence[Any], figures: Mapping[tuple[str, str], Any], probes: Sequence[str], reference: str
) -> Section | Absent:
    """Points ahead of (or behind) the row that is labelled `reference`, with intervals."""
    title = f"Difference to {full_name(next(row for row in rows if row.label == reference))}"
    if reason := no_differences(rows, reference):
        return Absent(title, reason)
    wanted = [r for r in rows if any(getattr(figures.get((r.label, p)), "difference", None) for p in probes)]
    head = tag("tr", *(tag("th", word, scope="col") for word in ("", *probes)))
    body = []
    for row in wanted:
        cells = []
        for probe in probes:
            figure = figures.get((row.label, probe))
            d = None if figure is None else figure.difference
            if d is None:
                cells.append(tag("td", ""))
                continue
            sure = d.low > 0 or d.high < 0
            value = f"{d.value:+.1f}"
            cells.append(
                tag("td", tag("b", value) if sure else value, tag("br"), tag("small", f"{d.low:+.1f} to {d.high:+.1f}"))
            )
        body.append(tag("tr", tag("th", full_name(row), scope="row"), *cells))
    return Section(
        "differences",
        title,
        "In points, taken image by image on the same test images. Bold: the interval leaves out 0, so that it is more "
        "than the choice of images; whether it is more than the choice of seeds only more seeds tell.",
        tag("div", tag("table", head, *body, class_="scores"), class_="scroll"),
    )


def curves_section(curves: Sequence[Curve]) -> Section | Absent:
    """Loss of each method (their scales differ), and what was measured of all alike as they learned."""
    alike = [
        Chart(
            title, "epoch",
            [
                Series(c.title, c.metrics["epoch"], c.metrics[name], i % COLOURS)
                for i, c in enumerate(curves)
                if name in c.metrics and "epoch" in c.metrics
            ],
        )
        for name, title in (("effective_rank", "Effective rank"), ("knn_top1", "kNN accuracy, percent"))
    ]  # fmt: skip
    losses = [
        Chart(f"Loss of {c.title}", "step", [Series("loss", c.steps["step"], c.steps["total"], i % COLOURS)])
        for i, c in enumerate(curves)
        if "total" in c.steps and "step" in c.steps
    ]
    made = charts(*(chart for chart in alike if chart.series), *losses)
    if made is None:
        return Absent("Curves", "No run has written any.")
    return Section(
        "curves",
        "Curves",
        "Of the first seed. Losses of different methods have different scales: only their shapes can be compared.",
        made,
    )


def side_by_side(anchor: str, title: str, how_to_read: str, figures: Sequence[tuple[str, Markup]]) -> Section | Absent:
    """The same figure of several methods, one below the other under its name."""
    if not figures:
        return Absent(title, "No method of the comparison has any.")
    parts = [tag("div", tag("h3", name), body) for name, body in figures]
    return Section(anchor, title, how_to_read, tag("div", *parts))
