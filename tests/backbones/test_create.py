"""Any name, any bands, any size the strides divide; and what is said where that is not so."""

import pytest
import torch

from cmid.backbones import backbone_names, create_backbone
from cmid.contracts import Backbone
from cmid.errors import CmidError, UsageError

# name, settings that make it small, channels, strides, norm
FAMILIES = [
    ("resnet18", {}, (64, 128, 256, 512), (4, 8, 16, 32), "batch"),
    ("resnet50", {}, (256, 512, 1024, 2048), (4, 8, 16, 32), "batch"),
    ("resnetv2_50", {}, (256, 512, 1024, 2048), (4, 8, 16, 32), "batch"),
    ("swin_tiny_patch4_window7_224", {"depths": (2, 1, 1, 2)}, (96, 192, 384, 768), (4, 8, 16, 32), "layer"),
    ("swin_base_patch4_window7_224", {"depths": (1, 1, 1, 1)}, (128, 256, 512, 1024), (4, 8, 16, 32), "layer"),
    ("swinv2_tiny_window8_256", {"depths": (2, 1, 1, 1)}, (96, 192, 384, 768), (4, 8, 16, 32), "layer"),
    ("convnext_atto", {}, (40, 80, 160, 320), (4, 8, 16, 32), "layer"),
    ("convnext_tiny", {"depths": (1, 1, 1, 1)}, (96, 192, 384, 768), (4, 8, 16, 32), "layer"),
    ("vit_tiny_patch16_224", {}, (192,) * 4, (16,) * 4, "layer"),
    ("hrnet_w18_small", {}, (128, 256, 512, 1024), (4, 8, 16, 32), "batch"),
    ("efficientnet_b0", {}, (24, 40, 112, 320), (4, 8, 16, 32), "batch"),
]
IDS = [family[0] for family in FAMILIES]


@pytest.mark.parametrize(("name", "small", "channels", "strides", "norm"), FAMILIES, ids=IDS)
def test_what_is_promised_is_what_comes_out(name, small, channels, strides, norm):
    backbone = create_backbone(name, **small).eval()
    assert isinstance(backbone, Backbone)
    assert (backbone.name, backbone.in_chans, backbone.norm) == (name, 3, norm)
    assert (backbone.channels, backbone.strides) == (channels, strides)
    for height, width in [(96, 96), (64, 160)]:
        with torch.no_grad():
            pyramid = backbone(torch.randn(2, 3, height, width))
        assert pyramid.strides == strides
        for features, channel, stride in zip(pyramid.maps, channels, strides, strict=True):
            assert features.shape == (2, channel, height // stride, width // stride)


ENDING_ELSEWHERE = ("efficientnet_b0", "hrnet_w18_small")
"""Whose `forward_features` goes on to the head's convolution, or ends before the last map's own."""


@pytest.mark.parametrize(("name", "small"), [row[:2] for row in FAMILIES if row[0] not in ENDING_ELSEWHERE])
def test_without_mask_it_is_the_timm_model(name, small):
    backbone = create_backbone(name, **small).eval()
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        last, whole = backbone(images).last, backbone.model.forward_features(images)
    if whole.ndim == 3:
        whole = whole[:, 1:].reshape(1, 6, 4, 192)  # without the class token
    assert torch.equal(last, whole if whole.shape == last.shape else whole.permute(0, 3, 1, 2))


@pytest.mark.parametrize("in_chans", [1, 4, 13])
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_any_number_of_bands(name, in_chans):
    backbone = create_backbone(name, in_chans)
    assert backbone(torch.randn(2, in_chans, 32, 32)).last.shape[1] == backbone.channels[-1]
    with pytest.raises(UsageError, match=f"built for images .B, {in_chans}, H, W.; found .2, 2, 32, 32."):
        backbone(torch.randn(2, 2, 32, 32))


@pytest.mark.parametrize(
    ("name", "size", "fits"),
    [("resnet18", (72, 80), "64 x 64"), ("swin_tiny_patch4_window7_224", (96, 50), "96 x 64"),
     ("vit_tiny_patch16_224", (40, 5), "32 x 16")],
)  # fmt: skip
def test_a_size_that_does_not_fit_is_told_one_that_does(name, size, fits):
    small = {"depths": (1, 1, 1, 1)} if "swin" in name else {}
    with pytest.raises(UsageError, match=f"found {size[0]} x {size[1]}. {fits} would fit"):
        create_backbone(name, **small)(torch.randn(1, 3, *size))


def test_a_vit_learns_positions_for_the_size_asked_for():
    assert create_backbone("vit_tiny_patch16_224", img_size=96).weights()["pos_embed"].shape == (1, 37, 192)
    assert create_backbone("vit_tiny_patch16_224").weights()["pos_embed"].shape == (1, 197, 192)


def test_swin_keeps_its_windows_at_small_sizes():
    given = create_backbone("swin_tiny_patch4_window7_224", img_size=64, depths=(1, 1, 1, 1)).weights()
    assert all(v.shape[0] == 169 for k, v in given.items() if "relative_position_bias_table" in k)


def test_a_model_of_one_size_says_which():
    backbone = create_backbone("vit_relpos_small_patch16_224", img_size=64, depth=4)
    assert backbone(torch.randn(1, 3, 64, 64)).last.shape == (1, 384, 4, 4)
    with pytest.raises(UsageError, match="64 x 64 px only; found 96 x 64"):
        backbone(torch.randn(1, 3, 96, 64))


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"'resnet_50'. Did you mean .*resnet50"):
        create_backbone("resnet_50")


def test_every_name_is_one_of_timms():
    assert {"resnet50", "swin_base_patch4_window7_224"} <= set(backbone_names())
    assert all(name.startswith("convnextv2") for name in backbone_names("convnextv2*"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"depth": 3}, "takes no setting 'depth'"), ({"mask_stage": 4}, "4 stages: mask_stage is 0 .* to 3; found 4"),
     ({"window_padding": "published"}, "Swin and SwinV2"), ({"in_chans": 0}, "1 or more; found 0")],
)  # fmt: skip
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(UsageError, match=says):
        create_backbone("resnet18", **settings)


def test_drop_path_reaches_the_model_and_is_off_by_default():
    def rates(drop_path):
        model = create_backbone("swin_tiny_patch4_window7_224", drop_path=drop_path, depths=(1, 1, 1, 1))
        return [m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"]

    assert rates(0.0) == []
    assert max(rates(0.3)) == pytest.approx(0.3)
    with pytest.raises(UsageError, match="no stochastic depth"):
        create_backbone("dla34", drop_path=0.1)


@pytest.mark.parametrize("name", ["levit_128s", "crossvit_tiny_240"])
def test_models_without_whole_strides_are_refused(name):
    with pytest.raises(UsageError, match="gives no feature maps"):
        create_backbone(name)


class TestLoading:
    def test_takes_a_whole_models_state_and_drops_the_head(self):
        backbone, other = create_backbone("resnet18"), create_backbone("resnet18")
        state = other.weights() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
        assert backbone.load_weights(state) == []
        assert torch.equal(backbone.model.conv1.weight, other.model.conv1.weight)

    def test_weights_are_timms_without_head_or_token(self):
        import timm

        own, theirs = create_backbone("resnet18").weights(), timm.create_model("resnet18").state_dict()
        assert list(own) == [key for key in theirs if not key.startswith("fc.")]
        convnext, theirs = create_backbone("convnext_atto"), timm.create_model("convnext_atto").state_dict()
        assert convnext.load_weights(theirs) == []  # head.norm belongs to the head

    def test_state_keys_are_the_published_ones(self):
        keys = set(create_backbone("resnet18").state_dict())
        assert "mask_token" in keys
        assert "model.conv1.weight" in keys

    def test_another_architecture(self):
        with pytest.raises(CmidError, match=r"fit resnet50: \d+ of 318 .* missing .* shape .*another architecture"):
            create_backbone("resnet50").load_weights(create_backbone("resnet18").weights())

    def test_other_bands(self):
        with pytest.raises(CmidError, match=r"conv1.weight: expected \(64, 3, 7, 7\), found \(64, 4, 7, 7\).*4 bands"):
            create_backbone("resnet18").load_weights(create_backbone("resnet18", 4).weights())

    def test_what_fits_where_not_strict(self):
        backbone, other = create_backbone("resnet18"), create_backbone("resnet18", 4)
        assert backbone.load_weights(other.weights() | {"stray": torch.zeros(1)}, strict=False) == ["conv1.weight"]
        assert torch.equal(backbone.model.layer4[1].conv2.weight, other.model.layer4[1].conv2.weight)

    def test_positions_are_resized_to_the_grid(self):
        small = create_backbone("vit_tiny_patch16_224", img_size=96)
        large = create_backbone("vit_tiny_patch16_224", img_size=192)
        assert large.load_weights(small.weights()) == []
        images = torch.randn(1, 3, 96, 96)
        small.eval(), large.eval()
        with torch.no_grad():
            there_and_back = torch.nn.functional.cosine_similarity(small(images).last, large(images).last).mean()
        assert there_and_back > 0.99
