"""Attention followed back to the image, against matrices written out and multiplied, from timm's own extractor."""

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from timm.utils import AttentionExtract

from cmid.backbones import create_backbone
from cmid.backbones.attention import attention_map, has_attention
from cmid.errors import UsageError
from tests.evaluation.toy import ToyBackbone

SWIN = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}


def sharpened(backbone):
    """With attention far from equal: new weights are so small that every map would be flat."""
    torch.manual_seed(1)
    for name, parameter in backbone.named_parameters():
        if "qkv" in name and parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.4)
    return backbone.eval()


def noted(backbone, images):
    """Mean over heads of every attention matrix in order, by a second model without fused attention."""
    model = backbone.model
    with torch.no_grad():
        found = AttentionExtract(model, method="hook", hook_type="forward")(images)
    return [matrix.mean(1) for matrix in found.values()]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_for_vit_it_is_the_product_of_all_matrices(name):
    size = 56 if "patch14" in name else 64
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    fused = sharpened(create_backbone(name, mask_stage=None, img_size=size))
    try:
        set_fused_attn(False)
        slow = create_backbone(name, mask_stage=None, img_size=size).eval()
    finally:
        set_fused_attn(True)
    slow.load_weights(fused.weights())
    product = None
    for matrix in noted(slow, images):
        step = 0.5 * torch.eye(matrix.shape[-1]) + 0.5 * matrix
        product = step if product is None else step @ product
    prefix = fused.model.num_prefix_tokens
    expected = product[:, prefix:, prefix:].mean(1).reshape(2, 4, 4)
    found = attention_map(fused, images)
    torch.testing.assert_close(found, expected / expected.mean((1, 2), keepdim=True), rtol=1e-4, atol=1e-5)
    assert (found.amax((1, 2)) > 1.2 * found.amin((1, 2))).all(), "the map is flat: nothing was tested"
    assert all(block.attn.fused_attn for block in fused.model.blocks), "fused attention is on again"
    assert not any(block.attn.attn_drop._forward_pre_hooks for block in fused.model.blocks)


def written_out(block, matrices, height, width):
    """The attention of a Swin block as one matrix `(B, H * W, H * W)`, by loops over positions."""
    window, (shift, _) = block.window_size[0], block.shift_size
    across = -(-width // window)
    windows = across * -(-height // window)
    whole = torch.zeros(len(matrices) // windows, height * width, height * width)
    place = {}  # position in the map -> number of its window, position in the window
    for y in range(height):
        for x in range(width):
            row, column = (y + shift) % height, (x + shift) % width
            place[row * width + column] = (y // window * across + x // window, y % window * window + x % window)
    for i, (here, a) in place.items():
        for j, (there, b) in place.items():
            if here == there:
                whole[:, i, j] = matrices[here::windows, a, b]
    return whole


@pytest.mark.parametrize(("size", "fits"), [(64, False), (128, True)])
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_for_swin_it_is_the_product_over_shifted_windows_and_mergings(name, size, fits):
    window = {"window_size": 4} if fits else {}
    backbone = sharpened(create_backbone(name, mask_stage=None, **SWIN, **window))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    matrices, side = iter(noted(backbone, images)), size // 4
    product = torch.eye(side * side)[None]
    for stage in backbone.model.layers:
        if not isinstance(stage.downsample, torch.nn.Identity):
            merged = torch.zeros((side // 2) ** 2, side**2)
            for y in range(side):
                for x in range(side):
                    merged[y // 2 * (side // 2) + x // 2, y * side + x] = 0.25
            product, side = merged @ product, side // 2
        for block in stage.blocks:
            whole = written_out(block, next(matrices), side, side)
            product = (0.5 * torch.eye(side**2) + 0.5 * whole) @ product
    expected = product.mean(1).reshape(2, size // 4, size // 4)
    found = attention_map(backbone, images)
    torch.testing.assert_close(found, expected / expected.mean((1, 2), keepdim=True), rtol=1e-4, atol=1e-5)
    assert (found.amax((1, 2)) > 1.2 * found.amin((1, 2))).all(), "the map is flat: nothing was tested"


def test_what_was_looked_at_works_as_before():
    backbone = sharpened(create_backbone("swin_tiny_patch4_window7_224", mask_stage=None, **SWIN))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = backbone(images).last
        attention_map(backbone, images)
        assert torch.equal(before, backbone(images).last)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_backbones_without_attention_to_follow_are_refused(name):
    backbone = create_backbone(name, mask_stage=None)
    assert not has_attention(backbone) and timm.is_model(name)
    with pytest.raises(UsageError, match=f"{name} is none of them"):
        attention_map(backbone, torch.zeros(1, 3, 64, 64))
    assert not has_attention(ToyBackbone())
