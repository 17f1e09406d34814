"""Figures and differences of a comparison, against scipy's bootstrap and by what must not change them."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from cmid.evaluation.comparison import figure


def outcomes(seed, share, images=400):
    return (np.random.default_rng(seed).random(images) < share).astype(float)


def test_the_interval_is_scipys_percentile_bootstrap():
    right = outcomes(0, 0.7)
    found = figure({0: right}, resamples=20_000)
    expected = bootstrap((right,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert found.value == pytest.approx(100 * right.mean())
    assert found.low == pytest.approx(100 * expected.low, abs=0.26)  # a bound lies at a whole number of 400 images
    assert found.high == pytest.approx(100 * expected.high, abs=0.26)
    assert found.runs == 1 and np.isnan(found.spread) and found.difference is None


def test_a_difference_is_paired_by_image():
    base = outcomes(1, 0.6)
    better = base.copy()
    better[np.flatnonzero(base == 0)[:20]] = 1.0  # right wherever the other is, and on 20 more
    d = figure({0: better}, {0: base}, resamples=20_000).difference
    assert d.value == pytest.approx(5.0)
    expected = bootstrap((better - base,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    assert d.low == pytest.approx(100 * expected.confidence_interval.low, abs=0.3)
    assert d.low > 0  # though the intervals of the two overlap by far
    assert figure({0: better}).low < figure({0: base}).high


def test_differences_are_taken_on_the_seeds_that_both_have():
    own = {0: outcomes(2, 0.5), 1: outcomes(3, 0.9)}
    other = {0: outcomes(4, 0.5)}
    d = figure(own, other).difference
    assert d.value == pytest.approx(100 * (own[0].mean() - other[0].mean()))
    assert figure(own, {7: other[0]}).difference.value == pytest.approx(
        100 * ((own[0].mean() + own[1].mean()) / 2 - other[0].mean())
    )


def test_runs_that_are_not_pairs_are_all_taken():
    """An external backbone's one run is of no seed, under whatever number it is filed."""
    own, other = {0: outcomes(2, 0.5), 1: outcomes(3, 0.9)}, {0: outcomes(4, 0.5)}
    d = figure(own, other, paired=False).difference
    assert d.value == pytest.approx(figure(own).value - figure(other).value)


def test_runs_are_averaged_and_their_spread_told():
    runs = {s: outcomes(s, 0.5 + 0.1 * s) for s in range(3)}
    found = figure(runs)
    each = [100 * r.mean() for r in runs.values()]
    assert found.value == pytest.approx(np.mean(each)) and found.spread == pytest.approx(np.std(each, ddof=1))
    assert found.runs == 3


def test_the_order_of_images_and_the_sign_change_nothing_else():
    a, b = outcomes(5, 0.7), outcomes(6, 0.5)
    there, back = figure({0: a}, {0: b}).difference, figure({0: b}, {0: a}).difference
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="needs the same images: 400 and 300"):
        figure({0: outcomes(0, 0.5)}, {0: outcomes(0, 0.5, 300)})
    with pytest.raises(ValueError, match="scored on the same images"):
        figure({0: outcomes(0, 0.5), 1: outcomes(0, 0.5, 300)})
    with pytest.raises(ValueError, match="at least one run"):
        figure({})
