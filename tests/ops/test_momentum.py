"""The teacher's schedule and its steps against the published code's numbers."""

import pytest
import torch
from torch import nn

from cmid.ops.momentum import cosine_momentum, follow


def test_schedule_equals_the_published_one(reference):
    r = reference("ema")
    ours = torch.tensor([1 - cosine_momentum(step, 1000, 0.996, 1.0) for step in range(1001)], dtype=torch.float64)
    torch.testing.assert_close(ours.float(), r["one_minus_tau"], rtol=1e-5, atol=1e-9)
    hook = [1 - cosine_momentum(int(i) - 1, 50, 0.996, 1.0) for i in r["hook_iter"]]
    torch.testing.assert_close(torch.tensor(hook), r["hook_one_minus_tau"], rtol=1e-5, atol=1e-9)


def test_schedule_ends_at_its_end():
    assert cosine_momentum(0, 7, 0.9, 1.0) == pytest.approx(0.9)
    assert cosine_momentum(7, 7, 0.9, 1.0) == 1.0
    assert cosine_momentum(9, 7, 0.9, 1.0) == 1.0


def test_three_steps_equal_the_published_ones(reference):
    r = reference("ema")
    student, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
    student.load_state_dict({"weight": r["on_w"], "bias": r["on_b"]})
    teacher.load_state_dict({"weight": r["te_w0"], "bias": r["te_b0"]})
    for step in range(3):
        follow(teacher, student, cosine_momentum(step, 10, 0.996, 1.0))
        torch.testing.assert_close(teacher.weight.data, r[f"te_w{step + 1}"], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(teacher.bias.data, r[f"te_b{step + 1}"], rtol=1e-6, atol=1e-7)


def test_buffers_stay_the_teachers_own():
    student, teacher = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    student.running_mean.fill_(5.0)
    follow(teacher, student, 0.0)
    assert torch.equal(teacher.running_mean, torch.zeros(2))
