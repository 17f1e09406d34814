"""The page of a segmenter: its confusion matrix, each class, and its worst images with labels and answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmid.commands.segment_images import HowToLook, classes_of
from cmid.commands.sources import shown_bands
from cmid.data.pixel_labels import PixelSource
from cmid.data.pixel_subsets import PixelSubset
from cmid.report.curves import loss_section, pace_section, read_table
from cmid.report.page import Header, render
from cmid.report.pictures import as_rgb
from cmid.report.segmentation import Tile, classes_section, confusion_section, protocols_section, tiles_section
from cmid.tasks.segmentation import Segmenter
from cmid.train import RunDirectory
from cmid.whole_files import write_page_whole

SHOWN = 12
"""Images on the page: the worst, and as many evenly spaced among the rest."""


def write_page(
    folder: Path,
    learner: Segmenter,
    source: PixelSource,
    look: HowToLook,
    scores: Mapping[str, Any],
    rows: list[dict[str, Any]],
    facts: list[tuple[str, str]],
    settings: Mapping[str, Any],
    *,
    learned: bool,
) -> Path:
    """Writes `report.html`; raises `CmidError` where it cannot be written.

    Args:
        folder: where it goes.
        learner: looks again at the images that are shown.
        source: the images that were scored.
        look: how they are given to it.
        scores: as in scores.json.
        rows: of the images, the worst first.
        facts: what stands at the top, name and value.
        settings: resolved, plain.
        learned: the folder is that of a training run, whose curves are shown as well.
    """
    worst = rows[: SHOWN // 2]
    rest = rows[len(worst) :]
    among = [rest[i] for i in np.linspace(0, len(rest) - 1, min(SHOWN // 2, len(rest))).round().astype(int)]
    legend = list(zip(source.classes, source.colours, strict=True))
    sections: list[Any] = [
        protocols_section(scores),
        tiles_section(
            "worst", "Worst images", "Those with the least mIoU over the classes that are in them: the image, what "
            "the model says in the classes' colours over the image, its labels, and what the model says alone. Is the "
            "label, the image or the model at fault?",
            _tiles(learner, source, look, worst), legend,
        ),
        tiles_section(
            "others", "Other images", "Evenly spaced among the rest, from bad to good.",
            _tiles(learner, source, look, among), legend,
        ),
        confusion_section(scores),
        classes_section(scores),
    ]  # fmt: skip
    if learned:
        steps = read_table(RunDirectory(folder).steps)
        names = {"segmentation": "Loss", "auxiliary": "Auxiliary head's loss"}
        sections += [
            loss_section(steps, {k: v for k, v in names.items() if k in steps}, {}),
            pace_section(steps, {"images_per_s": ("Images a second", ""), "lr": ("Learning rate", "")}),
        ]
    header = Header(
        title=folder.resolve().name, facts=facts, settings=settings, skipped=list(scores["skipped"].items()),
        kicker="Segmentation report",
    )  # fmt: skip
    return write_page_whole(folder, render(header, sections), learned=learned)


def _tiles(learner: Segmenter, source: PixelSource, look: HowToLook, rows: list[dict[str, Any]]) -> list[Tile]:
    """The images of `rows` with what the model says of them; those that cannot be read any more are left out."""
    if not rows:
        return []
    some = PixelSubset(source, [row["position"] for row in rows])
    device, tiles = next(learner.parameters()).device, {}
    for i, image, classes in classes_of(learner, some, look, device, {}):
        picture = as_rgb(np.moveaxis(image.pixels, -1, 0), shown_bands(()))
        tiles[i] = Tile(picture, image.labels, classes, rows[i]["image"], rows[i]["mean_iou"])
    return [tiles[i] for i in sorted(tiles)]
