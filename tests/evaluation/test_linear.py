"""The linear probe against scikit-learn by hand, and the honesty of its sweep."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cmid.evaluation.linear import linear_probe, stratified_part
from tests.evaluation.test_knn import blobs


def test_equals_standardise_then_logistic_regression():
    (train, train_y), (test, _) = blobs(200, seed=1), blobs(150, seed=2)
    probe = linear_probe(train, train_y, test, [0.1])
    x = train.double().numpy()
    mean, std = x.mean(0), x.std(0)
    theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit((x - mean) / std, train_y.numpy())
    expected = theirs.predict((test.double().numpy() - mean) / std)
    assert np.array_equal(probe.predicted.numpy(), expected)
    assert probe.converged and probe.chosen == 0.1 and probe.sweep == ()


def test_the_sweep_never_sees_the_test_images():
    (train, train_y), (test, test_y) = blobs(200, seed=1), blobs(150, seed=2)
    one = linear_probe(train, train_y, test, [0.001, 0.1, 10.0], seed=3)
    two = linear_probe(train, train_y, torch.randn_like(test), [0.001, 0.1, 10.0], seed=3)
    assert one.sweep == two.sweep and one.chosen == two.chosen
    assert (one.predicted == test_y).float().mean() > 0.5


def test_the_best_on_validation_is_taken_and_equals_go_to_the_strongest():
    train, train_y = blobs(200, seed=1)
    probe = linear_probe(train, train_y, train, [100.0, 0.00001, 0.1, 1.0])
    assert [p.regularisation for p in probe.sweep] == [0.00001, 0.1, 1.0, 100.0]
    best = max(p.validation_accuracy for p in probe.sweep)
    assert probe.chosen == min(p.regularisation for p in probe.sweep if p.validation_accuracy == best)
    apart = torch.eye(2).repeat(20, 1)
    assert linear_probe(apart, torch.arange(40) % 2, apart, [1.0, 0.1, 10.0]).chosen == 0.1


def test_the_final_fit_uses_all_of_train():
    (train, train_y), (test, _) = blobs(60, seed=1), blobs(400, seed=2)
    swept = linear_probe(train, train_y, test, [0.1, 1e-7])
    assert swept.chosen == 0.1
    assert torch.equal(swept.predicted, linear_probe(train, train_y, test, [0.1]).predicted)


def test_more_dimensions_than_images_and_constant_ones():
    train, train_y = blobs(40, dim=100, seed=1)
    train[:, 7] = 3.0
    probe = linear_probe(train, train_y, train)
    assert probe.predicted.shape == (40,) and probe.converged


def test_one_label_a_class_is_probed_without_a_word(recwarn):
    train = torch.eye(5)
    probe = linear_probe(train, torch.arange(5), train, [1.0])
    assert probe.predicted.tolist() == [0, 1, 2, 3, 4]
    assert [str(w.message) for w in recwarn] == []


def test_held_out_part_is_stratified_and_seeded():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 2 + [3])
    held = stratified_part(labels, 0.2, seed=0)
    assert [int(held[labels == c].sum()) for c in range(4)] == [10, 4, 1, 0]
    assert torch.equal(held, stratified_part(labels, 0.2, seed=0))
    assert not torch.equal(held, stratified_part(labels, 0.2, seed=1))


def test_what_cannot_be_probed():
    train, train_y = blobs(40)
    with pytest.raises(ValueError, match="at least two classes"):
        linear_probe(train, torch.zeros(40, dtype=torch.long), train)
    with pytest.raises(ValueError, match="positive"):
        linear_probe(train, train_y, train, [0.0, 1.0])
    with pytest.raises(ValueError, match="inside 0 to 1"):
        linear_probe(train, train_y, train, validation_share=1.0)
    with pytest.raises(ValueError, match="two training images"):
        linear_probe(train[:3], torch.arange(3), train)
