"""Measures against scikit-learn, torchmetrics and matrices by hand."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchmetrics.functional import classification as torchmetrics

from cmid.errors import CmidError, UsageError
from cmid.evaluation.classification import (
    ConfusedPair,
    accuracy_last_batch_dropped,
    images_before_last_batch,
    score_classification,
    score_multi_label,
)


def guesses(images=400, classes=6, seed=0, skill=1.5):
    """Probabilities that lean to the labels, of classes that differ in size."""
    random = torch.Generator().manual_seed(seed)
    labels = (torch.rand(images, generator=random) ** 2 * classes).long()
    logits = torch.randn(images, classes, generator=random)
    logits[torch.arange(images), labels] += skill
    return (2 * logits).softmax(dim=1), labels


def sure(predicted, classes=3, top=0.8):
    """Probabilities whose greatest is `top`, of the class named."""
    rest = (1 - top) / max(1, classes - 1)
    return torch.full((len(predicted), classes), rest).scatter_(1, torch.tensor(predicted)[:, None], top)


def test_equals_scikit_learn_and_torchmetrics():
    probabilities, labels = guesses()
    scores = score_classification(probabilities, labels)
    predicted, truth = probabilities.argmax(dim=1).numpy(), labels.numpy()
    assert scores.images == 400 and scores.confusion.dtype == np.int64
    assert np.array_equal(scores.confusion, metrics.confusion_matrix(truth, predicted))
    assert scores.overall_accuracy == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert scores.average_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    assert scores.kappa == pytest.approx(metrics.cohen_kappa_score(truth, predicted))
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    nats = torch.nn.functional.nll_loss(probabilities.double().log(), labels).item()
    assert scores.negative_log_likelihood == pytest.approx(nats)
    columns = metrics.precision_recall_fscore_support(truth, predicted)
    for number, each in enumerate(scores.per_class):
        assert (each.precision, each.recall, each.f1, each.support) == pytest.approx([c[number] for c in columns])
        assert each.name == str(number) and math.isnan(each.average_precision)
    expected = torchmetrics.multiclass_calibration_error(probabilities, labels, 6, n_bins=15)
    assert scores.expected_calibration_error == pytest.approx(expected.item(), abs=1e-5)


def test_a_matrix_by_hand():
    # Rows a, b, c; 5 of 9 right, agreement by chance (4 x 3 + 3 x 4 + 2 x 2) / 81.
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    scores = score_classification(sure([0, 0, 1, 1, 1, 1, 2, 2, 0]), labels, ("a", "b", "c"), pairs=2)
    assert scores.confusion.tolist() == [[2, 2, 0], [0, 2, 1], [1, 0, 1]]
    assert scores.overall_accuracy == pytest.approx(5 / 9)
    assert scores.average_accuracy == pytest.approx((2 / 4 + 2 / 3 + 1 / 2) / 3)
    assert scores.kappa == pytest.approx((5 / 9 - 28 / 81) / (1 - 28 / 81))
    assert [c.f1 for c in scores.per_class] == pytest.approx([4 / 7, 4 / 7, 2 / 4])
    assert scores.confused == (ConfusedPair("a", "b", 2, 0.5), ConfusedPair("c", "a", 1, 0.5)), "equals: greater share"
    assert scores.negative_log_likelihood == pytest.approx(-(5 * math.log(0.8) + 4 * math.log(0.1)) / 9, rel=1e-5)
    assert scores.expected_calibration_error == pytest.approx(0.8 - 5 / 9)


def test_calibration_bins_hold_every_image_once():
    probabilities, labels = guesses(1000)
    table = score_classification(probabilities, labels).calibration
    top, predicted = probabilities.double().max(dim=1)
    assert len(table) == 15 and sum(each.images for each in table) == 1000
    assert [each.low for each in table] == pytest.approx([i / 15 for i in range(15)])
    assert [each.high for each in table] == pytest.approx([(i + 1) / 15 for i in range(15)])
    for each in table:
        inside = (top > each.low) & (top <= each.high)
        assert each.images == int(inside.sum())
        if each.images:
            assert each.confidence == pytest.approx(top[inside].mean().item())
            assert each.accuracy == pytest.approx((predicted == labels)[inside].double().mean().item())
        else:
            assert math.isnan(each.confidence) and math.isnan(each.accuracy)
    edge = score_classification(torch.tensor([[0.4, 0.6]]), torch.tensor([1]), bins=5).calibration
    assert [each.images for each in edge] == [0, 0, 0, 1, 0], "float32's 0.6 is just above the edge"
    edge = score_classification(torch.tensor([[0.5, 0.5]]), torch.tensor([1]), bins=2).calibration
    assert [each.images for each in edge] == [1, 0], "an upper edge belongs to its bin"


def test_the_surest_mistakes_come_first():
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7], [1.0, 0.0]])
    labels = torch.tensor([1, 1, 1, 1, 0, 0])
    assert score_classification(probabilities, labels).confident_mistakes == (0, 3, 4, 1)
    assert score_classification(probabilities, labels, mistakes=2).confident_mistakes == (0, 3)


def test_classes_that_never_occur_or_are_never_predicted():
    # 0 is fine, 1 is never predicted, 2 never occurs, 3 neither
    scores = score_classification(sure([0, 0, 0, 2], classes=4), torch.tensor([0, 0, 1, 1]))
    precision, recall, f1 = zip(*[(c.precision, c.recall, c.f1) for c in scores.per_class], strict=True)
    assert precision == pytest.approx([2 / 3, math.nan, 0, math.nan], nan_ok=True)
    assert recall == pytest.approx([1, 0, math.nan, math.nan], nan_ok=True)
    assert f1 == pytest.approx([0.8, 0, 0, math.nan], nan_ok=True)
    assert scores.average_accuracy == 0.5 and scores.macro_f1 == pytest.approx(0.8 / 3)
    f1 = torchmetrics.multiclass_f1_score(torch.tensor([0, 0, 0, 2]), torch.tensor([0, 0, 1, 1]), 4, average="macro")
    assert scores.macro_f1 == pytest.approx(f1.item())


def test_one_class_only():
    scores = score_classification(sure([0, 0, 0]), torch.tensor([0, 0, 0]))
    assert (scores.overall_accuracy, scores.average_accuracy, scores.macro_f1) == (1, 1, 1)
    assert math.isnan(scores.kappa) and scores.confused == scores.confident_mistakes == ()
    assert score_classification(sure([0, 1, 0]), torch.tensor([0, 0, 0])).kappa == 0
    single = score_classification(torch.ones(3, 1), torch.zeros(3, dtype=torch.long))
    assert single.confusion.tolist() == [[3]] and single.negative_log_likelihood == 0


def test_a_certain_mistake_has_a_finite_likelihood():
    scores = score_classification(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert scores.negative_log_likelihood == pytest.approx(-math.log(np.finfo(np.float32).eps))


def test_half_precision_and_equal_probabilities():
    probabilities, labels = guesses()
    half = score_classification(probabilities.bfloat16(), labels.int())
    assert half.to_plain() == score_classification(probabilities.bfloat16().double(), labels).to_plain()
    assert score_classification(torch.full((2, 4), 0.25), torch.tensor([0, 3])).confusion[:, 0].tolist() == [1, 0, 0, 1]


def test_plain_is_json_without_nan():
    probabilities, labels = guesses(30, 4)
    scores = score_classification(probabilities, labels, ["field", "port", "river", "town"])
    plain = json.loads(json.dumps(scores.to_plain(), allow_nan=False))
    assert plain["confusion"] == scores.confusion.tolist() and plain["images"] == 30
    assert plain["per_class"][1]["name"] == "port" and plain["calibration"][0]["accuracy"] is None
    assert plain["confident_mistakes"] == list(scores.confident_mistakes)
    empty = score_multi_label(torch.rand(3, 2) * 0.4, torch.zeros(3, 2))
    assert json.loads(json.dumps(empty.to_plain(), allow_nan=False))["mean_average_precision"] is None


@pytest.mark.parametrize(
    ("probabilities", "labels", "says"),
    [
        (torch.rand(4), torch.zeros(4).long(), r"expected float probabilities .* shape \(4,\)"),
        (torch.empty(0, 3), torch.empty(0).long(), "at least one image"),
        (torch.ones(4, 1).long(), torch.zeros(4).long(), "found torch.int64"),
        (torch.randn(4, 3) * 5, torch.zeros(4).long(), "expected probabilities of 0 to 1, found .*: apply softmax"),
        (torch.full((4, 3), 0.6), torch.zeros(4).long(), "rows of probabilities that sum to 1"),
        (torch.full((4, 2), 0.5), torch.zeros(3).long(), "expected 4 whole labels"),
        (torch.full((4, 2), 0.5), torch.zeros(4), "expected 4 whole labels, found torch.float32"),
        (torch.full((4, 2), 0.5), torch.tensor([0, 1, 2, 0]), "expected labels 0 to 1, found 0 to 2"),
        (torch.full((4, 2), 0.5), torch.tensor([0, 1, -1, 0]), "found -1 to 1: leave unlabelled images out"),
    ],
)
def test_requests_that_do_not_fit(probabilities, labels, says):
    with pytest.raises(UsageError, match=says):
        score_classification(probabilities, labels)


def test_names_bins_and_nan():
    probabilities, labels = guesses(10, 3)
    with pytest.raises(UsageError, match=r"each of the 3 columns .* found 2"):
        score_classification(probabilities, labels, ("a", "b"))
    with pytest.raises(UsageError, match="at least 1 bin"):
        score_classification(probabilities, labels, bins=0)
    probabilities[3, 1] = math.nan
    for score, targets in ((score_classification, labels), (score_multi_label, torch.zeros(10, 3))):
        with pytest.raises(CmidError, match="1 of 10 images have NaN"):
            score(probabilities, targets)


def several(images=200, classes=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    targets = torch.rand(images, classes, generator=random) < torch.linspace(0.1, 0.6, classes)
    logits = torch.randn(images, classes, generator=random) + 2 * targets - 1
    return (logits * 2).sigmoid(), targets.long()


def test_multi_label_equals_torchmetrics_and_scikit_learn():
    probabilities, targets = several()
    scores = score_multi_label(probabilities, targets)
    area = torchmetrics.multilabel_average_precision(probabilities, targets, 5, average=None)
    assert [c.average_precision for c in scores.per_class] == pytest.approx(area.tolist(), abs=1e-5)
    assert scores.mean_average_precision == pytest.approx(area.mean().item(), abs=1e-5)
    truth, predicted = targets.numpy(), probabilities.numpy() > 0.5
    columns = metrics.precision_recall_fscore_support(truth, predicted)
    for number, each in enumerate(scores.per_class):
        assert (each.precision, each.recall, each.f1, each.support) == pytest.approx([c[number] for c in columns])
    assert scores.micro_f1 == pytest.approx(metrics.f1_score(truth, predicted, average="micro"))
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert scores.subset_accuracy == pytest.approx(metrics.accuracy_score(truth, predicted))
    for dtype in (torch.bool, torch.float32, torch.bfloat16, torch.uint8):
        assert score_multi_label(probabilities, targets.to(dtype)).to_plain() == scores.to_plain()


def test_multi_label_by_hand():
    # Of class a the images rank right, wrong, right: AP = (1 + 2/3) / 2. Class b never occurs, c is never predicted.
    probabilities = torch.tensor([[0.9, 0.6, 0.1], [0.8, 0.2, 0.4], [0.7, 0.1, 0.3]])
    targets = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 0, 1]])
    scores = score_multi_label(probabilities, targets, ("a", "b", "c"))
    a, b, c = scores.per_class
    assert (
        a.average_precision == pytest.approx(5 / 6) and c.average_precision == 0.5 and math.isnan(b.average_precision)
    )
    assert scores.mean_average_precision == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert (a.f1, b.f1, c.f1) == pytest.approx((0.8, 0, 0)) and math.isnan(b.recall) and math.isnan(c.precision)
    assert scores.micro_f1 == pytest.approx(2 * 2 / (4 + 3)) and scores.macro_f1 == pytest.approx(0.8 / 3)
    assert scores.subset_accuracy == 0
    stricter = score_multi_label(probabilities, targets, threshold=0.85)
    assert stricter.subset_accuracy == pytest.approx(2 / 3) and stricter.threshold == 0.85


def test_multi_label_of_one_class_or_of_nothing():
    one = score_multi_label(torch.tensor([[0.9], [0.2], [0.7]]), torch.tensor([[1], [0], [0]]))
    assert one.mean_average_precision == 1 and one.micro_f1 == one.macro_f1 == pytest.approx(2 / 3)
    nothing = score_multi_label(torch.full((4, 2), 0.1), torch.zeros(4, 2))
    assert nothing.subset_accuracy == 1
    assert all(math.isnan(v) for v in (nothing.mean_average_precision, nothing.micro_f1, nothing.macro_f1))


def test_multi_label_requests_that_do_not_fit():
    probabilities, targets = several(6)
    with pytest.raises(UsageError, match=r"targets of 0 and 1 in the shape \(6, 5\)"):
        score_multi_label(probabilities, targets[:, 0])
    with pytest.raises(UsageError, match="targets of 0 and 1"):
        score_multi_label(probabilities, targets * 2)
    with pytest.raises(UsageError, match="or sigmoid"):
        score_multi_label(probabilities * 7, targets)
    with pytest.raises(UsageError, match="threshold of 0 to below 1"):
        score_multi_label(probabilities, targets, threshold=1.0)


def test_the_published_loader_drops_its_last_batch():
    assert images_before_last_batch(420, 64) == 384 and images_before_last_batch(420, 16) == 416
    assert images_before_last_batch(420, 420) == images_before_last_batch(420, 42) == 420
    labels = torch.arange(420) % 21
    predicted = labels.clone()
    predicted[[5, 100, 383]] += 1  # the paper's 99.22 is 381 of 384
    predicted[384:] = 99
    assert round(100 * accuracy_last_batch_dropped(predicted, labels, 64), 2) == 99.22
    for batch in (0, 421):
        with pytest.raises(UsageError, match=f"batch of 1 to the 420 images there are, found {batch}"):
            accuracy_last_batch_dropped(predicted, labels, batch)
    with pytest.raises(UsageError, match="one prediction a label"):
        accuracy_last_batch_dropped(predicted[:5], labels, 4)
