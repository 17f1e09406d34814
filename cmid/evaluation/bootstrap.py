"""Percentile bootstrap over test images: what the accuracy would be on other images of the same kind.

Drawing M outcomes with replacement from M outcomes of which a share p is right gives a number of right ones that is
binomial (M, p): the resamples are drawn from that law directly, which is the same bootstrap without M x R indices. The
interval covers the draw of the test images, not that of the training images nor the seed of pre-training; where all or
none are right it has no width, since resampling cannot invent the other outcome.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Interval:
    """A figure with the interval that holds it in `level` of the resamples; unit as given."""

    value: float
    low: float
    high: float
    level: float = 0.95


def accuracy_interval(right: ArrayLike, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Accuracy, 0 to 1, and its interval, from `right` `(M,)` bool: which test images were classified rightly."""
    outcomes = _outcomes(right)
    _check(resamples, level)
    value = float(outcomes.mean())
    draws = np.random.default_rng(seed).binomial(len(outcomes), value, size=resamples) / len(outcomes)
    return _percentiles(value, draws, level)


def mean_average_precision_interval(
    probabilities: np.ndarray, targets: np.ndarray, resamples: int = 500, seed: int = 0, level: float = 0.95
) -> Interval:
    """mAP, 0 to 1, of several classes an image, and its interval over images.

    Args:
        probabilities: `(M, K)` float.
        targets: `(M, K)` of 0 and 1.
        resamples: how many sets of M images are drawn with replacement.
        seed: fixes them.
        level: of the interval.

    A resample counts image i as often as it was drawn; classes without an image in it are left out of its mean.
    """
    _check(resamples, level)
    images = len(probabilities)
    counts = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    counts = np.concatenate((np.ones((1, images), counts.dtype), counts))  # the first is the images themselves
    areas = np.stack([_average_precision(p, y, counts) for p, y in zip(probabilities.T, targets.T > 0, strict=True)])
    with np.errstate(invalid="ignore"):
        means = np.nansum(areas, 0) / (~np.isnan(areas)).sum(0)
    return _percentiles(float(means[0]), means[1:][~np.isnan(means[1:])], level)


def _average_precision(probabilities: np.ndarray, positive: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`(R,)` of counts `(R, M)`, as scikit-learn's: its thresholds are the distinct probabilities. NaN without any."""
    order = np.argsort(-probabilities, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(probabilities[order]) != 0, True))
    found = np.full(len(counts), np.nan)
    for start in range(0, len(counts), 64):
        drawn = counts[start : start + 64, order]
        hits, shown = (np.cumsum(each, 1)[:, ends] for each in (drawn * positive[order], drawn))
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.nan_to_num(hits / shown)
            gained = np.diff(hits, axis=1, prepend=0)
            found[start : start + 64] = (precision * gained).sum(1) / hits[:, -1]
    return found


def _outcomes(right: ArrayLike) -> np.ndarray:
    outcomes = np.asarray(right)
    if outcomes.ndim != 1 or not len(outcomes) or outcomes.dtype != np.bool_:
        raise ValueError(f"One bool per test image was expected, not {outcomes.dtype} of shape {outcomes.shape}.")
    return outcomes


def _check(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"At least 1 resample and a level inside 0 to 1 were expected, not {resamples} and {level}.")


def _percentiles(value: float, draws: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)
