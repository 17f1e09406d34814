"""Measures of a classifier: of one class an image, and of any number of classes an image.

What is undefined stays undefined: precision of a class that is never predicted, recall of one that never occurs and
kappa where chance alone agrees always are NaN (None in `to_plain`), and means leave them out. So a class that is
listed but has no test image neither helps nor harms.

- OA, AA and Cohen's kappa are the three figures of the scene classification literature; AA is the mean over the
  classes present of recall, macro F1 over the classes that occur or are predicted.
- Calibration: Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599), section 2, 15 bins as there.
- Average precision is the sum over thresholds of precision times the gain of recall, without interpolation.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmid.errors import CmidError, UsageError
from cmid.evaluation.accuracy import average_accuracy, overall_accuracy

BINS = 15
_SUM_TOLERANCE = 0.02  # rows of a softmax in bf16 miss 1 by up to 0.01; logits miss it by far more
_LEAST_PROBABILITY = float(np.finfo(np.float32).eps)  # one image given 0 must not make the mean infinite


@dataclass(frozen=True)
class ClassScore:
    """One class, 0 to 1 each; NaN where undefined.

    Attributes:
        name: of the class.
        precision: share of the images given this class that are of it; NaN where none is given it.
        recall: share of its images that are given it; NaN where there are none.
        f1: harmonic mean of both; 0 where the class occurs or is predicted but never rightly, NaN where neither.
        support: its images.
        average_precision: area under precision over recall; of several classes an image only, else NaN.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    average_precision: float = math.nan


@dataclass(frozen=True)
class CalibrationBin:
    """Images whose top probability lies in (low, high]; the first bin holds 0 as well.

    Attributes:
        low: lower edge.
        high: upper edge.
        images: how many.
        confidence: mean of their top probabilities; NaN where there are none.
        accuracy: share of them that are right; NaN where there are none.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that were given another: `count` of them, `share` of the class's images."""

    truth: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True, eq=False)
class ClassificationScores:
    """How well a classifier of one class an image did; shares from 0 to 1.

    Attributes:
        images: N.
        overall_accuracy: share of images that are right (OA).
        average_accuracy: mean recall of the classes present (AA).
        kappa: Cohen's, agreement beyond chance, at most 1; NaN where one class is all there is on both sides.
        macro_f1: mean F1 of the classes that occur or are predicted.
        negative_log_likelihood: mean, in nats; probabilities below 1.2e-7 count as that.
        expected_calibration_error: mean over images of |accuracy - confidence| of their bin.
        per_class: one for each of the K classes, in their order.
        confusion: `(K, K)` int64, rows are the truth, columns what was predicted.
        calibration: the bins of the reliability diagram, lowest first.
        confused: pairs of classes with the most mistakes, most first.
        confident_mistakes: positions of wrongly classified images, the surest first.
    """

    images: int
    overall_accuracy: float
    average_accuracy: float
    kappa: float
    macro_f1: float
    negative_log_likelihood: float
    expected_calibration_error: float
    per_class: tuple[ClassScore, ...]
    confusion: np.ndarray
    calibration: tuple[CalibrationBin, ...]
    confused: tuple[ConfusedPair, ...]
    confident_mistakes: tuple[int, ...]

    def to_plain(self) -> dict[str, Any]:
        """Lists, numbers and text for JSON; what is undefined is None."""
        return _plain(asdict(self))


@dataclass(frozen=True, eq=False)
class MultiLabelScores:
    """How well a classifier of any number of classes an image did; shares from 0 to 1.

    Attributes:
        images: N.
        mean_average_precision: mean over the classes with an image (mAP); NaN where none has one.
        micro_f1: of all N x K decisions together; NaN where nothing occurs and nothing is predicted.
        macro_f1: mean F1 of the classes that occur or are predicted.
        subset_accuracy: share of images with every class right.
        threshold: a class counts as predicted where its probability is above it.
        per_class: one for each of the K classes, in their order.
    """

    images: int
    mean_average_precision: float
    micro_f1: float
    macro_f1: float
    subset_accuracy: float
    threshold: float
    per_class: tuple[ClassScore, ...]

    def to_plain(self) -> dict[str, Any]:
        """Lists, numbers and text for JSON; what is undefined is None."""
        return _plain(asdict(self))


def score_classification(
    probabilities: Tensor,
    labels: Tensor,
    classes: Sequence[str] | None = None,
    *,
    bins: int = BINS,
    pairs: int = 10,
    mistakes: int = 24,
) -> ClassificationScores:
    """Score a classifier that names one class an image: the most probable, of equals the first.

    Args:
        probabilities: `(N, K)` float, rows that sum to 1; any device and precision.
        labels: `(N,)` int64, 0 to K - 1.
        classes: K names; unset: their numbers.
        bins: of the calibration, equally wide.
        pairs: at most so many pairs of confused classes.
        mistakes: at most so many positions of mistakes.

    Raises:
        UsageError: shapes, labels or names that do not fit together, or rows that are no probabilities.
        CmidError: NaN or infinite probabilities.
    """
    chances = _checked(probabilities)
    count, number = chances.shape
    names = _names(classes, number)
    if bins < 1:
        raise UsageError(f"calibration needs at least 1 bin, found {bins}")
    if not np.allclose(chances.sum(axis=1), 1, atol=_SUM_TOLERANCE, rtol=0):
        raise UsageError("expected rows of probabilities that sum to 1, found others: apply softmax to the logits")
    if labels.shape != (count,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise UsageError(f"expected {count} whole labels, found {labels.dtype} of shape {tuple(labels.shape)}")
    truth = labels.detach().cpu().long().numpy()
    if truth.min() < 0 or truth.max() >= number:
        raise UsageError(
            f"expected labels 0 to {number - 1}, found {truth.min()} to {truth.max()}: leave unlabelled images out, "
            "and use the classes that the classifier was trained with"
        )
    predicted = chances.argmax(axis=1)
    top, right = chances[np.arange(count), predicted], predicted == truth
    confusion = np.bincount(truth * number + predicted, minlength=number**2).reshape(number, number)
    columns = _shares(np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1))
    table = _calibration(top, right, bins)
    wrong = np.flatnonzero(~right)
    of_label = chances[np.arange(count), truth]
    guess, fact = torch.from_numpy(predicted), torch.from_numpy(truth)
    return ClassificationScores(
        images=count,
        overall_accuracy=overall_accuracy(guess, fact),
        average_accuracy=average_accuracy(guess, fact),
        kappa=_kappa(confusion),
        macro_f1=_mean(columns[2]),
        negative_log_likelihood=float(np.log(1 / np.clip(of_label, _LEAST_PROBABILITY, 1)).mean()),
        expected_calibration_error=sum(b.images * abs(b.accuracy - b.confidence) for b in table if b.images) / count,
        per_class=_per_class(names, columns),
        confusion=confusion,
        calibration=table,
        confused=_confused(confusion, names, pairs),
        confident_mistakes=tuple(wrong[np.argsort(-top[wrong], kind="stable")][:mistakes].tolist()),
    )


def score_multi_label(
    probabilities: Tensor, targets: Tensor, classes: Sequence[str] | None = None, *, threshold: float = 0.5
) -> MultiLabelScores:
    """Score a classifier that says of each class whether it is in the image.

    Args:
        probabilities: `(N, K)` float, each 0 to 1 on its own; any device and precision.
        targets: `(N, K)` bool, int or float, of 0 and 1.
        classes: K names; unset: their numbers.
        threshold: a class counts as predicted where its probability is above it.

    Raises:
        UsageError: shapes, targets or names that do not fit together, values that are no probabilities, or
            a threshold out of range.
        CmidError: NaN or infinite probabilities.
    """
    from sklearn.metrics import average_precision_score  # slow to import

    if not 0 <= threshold < 1:
        raise UsageError(f"expected a threshold of 0 to below 1, found {threshold:g}")
    chances = _checked(probabilities)
    names = _names(classes, chances.shape[1])
    truth = targets.detach().cpu().double().numpy()
    if truth.shape != chances.shape or not np.isin(truth, (0, 1)).all():
        raise UsageError(
            f"expected targets of 0 and 1 in the shape {chances.shape} of the probabilities, found "
            f"{targets.dtype} of shape {tuple(targets.shape)}: one column a class, 1 where it is in the image"
        )
    truth, predicted = truth.astype(bool), chances > threshold
    hits, given, support = (truth & predicted).sum(axis=0), predicted.sum(axis=0), truth.sum(axis=0)
    columns = _shares(hits, given, support)
    areas = np.array(
        [average_precision_score(t, c) if t.any() else math.nan for t, c in zip(truth.T, chances.T, strict=True)]
    )
    return MultiLabelScores(
        images=len(truth),
        mean_average_precision=_mean(areas),
        micro_f1=float(_shares(hits.sum(), given.sum(), support.sum())[2]),
        macro_f1=_mean(columns[2]),
        subset_accuracy=float((truth == predicted).all(axis=1).mean()),
        threshold=threshold,
        per_class=_per_class(names, columns, areas),
    )


def images_before_last_batch(images: int, batch: int) -> int:
    """How many of `images` a loader with `drop_last` gives: whole batches only.

    Raises:
        UsageError: where that is none, or the batch is empty.
    """
    if batch < 1 or images < batch:
        raise UsageError(f"expected a batch of 1 to the {images} images there are, found {batch}")
    return images // batch * batch


def accuracy_last_batch_dropped(predicted: Tensor, labels: Tensor, batch: int) -> float:
    """Overall accuracy of the first floor(M / batch) x batch images, 0 to 1: for comparison with print only.

    The published CMID accuracies on UC Merced come from a loader that drops its last batch: of 420 test images and
    batches of 64, 384 are counted. It depends on the order of the images, so never print it as the overall accuracy.

    Args:
        predicted: `(M,)` int64, in the order of the loader.
        labels: `(M,)` int64, likewise.
        batch: images a batch of that loader.

    Raises:
        UsageError: where no batch is full, or the two differ in length.
    """
    if predicted.shape != labels.shape or predicted.ndim != 1:
        raise UsageError(f"expected one prediction a label, found {tuple(predicted.shape)} and {tuple(labels.shape)}")
    kept = images_before_last_batch(len(labels), batch)
    return overall_accuracy(predicted[:kept], labels[:kept])


def _checked(probabilities: Tensor) -> np.ndarray:
    """`(N, K)` float64, finite, 0 to 1."""
    if probabilities.ndim != 2 or not probabilities.numel() or not probabilities.is_floating_point():
        raise UsageError(
            "expected float probabilities (images, classes) of at least one image, found "
            f"{probabilities.dtype} of shape {tuple(probabilities.shape)}"
        )
    chances = probabilities.detach().cpu().double().numpy()
    bad = int((~np.isfinite(chances).all(axis=1)).sum())
    if bad:
        raise CmidError(
            f"Finite probabilities were expected, but {bad} of {len(chances)} images have NaN or infinite ones. The "
            "weights may have diverged: take an earlier checkpoint, or try --precision 32."
        )
    if chances.min() < 0 or chances.max() > 1 + _SUM_TOLERANCE:
        raise UsageError(
            f"expected probabilities of 0 to 1, found {chances.min():g} to {chances.max():g}: apply softmax (one "
            "class an image) or sigmoid (several) to the logits"
        )
    return chances


def _names(classes: Sequence[str] | None, number: int) -> tuple[str, ...]:
    if classes is None:
        return tuple(map(str, range(number)))
    if len(classes) != number:
        raise UsageError(f"expected a name for each of the {number} columns of probabilities, found {len(classes)}")
    return tuple(classes)


def _shares(hits: np.ndarray, given: np.ndarray, support: np.ndarray) -> tuple[np.ndarray, ...]:
    """Precision, recall, F1 and support from counts of what is right, predicted and true."""
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: undefined, as it should be
        return hits / given, hits / support, 2 * hits / (given + support), support


def _per_class(
    names: tuple[str, ...], columns: tuple[np.ndarray, ...], areas: np.ndarray | None = None
) -> tuple[ClassScore, ...]:
    areas = np.full(len(names), math.nan) if areas is None else areas
    return tuple(
        ClassScore(name, float(precision), float(recall), float(f1), int(support), float(area))
        for name, precision, recall, f1, support, area in zip(names, *columns, areas, strict=True)
    )


def _mean(values: np.ndarray) -> float:
    """Of the defined ones; NaN where there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def _kappa(confusion: np.ndarray) -> float:
    """Cohen, A Coefficient of Agreement for Nominal Scales, 1960: (observed - by chance) / (1 - by chance)."""
    total = int(confusion.sum())
    observed = int(np.trace(confusion)) * total
    by_chance = int(confusion.sum(axis=0) @ confusion.sum(axis=1))
    return (observed - by_chance) / (total**2 - by_chance) if by_chance < total**2 else math.nan


def _calibration(top: np.ndarray, right: np.ndarray, bins: int) -> tuple[CalibrationBin, ...]:
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.digitize(top, edges, right=True) - 1, 0, bins - 1)
    table = []
    for number in range(bins):
        inside = which == number
        means = (float(top[inside].mean()), float(right[inside].mean())) if inside.any() else (math.nan, math.nan)
        table.append(CalibrationBin(float(edges[number]), float(edges[number + 1]), int(inside.sum()), *means))
    return tuple(table)


def _confused(confusion: np.ndarray, names: tuple[str, ...], pairs: int) -> tuple[ConfusedPair, ...]:
    support = confusion.sum(axis=1)
    found = [(int(confusion[t, p]), int(t), int(p)) for t, p in np.argwhere(confusion) if t != p]
    found.sort(key=lambda each: (-each[0], -each[0] / support[each[1]], *each[1:]))
    return tuple(ConfusedPair(names[t], names[p], count, count / int(support[t])) for count, t, p in found[:pairs])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and not math.isfinite(value) else value
