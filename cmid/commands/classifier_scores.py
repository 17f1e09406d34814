"""A classifier on images it was not trained on: probes while it learns, and all that is kept at the end."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from cmid.commands.classifier_report import write_page
from cmid.commands.finetune_parts import BATCH, Parts, whole_images, whole_loader
from cmid.commands.predict import columns
from cmid.config import as_plain
from cmid.data.sources import LabelledSource
from cmid.evaluation.bootstrap import Interval, accuracy_interval, mean_average_precision_interval
from cmid.evaluation.classification import (
    accuracy_last_batch_dropped,
    images_before_last_batch,
    score_classification,
    score_multi_label,
)
from cmid.evaluation.probabilities import likely_classes, predict_probabilities
from cmid.report.curves import read_table
from cmid.tasks.classification import Classifier
from cmid.train import FitResult, RunDirectory
from cmid.whole_files import write_whole
from cmid.zoo.classifier_files import ClassifierMetadata, save_classifier

MAP_RESAMPLES = 500
"""Of the bootstrap of mAP."""


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run left.

    Attributes:
        run: its directory.
        model: the classifier's file.
        accuracy: overall accuracy on all test images, in percent, of the last epoch or the best on validation; where
            an image may be of several classes, mAP.
        low, high: its 95 % bootstrap interval over the test images.
        scores: all that was measured, plain values, as in scores.json.
        fit: the trainer's own account.
    """

    run: Path
    model: Path
    accuracy: float
    low: float
    high: float
    scores: dict[str, Any]
    fit: FitResult


class ValidationAccuracy:
    """Overall accuracy (of several classes an image: mAP) on the held-out part of train, in percent, each epoch."""

    name, every_epochs = "validation", 1

    def __init__(self, parts: Parts, source: LabelledSource, precision: Any) -> None:
        self.parts, self.precision = parts, precision
        self.loader = whole_loader(parts, source)  # one for all epochs: it knows the images that it hung in

    def __call__(self, learner: Any, device: torch.device) -> dict[str, float]:
        """`validation_accuracy` of the learner as it is."""
        rows, labels = self.rows(learner, device)
        if self.parts.multi_label:
            return {"validation_map": 100 * score_multi_label(rows, labels).mean_average_precision}
        return {"validation_accuracy": 100 * (rows.argmax(1) == labels).double().mean().item()}

    def rows(self, learner: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """Probabilities `(N, K)` and labels `(N,)`."""
        return predict_probabilities(learner, whole_images(self.parts, self.loader, {}), device, self.precision)


class PublishedAccuracy(ValidationAccuracy):
    """What the published code calls test accuracy, at the end of each epoch: see `accuracy_last_batch_dropped`."""

    name = "published"

    def __call__(self, learner: Any, device: torch.device) -> dict[str, float]:
        """`published_test_accuracy` of the learner as it is."""
        rows, labels = self.rows(learner, device)
        return {"published_test_accuracy": 100 * accuracy_last_batch_dropped(rows.argmax(1), labels, BATCH)}


def score_and_keep(
    parts: Parts, learner: Classifier, done: FitResult, precision: Any, console: Console, *, writes: bool
) -> FinetuneResult:
    """The model on the test images, once; its file, its scores and what it said of each image."""
    model, skipped = done.run / "model.safetensors", dict[str, str]()
    if not writes:
        return FinetuneResult(done.run, model, float("nan"), float("nan"), float("nan"), {}, done)
    classes = parts.train.classes
    about = ClassifierMetadata(parts.metadata, classes, parts.multi_label, test_crop=parts.config.test_crop)
    save_classifier(model, learner, about)
    device = next(learner.parameters()).device
    images = whole_images(parts, whole_loader(parts, parts.test), skipped)
    rows, labels = predict_probabilities(learner, images, device, precision)
    names = [name for i in range(len(parts.test)) if (name := parts.test.name(i)) not in skipped]
    alone = np.array([name not in parts.twins.test_names for name in names])
    value, interval, measured, figures = judge(rows, labels, names, classes, alone, parts.config.seed)
    epoch = "best on validation" if done.best_is_measured else "last"
    scores = {"epoch": epoch, **measured, "skipped": skipped}
    write_scores(done.run, scores, names, labels, rows, classes, advice="Make room, and run again with --resume.")
    console.print(f"{in_words(figures)}; all {len(labels)} test images, {epoch} epoch")
    if parts.config.published_protocol and not parts.multi_label:
        tried = read_table(RunDirectory(done.run).metrics)["published_test_accuracy"]
        console.print(
            f"by the published protocol, for comparison only: {np.nanmax(tried):.2f} %, the best of {len(tried)} test "
            f"evaluations, each of the {images_before_last_batch(len(labels), BATCH)} images in full batches of {BATCH}"
        )
    console.print(f"model:  {model}")
    if parts.config.report:
        facts = [
            *figures,
            ("test images", f"{len(labels):,}, {epoch} epoch"),
            ("training images", f"{len(parts.train):,}"),
            ("backbone", f"{parts.metadata.backbone}{', frozen' if parts.config.frozen else ''}"),
            ("weights", parts.weights),
        ]
        page = write_page(done.run, parts.test, as_plain(parts.config), facts)
        console.print(f"report: {page}  (open it in a browser)")
    return FinetuneResult(done.run, model, 100 * value, 100 * interval.low, 100 * interval.high, scores, done)


Judged = tuple[float, Interval, dict[str, Any], list[tuple[str, str]]]
"""Overall accuracy or mAP, 0 to 1, with its interval; what goes into scores.json; figures to tell."""


def judge(
    rows: Tensor,
    labels: Tensor,
    names: list[str],
    classes: tuple[str, ...],
    alone: np.ndarray,
    seed: int,
    resamples: int | None = None,
) -> Judged:
    """All that is measured of probabilities.

    Args:
        rows: `(N, K)` float32.
        labels: `(N,)` int64, or `(N, K)` of 0 and 1 where an image may be of several classes.
        names: of the images.
        classes: K names.
        alone: `(N,)` bool, images that were not trained on.
        seed: of the bootstrap.
        resamples: of the bootstrap; None: 1000, of mAP `MAP_RESAMPLES`.
    """
    several = labels.ndim == 2
    resamples = resamples or (MAP_RESAMPLES if several else 1000)
    return (_of_several if several else _of_one)(rows, labels, names, classes, alone, seed, resamples)


def in_words(figures: list[tuple[str, str]]) -> str:
    """Figures on one line."""
    return ", ".join(f"{name} {figure}" for name, figure in figures)


def _of_one(
    rows: Tensor, labels: Tensor, names: list[str], classes: tuple[str, ...], alone: np.ndarray, seed: int,
    resamples: int,
) -> Judged:  # fmt: skip
    """Overall accuracy with its interval, what goes into scores.json, and figures to tell, of one class an image."""
    right = (rows.argmax(1) == labels).numpy()
    interval = accuracy_interval(right, resamples, seed)
    apart = float(right[alone].mean()) if alone.any() else None
    measured = score_classification(rows, labels, classes)
    plain = {
        "interval": [interval.low, interval.high],
        "interval_of": f"overall_accuracy, bootstrap over the test images, {resamples} resamples",
        "overall_accuracy_without_duplicates": apart,
        **measured.to_plain(),
        "confident_mistakes": [names[i] for i in measured.confident_mistakes],
    }
    without = _without_twins(alone, apart)
    figures = [
        ("overall accuracy", f"{_percent(float(right.mean()), interval)}{without}"),
        ("average accuracy", f"{100 * measured.average_accuracy:.2f} %"),
        ("kappa", "undefined" if math.isnan(measured.kappa) else f"{measured.kappa:.4f}"),
        ("calibration error", f"{100 * measured.expected_calibration_error:.1f} %"),
    ]
    return float(right.mean()), interval, plain, figures


def _without_twins(alone: np.ndarray, apart: float | None) -> str:
    """What is left of a score, 0 to 1, where some of the test images are in train as well."""
    if alone.all():
        return ""
    if apart is None:
        return ", but every test image is in train as well"
    return f", {100 * apart:.2f} % without {(~alone).sum()} that are in train"


def _of_several(
    rows: Tensor, labels: Tensor, names: list[str], classes: tuple[str, ...], alone: np.ndarray, seed: int,
    resamples: int,
) -> Judged:  # fmt: skip
    """Mean average precision with its interval, and the rest likewise, of several classes an image."""
    measured = score_multi_label(rows, labels, classes)
    interval = mean_average_precision_interval(rows.numpy(), labels.numpy(), resamples, seed)
    apart = score_multi_label(rows[alone], labels[alone], classes).mean_average_precision if alone.any() else None
    plain = {
        "interval": [interval.low, interval.high],
        "interval_of": f"mean_average_precision, bootstrap over the test images, {resamples} resamples",
        "mean_average_precision_without_duplicates": apart,
        **measured.to_plain(),
    }
    without = _without_twins(alone, apart)
    figures = [
        ("mAP", f"{_percent(measured.mean_average_precision, interval)}{without}"),
        ("micro F1", f"{100 * measured.micro_f1:.2f} %"),
        ("macro F1", f"{100 * measured.macro_f1:.2f} %"),
        ("all classes right", f"{100 * measured.subset_accuracy:.2f} %"),
    ]
    return measured.mean_average_precision, interval, plain, figures


def _percent(value: float, interval: Interval) -> str:
    return f"{100 * value:.2f} % ({100 * interval.low:.2f} to {100 * interval.high:.2f})"


def write_scores(
    folder: Path, scores: dict[str, Any], names: list[str], labels: Tensor, rows: Tensor, classes: tuple[str, ...],
    *, advice: str,
) -> None:  # fmt: skip
    """Writes `scores.json` and `test_predictions.csv`; raises `CmidError`, which ends with `advice`."""
    write_whole(
        folder / "scores.json", lambda path: path.write_text(json.dumps(scores, indent=1) + "\n"), advice=advice
    )
    write_whole(
        folder / "test_predictions.csv", lambda path: _predictions(path, names, labels, rows, classes), advice=advice
    )


def _predictions(path: Path, names: list[str], labels: Tensor, rows: Tensor, classes: tuple[str, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(columns(("image", "class", "predicted"), classes))
        for name, label, row in zip(names, labels.tolist(), rows.tolist(), strict=True):
            if isinstance(label, list):
                true, said = (";".join(likely_classes(each, classes)) for each in (label, row))
            else:
                true, said = classes[label], classes[max(range(len(row)), key=row.__getitem__)]
            writer.writerow((name, true, said, *(f"{p:.5f}" for p in row)))
