"""Several seeds in one line, and what a single one may claim."""

import json
import math
import statistics

import numpy as np
import pytest
import scipy.stats

from cmid.errors import CmidError, UsageError
from cmid.evaluation.bootstrap import Interval, accuracy_interval
from cmid.evaluation.seeds import summarise_seeds


def test_students_interval_by_the_table():
    values = [97.0, 98.0, 99.0, 98.5, 97.5]
    summary = summarise_seeds(values)
    assert (summary.runs, summary.of, summary.level) == (5, "seeds", 0.95)
    assert summary.mean == pytest.approx(98) and summary.std == pytest.approx(statistics.stdev(values))
    assert summary.high - summary.mean == pytest.approx(2.776 * summary.std / math.sqrt(5), rel=1e-3)
    assert summary.mean - summary.low == pytest.approx(summary.high - summary.mean)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.9)
    narrower = summarise_seeds(np.array(values), level=0.9)
    assert (narrower.low, narrower.high) == pytest.approx((expected.low, expected.high))


def test_covers_the_truth_about_as_often_as_it_says():
    runs = np.random.default_rng(0).normal(5.0, 2.0, (1000, 3))
    summaries = [summarise_seeds(each) for each in runs]
    assert 0.93 < np.mean([s.low <= 5 <= s.high for s in summaries]) < 0.97


def test_two_runs_and_equal_runs():
    assert summarise_seeds([1.0, 3.0]).high == pytest.approx(2 + 12.706, rel=1e-4)
    same = summarise_seeds([0.5, 0.5, 0.5])
    assert (same.std, same.low, same.high) == (0, 0.5, 0.5)


def test_one_run_has_the_interval_of_its_images_or_none():
    interval = accuracy_interval(np.arange(100) < 80)
    summary = summarise_seeds([0.8], interval)
    assert (summary.runs, summary.of) == (1, "images") and math.isnan(summary.std)
    assert (summary.mean, summary.low, summary.high) == (0.8, interval.low, interval.high)
    alone = summarise_seeds([0.8])
    assert alone.of == "nothing" and math.isnan(alone.low) and math.isnan(alone.high)
    assert json.loads(json.dumps(alone.to_plain(), allow_nan=False))["low"] is None
    assert summarise_seeds([0.8, 0.9], interval).of == "seeds", "of several runs the images' interval is not used"


def test_bad_requests():
    with pytest.raises(UsageError, match="at least one run"):
        summarise_seeds([])
    with pytest.raises(UsageError, match="level inside 0 to 1"):
        summarise_seeds([1.0, 2.0], level=95)
    with pytest.raises(UsageError, match=r"figure 80, found that of 0\.8: give both in one unit"):
        summarise_seeds([80.0], Interval(0.8, 0.7, 0.9))
    with pytest.raises(CmidError, match="found nan of run 1"):
        summarise_seeds([0.8, math.nan])


def test_an_interval_ends_where_the_figure_can_go_no_further():
    free, cut = summarise_seeds([20.0, 63.0]), summarise_seeds([20.0, 63.0], within=(0, 100))
    assert free.low < 0 and free.high > 100
    assert (cut.low, cut.high) == (0, 100) and (cut.mean, cut.std) == (free.mean, free.std)
    assert math.isnan(summarise_seeds([20.0], within=(0, 100)).low), "of one run there is none"
