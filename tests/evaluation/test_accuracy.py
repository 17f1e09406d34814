"""OA counts images, AA counts classes."""

import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from cmid.evaluation.accuracy import average_accuracy, overall_accuracy


def test_equals_scikit_learn_on_unequal_classes():
    random = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate((50, 5, 20))])
    predicted = torch.where(torch.rand(75, generator=random) < 0.6, labels, 0)
    assert overall_accuracy(predicted, labels) == accuracy_score(labels, predicted)
    assert abs(average_accuracy(predicted, labels) - balanced_accuracy_score(labels, predicted)) < 1e-12
    assert average_accuracy(predicted, labels) != overall_accuracy(predicted, labels)
