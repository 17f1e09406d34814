"""Intervals against resampling by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cmid.evaluation.bootstrap import accuracy_interval, mean_average_precision_interval


def outcomes(count, share, seed=0):
    return np.random.default_rng(seed).random(count) < share


def by_hand(values, resamples=20000):
    random = np.random.default_rng(5)
    means = values[random.integers(0, len(values), (resamples, len(values)))].mean(1)
    return np.quantile(means, [0.025, 0.975])


def test_equals_resampling_image_by_image():
    right = outcomes(200, 0.7)
    interval = accuracy_interval(right, resamples=20000)
    assert interval.value == right.mean()
    np.testing.assert_allclose([interval.low, interval.high], by_hand(right), atol=0.0051)  # one image is 0.005


def test_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(400):
        interval = accuracy_interval(outcomes(300, 0.8, seed), seed=seed)
        hits += interval.low <= 0.8 <= interval.high
    assert 0.91 < hits / 400 < 0.98


def test_same_seed_same_interval():
    right = outcomes(100, 0.5)
    assert accuracy_interval(right, seed=1) == accuracy_interval(right, seed=1)
    assert accuracy_interval(right, seed=1) != accuracy_interval(right, seed=2)


def test_narrows_with_images_and_vanishes_at_the_ends():
    few, many = accuracy_interval(outcomes(50, 0.7)), accuracy_interval(outcomes(5000, 0.7))
    assert many.high - many.low < 0.3 * (few.high - few.low)
    perfect = accuracy_interval(np.ones(10, dtype=bool))
    assert (perfect.value, perfect.low, perfect.high) == (1.0, 1.0, 1.0)


def test_bad_requests():
    with pytest.raises(ValueError, match="One bool per test image"):
        accuracy_interval(np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match="One bool per test image"):
        accuracy_interval(np.array([], dtype=bool))
    with pytest.raises(ValueError, match="At least 1 resample"):
        accuracy_interval(np.ones(5, bool), resamples=0)


def test_map_and_its_resamples_are_scikit_learns():
    rng = np.random.default_rng(0)
    probabilities = rng.random((60, 4)).round(1)  # with ties
    targets = (rng.random((60, 4)) < probabilities).astype(float)
    targets[:, 3] = 0  # a class that no image is of is left out
    found = mean_average_precision_interval(probabilities, targets, resamples=40, seed=5)
    shown = range(3)
    assert found.value == pytest.approx(
        np.mean([average_precision_score(targets[:, k], probabilities[:, k]) for k in shown])
    )
    counts = np.random.default_rng(5).multinomial(60, np.full(60, 1 / 60), size=40)
    means = [
        np.mean([average_precision_score(targets[:, k], probabilities[:, k], sample_weight=c) for k in shown])
        for c in counts
    ]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
