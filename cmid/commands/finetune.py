"""`cmid finetune`: a backbone becomes a task's model, and is scored on images it was not trained on.

Nothing is chosen on the test images: the result is the last epoch, or the best on a held-out part of train.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from cmid.backbones import create_backbone
from cmid.commands.classifier_report import write_page
from cmid.commands.evaluate import resolve_weights
from cmid.commands.fingerprint import fingerprint
from cmid.commands.sources import open_labelled, put_on_scale
from cmid.commands.twins import Twins, find_twins, without_twins
from cmid.config import EvaluateConfig, FinetuneConfig, ViewConfig, as_plain
from cmid.contracts import Backbone
from cmid.data.few_labels import few_of_each, held_out, missing_classes
from cmid.data.images import ImageLoader
from cmid.data.mixing import RandAugment, TrainingBatch
from cmid.data.sources import LabelledSource
from cmid.data.views import ViewLoader
from cmid.errors import CmidError, UsageError
from cmid.evaluation.bootstrap import accuracy_interval
from cmid.evaluation.classification import (
    accuracy_last_batch_dropped,
    images_before_last_batch,
    score_classification,
)
from cmid.evaluation.probabilities import predict_probabilities
from cmid.ops.normalise import normalise
from cmid.report.curves import read_table
from cmid.tasks.classification import Classifier
from cmid.train import (
    FitResult,
    Probe,
    RunDirectory,
    Team,
    fit,
    gather_team,
    load_learner,
    read_checkpoint,
    resolve_device,
    resolve_precision,
)
from cmid.zoo.backbone_files import BackboneMetadata
from cmid.zoo.classifier_files import ClassifierMetadata, save_classifier

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BATCH = 64
"""Test images at once."""


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


@dataclass(frozen=True)
class _Parts:
    """What a run is made of, once its data and weights have been opened."""

    config: FinetuneConfig
    train: LabelledSource
    validation: LabelledSource | None
    test: LabelledSource
    backbone: Backbone
    metadata: BackboneMetadata
    weights: str
    twins: Twins

    @property
    def size(self) -> int:
        assert self.metadata.size is not None
        return self.metadata.size


def finetune(kind: Literal["classification"], config: FinetuneConfig) -> FinetuneResult:
    """Train, score on the test images, write the model and what it said of each of them.

    Raises:
        UsageError: the request cannot be carried out: nothing has been trained or overwritten.
        CmidError: a failure while training; what the run had saved is still there.
    """
    team = gather_team(config.train)
    config = replace(config, train=replace(config.train, devices=team.size // team.nodes, nodes=team.nodes))
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=not team.leads)
    with team.as_one():
        parts = _opened(config)
    wanted = config.duplicates != "off" and team.leads
    twins = team.of_leader(find_twins(parts.train, parts.test, config, console) if wanted else Twins())
    with team.as_one():
        parts = _without(parts, twins)
        torch.manual_seed(config.seed)
        learner = _classifier(parts)
        loader, prepare = _loader(parts, team)
    console.print(_told(parts))
    for note in _notes(parts):
        console.print(f"note: {note}")
    precision = resolve_precision(config.train.precision, resolve_device(config.train.accelerator))
    probes: list[Probe] = [] if parts.validation is None else [ValidationAccuracy(parts, parts.validation, precision)]
    probes += [PublishedAccuracy(parts, parts.test, precision)] if config.published_protocol else []
    with RunDirectory(config.out) as run:
        done = fit(
            learner, loader, prepare=prepare, run=run, epochs=config.epochs, seed=config.seed,
            optimizer=config.optimizer, train=config.train, images_per_batch=loader.batch_size,
            settings={"task": kind, **as_plain(config)}, probes=probes, account=_account(parts), resume=config.resume,
            team=team,
        )  # fmt: skip
        if team.leads and parts.validation is not None and done.best_checkpoint is not None:
            load_learner(learner, read_checkpoint(done.best_checkpoint).learner_state, done.best_checkpoint)
        return _scored(parts, learner, done, precision, console, writes=team.leads)


class ValidationAccuracy:
    """Overall accuracy on the held-out part of train, in percent, at the end of each epoch."""

    name, every_epochs = "validation", 1

    def __init__(self, parts: "_Parts", source: LabelledSource, precision: Any) -> None:
        self.parts, self.source, self.precision = parts, source, precision

    def __call__(self, learner: Any, device: torch.device) -> dict[str, float]:
        """`validation_accuracy` of the learner as it is."""
        rows, labels = self.rows(learner, device)
        return {"validation_accuracy": 100 * (rows.argmax(1) == labels).double().mean().item()}

    def rows(self, learner: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """Probabilities `(N, K)` and labels `(N,)`."""
        return predict_probabilities(learner, _whole(self.parts, self.source, {}), device, self.precision)


class PublishedAccuracy(ValidationAccuracy):
    """What the published code calls test accuracy, at the end of each epoch: see `accuracy_last_batch_dropped`."""

    name = "published"

    def __call__(self, learner: Any, device: torch.device) -> dict[str, float]:
        """`published_test_accuracy` of the learner as it is."""
        rows, labels = self.rows(learner, device)
        return {"published_test_accuracy": 100 * accuracy_last_batch_dropped(rows.argmax(1), labels, BATCH)}


def _opened(config: FinetuneConfig) -> _Parts:
    """Data, weights, and the settings that follow from them."""
    if config.batch_size < 2:
        raise UsageError(f"batch_size must be at least 2 (batch-norm needs two images), found {config.batch_size}")
    train, test = open_labelled(config.data, config.train_list, config.test_list, config.seed)
    absent = missing_classes(train.labels, train.classes)
    unknown = [name for name in absent if (test.labels == train.classes.index(name)).any()]
    if unknown:
        raise UsageError(
            f"{len(unknown)} classes have test images but none to learn from: {', '.join(unknown[:5])}. Move some to "
            "the training list, or take the classes out"
        )
    asked = EvaluateConfig(weights=config.weights, data=config.data, backbone=config.backbone, seed=config.seed)
    frozen, metadata, weights = resolve_weights(replace(asked, size=config.size), train.bands)
    mean, std = config.mean or metadata.mean, config.std or metadata.std
    if mean is None and std is None and train.bands == 3:
        mean, std = IMAGENET
    if mean is None or std is None or len(mean) != train.bands or len(std) != train.bands:
        raise UsageError(
            f"mean and std need {train.bands} values each, and {weights} does not say them: give --mean and --std"
        )
    put_on_scale((train, test), metadata.low or (), metadata.high or (), mean, config.data)
    size = config.size or metadata.size or 224
    backbone = create_backbone(
        metadata.backbone, metadata.in_chans, mask_stage=None, drop_path=config.drop_path, img_size=size
    )
    stride = backbone.strides[-1]
    if size % stride:
        raise UsageError(f"size {size} is not a multiple of {stride} px, the coarsest stride of {metadata.backbone}")
    backbone.load_weights(frozen.weights())  # random ones, too: those are drawn by the seed
    validation: LabelledSource | None = None
    if config.hold_out:
        train, validation = held_out(train, config.hold_out, config.seed)
    if config.per_class:
        train = few_of_each(train, config.per_class, config.seed)
    metadata = replace(metadata, mean=tuple(mean), std=tuple(std), size=size)
    return _Parts(config, train, validation, test, backbone, metadata, weights, Twins())


def _without(parts: _Parts, twins: Twins) -> _Parts:
    """The parts with `twins` noted, and where asked for with train images left out that are in test."""
    if parts.config.duplicates != "drop" or not twins.pairs:
        return replace(parts, twins=twins)
    train = without_twins(parts.train, twins)
    return replace(parts, train=train, twins=replace(twins, dropped=len(parts.train) - len(train)))


def _classifier(parts: _Parts) -> Classifier:
    c, labels, classes = parts.config.classification, parts.train.labels, len(parts.train.classes)
    weights = None
    if c.class_weights == "balanced":
        counts = np.bincount(labels, minlength=classes)
        weights = torch.tensor(len(labels) / (classes * np.maximum(counts, 1)), dtype=torch.float32)
    return Classifier(parts.backbone, classes, frozen=parts.config.frozen, smoothing=c.smoothing, class_weights=weights)


def _loader(parts: _Parts, team: Team) -> tuple[ViewLoader, TrainingBatch]:
    """Batches of crops with labels, and what is done to them on the device."""
    config, m, source = parts.config, parts.config.mixing, parts.train
    mean, std = parts.metadata.mean, parts.metadata.std
    assert mean is not None and std is not None
    views = ViewConfig(size=parts.size, scale=m.scale, ratio=m.ratio, flip=m.flip, mean=mean, std=std)
    colours = source.bands == 3 and source.dtype == torch.uint8
    loader = ViewLoader(
        source,
        views,
        batch_size=min(config.batch_size, max(2, len(source) // team.size)),
        seed=config.seed,
        workers=config.train.workers,
        crops=1,
        rank=team.rank,
        world_size=team.size,
        max_bad_share=config.max_bad_share,
        read_timeout_s=config.read_timeout_s,
        pin_memory=resolve_device(config.train.accelerator).type == "cuda",
        touch=RandAugment(m.randaugment, parts.size, mean) if m.randaugment and colours else None,
        fingerprint=fingerprint(source),
    )
    classes, smoothing = len(source.classes), config.classification.smoothing
    return loader, TrainingBatch(mean, std, m, classes=classes, smoothing=smoothing)


def _whole(parts: _Parts, source: LabelledSource, skipped: dict[str, str]) -> Iterator[tuple[Tensor, Tensor]]:
    """All images of `source`, whole but for the edge that `test_crop` leaves out; unreadable ones go to `skipped`."""
    assert parts.metadata.mean is not None and parts.metadata.std is not None
    loader = ImageLoader(
        source, parts.size, batch_size=BATCH, workers=parts.config.train.workers, crop=parts.config.test_crop
    )
    for batch in loader:
        assert batch.labels is not None
        yield normalise(batch.images, parts.metadata.mean, parts.metadata.std), batch.labels
    skipped.update({source.name(i): reason for i, reason in loader.skipped.items()})


def _scored(
    parts: _Parts, learner: Classifier, done: FitResult, precision: Any, console: Console, *, writes: bool
) -> FinetuneResult:
    """The model on the test images, once; its file, its scores and what it said of each image."""
    model, skipped = done.run / "model.safetensors", dict[str, str]()
    if not writes:
        return FinetuneResult(done.run, model, float("nan"), float("nan"), float("nan"), {}, done)
    classes = parts.train.classes
    save_classifier(model, learner, ClassifierMetadata(parts.metadata, classes, test_crop=parts.config.test_crop))
    device = next(learner.parameters()).device
    rows, labels = predict_probabilities(learner, _whole(parts, parts.test, skipped), device, precision)
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


def _account(parts: _Parts) -> dict[str, Any]:
    """The split as it was used, and what the backbone is: kept in the run as data.json."""
    sides = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {
        "backbone": asdict(parts.metadata) | {"weights": parts.weights},
        "classes": list(parts.train.classes),
        "duplicates": asdict(parts.twins),
        "split": {k: [s.name(i) for i in range(len(s))] for k, s in sides.items() if s is not None},
    }


def _told(parts: _Parts) -> str:
    validation = "" if parts.validation is None else f", {len(parts.validation)} for validation"
    return (
        f"classification of {len(parts.train.classes)} classes: {len(parts.train)} images to train on{validation}, "
        f"{len(parts.test)} to test; {parts.metadata.backbone} from {parts.weights}, {parts.size} px"
        + (", backbone frozen" if parts.config.frozen else "")
    )


def _notes(parts: _Parts) -> Iterator[str]:
    if parts.twins.pairs:
        yield parts.twins.words(len(parts.test))
    if parts.config.mixing.randaugment and (parts.train.bands != 3 or parts.train.dtype != torch.uint8):
        yield "these are not three 8-bit colours: RandAugment is off (mixing.randaugment)"
    if len(parts.train) < parts.config.batch_size:
        yield f"{len(parts.train)} training images do not fill a batch of {parts.config.batch_size}: all go into each"
