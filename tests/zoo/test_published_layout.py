"""Published Swin weights in timm's model give the published outputs."""

import json

import pytest
import torch
import torch.nn.functional as F

from cmid.backbones import create_backbone
from cmid.zoo.published_layout import swin_to_timm
from tests.conftest import fill_by_formula, formula

SWIN = "swin_tiny_patch4_window7_224"
TINY = {"embed_dim": 12, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 4)}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.fixture(scope="module")
def published(reference):
    """The tiny published Swin's state, its finer outputs' norms taken out, and those norms."""
    state = {key.removeprefix("sd."): value for key, value in reference("swin_tiny_state").items()}
    norms = [(state.pop(f"norm{i}.weight"), state.pop(f"norm{i}.bias")) for i in range(3)]
    return state, norms


def outputs(backbone, norms, images):
    """The published out0 .. out3: those before the last are taken after the patch merging, and normed."""
    maps = list(backbone.maps(images))
    for i, norm in enumerate(norms):
        merged = backbone.model.layers[i + 1].downsample(maps[i].permute(0, 2, 3, 1))
        maps[i] = F.layer_norm(merged, merged.shape[-1:], *norm).permute(0, 3, 1, 2)
    return maps


def check(outs, arrays, prefix):
    for i, found in enumerate(outs):
        name = f"{prefix}{i}"
        assert tuple(found.shape) == tuple(arrays[f"{name}_shape"].tolist())
        close(found.std(), arrays[f"{name}_std"])
        close(found.abs().mean(), arrays[f"{name}_abs_mean"])
        assert found.mean().item() == pytest.approx(arrays[f"{name}_mean"].item(), abs=1e-5)
        close(found.contiguous().flatten()[:64], arrays[f"{name}_first64"])
        if f"{name}_full" in arrays:
            close(found, arrays[f"{name}_full"])


@torch.no_grad()
def test_all_outputs_at_224(published, reference):
    state, norms = published
    arrays, backbone = reference("swin_tiny_io"), create_backbone(SWIN, **TINY).eval()
    assert backbone.load_weights(swin_to_timm(state)) == []
    check(outputs(backbone, norms, arrays["x"]), arrays, "out")


@torch.no_grad()
def test_all_outputs_where_windows_are_padded(published, reference):
    """72 x 80 px. The published pad_small_map also shifts where a map is no larger than a window."""
    state, norms = published
    arrays = reference("swin_tiny_io")
    backbone = create_backbone(SWIN, window_padding="published", always_partition=True, **TINY).eval()
    backbone.load_weights(swin_to_timm(state))
    check(outputs(backbone, norms, arrays["x2"]), arrays, "pad_out")


@pytest.mark.parametrize(("token", "expected"), [("add", "out_add"), ("replace", "out_replace")])
@torch.no_grad()
def test_masked_swin(published, reference, token, expected):
    arrays = reference("mask_swin_tiny")
    shapes = {f"model.{key}": value for key, value in published[0].items()} | {"mask_token": torch.zeros(1, 1, 12)}
    filled = fill_by_formula(shapes)
    backbone = create_backbone(SWIN, mask_token=token, **TINY).eval()
    backbone.load_weights(
        swin_to_timm({k.removeprefix("model."): v for k, v in filled.items() if k.startswith("model.")})
    )
    backbone.mask_token.copy_(filled["mask_token"].view(1, 12, 1, 1))
    images = formula("maskswin.x", (1, 3, 224, 224))
    close(backbone(images, arrays["mask7"].bool()).last, arrays[expected])
    close(backbone(images).last, arrays["out_nomask"])


def test_the_published_swin_base_fills_timms(reference):
    with (reference.folder / "backbone_keys_swin.json").open() as file:
        keys = json.load(file)
    kinds = {"float32": torch.float32, "int64": torch.int64}
    state = {key: torch.zeros(shape, dtype=kinds[kind]) for key, (shape, kind) in keys.items()}
    assert create_backbone("swin_base_patch4_window7_224").load_weights(swin_to_timm(state)) == []


def test_the_input_is_left_as_it_was(published):
    before = {key: value.clone() for key, value in published[0].items()}
    swin_to_timm(published[0])
    assert published[0].keys() == before.keys()
    assert all(torch.equal(published[0][key], before[key]) for key in before)
