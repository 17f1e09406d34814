"""Which images are looked at to measure the bands."""

import numpy as np
import pytest

from cmid.data.statistics import Stretch, looks_like_nodata, measure, spread


@pytest.mark.parametrize("count", [1, 2, 80, 7907, 7919, 3 * 7919])
def test_each_image_comes_once_before_any_comes_again(count):
    assert sorted(spread(i, count) for i in range(count)) == list(range(count))
    assert spread(count, count) == spread(0, count)


def test_the_first_are_spread_over_all():
    quarters = {spread(i, 1000) // 250 for i in range(16)}
    assert quarters == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("dtype", "value", "share"),
    [("uint16", 0, 0.06), ("uint8", 0, 0.06), ("int16", -9999, 0.001), ("float32", -3.4028235e38, 0.001),
     ("uint16", 65535, 0.06), ("int16", -32768, 0.001)],
)  # fmt: skip
def test_a_value_that_looks_like_nodata(dtype, value, share):
    numbers = np.random.default_rng(0).integers(20, 250, 10_000).astype(np.float64)
    assert looks_like_nodata(numbers, dtype) == (None, 0.0)
    numbers[: round(share * 10_000)] = value
    assert looks_like_nodata(numbers, dtype) == (value, share)


def test_what_does_not_look_like_nodata():
    few = np.arange(10_000) % 4.0
    assert looks_like_nodata(few, "uint8")[0] is None, "of few values each is frequent"
    assert looks_like_nodata(np.full(100, 7.0), "uint16")[0] is None, "constant"
    clipped = np.r_[np.arange(200.0), np.full(100, 255.0)]
    assert looks_like_nodata(clipped, "uint8")[0] is None, "bright clouds of 8 bits"


@pytest.mark.filterwarnings("error")
def test_nodata_of_any_size_is_no_overflow():
    values, valid = np.full((1, 2, 2), -3.4028234663852886e38, np.float32), np.zeros((2, 2), np.bool_)
    values[0, 0, 0], valid[0, 0] = 0.5, True
    pixels = Stretch((0.158,), (0.8845,), (0.25,)).pixels(values, valid)[..., 0]
    assert np.allclose(pixels, [[(0.5 - 0.158) / (0.8845 - 0.158), 0.25], [0.25, 0.25]])


class Values:
    """Images whose values are known."""

    def __init__(self, dtype):
        self.values = np.random.default_rng(0).integers(20, 250, (4, 2, 16, 16)).astype(dtype)

    def sample(self, i):
        return self.values[i], np.ones((16, 16), np.bool_)


def test_mean_and_deviation_are_on_the_scale_that_is_asked_for():
    source, low, high = Values(np.uint16), (0.0, -100.0), (1000.0, 300.0)
    found = measure(source, ("a", "b"), images=4, seed=0, low=low, high=high)
    zero, span = np.array(low)[:, None], np.subtract(high, low)[:, None]
    scaled = (source.values.swapaxes(0, 1).reshape(2, -1) - zero) / span
    np.testing.assert_allclose(found.mean, scaled.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found.std, scaled.std(1), rtol=1e-5)
    wide = measure(source, ("a", "b"), images=4, seed=0, low=(0.0, 0.0), high=(1e10, 1e10))
    np.testing.assert_allclose(wide.std, scaled.std(1) * span[:, 0] / 1e10, rtol=1e-5)
    plain = measure(source, ("a", "b"), images=4, seed=0)
    assert (found.low, found.high, found.minimum) == (plain.low, plain.high, plain.minimum), "in the data's own units"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [-3.4028234663852886e38, 1e17, -9999.0, 0.0])
def test_a_band_of_one_value_becomes_a_number_however_large(value):
    source = Values(np.float32)
    source.values[:, 0] = value
    found = measure(source, ("a", "b"), images=4, seed=0)
    assert found.high[0] > found.low[0] == np.float32(value) and np.isfinite(found.mean).all() and found.std[0] == 1
    pixels = Stretch(found.low, found.high, found.mean).pixels(*source.sample(0))
    assert np.isfinite(pixels).all()
    assert found.suspect[0] == (np.float32(value) if value < 0 else None)
