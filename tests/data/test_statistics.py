"""Which images are looked at to measure the bands."""

import pytest

from cmid.data.statistics import spread


@pytest.mark.parametrize("count", [1, 2, 80, 7907, 7919, 3 * 7919])
def test_each_image_comes_once_before_any_comes_again(count):
    assert sorted(spread(i, count) for i in range(count)) == list(range(count))
    assert spread(count, count) == spread(0, count)


def test_the_first_are_spread_over_all():
    quarters = {spread(i, 1000) // 250 for i in range(16)}
    assert quarters == {0, 1, 2, 3}
