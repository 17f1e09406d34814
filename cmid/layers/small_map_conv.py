"""Convolutions on small maps as matrix products, on CPUs whose kernels want long rows.

oneDNN's kernels go along the rows of a map; where the map has but a few positions, as in the last stages of a ResNet,
its vectors or tiles of 16 rows stay mostly empty, the gradient of the weights most of all. One product over the
positions of the whole batch fills them. Which shapes gain, in bfloat16 on a CPU that multiplies it in tiles and in
float32 on one with AVX-512, was measured with `benchmarks/small_map_conv.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

POSITIONS = 64  # of the output's map, above which nothing gains
WEIGHTS = 2**20  # number, from which on such maps all gains; in bfloat16 the gradient of the weights does in any case
FEW_POSITIONS = 16  # in float32 kernels above 1 x 1, whose patches must be copied, gain up to these only


def use_matrix_products(module: nn.Module) -> None:
    """Lets the plain convolutions in `module`, in place, be computed as products where that is faster.

    Parameters, names and results (but for rounding) stay; on other devices and number types torch's kernels compute.
    """
    for part in module.modules():
        if type(part) is nn.Conv2d and _can_be_product(part):
            part.__class__ = SmallMapConv2d


def _can_be_product(conv: nn.Conv2d) -> bool:
    return (
        conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


class SmallMapConv2d(nn.Conv2d):
    """torch's `Conv2d` without groups or dilation, as a product on the small maps of a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """`(B, in, H, W)` to `(B, out, h, w)`, as `Conv2d`."""
        dtype = self._computed_in(input)
        if dtype is None or torch.compiler.is_compiling():
            return super().forward(input)
        height, width = _output_size(input.shape[-2:], self.kernel_size, self.stride, self.padding)  # type: ignore[arg-type]
        maps, gradient = _gains(self.weight, height * width, dtype) if min(height, width) > 0 else (False, False)
        if not (maps or gradient):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            weight = self.weight.to(dtype)  # out here, so that autograd gives back the weight's own type
            bias = None if self.bias is None else self.bias.to(dtype)
            out: Tensor = _Product.apply(input.to(dtype), weight, bias, self.stride, self.padding, maps)
            return out

    def _computed_in(self, input: Tensor) -> torch.dtype | None:
        """The type torch would compute in, where products are known for it; else None."""
        if input.dim() != 4 or input.device.type != "cpu":
            return None
        if torch.is_autocast_enabled("cpu"):
            low = torch.get_autocast_dtype("cpu") == torch.bfloat16 and input.dtype != torch.float64
            return torch.bfloat16 if low else None
        return torch.float32 if input.dtype == self.weight.dtype == torch.float32 else None


def _gains(weight: Tensor, positions: int, dtype: torch.dtype) -> tuple[bool, bool]:
    """Whether the maps and their gradient, and whether the gradient of the weights, are faster as products."""
    small, large = positions <= POSITIONS, weight.numel() >= WEIGHTS
    if dtype == torch.bfloat16:
        return small and large, small
    both = small and large and (positions <= FEW_POSITIONS or max(weight.shape[-2:]) == 1)
    return both, both


def _output_size(
    size: torch.Size, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> list[int]:
    return [(size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1)]


class _Product(torch.autograd.Function):
    """`(B, in, H, W)`, `(out, in, kh, kw)` and `(out,)`, of one type, to `(B, out, h, w)` in channels-last memory.

    The gradient of the weights is always a product; the output and the gradient of the input where `maps` says so.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        maps: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.maps = stride, padding, maps
        if not maps:
            return F.conv2d(x, weight, bias, stride=stride, padding=padding)
        patches = _patches(x, weight.shape[-2:], stride, padding)
        flat, matrix = patches.flatten(0, 2).flatten(1), _as_matrix(weight).t()
        rows = flat @ matrix if bias is None else torch.addmm(bias, flat, matrix)
        return rows.unflatten(0, patches.shape[:3]).movedim(-1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        out, kernel = weight.shape[0], weight.shape[-2:]
        rows = gradient.movedim(1, -1).reshape(-1, out)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = (
                _fold(rows @ _as_matrix(weight), x.shape, gradient.shape[-2:], kernel, ctx.stride, ctx.padding)
                if ctx.maps
                else torch.ops.aten.convolution_backward(
                    gradient, x, weight, [0], ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1, [True, False, False]
                )[0]
            )
        if ctx.needs_input_grad[1]:
            patches = _patches(x, kernel, ctx.stride, ctx.padding).flatten(0, 2).flatten(1)
            of_weight = (rows.t() @ patches).view(out, *kernel, x.shape[1]).movedim(-1, 1)
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_x, of_weight, of_bias, None, None, None


def _as_matrix(weight: Tensor) -> Tensor:
    """`(out, in, kh, kw)` to `(out, kh * kw * in)`: without a copy in channels-last memory."""
    return weight.movedim(1, -1).flatten(1)


def _patches(x: Tensor, kernel: torch.Size, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """`(B, in, H, W)` to a view `(B, h, w, kh, kw, in)` of what each position of the output sees."""
    padded = x.movedim(1, -1)
    if any(padding):  # torch copies where there is nothing to pad
        padded = F.pad(padded, (0, 0, padding[1], padding[1], padding[0], padding[0]))
    return padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1]).movedim(3, -1)


def _fold(
    columns: Tensor,
    shape: torch.Size,
    size: torch.Size,
    kernel: torch.Size,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """`(B * h * w, kh * kw * in)` summed, in float32, where its patches lay in the input of `shape`."""
    batch, channels, height, width = shape
    if max(*kernel, *stride) == 1 and not any(padding):
        return columns.view(batch, *size, channels).movedim(-1, 1)
    columns = columns.view(batch, *size, *kernel, channels)
    padded = columns.new_zeros((batch, height + 2 * padding[0], width + 2 * padding[1], channels), dtype=torch.float32)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i, i + stride[0] * (size[0] - 1) + 1, stride[0])
            along = slice(j, j + stride[1] * (size[1] - 1) + 1, stride[1])
            padded[:, rows, along] += columns[:, :, :, i, j]
    inner = padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
    return inner.to(columns.dtype).movedim(-1, 1)
