"""A classifier on images it was not trained on: probes while it learns, and all that is kept at the end."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from cmid.commands.classifier_report import write_page
from cmid.commands.finetune_parts import BATCH, Parts, whole_images
from cmid.config import as_plain
from cmid.data.sources import LabelledSource
from cmid.errors import CmidError
from cmid.evaluation.bootstrap import accuracy_interval
from cmid.evaluation.classification import (
    accuracy_last_batch_dropped,
    images_before_last_batch,
    score_classification,
)
from cmid.evaluation.probabilities import predict_probabilities
from cmid.report.curves import read_table
from cmid.tasks.classification import Classifier
from cmid.train import FitResult, RunDirectory
from cmid.zoo.classifier_files import ClassifierMetadata, save_classifier


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run left.

    Attributes:
        run: its directory.
        model: the classifier's file.
        accuracy: overall accuracy on all test images, in percent, of the last epoch or the best on validation.
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
    """Overall accuracy on the held-out part of train, in percent, at the end of each epoch."""

    name, every_epochs = "validation", 1

    def __init__(self, parts: Parts, source: LabelledSource, precision: Any) -> None:
        self.parts, self.source, self.precision = parts, source, precision

    def __call__(self, learner: Any, device: torch.device) -> dict[str, float]:
        """`validation_accuracy` of the learner as it is."""
        rows, labels = self.rows(learner, device)
        return {"validation_accuracy": 100 * (rows.argmax(1) == labels).double().mean().item()}

    def rows(self, learner: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """Probabilities `(N, K)` and labels `(N,)`."""
        return predict_probabilities(learner, whole_images(self.parts, self.source, {}), device, self.precision)


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
    save_classifier(model, learner, ClassifierMetadata(parts.metadata, classes, test_crop=parts.config.test_crop))
    device = next(learner.parameters()).device
    rows, labels = predict_probabilities(learner, whole_images(parts, parts.test, skipped), device, precision)
    names = [name for i in range(len(parts.test)) if (name := parts.test.name(i)) not in skipped]
    right = (rows.argmax(1) == labels).numpy()
    interval = accuracy_interval(right, 1000, parts.config.seed)
    measured = score_classification(rows, labels, classes)
    alone = np.array([name not in parts.twins.test_names for name in names])
    scores = {
        "epoch": "best on validation" if parts.validation is not None else "last",
        "interval": [interval.low, interval.high],
        "interval_of": "overall_accuracy, bootstrap over the test images, 1000 resamples",
        "overall_accuracy_without_duplicates": float(right[alone].mean()) if alone.any() else None,
        **measured.to_plain(),
        "confident_mistakes": [names[i] for i in measured.confident_mistakes],
        "skipped": skipped,
    }
    _write(done.run / "scores.json", lambda path: path.write_text(json.dumps(scores, indent=1) + "\n"))
    _write(done.run / "test_predictions.csv", lambda path: _predictions(path, names, labels, rows, classes))
    without = "" if alone.all() else f", {100 * right[alone].mean():.2f} % without {(~alone).sum()} that are in train"
    console.print(
        f"overall accuracy {100 * right.mean():.2f} % ({100 * interval.low:.2f} to {100 * interval.high:.2f})"
        f"{without}; average {100 * measured.average_accuracy:.2f} %, kappa {measured.kappa:.4f}, calibration error "
        f"{100 * measured.expected_calibration_error:.1f} %; all {len(labels)} test images, {scores['epoch']} epoch"
    )
    if parts.config.published_protocol:
        tried = read_table(RunDirectory(done.run).metrics)["published_test_accuracy"]
        console.print(
            f"by the published protocol, for comparison only: {np.nanmax(tried):.2f} %, the best of {len(tried)} test "
            f"evaluations, each of the {images_before_last_batch(len(labels), BATCH)} images in full batches of {BATCH}"
        )
    console.print(f"model:  {model}")
    if parts.config.report:
        facts = [
            ("overall accuracy", f"{100 * right.mean():.2f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"),
            ("average accuracy", f"{100 * measured.average_accuracy:.2f} %"),
            ("kappa", f"{measured.kappa:.4f}"),
            ("test images", f"{len(labels):,}, {scores['epoch']} epoch"),
            ("training images", f"{len(parts.train):,}"),
            ("backbone", f"{parts.metadata.backbone}{', frozen' if parts.config.frozen else ''}"),
            ("weights", parts.weights),
        ]
        page = write_page(done.run, parts.test, as_plain(parts.config), facts)
        console.print(f"report: {page}  (open it in a browser)")
    return FinetuneResult(
        done.run, model, 100 * float(right.mean()), 100 * interval.low, 100 * interval.high, scores, done
    )


def _predictions(path: Path, names: list[str], labels: Tensor, rows: Tensor, classes: tuple[str, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "class", "predicted", *classes))
        for name, label, row in zip(names, labels.tolist(), rows.tolist(), strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            writer.writerow((name, classes[label], classes[best], *(f"{p:.5f}" for p in row)))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        raise CmidError(
            f"{path} cannot be written: {error.strerror}. Make room, and run again with --resume."
        ) from error
