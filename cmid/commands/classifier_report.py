"""The page of a classifier: what it got right and wrong, and of a run of `cmid finetune`, how it learned."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmid.commands.sources import shown_bands
from cmid.data.decode import BadImage
from cmid.data.sources import LabelledSource
from cmid.report.classifier import (
    Mistake,
    calibration_section,
    classes_section,
    confusion_section,
    mistakes_section,
)
from cmid.report.curves import loss_section, pace_section, read_table
from cmid.report.page import Absent, Header, Section, render
from cmid.report.pictures import as_rgb
from cmid.train import RunDirectory
from cmid.whole_files import write_page_whole

SHOWN = 24


def write_page(
    run: Path, test: LabelledSource, settings: Mapping[str, Any], facts: list[tuple[str, str]], *, learned: bool = True
) -> Path:
    """Writes `report.html` from what lies in the run's folder; raises `CmidError` where it cannot be written.

    Args:
        run: with scores.json and test_predictions.csv.
        test: the test images, of which some are shown.
        settings: resolved, plain.
        facts: what stands at the top, name and value.
        learned: the folder is that of a run, whose curves are shown as well.
    """
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    one = "confusion" in scores  # class an image
    sections = [
        *([confusion_section(scores), mistakes_section(_mistakes(run, test, scores))] if one else []),
        classes_section(scores),
        *([calibration_section(scores)] if one else []),
        *(_curves(run) if learned else ()),
    ]
    header = Header(
        title=run.resolve().name, facts=facts, settings=settings, skipped=list(scores["skipped"].items()),
        kicker="Classification report",
    )  # fmt: skip
    return write_page_whole(run, render(header, sections), learned=learned)


def _curves(run: Path) -> list[Section | Absent]:
    steps = read_table(RunDirectory(run).steps)
    return [
        loss_section(steps, {"classification": "Loss"}, {}),
        pace_section(steps, {"images_per_s": ("Images a second", ""), "lr": ("Learning rate", "")}),
    ]


def _mistakes(run: Path, test: LabelledSource, scores: Mapping[str, Any]) -> list[Mistake]:
    """The surest mistakes with their pictures; those that cannot be read any more are left out."""
    with (run / "test_predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = {row[0]: row[1:] for row in csv.reader(file)}  # by position: a class may be called as a column
    wanted = scores["confident_mistakes"][:SHOWN]
    places = {test.name(i): i for i in range(len(test))}
    found = []
    for name in wanted:
        truth, predicted, *chances = rows[name]
        try:
            pixels = test.decode(places[name]).pixels
        except BadImage:
            continue
        image = as_rgb(np.moveaxis(pixels, -1, 0), shown_bands(()))
        found.append(Mistake(image, name, truth, predicted, max(map(float, chances))))
    return found
