"""Convolutions as matrix products against torch's own, in value and gradient."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cmid.layers import small_map_conv
from cmid.layers.small_map_conv import SmallMapConv2d, use_matrix_products

SHAPES = {
    "weights alone": (16, 24, 3, 1, 1, (6, 6)),
    "stride of 2": (16, 24, 3, 2, 1, (11, 9)),
    "1 x 1": (16, 24, 1, 1, 0, (7, 7)),
    "1 x 1, stride of 2": (16, 24, 1, 2, 0, (7, 8)),
    "not square": (8, 24, (3, 5), (2, 1), (0, 2), (7, 7)),
    "kernel as large as the map": (8, 16, 7, 1, 0, (7, 7)),
    "padding wider than half the kernel": (8, 16, 3, 1, 2, (4, 4)),
}


def gone_through(conv: nn.Conv2d, images: Tensor, weigh: Tensor, *, autocast: bool = True) -> list[Tensor]:
    """Output, and gradients of the input, the weights and the bias."""
    conv.zero_grad()
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = conv(images)
    (out.float() * weigh).sum().backward()
    assert images.grad is not None and conv.weight.grad is not None
    found = [out.detach(), images.grad, conv.weight.grad]
    return found if conv.bias is None else [*found, conv.bias.grad]  # type: ignore[list-item]


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative, in the 2-norm."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def pair_of(shape: str, *, bias: bool) -> tuple[nn.Conv2d, nn.Conv2d, Tensor]:
    """Torch's convolution, ours with the same weights, and images for both."""
    torch.manual_seed(0)
    inputs, outputs, kernel, stride, padding, size = SHAPES[shape]
    plain = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)  # type: ignore[arg-type]
    product = copy.deepcopy(plain)
    use_matrix_products(product)
    assert type(product) is SmallMapConv2d
    return plain, product, torch.randn(8, inputs, *size)


@pytest.mark.parametrize("all_products", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_as_near_to_float32_as_torchs_own_in_bfloat16(
    shape: str, bias: bool, all_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if all_products:
        monkeypatch.setattr(small_map_conv, "WEIGHTS", 0)
    plain, product, images = pair_of(shape, bias=bias)
    weigh = torch.randn_like(plain(images))
    exact = gone_through(plain, images, weigh, autocast=False)
    torchs = gone_through(plain, images, weigh)
    ours = gone_through(product, images, weigh)
    for e, t, o in zip(exact, torchs, ours, strict=True):
        assert (o.shape, o.dtype) == (t.shape, t.dtype)
        assert distance(o, e) < max(1.5 * distance(t, e), 0.006)  # bfloat16 rounds by up to 0.004


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_float32_it_is_torchs_in_float64_but_for_rounding(
    shape: str, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_map_conv, "WEIGHTS", 0)
    monkeypatch.setattr(small_map_conv, "FEW_POSITIONS", small_map_conv.POSITIONS)
    plain, product, images = pair_of(shape, bias=bias)
    weigh = torch.randn_like(plain(images))
    ours = gone_through(product, images, weigh, autocast=False)
    exact = gone_through(plain.double(), images.double(), weigh.double(), autocast=False)
    assert all(distance(o.double(), e) < 1e-6 for o, e in zip(ours, exact, strict=True))


def test_what_gains_nothing_is_torchs_to_the_bit() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 8, 3, padding=1)
    product = copy.deepcopy(plain)
    use_matrix_products(product)
    for size, autocast in ((16, True), (6, False)):
        images, weigh = torch.randn(2, 4, size, size), torch.randn(2, 8, size, size)
        for ours, torchs in zip(
            gone_through(product, images, weigh, autocast=autocast),
            gone_through(plain, images, weigh, autocast=autocast),
            strict=True,
        ):
            assert torch.equal(ours, torchs)


def test_what_gains_is_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    whole = small_map_conv._Product.apply
    monkeypatch.setattr(small_map_conv._Product, "apply", lambda *args: counted.append(args[-1]) or whole(*args))
    cases = {  # kernel, side, autocast: whether the maps are products, None where nothing is
        (3, 4, False): True, (3, 5, False): None, (1, 8, False): True, (1, 9, False): None,
        (3, 8, True): True, (3, 9, True): None,
    }  # fmt: skip
    for (kernel, side, autocast), expected in cases.items():
        conv = nn.Conv2d(1024, 1024, kernel, padding=kernel // 2)
        use_matrix_products(conv)
        counted.clear()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            conv(torch.zeros(1, 1024, side, side))
        assert counted == [] if expected is None else counted == [expected], (kernel, side, autocast)


def test_others_stay_as_they_are() -> None:
    others = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3),
        nn.Linear(4, 4),
    )
    kinds = [type(part) for part in others]
    use_matrix_products(others)
    assert [type(part) for part in others] == kinds


def test_names_weights_and_memory_format_stay() -> None:
    plain = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False)).to(memory_format=torch.channels_last)
    product = copy.deepcopy(plain)
    use_matrix_products(product)
    assert product.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = product(images)
    assert out.is_contiguous(memory_format=torch.channels_last)
    out.float().sum().backward()
    (weight,) = product.parameters()
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()


def test_a_map_too_small_for_the_kernel_is_refused_as_torch_does() -> None:
    conv = nn.Conv2d(4, 8, 5)
    use_matrix_products(conv)
    with pytest.raises(RuntimeError), torch.autocast("cpu", torch.bfloat16):
        conv(torch.randn(2, 4, 3, 3))
