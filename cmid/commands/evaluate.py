"""`cmid evaluate knn|linear`: what frozen features tell apart, on a labelled folder; a classifier: see its own file.

The test images are looked at once. Nothing is chosen on them: k is reported for every value asked for, and the
linear probe's regulariser is chosen on a part of train.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from cmid.commands.evaluate_settings import refuse_idle_settings
from cmid.commands.extract import summary
from cmid.commands.image_scale import check_size, labelled_notes, measured_on, put_on_scale
from cmid.commands.out_folder import checked_file
from cmid.commands.sources import open_one_class_each
from cmid.commands.weights import resolve_weights
from cmid.config import EvaluateConfig
from cmid.data.images import ImageLoader
from cmid.data.sources import LabelledSource
from cmid.data.torchgeo_datasets import is_named
from cmid.errors import UsageError
from cmid.evaluation.accuracy import average_accuracy, overall_accuracy
from cmid.evaluation.bootstrap import accuracy_interval
from cmid.evaluation.features import Batch, extract_features, placed
from cmid.evaluation.knn import knn_predict
from cmid.evaluation.linear import linear_probe
from cmid.ops.normalise import normalise
from cmid.ops.transfer import to_device
from cmid.train import resolve_device, resolve_precision
from cmid.whole_files import write_whole
from cmid.zoo.backbone_files import BackboneMetadata

if TYPE_CHECKING:
    from cmid.commands.evaluate_classifier import ClassifierResult

UNKNOWN_SIZE = 224
"""Side in pixels where neither the settings nor the weights say one."""


@dataclass(frozen=True)
class Score:
    """One classifier on the test images, in percent.

    Attributes:
        classifier: what it is, in words.
        accuracy: overall accuracy.
        low: lower end of the 95 % bootstrap interval of `accuracy`.
        high: its upper end.
        average_accuracy: mean over classes of the share of their images that are right.
    """

    classifier: str
    accuracy: float
    low: float
    high: float
    average_accuracy: float


@dataclass(frozen=True)
class EvaluateResult:
    """What an evaluation found, and all that is needed to repeat it.

    Attributes:
        kind: knn or linear.
        scores: one for every k, or the one of the linear probe.
        chance: percent reached by always naming the commonest class of train.
        classes: number of classes.
        train_images: images with features in train.
        test_images: images with features in test.
        protocol: weights, backbone, size, mean, std, precision, seed and the rules of the classifier.
        sweep: for linear, each C with its accuracy in percent on the validation part of train.
        skipped: unreadable files with the reason.
    """

    kind: str
    scores: tuple[Score, ...]
    chance: float
    classes: int
    train_images: int
    test_images: int
    protocol: dict[str, Any]
    sweep: tuple[dict[str, Any], ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)


@overload
def evaluate(kind: Literal["knn", "linear"], config: EvaluateConfig) -> EvaluateResult: ...


@overload
def evaluate(kind: Literal["classification"], config: EvaluateConfig) -> "ClassifierResult": ...


def evaluate(
    kind: Literal["knn", "linear", "classification"], config: EvaluateConfig
) -> "EvaluateResult | ClassifierResult":
    """Score frozen features by kNN or a linear probe, or a classifier as it is; print it, write it to `config.out`.

    Raises:
        UsageError: weights, folder, lists or numbers that do not fit together.
        CmidError: features that are not finite, no readable image, or `out` cannot be written.
    """
    from cmid.commands.evaluate_classifier import evaluate_classifier  # it needs this file

    if kind not in ("knn", "linear", "classification"):
        raise UsageError(f"Expected an evaluation by knn, linear or classification, found {kind!r}.")
    refuse_idle_settings(config, kind)
    if kind == "classification":
        return evaluate_classifier(config)
    if config.bootstrap < 1:
        raise UsageError(f"bootstrap is the number of resamples, at least 1; found {config.bootstrap}.")
    out = checked_file(config.out, overwrite=config.overwrite)
    console = Console()
    frozen = frozen_features(config, console)
    for note in labelled_notes(frozen.sides[0], config.data):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    (train, train_y), (test, test_y) = frozen.train, frozen.test
    protocol, skipped = frozen.protocol, frozen.skipped
    predicted, rules, sweep = (_knn if kind == "knn" else _linear)(config, train, train_y, test)
    commonest = Counter(train_y.tolist()).most_common(1)[0][0]
    result = EvaluateResult(
        kind=kind,
        scores=tuple(_score(name, classes, test_y, config) for name, classes in predicted.items()),
        chance=100 * (test_y == commonest).double().mean().item(),
        classes=len(frozen.sides[0].classes),
        train_images=len(train),
        test_images=len(test),
        protocol=protocol | rules,
        sweep=sweep,
        skipped=skipped,
    )
    if out is not None:
        _write(result, out)
    _show(result, console)
    return result


@dataclass(frozen=True)
class Frozen:
    """Features of a labelled set by one backbone.

    Attributes:
        train, test: features `(N, D)` float32 and labels `(N,)` int64.
        sides: the images, those among them that could not be read included.
        metadata: what is known of the backbone.
        protocol: weights, size, mean, std, precision and so on.
        skipped: unreadable files with the reason.
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    sides: tuple[LabelledSource, LabelledSource]
    metadata: BackboneMetadata
    protocol: dict[str, Any]
    skipped: dict[str, str]


def frozen_features(config: EvaluateConfig, console: Console) -> Frozen:
    """Features of train and test by the backbone that `config.weights` means; errors as of `evaluate`."""
    sides = open_one_class_each(config.data, config.train_list, config.test_list, config.seed)
    device = resolve_device(config.accelerator)
    precision = resolve_precision(config.precision, device)
    backbone, metadata, weights = resolve_weights(config, sides[0].bands, files=not is_named(config.data))
    metadata = measured_on(sides[0], metadata, config.seed)
    put_on_scale(sides, replace(metadata, mean=metadata.mean or IMAGENET_DEFAULT_MEAN), config.data)
    protocol = _protocol(config, metadata, weights) | {"device": device.type, "precision": precision}
    check_size(protocol["size"], backbone)
    skipped: dict[str, str] = {}
    placed(backbone, device)
    train, test = (
        extract_features(backbone, _batches(side, name, protocol, config, skipped, console), device, precision)
        for side, name in zip(sides, ("train", "test"), strict=True)
    )
    return Frozen(train, test, sides, metadata, protocol, skipped)


def _protocol(config: EvaluateConfig, metadata: BackboneMetadata, weights: str) -> dict[str, Any]:
    mean = config.mean or metadata.mean or IMAGENET_DEFAULT_MEAN
    std = config.std or metadata.std or IMAGENET_DEFAULT_STD
    if len(mean) != metadata.in_chans or len(std) != metadata.in_chans or min(std) <= 0:
        raise UsageError(f"mean and std need {metadata.in_chans} values each, std above 0; found {mean} and {std}.")
    return {
        "weights": weights,
        "backbone": summary(metadata),
        "data": config.data,
        "train_list": config.train_list,
        "test_list": config.test_list,
        "size": config.size or metadata.size or UNKNOWN_SIZE,
        "mean": mean,
        "std": std,
        "resize": "shorter side to size, centre crop",
        "features": "last map, mean over positions",
        "seed": config.seed,
        "bootstrap": config.bootstrap,
    }


def _batches(
    side: LabelledSource,
    name: str,
    protocol: dict[str, Any],
    config: EvaluateConfig,
    skipped: dict[str, str],
    console: Console,
) -> Iterator[Batch]:
    """Normalised images and labels; unreadable files are noted in `skipped`."""
    device = resolve_device(config.accelerator)
    loader = ImageLoader(side, protocol["size"], batch_size=config.batch_size, workers=config.workers)
    told = track(loader, f"Features of {name}", console=console, transient=True, disable=not console.is_terminal)
    for batch in told:
        assert batch.labels is not None
        yield normalise(to_device(batch.images, device), protocol["mean"], protocol["std"]), batch.labels
    skipped.update({side.name(i): reason for i, reason in loader.skipped.items()})


_Found = tuple[dict[str, Tensor], dict[str, Any], tuple[dict[str, Any], ...]]


def _knn(config: EvaluateConfig, train: Tensor, train_y: Tensor, test: Tensor) -> _Found:
    predicted = knn_predict(train, train_y, test, config.k, config.temperature)
    vote = "majority" if config.temperature is None else f"exp(cosine / {config.temperature:g})"
    rules = {"similarity": "cosine", "vote": vote, "ties": "class of the nearest neighbour among those that tie"}
    return {f"kNN, k = {k}": classes for k, classes in predicted.items()}, rules, ()


def _linear(config: EvaluateConfig, train: Tensor, train_y: Tensor, test: Tensor) -> _Found:
    probe = linear_probe(train, train_y, test, config.regularisation, config.validation_share, config.seed)
    sweep = tuple(
        {"C": p.regularisation, "validation_accuracy": 100 * p.validation_accuracy, "converged": p.converged}
        for p in probe.sweep
    )
    rules = {
        "probe": "standardised features, multinomial logistic regression (L-BFGS)",
        "C": probe.chosen,
        "C_chosen_on": (
            f"{config.validation_share:.0%} of each class of train; then fitted on all of train"
            if len(config.regularisation) > 1
            else None
        ),
        "converged": probe.converged,
    }
    return {f"linear, C = {probe.chosen:g}": probe.predicted}, rules, sweep


def _score(classifier: str, predicted: Tensor, labels: Tensor, config: EvaluateConfig) -> Score:
    interval = accuracy_interval((predicted == labels).numpy(), config.bootstrap, config.seed)
    average = 100 * average_accuracy(predicted, labels)
    return Score(
        classifier, 100 * overall_accuracy(predicted, labels), 100 * interval.low, 100 * interval.high, average
    )


def _show(result: EvaluateResult, console: Console) -> None:
    table = Table(title=Text(f"Frozen features on {result.protocol['data']}"), title_justify="left")
    for column in ("classifier", "accuracy %", "95 % interval", "mean per class %"):
        table.add_column(column, justify="left" if column == "classifier" else "right")
    for s in result.scores:
        table.add_row(s.classifier, f"{s.accuracy:.2f}", f"{s.low:.2f} to {s.high:.2f}", f"{s.average_accuracy:.2f}")
    table.add_row("chance (commonest class)", f"{result.chance:.2f}", "", f"{100 / result.classes:.2f}")
    console.print(table)
    p = result.protocol
    lines = [
        f"weights   {p['weights']} ({p['backbone']})",
        f"images    {result.train_images} train, {result.test_images} test, {result.classes} classes",
        f"input     {p['size']} px ({p['resize']}), mean {_numbers(p['mean'])}, std {_numbers(p['std'])}, "
        f"precision {p['precision']} on {p['device']}",
        f"features  {p['features']}",
    ]
    if result.kind == "knn":
        lines.append(f"rule      {p['similarity']} similarity, vote by {p['vote']}; ties: {p['ties']}")
    else:
        how = f"C chosen on {p['C_chosen_on']}" if p["C_chosen_on"] else "C as given, the only one"
        lines.append(f"rule      {p['probe']}; {how}")
        tried = ", ".join(f"{s['C']:g}: {s['validation_accuracy']:.2f}" for s in result.sweep)
        lines += [f"sweep     C: validation accuracy %  {tried}"] if tried else []
        lines += _cautions(result)
    lines.append(f"interval  percentile bootstrap of the test images, {p['bootstrap']} resamples, seed {p['seed']}")
    if result.skipped:
        shown = [f"  {name}: {reason}" for name, reason in list(result.skipped.items())[:5]]
        more = [f"  and {len(result.skipped) - 5} more"] if len(result.skipped) > 5 else []
        lines += [f"skipped   unreadable files, not counted above: {len(result.skipped)}", *shown, *more]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _cautions(result: EvaluateResult) -> list[str]:
    """What a reader of a linear score should know before trusting it."""
    reached, said = [s["validation_accuracy"] for s in result.sweep], []
    if len(reached) > 1 and max(reached) > max(reached[1:-1], default=-1.0):
        said.append("caution   the best C is at the end of the sweep: widen --regularisation")
    if not result.protocol["converged"]:
        said.append("caution   the final fit did not converge")
    return said


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.3g}" for value in values)


def _write(result: EvaluateResult, path: Path) -> None:
    content = json.dumps(asdict(result), indent=2) + "\n"
    write_whole(path, lambda part: part.write_text(content), advice="Choose another --out.")
