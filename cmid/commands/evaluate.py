"""`cmid evaluate knn|linear`: what frozen features tell apart, on a labelled folder; a classifier: see its own file.

The test images are looked at once. Nothing is chosen on them: k is reported for every value asked for, and the
linear probe's regulariser is chosen on a part of train.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import get_pretrained_cfg
from torch import Tensor

from cmid.backbones import create_backbone
from cmid.commands.extract import backbone_of_checkpoint, checkpoint_of, summary
from cmid.commands.image_scale import labelled_notes, other_bands, put_on_scale
from cmid.commands.sources import open_one_class_each
from cmid.commands.whole_files import write_whole
from cmid.config import EvaluateConfig, ViewConfig
from cmid.contracts import Backbone
from cmid.data.images import ImageLoader
from cmid.data.sources import LabelledSource
from cmid.data.statistics import measure
from cmid.data.torchgeo_datasets import TorchgeoSide, is_named
from cmid.errors import UsageError
from cmid.evaluation.accuracy import average_accuracy, overall_accuracy
from cmid.evaluation.bootstrap import accuracy_interval
from cmid.evaluation.features import Batch, extract_features
from cmid.evaluation.knn import knn_predict
from cmid.evaluation.linear import linear_probe
from cmid.ops.normalise import normalise
from cmid.train import resolve_device, resolve_precision
from cmid.zoo.backbone_files import BackboneMetadata, load_backbone

if TYPE_CHECKING:
    from cmid.commands.evaluate_classifier import ClassifierResult

MEASURED = 256
"""Images of train that say what values the bands hold, where the weights do not."""
TIMM = "timm:"
"""Before the name of a model of timm, whose weights timm downloads."""
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
    from cmid.commands.evaluate_classifier import evaluate_classifier, refuse_classifier_settings  # it needs this file

    if kind == "classification":
        return evaluate_classifier(config)
    if kind not in ("knn", "linear"):
        raise UsageError(f"Expected an evaluation by knn, linear or classification, found {kind!r}.")
    refuse_classifier_settings(config, kind)
    if config.bootstrap < 1:
        raise UsageError(f"bootstrap is the number of resamples, at least 1; found {config.bootstrap}.")
    if config.out and Path(config.out).is_dir():
        raise UsageError(f"out is the JSON file to write; {config.out} is a folder.")
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
    _show(result, console)
    if config.out:
        _write(result, Path(config.out))
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
    metadata = _on_one_scale(sides, metadata, config)
    protocol = _protocol(config, metadata, weights) | {"device": device.type, "precision": precision}
    skipped: dict[str, str] = {}
    train, test = (
        extract_features(
            backbone.to(device), _batches(side, name, protocol, config, skipped, console), device, precision
        )
        for side, name in zip(sides, ("train", "test"), strict=True)
    )
    return Frozen(train, test, sides, metadata, protocol, skipped)


def _on_one_scale(
    sides: tuple[LabelledSource, LabelledSource], metadata: BackboneMetadata, config: EvaluateConfig
) -> BackboneMetadata:
    """Lets images and backbone agree on what 0 and 1 mean; for deep values that the weights do not say, train does."""
    deep = sides[0].dtype != torch.uint8
    if deep and metadata.low is None and isinstance(side := sides[0], TorchgeoSide):
        found = measure(side.source, side.source.names, images=min(len(side), MEASURED), seed=config.seed)
        metadata = replace(metadata, low=found.low, high=found.high, mean=found.mean, std=found.std)
    mean = metadata.mean or IMAGENET_DEFAULT_MEAN
    put_on_scale(sides, metadata.low or (), metadata.high or (), mean, config.data)
    return metadata


def _numbers_of_timm(name: str, bands: int) -> dict[str, Any]:
    """The mean and std that timm's weights were trained with."""
    about = get_pretrained_cfg(name)
    if about is None or bands != 3:
        return {}
    return {"mean": tuple(about.mean), "std": tuple(about.std), "size": int(about.input_size[-1])}


def resolve_weights(
    config: EvaluateConfig,
    bands: int = 3,
    bands_for: Callable[[BackboneMetadata], int] | None = None,
    *,
    files: bool = False,
) -> tuple[Backbone, BackboneMetadata, str]:
    """The backbone that `config.weights` means, what is known of it, and where it is from; random ones for `bands`.

    A run directory means its last checkpoint, or its backbone.safetensors where the checkpoints are gone.

    Args:
        config: names the weights, and the data they are for.
        bands: of the images.
        bands_for: how many they are for these weights, where that may be chosen.
        files: they are image files that are read as RGB, whatever they hold.

    Raises:
        UsageError: nothing there, not weights, another backbone than asked for, or bands that are not read.
    """
    path = Path(config.weights)
    if config.weights == "random":
        if config.backbone is None:
            raise UsageError("Random weights need to know of what: give --backbone, such as --backbone resnet18.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            backbone: Backbone = create_backbone(config.backbone, bands, mask_stage=None, img_size=config.size)
        views = ViewConfig()
        mean, std = (views.mean, views.std) if bands == 3 else (None, None)
        metadata = BackboneMetadata(config.backbone, bands, which="random", mean=mean, std=std)
        return backbone, metadata, f"random, seed {config.seed}"
    if config.weights.startswith(TIMM):
        name = config.weights.removeprefix(TIMM)
        backbone = create_backbone(name, bands, mask_stage=None, pretrained=True, img_size=config.size)
        return backbone, BackboneMetadata(name, bands, which="timm's", **_numbers_of_timm(name, bands)), config.weights
    if path.is_dir() and not (path / "checkpoints" / "last.ckpt").is_file():
        if not (path / "backbone.safetensors").is_file():
            raise UsageError(
                f"{path} has neither checkpoints/last.ckpt nor backbone.safetensors. Expected a run directory, a file "
                "of weights, or the word random."
            )
        path = path / "backbone.safetensors"
    if path.is_dir() or path.suffix == ".ckpt":
        checkpoint = checkpoint_of(path)
        path = checkpoint.path
        backbone, metadata = backbone_of_checkpoint(checkpoint)
    else:
        backbone, metadata = load_backbone(path, name=config.backbone)
    if config.backbone not in (None, metadata.backbone):
        raise UsageError(
            f"{path} holds {metadata.backbone}, but {config.backbone} was asked for. Leave --backbone out."
        )
    if bands_for is not None:
        bands = bands_for(metadata)
    if metadata.in_chans != bands:
        raise other_bands(str(path), metadata.in_chans, bands, config.data, files=files)
    return backbone, metadata, str(path)


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
        yield normalise(batch.images.to(device), protocol["mean"], protocol["std"]), batch.labels
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
        "C_chosen_on": f"{config.validation_share:.0%} of each class of train; then fitted on all of train",
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
        lines.append(f"rule      {p['probe']}; C chosen on {p['C_chosen_on']}")
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
