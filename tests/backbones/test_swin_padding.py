"""Padding before shifting: the same where nothing is padded, no leak across edges where something is."""

import pytest
import torch

from cmid.backbones import create_backbone
from tests.conftest import fill_by_formula

TINY = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 4)}


def create(name, padding):
    backbone = create_backbone(name, window_padding=padding, **TINY)
    backbone.load_state_dict(fill_by_formula(backbone.state_dict()))
    return backbone.eval()


@pytest.mark.parametrize(("name", "whole"), [("swin_tiny_patch4_window7_224", 224), ("swinv2_tiny_window8_256", 256)])
@torch.no_grad()
def test_same_where_windows_divide_the_maps(name, whole):
    timm, published = create(name, "timm"), create(name, "published")
    for size, same in [(whole, True), (96, False)]:
        images = torch.randn(1, 3, size, size)
        assert torch.equal(timm(images).last, published(images).last) is same


@pytest.mark.parametrize(("name", "side"), [("swin_tiny_patch4_window7_224", 20), ("swinv2_tiny_window8_256", 22)])
@pytest.mark.parametrize(("padding", "leaks"), [("timm", True), ("published", False)])
@torch.no_grad()
def test_the_top_edge_does_not_see_the_bottom_edge(name, side, padding, leaks):
    """The first stage alone: its first and last row are in no common window, of 7 or 8."""
    stage = create(name, padding).model.layers[0]
    features = torch.randn(1, side, side, 24)
    other = features.clone()
    other[:, -1] = torch.randn(1, side, 24)
    assert (not torch.equal(stage(features)[:, 0], stage(other)[:, 0])) is leaks
