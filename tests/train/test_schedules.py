import pytest
import torch

from cmid.train.schedules import CosineWithWarmup


@pytest.mark.parametrize(
    ("name", "peak", "epochs", "per_epoch", "warmup"),
    [("lr_40x25", 1e-3, 40, 25, 10), ("lr_400x3", 1e-3, 400, 3, 10), ("lr_100x7_wu5", 4e-3, 100, 7, 5)],
)
def test_equals_the_published_schedule(reference, name, peak, epochs, per_epoch, warmup):
    expected = reference("lr_schedule")[name]
    schedule = CosineWithWarmup(peak, 1e-6, epochs * per_epoch, warmup * per_epoch, 0.01)
    got = torch.tensor([schedule(step) for step in range(epochs * per_epoch)], dtype=expected.dtype)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=0)


def test_first_step_has_the_ratio_and_the_end_the_floor():
    schedule = CosineWithWarmup(1.0, 0.1, 100, 10, 0.01)
    assert schedule(0) == pytest.approx(0.01)
    assert schedule(100) == pytest.approx(0.1)


def test_no_warmup_and_a_floor_above_the_peak():
    schedule = CosineWithWarmup(0.5, 1.0, 10, 0)
    assert [schedule(step) for step in range(10)] == [0.5] * 10
