"""Remembered masks are the masks, and are made no more often than the size of the map changes."""

import copy

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cmid.backbones import create_backbone
from cmid.backbones.shift_masks import remember_shift_masks

NAMES = ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256")
SMALL = {"embed_dim": 24, "num_heads": (1, 2, 2, 4), "depths": (2, 2, 2, 2)}


class Made(TorchDispatchMode):
    """Counts masks, each of which is filled twice."""

    count = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        self.count += operation is torch.ops.aten.masked_fill.Scalar
        return operation(*arguments, **(keywords or {}))


def made_by(model, images):
    with Made() as made, torch.no_grad():
        model(images)
    return made.count // 2


@pytest.fixture(params=NAMES)
def models(request):
    """A small Swin as timm has it, and the same with remembered masks."""
    torch.manual_seed(0)
    plain = timm.create_model(request.param, num_classes=0, strict_img_size=False, img_size=128, **SMALL).eval()
    remembering = copy.deepcopy(plain)
    remember_shift_masks(remembering)
    return plain, remembering


def test_features_are_the_same_at_any_size_in_any_order(models):
    plain, remembering = models
    for side in (128, 192, 128, 128):
        images = torch.randn(2, 3, side, side)
        with torch.no_grad():
            assert torch.equal(remembering(images), plain(images))


def test_a_mask_is_made_once_for_a_size_and_a_type(models):
    plain, remembering = models
    images = torch.randn(1, 3, 192, 192)
    each = made_by(plain, images)
    assert each > 0 and made_by(plain, images) == each
    assert made_by(remembering, images) == each and made_by(remembering, images) == 0
    assert made_by(remembering, images[..., :128]) > 0
    assert made_by(remembering.double(), images.double()) == each


def test_a_copy_has_its_own_and_what_a_probe_saw_serves_training(models):
    _, remembering = models
    twin = copy.deepcopy(remembering)
    images = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        remembering(images)
    remembering(images).sum().backward()
    blocks = [module for module in twin.modules() if hasattr(module, "get_attn_mask")]
    assert blocks and all(block.get_attn_mask._block is block for block in blocks)


def test_our_backbones_remember():
    backbone = create_backbone(NAMES[0], **SMALL)
    assert made_by(backbone, torch.randn(1, 3, 96, 96)) > 0 and made_by(backbone, torch.randn(1, 3, 96, 96)) == 0
