"""`cmid evaluate classification`: a finished classifier on labelled images other than those of its own run.

Classes are matched by name. Nothing is chosen and nothing is trained: each image is looked at once.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from cmid.commands.classifier_report import write_page
from cmid.commands.classifier_scores import in_words, judge, write_scores
from cmid.commands.evaluate_settings import settings_of
from cmid.commands.image_scale import labelled_notes, put_on_scale
from cmid.commands.out_folder import checked_folder, make_folder, trained_on
from cmid.commands.predict import prepared_batches
from cmid.commands.terminal import terminal
from cmid.config import EvaluateConfig, as_plain
from cmid.data.labelled import LabelledFolder
from cmid.data.listed import has_lists, is_table, open_lists, open_table_to_score
from cmid.data.matched_classes import MatchedClasses
from cmid.data.sources import LabelledSource, is_multi_label
from cmid.data.torchgeo_datasets import is_named, labelled_to_score, parse_name
from cmid.errors import UsageError, did_you_mean
from cmid.evaluation.features import placed
from cmid.evaluation.probabilities import predict_probabilities
from cmid.train import resolve_device, resolve_precision
from cmid.zoo.classifier_files import ClassifierMetadata, load_classifier

WRITTEN = ("scores.json", "test_predictions.csv", "report.html")


@dataclass(frozen=True)
class ClassifierResult:
    """What an evaluation of a classifier found.

    Attributes:
        accuracy: overall accuracy, in percent; mAP where an image may be of several classes.
        low, high: its 95 % bootstrap interval over the images.
        scores: all that was measured, plain values, as in scores.json.
        out: the folder with what was written; None where none was asked for.
    """

    accuracy: float
    low: float
    high: float
    scores: dict[str, Any]
    out: Path | None


def evaluate_classifier(config: EvaluateConfig) -> ClassifierResult:
    """Score a classifier on all images of `config.data` (or of the list), print it, write it where `out` says.

    Raises:
        UsageError: no classifier, data of other bands or with classes it does not know, or a folder that holds files.
        CmidError: no readable image, probabilities that are not finite, or a file that cannot be written.
    """
    path = Path(config.weights)
    model = path / "model.safetensors" if path.is_dir() else path
    out = checked_folder(config.out, model, WRITTEN, overwrite=config.overwrite)
    task, about = load_classifier(model)
    console = terminal(results=True)
    test = _opened(config, about, console)
    device, skipped = resolve_device(config.accelerator), dict[str, str]()
    precision = resolve_precision(config.precision, device)
    batches = prepared_batches(test, about, config, skipped, terminal(), "scoring")
    rows, places = predict_probabilities(placed(task, device), batches, device, precision)
    names = [test.name(i) for i in places.tolist()]
    labels = torch.as_tensor(test.labels)[places]
    learned = trained_on(model)
    seen = np.array([os.path.realpath(name) in learned and Path(name).is_file() for name in names], bool)
    value, interval, measured, figures = judge(rows, labels, names, about.classes, ~seen, config.seed, config.bootstrap)
    scores = {
        "model": str(model),
        "data": config.data,
        "test_list": config.test_list,
        "classes_left_out": test.unknown,
        "classes_without_images": list(test.absent),
        "trained_on": int(seen.sum()),
        **measured,
        "skipped": skipped,
    }
    if seen.any():
        console.print(f"caution: {seen.sum()} of these images are among those the model was trained on")
    for name, reason in list(skipped.items())[:5]:
        console.print(f"note: {name} could not be read ({reason})")
    left = f", {len(skipped)} could not be read" if skipped else ""
    console.print(f"{in_words(figures)}; {len(labels)} images{left}")
    if out is not None:
        make_folder(out, WRITTEN)
        write_scores(out, scores, names, labels, rows, about.classes, advice="Make room, or choose another --out.")
        console.print(f"scores: {out / 'scores.json'}")
    if out is not None and config.report:
        facts = [
            *figures,
            ("images", f"{len(labels):,}"),
            ("data", config.data),
            ("model", str(model)),
            ("backbone", about.backbone.backbone),
        ]
        read = settings_of("classification")
        settings = {name: value for name, value in as_plain(config).items() if name in read}
        page = write_page(out, test, settings, facts, learned=False)
        console.print(f"report: {page}  (open it in a browser)")
    return ClassifierResult(100 * value, 100 * interval.low, 100 * interval.high, scores, out)


def _opened(config: EvaluateConfig, about: ClassifierMetadata, console: Console) -> MatchedClasses:
    """The images to score, under the classifier's classes; tells of classes that are missing on either side."""
    source, b = _images(config.data, config.test_list), about.backbone
    assert b.mean is not None
    if is_multi_label(source) != about.multi_label:
        theirs, ours = ("several classes", "one") if about.multi_label else ("one class", "several")
        raise UsageError(f"the model names {theirs} an image, and the images of {config.data} have {ours}")
    put_on_scale((source,), b, config.data)
    test, known = MatchedClasses(source, about.classes), about.classes
    unknown = test.unknown
    some = ", ".join(
        f"{name} ({count} {'image' if count == 1 else 'images'})" for name, count in list(unknown.items())[:5]
    )
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    if not len(test) or set(known).isdisjoint(source.classes):
        raise UsageError(
            f"the model knows none of the classes of {config.data}: {some}{more}. It knows {', '.join(known[:5])}"
            f"{' ...' if len(known) > 5 else ''}"
        )
    if unknown and not config.ignore_unknown_classes:
        raise UsageError(
            f"the model does not know {len(unknown)} of the classes of {config.data}: {some}{more}."
            f"{did_you_mean(next(iter(unknown)), test.absent)} Rename them, or leave their images out with "
            "--ignore_unknown_classes"
        )
    where = f"{config.data}{f', list {config.test_list}' if config.test_list else ''}"
    if is_named(config.data) and "split" in (arguments := source.source.named.arguments):  # type: ignore[attr-defined]
        where += f", split {arguments['split']}"
    console.print(f"classification of {len(known)} classes: {len(test)} images of {where}; {b.backbone}, {b.size} px")
    for note in labelled_notes(test, config.data):
        console.print(f"note: {note}")
    if unknown:
        what = "classes" if about.multi_label else f"{sum(unknown.values())} images of classes"
        console.print(f"note: {what} it does not know are left out: {some}{more}")
    if test.absent:
        console.print(f"note: {len(test.absent)} of its classes have no image here: {', '.join(test.absent[:5])}"
                      f"{' ...' if len(test.absent) > 5 else ''}")  # fmt: skip
    return test


def _images(data: str, test_list: str | None) -> LabelledSource:
    """All images of a labelled folder, or those a list names; the test images of data that say which those are.

    Of one of torchgeo's data sets the split that is named, else its test split.

    Raises:
        UsageError: nothing there, or a list that does not fit.
    """
    path = Path(data)
    if is_named(data):
        if test_list:
            raise UsageError("test_list is for folders: name one of torchgeo's splits in the data, as in &split=val")
        return labelled_to_score(parse_name(data))
    if is_table(path) or has_lists(path):
        if test_list:
            raise UsageError(f"test_list is for folders with a folder per class: {data} has a split of its own")
        return open_table_to_score(path) if is_table(path) else open_lists(path)[1]
    folder = LabelledFolder(path, least=1)
    return folder.listed(test_list) if test_list else folder.all()
