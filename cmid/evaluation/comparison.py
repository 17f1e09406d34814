"""Several methods on the same test images: figures with intervals, and differences to one of them.

A method's figure is the mean over its runs (seeds, and draws of labels) of the share of test images that are right.
Its interval is the percentile bootstrap over test images of that mean: it says what other images would have given,
with these runs. How much the runs differ is told beside it. A difference is taken image by image, on the same
resamples, between the same seeds where both methods have them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cmid.evaluation.bootstrap import Interval

Outcomes = Mapping[int, np.ndarray]
"""Seed to `(M,)` float: the share of a run's draws in which each test image was classified rightly."""


@dataclass(frozen=True)
class Figure:
    """One method on one probe, in percent.

    Attributes:
        value: mean over runs and images.
        low, high: its 95 % interval over test images.
        runs: how many runs are in it.
        spread: standard deviation between runs (divided by runs - 1); NaN for one.
        difference: to the reference, in points, on the seeds both have; None for the reference itself.
        shared: the seeds that the difference rests on; empty where all runs of each were taken, or there is none.
    """

    value: float
    low: float
    high: float
    runs: int
    spread: float
    difference: Interval | None = None
    shared: tuple[int, ...] = ()

    @property
    def difference_runs(self) -> int:
        """How many of the method's runs are in the difference."""
        return 0 if self.difference is None else len(self.shared) or self.runs


def figure(
    own: Outcomes, reference: Outcomes | None = None, resamples: int = 2000, seed: int = 0, *, paired: bool = True
) -> Figure:
    """A method's figure, and its difference to `reference` where that is another method's.

    Where they share no seed, or are not `paired` (an external backbone has one run, of no seed), all runs of each are
    taken.

    Raises:
        ValueError: no run, or runs on different numbers of images.
    """
    stacked = _stacked(own)
    value, low, high = _interval(stacked.mean(0), resamples, seed)
    each = stacked.mean(1)
    spread = float(100 * each.std(ddof=1)) if len(each) > 1 else float("nan")
    difference, shared = None, []
    if reference is not None:
        shared = sorted(set(own) & set(reference)) if paired else []
        mine, theirs = (_stacked({s: side[s] for s in shared} if shared else side).mean(0) for side in (own, reference))
        if mine.shape != theirs.shape:
            raise ValueError(f"A difference needs the same images: {len(mine)} and {len(theirs)} were given.")
        difference = Interval(*_interval(mine - theirs, resamples, seed))
    return Figure(value, low, high, len(each), spread, difference, tuple(shared))


def _stacked(outcomes: Outcomes) -> np.ndarray:
    """`(R, M)` float64 of R runs."""
    if not outcomes:
        raise ValueError("A figure needs at least one run.")
    rows = [np.asarray(each, dtype=np.float64) for each in outcomes.values()]
    if len({row.shape for row in rows}) > 1:
        raise ValueError(f"All runs must be scored on the same images, found {[len(row) for row in rows]}.")
    return np.stack(rows)


def _interval(per_image: np.ndarray, resamples: int, seed: int) -> tuple[float, float, float]:
    """Mean of `(M,)` in percent with its bootstrap interval; the same seed draws the same images."""
    random, means = np.random.default_rng(seed), []
    for _ in range(0, resamples, 256):  # some at a time: 2,000 x 100,000 indices would be 1.6 GB
        chosen = random.integers(len(per_image), size=(256, len(per_image)))
        means.append(per_image[chosen].mean(1))
    draws = np.concatenate(means)[:resamples]
    low, high = np.quantile(draws, (0.025, 0.975))
    return 100 * float(per_image.mean()), 100 * float(low), 100 * float(high)
