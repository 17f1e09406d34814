"""Feature std and effective rank at the ends whose values are known."""

import pytest
import torch

from cmid.evaluation.spread import effective_rank, feature_std


def test_std_of_directions_spread_evenly_is_one_over_root_d():
    features = torch.randn(20000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(features) == pytest.approx(1 / 64**0.5, rel=0.01)
    assert feature_std(100 * features) == pytest.approx(feature_std(features))


def test_std_of_collapsed_features_is_zero():
    one = torch.randn(1, 64).repeat(100, 1)
    assert feature_std(one) == pytest.approx(0, abs=1e-6)
    assert feature_std(one * torch.rand(100, 1).add(0.1)) == pytest.approx(0, abs=1e-6)


def test_rank_of_known_matrices():
    assert effective_rank(torch.eye(8)) == pytest.approx(8)
    assert effective_rank(torch.ones(100, 8)) == pytest.approx(1)
    assert effective_rank(torch.zeros(100, 8)) == 0
    orthogonal = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64)).Q
    assert effective_rank(orthogonal[:, :5] @ torch.randn(5, 5).double().matrix_exp()) < 5 + 1e-9
    assert effective_rank(orthogonal[:, :5]) == pytest.approx(5)


def test_rank_is_the_exponential_of_the_entropy():
    singular = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    share = singular / 6
    left = torch.linalg.qr(torch.randn(10, 3, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    expected = torch.exp(-(share * share.log()).sum()).item()
    assert effective_rank(left @ singular.diag() @ right) == pytest.approx(expected)
    assert effective_rank(7 * left @ singular.diag() @ right) == pytest.approx(expected)
