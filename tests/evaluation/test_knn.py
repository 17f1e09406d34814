"""Cosine kNN against scikit-learn, and what happens on ties."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from cmid.evaluation import knn
from cmid.evaluation.knn import knn_predict, nearest_neighbours


def blobs(count, dim=16, classes=5, seed=0):
    """Overlapping classes around fixed centres: accuracy well between chance and 1."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    centres = np.random.default_rng(99).standard_normal((classes, dim))
    features = centres[labels] + 1.5 * random.standard_normal((count, dim))
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_equals_scikit_learn_where_no_vote_ties(k):
    (train, train_y), (test, _) = blobs(200, seed=1), blobs(150, seed=2)
    theirs = KNeighborsClassifier(k, metric="cosine").fit(train.numpy(), train_y.numpy())
    votes = np.sort(theirs.predict_proba(test.numpy()), axis=1)
    clear = torch.from_numpy(votes[:, -1] > votes[:, -2])
    assert clear.sum() > 100
    ours = knn_predict(train, train_y, test, [k])[k]
    assert torch.equal(ours[clear], torch.from_numpy(theirs.predict(test.numpy()))[clear])


def test_temperature_equals_scikit_learn_with_those_weights():
    (train, train_y), (test, _) = blobs(200, seed=1), blobs(150, seed=2)
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    theirs.fit(train.double().numpy(), train_y.numpy())
    ours = knn_predict(train, train_y, test, [20], temperature=0.07)[20]
    assert torch.equal(ours, torch.from_numpy(theirs.predict(test.double().numpy())))
    assert not torch.equal(ours, knn_predict(train, train_y, test, [20])[20])


def test_a_tiny_temperature_is_the_nearest_neighbour():
    (train, train_y), (test, _) = blobs(200, seed=1), blobs(150, seed=2)
    both = knn_predict(train, train_y, test, [1, 20], temperature=1e-6)
    assert torch.equal(both[1], both[20])


def test_chunks_change_nothing(monkeypatch):
    (train, train_y), (test, _) = blobs(200, seed=1), blobs(150, seed=2)
    whole = knn_predict(train, train_y, test, [1, 5])
    monkeypatch.setattr(knn, "_SIMILARITIES_AT_ONCE", 7 * 200)
    parts = knn_predict(train, train_y, test, [1, 5])
    assert all(torch.equal(whole[k], parts[k]) for k in (1, 5))


def test_scale_of_features_does_not_matter():
    (train, train_y), (test, _) = blobs(200, seed=1), blobs(150, seed=2)
    scaled = train * torch.rand(200, 1).add(0.1)
    assert torch.equal(knn_predict(train, train_y, test, [5])[5], knn_predict(scaled, train_y, 8 * test, [5])[5])


def test_equal_votes_go_to_the_class_of_the_nearest():
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    train = torch.stack([angles.cos(), angles.sin()], dim=1)
    query = torch.tensor([[1.0, 0.0]])
    assert knn_predict(train, torch.tensor([2, 0, 0, 2, 1]), query, [4])[4].item() == 2
    assert knn_predict(train, torch.tensor([1, 2, 2, 0, 0]), query, [5])[5].item() == 2


def test_equal_similarities_go_by_row():
    similarity = torch.tensor([[0.5, 0.9, 0.5, 0.5, 0.5, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    for _ in range(3):
        value, column = nearest_neighbours(similarity, 3)
        assert column.tolist() == [[1, 0, 2], [5, 4, 3]]
        assert torch.equal(value, similarity.gather(1, column))


@pytest.mark.parametrize("ks", [[0], [201], [], [5, 500]])
def test_impossible_k(ks):
    train, train_y = blobs(200)
    with pytest.raises(ValueError, match="from 1 to the 200 training images"):
        knn_predict(train, train_y, train, ks)


def test_temperature_must_be_positive():
    train, train_y = blobs(20)
    with pytest.raises(ValueError, match="positive"):
        knn_predict(train, train_y, train, [1], temperature=0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_row_of_zeros_is_near_to_none_in_any_type(dtype):
    train, test = torch.tensor([[0, 0], [1, 0], [0, 1]], dtype=dtype), torch.tensor([[1, 0.1], [0, 0]], dtype=dtype)
    assert knn_predict(train, torch.tensor([2, 0, 1]), test, [1])[1].tolist() == [0, 2]
