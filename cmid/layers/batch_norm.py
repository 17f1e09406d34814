"""Batch-norm over the batch of all processes, on any device.

torch's own SyncBatchNorm runs on GPUs only; this one is made of torch's CPU kernels, so that a layer costs what it
costs alone and one small exchange each way. On GPUs torch's is taken.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from cmid.ops import gather


class _OverAll(torch.autograd.Function):
    """`(B, C, ...)` normalised per channel over all processes' rows, with their mean, variance and number in float32.

    bfloat16 goes through as it is, as in torch's own layer: cast to float32 and back, a layer took twice as long. The
    gradient is that of the sum of all processes' losses, as `gather.summed` has it: DDP then takes the mean.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        unused = x.new_zeros(2, channels, dtype=torch.float32)  # with these the kernel sums bfloat16 up in float32
        mean, variance = torch.batch_norm_update_stats(x, unused[0], unused[1], 0.0)
        own = torch.cat((mean, variance, mean.new_full((1,), x.numel() / channels)))
        # Means and variances rather than sums of squares, which cancel where the mean is large.
        means, variances, counts = gather.rows(own[None]).split((channels, channels, 1), 1)
        total = counts.sum()
        shares = counts / total
        mean = (shares * means).sum(0)
        variance = (shares * (variances + (means - mean).square())).sum(0)
        out = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), total)
        ctx.mark_non_differentiable(mean, variance, total)
        return out, mean, variance, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, total = ctx.saved_tensors
        # Of torch's kernel only the sums over this process's rows: of the gradient, and of it times the normalised x.
        of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, scale, True, 0.0, [False, True, True]
        )[1:]
        along, flat = (gather.total(torch.cat((of_weight, of_bias))) / total).chunk(2)
        factor = scale if weight is None else scale * weight
        # (gradient - flat - along * (x - mean) * scale) * factor, where the kernel does all but the first summand
        rest = torch.native_batch_norm(
            x, -factor * scale * along, -factor * flat, mean, torch.ones_like(mean), False, 0.0, 0.0
        )[0]
        of_x = rest.addcmul_(gradient, factor.to(rest.dtype).view(1, -1, *[1] * (x.dim() - 2)))
        return of_x, *((None, None) if weight is None else (of_weight, of_bias)), None


class SyncedBatchNorm(_BatchNorm):
    """Batch-norm whose statistics are those of all processes' rows together; alone it is torch's."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, found {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, ...)` normalised per channel over all rows of all processes.

        Raises:
            ValueError: where input has fewer than two dimensions.
        """
        self._check_input_dim(input)
        if not self.training or gather.processes() == 1:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            mixed = input.dtype == torch.bfloat16 and (self.weight is None or self.weight.dtype == torch.float32)
            x = input if mixed else input.float()
            out, mean, variance, total = _OverAll.apply(x, self.weight, self.bias, self.eps)
            self._follow(mean, variance, total)
            return out.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum
        weight = 1 / self.num_batches_tracked.float() if momentum is None else momentum  # type: ignore[union-attr]
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_((variance * total / (total - 1).clamp(min=1)).to(self.running_var.dtype), weight)


class SyncedBatchNormAct(SyncedBatchNorm):
    """The same, with the dropout and activation that timm folds into its batch-norm."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__(other.num_features, other.eps, other.momentum, other.affine, other.track_running_stats)  # type: ignore[arg-type]
        self.drop: nn.Module = other.drop  # type: ignore[assignment]
        self.act: nn.Module = other.act  # type: ignore[assignment]

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, ...)` normalised over all processes, then dropped and activated."""
        normalised: Tensor = self.act(self.drop(super().forward(input)))
        return normalised


def synchronise(module: nn.Module, device_type: str) -> nn.Module:
    """`module` with every batch-norm of torch or timm made one over all processes; weights, names and hooks stay."""
    before = {name: part for name, part in module.named_modules() if isinstance(part, _BatchNorm)}
    if device_type == "cuda":
        from timm.layers import convert_sync_batchnorm

        made = convert_sync_batchnorm(module)
    else:
        made = _exchange(module)
    for name, part in before.items():
        _carry_hooks(part, made.get_submodule(name))
    return made


def _carry_hooks(before: nn.Module, now: nn.Module) -> None:
    """The very tables, so that handles go on removing from them: a backbone's mask token enters by such a hook."""
    for table in (name for name in vars(before) if name.endswith(("_hooks", "_with_kwargs", "_always_called"))):
        setattr(now, table, getattr(before, table))


def _exchange(module: nn.Module) -> nn.Module:
    if isinstance(module, _BatchNorm) and not isinstance(module, SyncedBatchNorm):
        if hasattr(module, "act") and hasattr(module, "drop"):
            made: SyncedBatchNorm = SyncedBatchNormAct(module)
        else:
            made = SyncedBatchNorm(
                module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
            )
        made.weight, made.bias = module.weight, module.bias
        made.running_mean, made.running_var = module.running_mean, module.running_var
        made.num_batches_tracked = module.num_batches_tracked
        return made.train(module.training)
    for name, child in list(module.named_children()):
        exchanged = _exchange(child)
        if exchanged is not child:
            setattr(module, name, exchanged)
    return module
