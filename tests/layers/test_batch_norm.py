import copy

import pytest
import torch
from torch import nn

from cmid.backbones import create_backbone
from cmid.layers.batch_norm import synchronise


def test_two_processes_equal_one(two_processes):
    two_processes("tests.layers.batch_norm_in_two_processes")


def test_alone_it_is_torchs(monkeypatch):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    together, x = synchronise(copy.deepcopy(module), "cpu"), torch.randn(4, 3, 6, 6)
    assert torch.equal(module(x), together(x))
    assert all(torch.equal(a, b) for a, b in zip(module.buffers(), together.buffers(), strict=True))


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_a_mask_token_behind_a_batch_norm_stays(device_type):
    backbone = create_backbone("efficientnet_b0", mask_stage=0, img_size=64)
    images, mask = torch.randn(2, 3, 64, 64), torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[:, 0] = True
    together = synchronise(copy.deepcopy(backbone), device_type).eval()  # in training torch's asks for a GPU
    assert any("Sync" in type(part).__name__ for part in together.modules())
    for each in (backbone.eval(), together):
        torch.nn.init.ones_(each.mask_token)
        assert not torch.equal(each(images, mask).last, each(images).last)
    assert torch.allclose(backbone(images, mask).last, together(images, mask).last, atol=1e-5)


def test_a_hook_of_a_batch_norm_stays_and_can_be_removed():
    module, seen = nn.Sequential(nn.BatchNorm2d(3)), []
    handle = module[0].register_forward_hook(lambda *_: seen.append(1))
    together = synchronise(module, "cpu")
    together(torch.randn(2, 3, 4, 4))
    handle.remove()
    together(torch.randn(2, 3, 4, 4))
    assert seen == [1] and type(together[0]) is not nn.BatchNorm2d
