"""What a classifier got right and wrong: confusion matrix, calibration, each class, the surest mistakes.

All from the plain values of `scores.json`, so that a page can be drawn again without the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmid.report.charts import Chart, Series, charts
from cmid.report.markup import Markup, tag
from cmid.report.page import Absent, Section
from cmid.report.pictures import RGB, picture

SIDE = 128


@dataclass(frozen=True)
class Mistake:
    """An image `(H, W, 3)` uint8 that was given another class than its own, and how sure the classifier was, 0 to 1."""

    image: RGB
    name: str
    truth: str
    predicted: str
    confidence: float


def confusion_section(scores: Mapping[str, Any]) -> Section:
    """The confusion matrix, darker for a greater share of a class's images, and the pairs confused most."""
    classes = [each["name"] for each in scores["per_class"]]
    counts = np.asarray(scores["confusion"])
    head = tag("tr", tag("th", ""), *(tag("th", tag("span", name), scope="col") for name in classes))
    rows = [_row(name, row, i, classes) for i, (name, row) in enumerate(zip(classes, counts, strict=True))]
    pairs = [
        tag("tr", tag("td", f"{p['truth']} taken for {p['predicted']}"), tag("td", f"{p['count']}"),
            tag("td", f"{100 * p['share']:.0f} % of its images"))
        for p in scores["confused"]
    ]  # fmt: skip
    return Section(
        "confusion",
        "Confusion matrix",
        "Rows are what an image is, columns what it was called; all on the diagonal would be right. The darker, the "
        "greater the share of the row.",
        tag(
            "div",
            tag("div", tag("table", head, *rows, class_="confusion"), class_="scroll"),
            tag("h3", "Confused most") if pairs else None,
            tag("table", *pairs) if pairs else None,
        ),
    )


def _row(name: str, row: np.ndarray, own: int, classes: Sequence[str]) -> Markup:
    total = max(1, int(row.sum()))
    cells = []
    for column, count in enumerate(row.tolist()):
        colour = "var(--c0)" if column == own else "var(--c1)"
        shade = f"background: color-mix(in srgb, {colour} {round(85 * count / total)}%, transparent)"
        said = f"{name} called {classes[column]}: {count} of {int(row.sum())}"
        cells.append(tag("td", count if count else "", style=shade if count else None, title=said))
    return tag("tr", tag("th", name, scope="row"), *cells)


def classes_section(scores: Mapping[str, Any]) -> Section:
    """Precision, recall and F1 of each class, the worst first."""
    worst = sorted(scores["per_class"], key=lambda each: -1.0 if each["f1"] is None else each["f1"])
    shown = {"f1": "F1", "precision": "precision", "recall": "recall"}
    if any(each.get("average_precision") is not None for each in worst):
        shown = {"average_precision": "AP", **shown}
    head = tag("tr", *(tag("th", word, scope="col") for word in ("class", *shown.values(), "images")))
    rows = [
        tag("tr", tag("td", c["name"]), *(tag("td", _percent(c[k])) for k in shown),
            tag("td", c["support"]))
        for c in worst
    ]  # fmt: skip
    return Section(
        "classes",
        "Each class",
        "The worst first, in percent. Precision: of the images called so, how many are. Recall: of its images, how "
        "many were called so.",
        tag("div", tag("table", head, *rows, class_="scores"), class_="scroll"),
    )


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f}"


def calibration_section(scores: Mapping[str, Any]) -> Section | Absent:
    """Accuracy over confidence."""
    bins = [b for b in scores["calibration"] if b["images"]]
    x = np.array([100 * b["confidence"] for b in bins])
    accuracy = np.array([100 * b["accuracy"] for b in bins])
    made = charts(
        Chart(
            "Right answers, in percent", "confidence in percent",
            [Series("measured", x, accuracy, 0), Series("if it knew itself", x, x, 6)], zero=True, unit=" %",
        )
    )  # fmt: skip
    if made is None:
        return Absent("Calibration", "There are no test images.")
    error = 100 * scores["expected_calibration_error"]
    return Section(
        "calibration",
        "Calibration",
        "Of the answers given with 80 % confidence, 80 % should be right. Below the second line it is too sure, above "
        f"it too modest; the mean distance is {error:.1f} points.",
        made,
    )


def mistakes_section(mistakes: Sequence[Mistake]) -> Section | Absent:
    """Pictures of the mistakes made with the greatest confidence."""
    title = "Surest mistakes"
    if not mistakes:
        return Absent(title, "No test image was given another class than its own.")
    figures = [
        tag(
            "figure",
            picture(m.image, m.name, SIDE),
            tag(
                "figcaption", tag("b", f"{m.truth} "), tag("span", f"called {m.predicted}, {100 * m.confidence:.0f} %")
            ),
            title=m.name,
        )
        for m in mistakes
    ]
    return Section(
        "mistakes",
        title,
        "Wrong answers given with the greatest confidence: is the label, the picture or the model at fault?",
        tag("div", *figures, class_="mistakes"),
    )
