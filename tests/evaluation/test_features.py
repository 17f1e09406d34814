"""Frozen features are a function of the image alone, and reading them leaves the backbone as it was."""

import pytest
import torch

from cmid.errors import CmidError
from cmid.evaluation.features import extract_features, memory_format_of, placed
from tests.evaluation.toy import ToyBackbone, coloured_batches


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return ToyBackbone()


def test_is_the_mean_of_the_last_map_in_order(backbone):
    batches = coloured_batches()
    features, labels = extract_features(backbone, batches, "cpu")
    images = torch.cat([b[0] for b in batches])
    expected = backbone.eval()(images).last.mean((2, 3))
    assert features.dtype == torch.float32 and labels.dtype == torch.int64
    torch.testing.assert_close(features, expected)
    assert torch.equal(labels, torch.cat([b[1] for b in batches]))


def test_does_not_depend_on_the_batch(backbone):
    whole, _ = extract_features(backbone, coloured_batches(batch=40), "cpu")
    parts, _ = extract_features(backbone, coloured_batches(batch=3), "cpu")
    torch.testing.assert_close(whole, parts)


def test_leaves_modes_statistics_and_gradients_alone(backbone):
    backbone.train()
    backbone.fine.eval()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    features, _ = extract_features(backbone, coloured_batches(), "cpu")
    assert backbone.training and backbone.coarse[1].training and not backbone.fine[1].training
    assert not features.requires_grad
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_modes_come_back_after_an_error(backbone):
    backbone.train()
    with pytest.raises(RuntimeError):
        extract_features(backbone, [(torch.zeros(1, 5, 8, 8), torch.zeros(1))], "cpu")
    assert backbone.training and backbone.coarse[1].training


def test_stages_are_set_side_by_side(backbone):
    features, _ = extract_features(backbone, coloured_batches(), "cpu", stages=(0, -1))
    last, _ = extract_features(backbone, coloured_batches(), "cpu")
    assert features.shape == (40, 12)
    assert torch.equal(features[:, 4:], last)


def test_channels_last_weights_give_the_same(backbone):
    seen = []
    backbone.fine[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    plain, _ = extract_features(backbone, coloured_batches(), "cpu")
    assert seen[-1].is_contiguous()
    backbone.to(memory_format=torch.channels_last)
    other, _ = extract_features(backbone, coloured_batches(), "cpu")
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain, other)


def test_bf16_is_near_and_still_float32(backbone):
    plain, _ = extract_features(backbone, coloured_batches(), "cpu")
    half, _ = extract_features(backbone, coloured_batches(), "cpu", "bf16")
    assert half.dtype == torch.float32 and not torch.equal(half, plain)
    torch.testing.assert_close(half, plain, atol=0.02, rtol=0.02)


def test_diverged_weights_are_named(backbone):
    backbone.coarse[0].bias.data[0] = float("nan")
    with pytest.raises(CmidError, match=r"40 of 40 images .* diverged"):
        extract_features(backbone, coloured_batches(), "cpu")


def test_no_images_is_an_error(backbone):
    with pytest.raises(CmidError, match="no image"):
        extract_features(backbone, [], "cpu")


def test_what_is_placed_is_the_module_itself_and_on_a_cpu_keeps_its_format(backbone):
    assert placed(backbone, torch.device("cpu")) is backbone
    assert memory_format_of(backbone) is torch.contiguous_format
