import json
import re
from html import unescape

import numpy as np
import pytest

from cmid.report.charts import Chart, Series, binned, line_chart, short, ticks


def test_bins_keep_mean_and_range():
    x, y = np.arange(10.0), np.array([3.0, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    made = binned(x, y, bins=4)
    assert made.width == 3
    assert made.x.tolist() == [1, 4, 7, 9]
    assert made.mean.tolist() == [8 / 3, 5, 13 / 3, 3]
    assert made.low.tolist() == [1, 1, 2, 3]
    assert made.high.tolist() == [4, 9, 6, 3]


def test_a_short_curve_is_drawn_as_it_is():
    made = binned(np.arange(5.0), np.arange(5.0) ** 2)
    assert made.width == 1
    assert made.mean.tolist() == [0, 1, 4, 9, 16]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.012344, "0.01234"),
        (12345.6, "12,350"),
        (6.0, "6"),
        (1e-6, "1e-06"),
        (-1500, "-1,500"),
        (999.96, "1,000"),
    ],
)
def test_short_numbers(value, text):
    assert short(value) == text


def test_ticks_are_round_and_inside():
    assert ticks(0.3, 9.7, 4) == [2.5, 5.0, 7.5]


def test_values_that_are_not_finite_are_left_out():
    made = line_chart(Chart("loss", "step", [Series("loss", np.arange(4.0), np.array([2, np.nan, 1, np.inf]))]))
    data = json.loads(unescape(re.search(r'data-chart="([^"]*)"', made).group(1)))
    assert data["curves"][0]["x"] == [0, 2]
    assert data["curves"][0]["y"] == [2, 1]
    assert "nan" not in made
    assert "inf" not in made


@pytest.mark.parametrize("y", [[], [np.nan, np.nan]])
def test_no_data_no_chart(y):
    assert line_chart(Chart("loss", "step", [Series("loss", np.arange(float(len(y))), np.array(y))])) is None


@pytest.mark.parametrize("y", [[5.0], [0.0], [3.0, 3.0, 3.0], [1e9, -1e9]])
def test_odd_curves_stay_inside_the_frame(y):
    made = line_chart(Chart("a", "step", [Series("a", np.arange(float(len(y))), np.array(y))], zero=True))
    points = re.findall(r'class="line c0" d="([^"]*)"', made)[0]
    numbers = [float(v) for v in re.findall(r"-?[\d.]+", points)]
    assert all(0 <= x <= 1000 for x in numbers[::2])
    assert all(0 <= v <= 400 for v in numbers[1::2])


def test_a_reference_far_away_does_not_flatten_the_curve():
    series = [Series("a", np.arange(3.0), np.array([1.0, 2.0, 3.0]))]
    assert "guessing" in line_chart(Chart("a", "step", series, reference=(4.5, "guessing")))
    assert "guessing" not in line_chart(Chart("a", "step", series, reference=(5.5, "guessing")))
