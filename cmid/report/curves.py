"""What the run's journal says over time: losses, pace, kNN, spread of the features."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmid.report.charts import Chart, Series, charts
from cmid.report.page import Absent, Section

Table = Mapping[str, NDArray]  # column name -> (rows,) float, NaN where the cell is empty or no number


def read_table(path: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a CSV file with a header, as numbers; a missing file or one without rows has no columns.

    A last line that was cut short is left out: half a number is another number.
    """
    if not path.is_file():
        return {}
    text = path.read_bytes().decode(errors="replace")
    rows = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
    names = [name for name in rows[0] if name] if rows else []
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in names}


def _number(cell: str | None) -> float:
    try:
        return float(cell) if cell else np.nan
    except ValueError:
        return np.nan


def has(table: Table, name: str) -> bool:
    """Whether a column is there with at least one finite number."""
    return name in table and bool(np.isfinite(table[name]).any())


def loss_section(
    steps: Table,
    terms: Mapping[str, str],
    references: Mapping[str, tuple[float, str]],
    x: str = "step",
) -> Section | Absent:
    """Loss curves, a chart for each branch.

    Args:
        steps: the journal.
        terms: column name -> title, in the order of the page.
        references: column name -> a level worth knowing and what it is.
        x: the column that counts steps.
    """
    title = "Losses"
    made = charts(
        *(
            Chart(name, x, [Series(name, steps[x], steps[column], i)], references.get(column))
            for i, (column, name) in enumerate(terms.items())
            if x in steps and has(steps, column)
        )
    )
    if made is None:
        return Absent(title, "steps.csv is missing or holds no finite loss.")
    return Section(
        "losses",
        title,
        "Each branch should fall and level off; the number beside a title is the last value, a dashed line is what "
        "guessing would give.",
        made,
    )


def pace_section(steps: Table, columns: Mapping[str, tuple[str, str]], x: str = "step") -> Section | Absent:
    """Speed, waiting and learning rate: `columns` maps a column to its title and unit."""
    title = "Pace"
    made = charts(
        *(
            Chart(name, x, [Series(name, steps[x], steps[column], i)], zero=True, unit=unit)
            for i, (column, (name, unit)) in enumerate(columns.items())
            if x in steps and has(steps, column)
        )
    )
    if made is None:
        return Absent(title, "steps.csv is missing or holds neither speed nor learning rate.")
    return Section(
        "pace",
        title,
        "Images a second should be flat and data wait near zero: a wait that stays high means the loader, not the "
        "model, sets the pace.",
        made,
    )


def knn_section(
    metrics: Table, columns: Mapping[str, str], chance: float | None = None, why_not: str = "", x: str = "epoch"
) -> Section | Absent:
    """Accuracy of kNN over time.

    Args:
        metrics: the journal, a row an epoch.
        columns: column in percent -> title.
        chance: what guessing would give, in percent.
        why_not: why there may be no such column, where it is not for want of labels.
        x: the column that counts epochs.
    """
    title = "kNN accuracy"
    reference = (chance, "chance") if chance else None
    made = charts(
        *(
            Chart(name, x, [Series(name, metrics[x], metrics[column], i)], reference, zero=True, unit=" %")
            for i, (column, name) in enumerate(columns.items())
            if x in metrics and has(metrics, column)
        )
    )
    if made is None:
        unlabelled = "The run had no labelled images to score on: set knn.data to a folder of class folders."
        return Absent(title, why_not or unlabelled)
    return Section(
        "knn",
        title,
        "Share of labelled test images whose nearest labelled neighbours, by frozen features, vote for the right "
        "class; higher is better and no training is involved.",
        made,
    )


def spread_section(
    metrics: Table, columns: Mapping[str, tuple[str, tuple[float, str] | None]], x: str = "epoch"
) -> Section | Absent:
    """Feature std and effective rank: `columns` maps a column to its title and a reference level."""
    title = "Feature spread"
    made = charts(
        *(
            Chart(name, x, [Series(name, metrics[x], metrics[column], i + 4)], reference, zero=True)
            for i, (column, (name, reference)) in enumerate(columns.items())
            if x in metrics and has(metrics, column)
        )
    )
    if made is None:
        return Absent(title, "metrics.csv is missing or holds no feature std or effective rank.")
    return Section(
        "spread",
        title,
        "Both should stay well above zero: features that shrink towards one point or one direction have collapsed "
        "and tell images apart no more.",
        made,
    )


def last(table: Table, names: Sequence[str]) -> float | None:
    """The last finite value of the first of `names` that the table has."""
    for name in names:
        if has(table, name):
            values = table[name]
            return float(values[np.isfinite(values)][-1])
    return None
