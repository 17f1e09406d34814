"""Patches left out of a plain ViT: what is computed, what it equals, and which models can."""

import copy

import pytest
import timm
import torch

from cmid.backbones import create_backbone
from cmid.contracts import PatchBackbone
from cmid.errors import UsageError

PLAIN = [
    pytest.param({}, id="class token"),
    pytest.param({"reg_tokens": 2}, id="class token and registers"),
    pytest.param({"reg_tokens": 2, "no_embed_class": True}, id="both without positions"),
    pytest.param({"class_token": False, "global_pool": "avg"}, id="neither"),
]


def vit(kind=None, size=64):
    torch.manual_seed(0)
    return create_backbone("test_vit", mask_stage=None, img_size=size, **(kind or {})).eval()


def everything(batch, patches):
    return torch.arange(patches).expand(batch, -1).contiguous()


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
def test_nothing_left_out_is_the_whole_forward(kind, size):
    model, images = vit(kind), torch.randn(2, 3, *size)
    with torch.no_grad():
        tokens = model.visible_tokens(images, everything(2, size[0] * size[1] // 256))
        whole = model(images).last.flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens[:, model.prefix_tokens :], whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_rest_is_not_computed(kind):
    model, lengths = vit(kind), []
    for block in model.model.blocks:
        block.register_forward_hook(lambda m, args, out: lengths.append(out.shape[1]))
    model.visible_tokens(torch.randn(2, 3, 64, 64), torch.tensor([[3, 9, 0], [15, 2, 7]]))
    assert lengths == [model.prefix_tokens + 3] * len(model.model.blocks)
    lengths.clear()
    model(torch.randn(2, 3, 64, 64))
    assert lengths == [model.prefix_tokens + 16] * len(model.model.blocks), "and the next forward is whole again"


def test_what_is_left_out_has_no_influence_and_the_order_is_that_of_keep():
    model, images = vit(), torch.randn(2, 3, 64, 64)
    keep, other = torch.tensor([[5, 6], [1, 10]]), torch.randn(2, 3, 64, 64)
    for image, patches in enumerate(keep.tolist()):
        for patch in patches:
            row, column = 16 * (patch // 4), 16 * (patch % 4)
            place = (image, slice(None), slice(row, row + 16), slice(column, column + 16))
            other[place] = images[place]
    with torch.no_grad():
        tokens = model.visible_tokens(images, keep)
        torch.testing.assert_close(model.visible_tokens(other, keep), tokens)
        turned = model.visible_tokens(images, keep.flip(1))
    torch.testing.assert_close(turned[:, 1:].flip(1), tokens[:, 1:], rtol=1e-5, atol=1e-5)


def test_a_copy_leaves_out_for_itself():
    first = vit()
    second = copy.deepcopy(first)
    images, keep = torch.randn(1, 3, 64, 64), torch.tensor([[0, 1]])
    assert second.visible_tokens(images, keep).shape[1] == 3
    torch.testing.assert_close(second.visible_tokens(images, keep), first.visible_tokens(images, keep))


@pytest.mark.parametrize("kind", PLAIN)
def test_fixed_positions(kind):
    """Against the paper's formula, written by hand, whatever the order of its channels."""
    model = vit(kind, size=96)
    model.fix_positions()
    table = model.model.pos_embed
    before = 0 if "no_embed_class" in kind else model.prefix_tokens
    assert not table.requires_grad and table.shape == (1, before + 36, 64)
    assert (table[0, :before] == 0).all()
    y, x, quarter = 2, 4, 16
    angles = [place / 10000 ** (i / quarter) for place in (y, x) for i in range(quarter)]
    expected = torch.tensor([*map(torch.sin, torch.tensor(angles)), *map(torch.cos, torch.tensor(angles))])
    torch.testing.assert_close(table[0, before + 6 * y + x].sort().values, expected.sort().values, rtol=1e-5, atol=1e-5)


def test_exported_as_a_plain_timm_model():
    model = vit()
    plain = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    plain.load_state_dict(model.weights())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain.forward_features(images), model.visible_tokens(images, everything(2, 16)))


@pytest.mark.parametrize(
    "name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_tiny_r_s16_p8_224", "beit_base_patch16_224"]
)
def test_others_are_none(name):
    small = {"beit_base_patch16_224": {"depth": 4, "embed_dim": 24, "num_heads": 2}}.get(name, {})
    assert not isinstance(create_backbone(name, mask_stage=None, **small), PatchBackbone)


@pytest.mark.parametrize("keep", [torch.zeros(1, 2), torch.zeros(2, 3, dtype=torch.int64), everything(1, 17)])
def test_a_wrong_choice_is_named(keep):
    with pytest.raises(UsageError, match=r"keep names patches as int64 \(1, n\), n at most 16"):
        vit().visible_tokens(torch.zeros(1, 3, 64, 64), keep)
