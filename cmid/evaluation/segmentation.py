"""Measures of maps of classes, from one confusion matrix over a whole data set.

What figures of ISPRS Potsdam and Vaihingen mean depends on choices that papers mix: whether clutter counts, whether the
labels' borders were taken away ("eroded", the files called noBoundary) and whether pixels were counted on overlapping
patches or whole tiles. One set of predictions can differ by 0.08 of mIoU between them. So every figure carries its
`Protocol`, and a matrix over all classes is scored by as many protocols as one likes.

What is undefined is NaN (None in `to_plain`), and means leave it out: precision of a class that is never predicted,
recall of one that never occurs, IoU and F1 of one that does neither.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cmid.errors import UsageError

ISPRS_CLASSES = ("impervious surface", "building", "low vegetation", "tree", "car", "clutter")
"""Of Potsdam and Vaihingen, in the order of the published labels."""


@dataclass(frozen=True)
class Protocol:
    """Which pixels and which classes make a figure.

    Attributes:
        name: what is printed beside every figure.
        means_over: classes of the means over classes; None: all.
        unlabelled: classes whose pixels do not count, as if they had no label. Elsewhere a prediction of such a class
            is a mistake still.
    """

    name: str
    means_over: tuple[int, ...] | None = None
    unlabelled: tuple[int, ...] = ()


def isprs_protocols(
    dataset: Literal["Potsdam", "Vaihingen"],
    labels: Literal["eroded", "full"],
    over: Literal["patches", "tiles"],
    departures: Sequence[str] = (),
) -> tuple[Protocol, ...]:
    """The three ways in which the six classes of ISPRS are reported, that of the published CMID first.

    - 5 classes: pixels of clutter have no label.
    - 5 of 6 classes: pixels of clutter count where they are taken for another class, and in OA, but the means leave
      clutter out.
    - 6 classes.

    Args:
        dataset: which.
        labels: the labels that were compared with: `eroded` of the noBoundary files, or `full`.
        over: where pixels were counted: `patches`, which overlap and so count some pixels more than once, or `tiles`.
        departures: what else is not as usual: other bands, windows or tiles; each stands in the names.
    """
    counted = "patches" if over == "patches" else "whole tiles"
    where = ", ".join((f"ISPRS {dataset}", f"{labels} labels", counted, *departures))
    five, clutter = tuple(range(5)), ISPRS_CLASSES.index("clutter")
    return (
        Protocol(f"{where}, 5 classes, clutter unlabelled", five, (clutter,)),
        Protocol(f"{where}, 5 of 6 classes, clutter labelled", five),
        Protocol(f"{where}, 6 classes"),
    )


class ConfusionMatrix:
    """Counts of pixels by truth and prediction, filled batch by batch.

    Args:
        classes: K.
        ignore: the label of pixels that do not count.
        device: where it is counted.

    Attributes:
        counts: `(K, K)` int64, rows are the truth, columns what was predicted.
    """

    def __init__(self, classes: int, ignore: int = 255, device: torch.device | str = "cpu") -> None:
        if 0 <= ignore < classes:
            raise UsageError(
                f"The label to ignore is none of the {classes} classes 0 to {classes - 1}; found {ignore}."
            )
        self.classes, self.ignore = classes, ignore
        self.counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(self, predicted: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            predicted: integer, `(B, H, W)` or any shape: classes 0 to K - 1, also where there is no label.
            labels: integer of the same shape: classes, or `ignore`.

        Raises:
            UsageError: shapes that differ, no integers, or numbers that are no classes.
        """
        if predicted.shape != labels.shape or predicted.is_floating_point() or labels.is_floating_point():
            raise UsageError(
                "Predictions and labels are integers of one shape; found "
                f"{predicted.dtype} {tuple(predicted.shape)} and {labels.dtype} {tuple(labels.shape)}."
            )
        predicted, labels = predicted.to(self.counts.device).long(), labels.to(self.counts.device).long()
        counted = labels != self.ignore
        for what, numbers in (("labels", labels[counted]), ("predictions", predicted[counted])):
            if numbers.numel() and not 0 <= (found := _extremes(numbers))[0] <= found[1] < self.classes:
                raise UsageError(
                    f"The {what} are classes 0 to {self.classes - 1} (labels also {self.ignore}, not counted); found "
                    f"numbers from {found[0]} to {found[1]}."
                )
        cells = labels[counted] * self.classes + predicted[counted]
        self.counts += torch.bincount(cells, minlength=self.classes**2).view_as(self.counts)


class Figure(NamedTuple):
    """A number that is never told without the protocol it was had by."""

    name: str
    value: float
    protocol: str


@dataclass(frozen=True)
class SegmentedClass:
    """One class, shares from 0 to 1; NaN where undefined.

    Attributes:
        name: of the class.
        iou: intersection over union of its pixels and of those taken for it.
        f1: harmonic mean of precision and recall.
        precision: share of the pixels taken for it that are of it.
        recall: share of its pixels that are taken for it.
        pixels: of it.
        counts: whether the means over classes hold it.
    """

    name: str
    iou: float
    f1: float
    precision: float
    recall: float
    pixels: int
    counts: bool


@dataclass(frozen=True)
class SegmentationScores:
    """How well maps of classes agree with the truth; shares from 0 to 1.

    Attributes:
        protocol: its name.
        pixels: that count.
        mean_iou: mIoU.
        mean_f1: mF1.
        overall_accuracy: OA, share of the pixels that are right.
        mean_recall: mean over classes, which mmsegmentation calls mAcc.
        per_class: all K, in their order, whether they count in the means or not.
    """

    protocol: str
    pixels: int
    mean_iou: float
    mean_f1: float
    overall_accuracy: float
    mean_recall: float
    per_class: tuple[SegmentedClass, ...]

    def figures(self) -> tuple[Figure, ...]:
        """mIoU, mF1, OA and the IoU and F1 of each class, each with the protocol."""
        found = [("mIoU", self.mean_iou), ("mF1", self.mean_f1), ("OA", self.overall_accuracy)]
        for each in self.per_class:
            found += [(f"IoU of {each.name}", each.iou), (f"F1 of {each.name}", each.f1)]
        return tuple(Figure(name, value, self.protocol) for name, value in found)

    def to_plain(self) -> dict[str, Any]:
        """Lists, numbers and text for JSON; what is undefined is None."""
        return _plain(asdict(self))


def score_segmentation(counts: Tensor, protocol: Protocol, classes: Sequence[str] | None = None) -> SegmentationScores:
    """Scores by one protocol.

    Args:
        counts: `(K, K)` integer, as `ConfusionMatrix` has them: rows are the truth.
        protocol: which pixels and classes count.
        classes: K names; unset: their numbers.

    Raises:
        UsageError: no square matrix, names or classes of the protocol that do not fit it.
    """
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.is_floating_point():
        raise UsageError(f"A confusion matrix is integer (K, K); found {counts.dtype} {tuple(counts.shape)}.")
    number = counts.shape[0]
    names = [str(i) for i in range(number)] if classes is None else list(classes)
    chosen = tuple(range(number)) if protocol.means_over is None else protocol.means_over
    if len(names) != number:
        raise UsageError(f"The matrix has {number} classes; found {len(names)} names.")
    strangers = [c for c in (*chosen, *protocol.unlabelled) if not 0 <= c < number]
    if strangers or not chosen or set(chosen) & set(protocol.unlabelled):
        raise UsageError(
            f"{protocol.name!r}: the means need classes from 0 to {number - 1}, none of them unlabelled; found means "
            f"over {chosen}, unlabelled {protocol.unlabelled}."
        )
    matrix = counts.detach().cpu().double()
    matrix[list(protocol.unlabelled)] = 0
    right, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    # 0 / 0 is NaN, as it is to be
    columns = {
        "iou": right / (truth + predicted - right),
        "f1": 2 * right / (truth + predicted),
        "precision": right / predicted,
        "recall": right / truth,
    }
    for column in columns.values():
        column[list(protocol.unlabelled)] = math.nan
    means = {key: column[list(chosen)].nanmean().item() for key, column in columns.items()}
    per_class = tuple(
        SegmentedClass(
            names[i], **{k: c[i].item() for k, c in columns.items()}, pixels=int(truth[i]), counts=i in chosen
        )
        for i in range(number)
    )
    accuracy = (right.sum() / truth.sum()).item()
    return SegmentationScores(
        protocol.name, int(truth.sum()), means["iou"], means["f1"], accuracy, means["recall"], per_class
    )


def _extremes(numbers: Tensor) -> tuple[int, int]:
    low, high = torch.aminmax(numbers)
    return int(low), int(high)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
