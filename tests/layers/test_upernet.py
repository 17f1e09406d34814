"""UPerNet against its numbers by hand and against the same computation written flat; the light decoder; the levels."""

import pytest
import torch
from timm.layers import LayerNorm2d
from torch import nn
from torch.nn import functional as F

from cmid.backbones import create_backbone
from cmid.errors import UsageError
from cmid.layers.batch_norm import synchronise
from cmid.layers.levels import Levels
from cmid.layers.upernet import LateralSum, PyramidPooling, UPerNet

CHANNELS, SIDES = (8, 12, 16, 20), (16, 8, 4, 2)


def maps_of(batch=2, channels=CHANNELS, sides=SIDES):
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(batch, c, s, s + s // 2, generator=draw) for c, s in zip(channels, sides, strict=True)]


def unsettled(module):
    """With running statistics and affine numbers that are not those of a new batch-norm."""
    torch.manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.running_var, norm.weight.data):
                tensor.uniform_(0.5, 1.5)
            for tensor in (norm.running_mean, norm.bias.data):
                tensor.normal_(0, 0.3)
    return module.eval()


def conv_norm_relu(state, name, x):
    weight = state[f"{name}.0.weight"]
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    norm = [state[f"{name}.1.{key}"][None, :, None, None] for key in ("running_mean", "running_var", "weight", "bias")]
    return (norm[2] * (x - norm[0]) / (norm[1] + 1e-5).sqrt() + norm[3]).relu()


@pytest.mark.parametrize("align_corners", [False, True])
def test_upernet_is_its_description(align_corners):
    net, (c2, c3, c4, c5) = unsettled(UPerNet(CHANNELS, 8, align_corners=align_corners)), maps_of()
    s = net.state_dict()

    def to(x, like):
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=align_corners)

    cells = [
        to(conv_norm_relu(s, f"pooling.branches.{i}.1", F.adaptive_avg_pool2d(c5, n)), c5)
        for i, n in enumerate((1, 2, 3, 6))
    ]
    p5 = conv_norm_relu(s, "pooling.fuse", torch.cat([c5, *cells], 1))
    s4 = conv_norm_relu(s, "laterals.2", c4) + to(p5, c4)
    s3 = conv_norm_relu(s, "laterals.1", c3) + to(s4, c3)
    s2 = conv_norm_relu(s, "laterals.0", c2) + to(s3, c2)
    p2, p3, p4 = (conv_norm_relu(s, f"smoothers.{i}", x) for i, x in enumerate((s2, s3, s4)))
    expected = conv_norm_relu(s, "fuse", torch.cat([p2, to(p3, c2), to(p4, c2), to(p5, c2)], 1))
    found = net(maps_of())
    assert found.shape == (2, 8, 16, 24)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_parameters_of_upernet_on_resnet50_by_hand():
    with torch.device("meta"):
        net = UPerNet((256, 512, 1024, 2048))
    norm = 2 * 512
    pooling = 4 * (2048 * 512 + norm) + (2048 + 4 * 512) * 512 * 9 + norm
    laterals = (256 + 512 + 1024) * 512 + 3 * norm
    smoothers = 3 * (512 * 512 * 9 + norm)
    fuse = 4 * 512 * 512 * 9 + norm
    by_hand = pooling + laterals + smoothers + fuse
    assert by_hand == 40_513_536 == sum(p.numel() for p in net.parameters())


def test_one_image_in_training_is_refused_in_words():
    net, one = PyramidPooling(20, 8), maps_of(1)[-1]
    with pytest.raises(UsageError, match="2 images or more"):
        net.train()(one)
    with pytest.raises(UsageError, match="2 images or more"):
        synchronise(PyramidPooling(20, 8), "cpu").train()(one)
    assert net.eval()(one).shape == (1, 8, 2, 3)


@pytest.mark.parametrize("decoder", [UPerNet, LateralSum])
def test_every_parameter_learns_and_any_number_of_maps_will_do(decoder):
    for count in (2, 3, 4, 5):
        channels, sides = (*CHANNELS, 24)[:count], (32, 16, 8, 4, 2)[:count]
        net = decoder(channels, width=8)
        out = net(maps_of(2, channels, sides))
        assert out.shape == (2, net.width, 32, 48)
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_light_decoder_sums_what_one_convolution_over_all_maps_gives():
    net, maps = unsettled(LateralSum(CHANNELS, 8)), maps_of()
    together = torch.cat([F.interpolate(m, maps[0].shape[2:], mode="bilinear", align_corners=False) for m in maps], 1)
    weight = torch.cat([lateral.weight for lateral in net.laterals], 1)
    expected = net.smoother(net.norm(F.conv2d(together, weight)))
    torch.testing.assert_close(net(maps), expected, rtol=1e-4, atol=1e-5)


def test_rising_strides_stay_and_layer_norm_is_given_to_all_but_the_last():
    maps = maps_of()
    plain = Levels(CHANNELS, (4, 8, 16, 32), "batch")
    assert all(a is b for a, b in zip(plain(maps), maps, strict=True)) and not list(plain.parameters())
    assert (plain.channels, plain.strides) == (CHANNELS, (4, 8, 16, 32))
    normed = Levels(CHANNELS, (4, 8, 16, 32), "layer")(maps)
    for found, given in zip(normed[:-1], maps[:-1], strict=True):
        expected = F.layer_norm(given.movedim(1, -1), given.shape[1:2], eps=1e-6).movedim(-1, 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert normed[-1] is maps[-1]


@pytest.mark.parametrize(
    ("patch_px", "strides", "sides"),
    [
        (16, (4, 8, 16, 32), (24, 12, 6, 3)),
        (8, (4, 8, 16, 32), (12, 6, 3, 2)),
        (14, (3.5, 7, 14, 28), (24, 12, 6, 3)),
        (32, (4, 8, 16, 32), (48, 24, 12, 6)),
    ],
)
@pytest.mark.parametrize("depth", [1, 3, 4, 12])
def test_maps_of_one_stride_become_four(patch_px, strides, sides, depth):
    levels = Levels([8] * depth, [patch_px] * depth, "layer")
    maps = levels([torch.full((1, 8, 6, 6), float(i)) for i in range(depth)])
    assert levels.strides == strides and levels.channels == (8,) * 4
    assert tuple(m.shape[-1] for m in maps) == sides
    assert (maps[-1].mean() == depth - 1) or patch_px == 32  # the coarsest comes from the deepest
    assert len(set(levels.sources)) == min(depth, 4)


def test_a_plain_vit_of_timm_reaches_upernet():
    vit = create_backbone("test_vit", mask_stage=None)
    levels = Levels(vit.channels, vit.strides, vit.norm)
    maps = levels(vit(torch.randn(2, 3, 64, 64)).maps)
    assert [m.shape[-1] for m in maps] == [16, 8, 4, 2]
    assert UPerNet(levels.channels, 8)(maps).shape == (2, 8, 16, 16)
    assert any(isinstance(m, LayerNorm2d) for m in levels.modules())
