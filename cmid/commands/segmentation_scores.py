"""A segmenter on labelled images: its scores by each protocol, its worst images, and the files that keep them."""

import csv
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cmid.commands.segment_images import Found, HowToLook, segment_images
from cmid.commands.segmentation_parts import Parts
from cmid.commands.segmentation_report import write_page
from cmid.commands.sources import progress
from cmid.config import as_plain
from cmid.data.pixel_labels import PixelSource
from cmid.evaluation.bootstrap import Interval
from cmid.evaluation.segmentation import (
    ISPRS_CLASSES,
    Protocol,
    SegmentationScores,
    isprs_protocols,
    score_segmentation,
)
from cmid.evaluation.segmentation_interval import mean_iou_interval
from cmid.tasks.segmentation import Segmenter
from cmid.train import FitResult
from cmid.whole_files import write_whole
from cmid.zoo.segmenter_files import SegmenterMetadata, save_segmenter

RESAMPLES = 1000
WRITTEN = ("scores.json", "tiles.csv", "report.html")


@dataclass(frozen=True)
class SegmentationResult:
    """What a run of segmentation left, or an evaluation found.

    Attributes:
        run: its directory; None where nothing was written.
        model: the segmenter's file.
        mean_iou: in percent, of all test pixels together, by the first protocol.
        low, high: its 95 % bootstrap interval over the test images.
        scores: all that was measured, plain values, as in scores.json.
        fit: the trainer's own account; None of an evaluation.
    """

    run: Path | None
    model: Path
    mean_iou: float
    low: float
    high: float
    scores: dict[str, Any]
    fit: FitResult | None = None


class ValidationIoU:
    """mIoU on the held-out part of train, in percent, each epoch."""

    name, every_epochs = "validation", 1

    def __init__(self, parts: Parts, source: PixelSource, precision: Any) -> None:
        self.source, self.look = source, parts.look(precision)
        self.hung: dict[int, tuple[str, str]] = {}
        self.protocol = protocols_of(parts.sides.account, parts.classes, parts.untrained)[0]

    def __call__(self, learner: Any, device: torch.device) -> dict[str, float]:
        """`validation_mean_iou` of the learner as it is."""
        found = segment_images(learner, self.source, self.look, device, hung=self.hung)
        scores = score_segmentation(torch.from_numpy(found.counts.sum(0)), self.protocol)
        return {"validation_mean_iou": 100 * scores.mean_iou}


def protocols_of(
    account: dict[str, Any], classes: tuple[str, ...], untrained: tuple[int, ...], labelled: tuple[str, ...] = ()
) -> tuple[Protocol, ...]:
    """By what the images are scored, the headline first: ISPRS's where they are ISPRS's, else all classes.

    Args:
        account: of the labels; `isprs` says which of its protocols they are for.
        classes: K names.
        untrained: positions of classes that were not learned.
        labelled: names of the classes that the images' labels have; empty: all.
    """
    without = tuple(i for i, name in enumerate(classes) if labelled and name not in labelled)
    where = ""
    if isprs := account.get("isprs"):
        over = isprs.get("over", "patches")
        departures = tuple(isprs.get("departures", ()))
        if classes == ISPRS_CLASSES and not without and {classes[i] for i in untrained} <= {"clutter"}:
            return isprs_protocols(isprs["dataset"], isprs["labels"], over, departures)
        counted = "patches" if over == "patches" else "whole tiles"
        where = ", ".join((f"ISPRS {isprs['dataset']}", f"{isprs['labels']} labels", counted, *departures, ""))
    every = Protocol(f"{where}{len(classes)} classes, all labelled pixels")
    left_out = tuple(sorted({*untrained, *without}))
    if not left_out:
        return (every,)
    rest = tuple(i for i in range(len(classes)) if i not in left_out)
    names = ", ".join(classes[i] for i in left_out)
    some = Protocol(f"{where}{len(rest)} classes, {names} unlabelled", rest, left_out)
    return (some,) if without else (some, every)


def score_and_keep(
    parts: Parts, learner: Segmenter, done: FitResult, precision: Any, console: Console, *, writes: bool
) -> SegmentationResult:
    """The model on the test images, once; its file, its scores, and what it said of each image."""
    model = done.run / "model.safetensors"
    if not writes:
        nan = float("nan")
        return SegmentationResult(done.run, model, nan, nan, nan, {}, done)
    s = parts.config.segmenter
    about = SegmenterMetadata(
        parts.metadata, parts.classes, parts.train.colours, s.head, int(learner.decoder.width), learner.align_corners,
        (parts.train.stored_dtype,), parts.config.size, parts.config.window,
        tuple(parts.sides.account.get("pictures", ())),
    )  # fmt: skip
    save_segmenter(model, learner, about)
    epoch = "best on validation" if done.best_is_measured else "last"
    protocols = protocols_of(parts.sides.account, parts.classes, parts.untrained)
    facts = [
        ("training images", f"{len(parts.train):,}"),
        ("backbone", f"{parts.metadata.backbone}{', frozen' if parts.config.frozen else ''}"),
        ("weights", parts.weights),
    ]
    result = score(
        learner, parts.test, parts.look(precision), protocols, console, folder=done.run, seed=parts.config.seed,
        about={"epoch": epoch}, facts=facts, settings=as_plain(parts.config), report=parts.config.report, learned=True,
    )  # fmt: skip
    console.print(f"model:  {model}")
    return replace(result, model=model, fit=done)


def score(
    learner: Segmenter,
    source: PixelSource,
    look: HowToLook,
    protocols: tuple[Protocol, ...],
    console: Console,
    *,
    folder: Path | None,
    seed: int,
    about: dict[str, Any],
    facts: list[tuple[str, str]],
    settings: dict[str, Any],
    report: bool,
    learned: bool = False,
    resamples: int = RESAMPLES,
) -> SegmentationResult:
    """Look at every image once, print the figures with their protocols, write them where `folder` says.

    Args:
        learner: on its device.
        source: the images.
        look: how they are given to it.
        protocols: the headline first.
        console: for what is told.
        folder: where scores.json, tiles.csv and report.html go; None writes nothing.
        seed: of the bootstrap.
        about: goes before the figures in scores.json.
        facts: stand at the top of the page.
        settings: resolved, plain.
        report: whether the page is drawn.
        learned: the folder is that of a training run.
        resamples: of the bootstrap.

    Raises:
        CmidError: no image can be read, scores that are not finite, or files that cannot be written.
    """
    device = next(learner.parameters()).device
    with progress(console, "scoring") as tick:
        found = segment_images(learner, source, look, device, tick)
    together = torch.from_numpy(found.counts.sum(0))
    measured = [score_segmentation(together, protocol, source.classes) for protocol in protocols]
    interval = mean_iou_interval(found.counts, protocols[0], resamples, seed)
    rows = rows_of(found, source, protocols[0])
    scores = plain_scores(found, measured, interval, look, resamples) | {"skipped": found.skipped}
    for name, reason in list(found.skipped.items())[:5]:
        console.print(f"note: {name} could not be read ({reason})")
    for line in in_words(measured, interval):
        console.print(line)
    console.print(f"{len(found.indices)} images, {measured[0].pixels:,} labelled pixels; {look.in_words()}")
    if folder is not None:
        then = "and go on with --resume" if learned else "or choose another --out"
        write_whole(
            folder / "scores.json", lambda p: p.write_text(json.dumps(about | scores, indent=1) + "\n"),
            advice=f"Make room, {then}.",
        )  # fmt: skip
        write_whole(folder / "tiles.csv", lambda p: _write_rows(p, rows), advice=f"Make room, {then}.")
        if report:
            headline = [(f"{each.name}", f"{100 * each.value:.2f} %") for each in measured[0].figures()[:3]]
            shown = [
                *headline,
                ("protocol", measured[0].protocol),
                ("test images", f"{len(found.indices):,}"),
                *facts,
            ]
            page = write_page(folder, learner, source, look, about | scores, rows, shown, settings, learned=learned)
            console.print(f"report: {page}  (open it in a browser)")
    value = (100 * interval.value, 100 * interval.low, 100 * interval.high)
    return SegmentationResult(folder, Path(), *value, about | scores)


def plain_scores(
    found: Found, measured: list[SegmentationScores], interval: Interval, look: HowToLook, resamples: int
) -> dict[str, Any]:
    """What goes into scores.json; the headline's figures also by themselves."""
    first = measured[0].to_plain()
    return {
        "protocol": first["protocol"],
        **{key: first[key] for key in ("mean_iou", "mean_f1", "overall_accuracy")},
        "interval": [interval.low, interval.high],
        "interval_of": f"mean_iou, bootstrap over the test images, {resamples} resamples",
        "images": len(found.indices),
        "looked_at": look.in_words(),
        "protocols": [each.to_plain() for each in measured],
        "confusion": found.counts.sum(0).tolist(),
    }


def in_words(measured: list[SegmentationScores], interval: Interval) -> list[str]:
    """A line for each protocol, the first with its interval."""
    lines: list[str] = []
    for each in measured:
        between = "" if lines else f" ({100 * interval.low:.2f} to {100 * interval.high:.2f})"
        lines.append(
            f"mIoU {_percent(each.mean_iou)}{between}, mF1 {_percent(each.mean_f1)}, OA "
            f"{_percent(each.overall_accuracy)}  [{each.protocol}]"
        )
    return lines


def _percent(share: float) -> str:
    return "undefined" if math.isnan(share) else f"{100 * share:.2f}"


def rows_of(found: Found, source: PixelSource, protocol: Protocol) -> list[dict[str, Any]]:
    """A row for each image, the worst first: by mIoU over the classes of the protocol that are in it."""
    counted = range(len(source.classes)) if protocol.means_over is None else protocol.means_over
    rows = []
    for place, counts in zip(found.indices, found.counts, strict=True):
        there = tuple(i for i in counted if counts[i].sum())
        single = Protocol("one image", there or protocol.means_over, protocol.unlabelled)
        one = score_segmentation(torch.from_numpy(counts), single, source.classes)
        x, y = source.place(place)
        rows.append(
            {
                "image": source.name(place), "group": source.group(place), "x": x, "y": y, "pixels": one.pixels,
                "mean_iou": one.mean_iou, "overall_accuracy": one.overall_accuracy, "position": place,
                **{f"IoU of {each.name}": each.iou if i in there else math.nan for i, each in enumerate(one.per_class)},
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: math.inf if math.isnan(row["mean_iou"]) else row["mean_iou"])


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        names = [name for name in rows[0] if name != "position"]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            numbers = {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
            writer.writerow({k: f"{v:.5f}" if isinstance(v, float) else v for k, v in numbers.items()})
