"""`cmid evaluate classification`: a finished classifier on other labelled images, scored as after its training."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor

from cmid.commands.classifier_report import write_page
from cmid.commands.classifier_scores import judge, write_predictions, write_whole
from cmid.commands.sources import open_labelled, progress, put_on_scale
from cmid.config import EvaluateConfig, as_plain
from cmid.data.few_labels import LabelledSubset, missing_classes
from cmid.data.images import ImageLoader
from cmid.data.labelled import LabelledFolder
from cmid.data.listed import has_lists, is_table
from cmid.data.sources import LabelledSource, is_multi_label
from cmid.data.torchgeo_datasets import is_named
from cmid.errors import CmidError, UsageError
from cmid.evaluation.probabilities import predict_probabilities
from cmid.ops.normalise import normalise
from cmid.train import resolve_device, resolve_precision
from cmid.zoo.classifier_files import ClassifierMetadata, classifier_file, load_classifier


@dataclass(frozen=True)
class ClassifierResult:
    """What an evaluation found.

    Attributes:
        accuracy: overall accuracy in percent; mAP where an image may be of several classes.
        low, high: its 95 % bootstrap interval over the images.
        scores: all that was measured, plain values.
        out: the folder it was written to; None where none was asked for.
    """

    accuracy: float
    low: float
    high: float
    scores: dict[str, Any]
    out: Path | None


def evaluate_classifier(config: EvaluateConfig) -> ClassifierResult:
    """Score all images of `config.data`, or those of its test list; write scores, predictions and page to `out`.

    Raises:
        UsageError: no classifier, other bands or classes, or a folder that holds files.
        CmidError: no readable image, or what cannot be written.
    """
    path = classifier_file(config.weights)
    if path is None:
        path = Path(config.weights) / "model.safetensors" if Path(config.weights).is_dir() else Path(config.weights)
    task, about = load_classifier(path)
    out = Path(config.out) if config.out else None
    if out is not None and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise UsageError(f"out is {out}, which holds something: name a folder that is new or empty")
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    source, notes = _matched(_images(config), about, config)
    b = about.backbone
    assert b.mean is not None and b.std is not None and b.size is not None
    put_on_scale((source,), b.low or (), b.high or (), b.mean, config.data)
    for note in notes:
        console.print(f"note: {note}")
    device = resolve_device(config.accelerator)
    skipped: dict[str, str] = {}
    rows, labels = predict_probabilities(
        task.to(device), _batches(source, about, config, skipped, console), device,
        resolve_precision(config.precision, device),
    )  # fmt: skip
    names = [name for i in range(len(source)) if (name := source.name(i)) not in skipped]
    value, interval, measured, figures = judge(
        rows, labels, names, about.classes, np.ones(len(names), bool), config.seed
    )
    scores = {"model": str(path), "data": config.data, **measured, "skipped": skipped}
    console.print(", ".join(f"{name} {figure}" for name, figure in figures) + f"; {len(names)} images of {config.data}")
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CmidError(f"{out} cannot be made: {error.strerror}. Choose another --out.") from error
        write_whole(out / "scores.json", lambda part: part.write_text(json.dumps(scores, indent=1) + "\n"))
        write_whole(
            out / "test_predictions.csv", lambda part: write_predictions(part, names, labels, rows, about.classes)
        )
        facts = [*figures, ("images", f"{len(names):,}"), ("model", str(path)), ("data", config.data)]
        page = write_page(out, source, as_plain(config), facts)
        console.print(f"report: {page}  (open it in a browser)")
    return ClassifierResult(100 * value, 100 * interval.low, 100 * interval.high, scores, out)


def _images(config: EvaluateConfig) -> LabelledSource:
    """All images of a folder; of lists, tables and data sets with a split of their own those for test."""
    if config.train_list:
        raise UsageError("a finished classifier is not trained: leave train_list out; --test-list names what is scored")
    data = config.data
    if is_named(data) or is_table(Path(data)) or has_lists(Path(data)) or config.test_list:
        return open_labelled(data, None, config.test_list, config.seed)[1]
    return LabelledFolder(data).all()


def _matched(
    source: LabelledSource, about: ClassifierMetadata, config: EvaluateConfig
) -> tuple[LabelledSource, list[str]]:
    """The images under the model's classes, matched by name, and what the user should hear.

    Raises:
        UsageError: classes that the model does not know, or one class an image where it knows several, or the reverse.
    """
    if is_multi_label(source) != about.multi_label:
        model, data = "several classes" if about.multi_label else "one class", "one" if about.multi_label else "several"
        raise UsageError(f"the model names {model} an image, but the images of {config.data} have {data}")
    absent_here = missing_classes(source.labels, source.classes)
    here = [name for name in source.classes if name not in absent_here]
    unknown = [name for name in here if name not in about.classes]
    notes = []
    if unknown and not config.leave_out_unknown:
        raise UsageError(
            f"the model does not know {len(unknown)} classes of {config.data}: {', '.join(unknown[:5])}; it knows "
            f"{', '.join(about.classes[:5])}{' ...' if len(about.classes) > 5 else ''}. Rename the folders, or "
            "--leave-out-unknown scores the others"
        )
    if len(unknown) == len(here):
        raise UsageError(f"the model knows no class of {config.data}: nothing can be scored")
    to_model = {i: about.classes.index(name) for i, name in enumerate(source.classes) if name in about.classes}
    if about.multi_label:
        places = np.arange(len(source))
        labels = np.zeros((len(source), len(about.classes)), np.float32)
        for own, theirs in to_model.items():
            labels[:, theirs] = source.labels[:, own]
    else:
        places = np.flatnonzero(np.isin(source.labels, list(to_model)))
        labels = np.array([to_model[int(label)] for label in source.labels[places]], np.int64)
    if unknown:
        left = len(source) - len(places)
        notes.append(f"{len(unknown)} classes that the model does not know are left out, {left} images with them")
    absent = len(about.classes) - len(set(here) - set(unknown))
    if absent:
        notes.append(f"{absent} of the model's {len(about.classes)} classes have no image here")
    matched = LabelledSubset(source, places)
    matched.labels, matched.classes = labels, about.classes
    return matched, notes


def _batches(
    source: LabelledSource,
    about: ClassifierMetadata,
    config: EvaluateConfig,
    skipped: dict[str, str],
    console: Console,
) -> Iterator[tuple[Tensor, Tensor]]:
    b = about.backbone
    assert b.size is not None and b.mean is not None and b.std is not None
    loader = ImageLoader(source, b.size, batch_size=config.batch_size, workers=config.workers, crop=about.test_crop)
    with progress(console, "scoring") as tick:
        for done, batch in enumerate(loader, 1):
            assert batch.labels is not None
            yield normalise(batch.images, b.mean, b.std), batch.labels
            if tick is not None:
                tick(min(done * config.batch_size, len(source)), len(source))
    skipped.update({source.name(i): reason for i, reason in loader.skipped.items()})
