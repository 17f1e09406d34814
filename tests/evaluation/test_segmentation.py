"""Scores of maps against scikit-learn's and torchmetrics', and the protocols of ISPRS against counting by hand."""

import json
import math

import pytest
import torch
from sklearn import metrics
from torchmetrics.functional import classification as theirs

from cmid.errors import UsageError
from cmid.evaluation.segmentation import (
    ISPRS_CLASSES,
    ConfusionMatrix,
    Protocol,
    isprs_protocols,
    score_segmentation,
)


@pytest.fixture
def maps():
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 6, (5, 12, 17), generator=draw)
    wrong = torch.rand(labels.shape, generator=draw) < 0.4
    predicted = torch.where(wrong, torch.randint(0, 6, labels.shape, generator=draw), labels)
    labels[torch.rand(labels.shape, generator=draw) < 0.2] = 255
    return predicted, labels


def counted(predicted, labels, batch=2):
    matrix = ConfusionMatrix(6)
    for start in range(0, len(labels), batch):
        matrix.add(predicted[start : start + batch], labels[start : start + batch])
    return matrix.counts


def test_the_matrix_is_theirs_whatever_the_batches(maps):
    predicted, labels = maps
    kept = labels != 255
    by_sklearn = metrics.confusion_matrix(labels[kept], predicted[kept], labels=range(6))
    for batch in (1, 2, 5):
        assert (counted(*maps, batch).numpy() == by_sklearn).all()
    assert torch.equal(counted(*maps), theirs.multiclass_confusion_matrix(predicted, labels, 6, ignore_index=255))


def test_every_figure_is_theirs(maps):
    predicted, labels = maps
    scores = score_segmentation(counted(*maps), Protocol("six"), ISPRS_CLASSES)
    y, p = labels[labels != 255].numpy(), predicted[labels != 255].numpy()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(y, p, labels=range(6))
    iou = metrics.jaccard_score(y, p, labels=range(6), average=None)
    for i, each in enumerate(scores.per_class):
        assert each.name == ISPRS_CLASSES[i] and each.pixels == support[i] and each.counts
        found = (each.iou, each.f1, each.precision, each.recall)
        assert found == pytest.approx((iou[i], f1[i], precision[i], recall[i]), abs=1e-12)
    assert scores.mean_iou == pytest.approx(iou.mean(), abs=1e-12)
    assert scores.mean_f1 == pytest.approx(metrics.f1_score(y, p, average="macro"), abs=1e-12)
    assert scores.overall_accuracy == pytest.approx(metrics.accuracy_score(y, p), abs=1e-12)
    assert scores.mean_recall == pytest.approx(metrics.balanced_accuracy_score(y, p), abs=1e-12)
    assert scores.pixels == len(y)
    assert scores.mean_iou == pytest.approx(
        theirs.multiclass_jaccard_index(predicted, labels, 6, ignore_index=255).item(), abs=1e-6
    )


def test_five_classes_with_clutter_unlabelled_are_what_relabelled_truth_gives(maps):
    predicted, labels = maps
    five, _, _ = isprs_protocols("Potsdam", "eroded", "patches")
    scores = score_segmentation(counted(*maps), five, ISPRS_CLASSES)
    relabelled = torch.where(labels == 5, 255, labels)
    y, p = relabelled[relabelled != 255].numpy(), predicted[relabelled != 255].numpy()
    assert (p == 5).any()  # clutter that is predicted on a labelled pixel is a mistake
    assert scores.mean_iou == pytest.approx(metrics.jaccard_score(y, p, labels=range(5), average="macro"), abs=1e-12)
    assert scores.mean_f1 == pytest.approx(metrics.f1_score(y, p, labels=range(5), average="macro"), abs=1e-12)
    assert scores.overall_accuracy == pytest.approx((y == p).mean(), abs=1e-12)
    assert scores.pixels == len(y)
    clutter = scores.per_class[5]
    assert not clutter.counts and math.isnan(clutter.iou) and clutter.pixels == 0


def test_the_three_protocols_of_isprs_differ_and_say_so(maps):
    protocols = isprs_protocols("Vaihingen", "full", "tiles")
    five, of_six, six = (score_segmentation(counted(*maps), p, ISPRS_CLASSES) for p in protocols)
    assert of_six.mean_iou == pytest.approx(sum(c.iou for c in six.per_class[:5]) / 5)
    assert of_six.overall_accuracy == six.overall_accuracy != five.overall_accuracy
    assert len({five.mean_iou, of_six.mean_iou, six.mean_iou}) == 3
    assert five.mean_iou > of_six.mean_iou  # clutter that is taken for a class is not held against it
    for scores, protocol in zip((five, of_six, six), protocols, strict=True):
        assert all(figure.protocol == protocol.name for figure in scores.figures())
        assert scores.to_plain()["protocol"] == protocol.name
        assert all(word in protocol.name for word in ("Vaihingen", "full", "whole tiles"))
    names = {p.name for d in ("Potsdam", "Vaihingen") for e in ("eroded", "full") for o in ("patches", "tiles")
             for p in isprs_protocols(d, e, o)}  # fmt: skip
    assert len(names) == 24


def test_what_is_undefined_is_left_out():
    matrix = ConfusionMatrix(4)
    matrix.add(torch.tensor([[0, 0, 2, 0]]), torch.tensor([[0, 0, 0, 1]]))  # class 3 is nowhere
    scores = score_segmentation(matrix.counts, Protocol("any"))
    zero, one, two, three = scores.per_class
    assert (zero.iou, zero.precision, zero.recall) == (2 / 4, 2 / 3, 2 / 3)
    assert one.iou == one.f1 == one.recall == 0 and math.isnan(one.precision)
    assert two.iou == two.f1 == two.precision == 0 and math.isnan(two.recall)
    assert all(map(math.isnan, (three.iou, three.f1, three.precision, three.recall)))
    assert scores.mean_iou == pytest.approx(0.5 / 3)
    assert json.loads(json.dumps(scores.to_plain(), allow_nan=False))["per_class"][3]["iou"] is None
    empty = score_segmentation(ConfusionMatrix(2).counts, Protocol("any"))
    assert math.isnan(empty.mean_iou) and math.isnan(empty.overall_accuracy) and empty.pixels == 0


def test_a_batch_without_labels_changes_nothing_and_bytes_do_not_overflow():
    matrix = ConfusionMatrix(20)
    matrix.add(torch.zeros(1, 2, 2, dtype=torch.uint8), torch.full((1, 2, 2), 255, dtype=torch.uint8))
    assert matrix.counts.sum() == 0
    matrix.add(torch.full((1, 2, 2), 18, dtype=torch.uint8), torch.full((1, 2, 2), 19, dtype=torch.uint8))
    assert matrix.counts[19, 18] == 4 == matrix.counts.sum()


def test_what_does_not_fit_is_refused():
    matrix, zeros = ConfusionMatrix(3), torch.zeros(1, 2, 2, dtype=torch.int64)
    for predicted, labels, words in (
        (zeros, zeros[:, :1], "one shape"),
        (zeros.float(), zeros, "integers"),
        (zeros, zeros + 3, "labels are classes 0 to 2"),
        (zeros - 1, zeros, "predictions are classes 0 to 2"),
    ):
        with pytest.raises(UsageError, match=words):
            matrix.add(predicted, labels)
    assert matrix.counts.sum() == 0
    with pytest.raises(UsageError, match="none of the 3 classes"):
        ConfusionMatrix(3, ignore=2)
    for protocol in (Protocol("p", (0, 3)), Protocol("p", ()), Protocol("p", (0, 1), (1,))):
        with pytest.raises(UsageError, match="'p'"):
            score_segmentation(matrix.counts, protocol)
    with pytest.raises(UsageError, match="2 names"):
        score_segmentation(matrix.counts, Protocol("p"), ("a", "b"))
