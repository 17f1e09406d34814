"""An image told from others."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def info_nce(
    queries: Tensor, keys: Tensor, queue: Tensor, temperature: float, others: tuple[Tensor, ...] = ()
) -> Tensor:
    """Cross-entropy of picking each query's own key among the queue's rows (MoCo, arXiv 1911.05722, equation 1).

    Only the queries get a gradient. It is made with the loss, so that the queue may be written before `backward`.

    Args:
        queries, keys: `(B, D)` unit rows.
        queue: `(K, D)`, the negatives.
        temperature: divides the cosines.
        others: further negatives, each `(n, D)`, for every query alike.
    """
    with torch.autocast(queries.device.type, enabled=False):  # bf16 would round cosines near 1 to steps of 0.004
        loss: Tensor = _InfoNCE.apply(queries, keys.detach(), temperature, queue, *(rows.detach() for rows in others))
    return loss


class _InfoNCE(torch.autograd.Function):
    """Keeping the queue's rows for the gradient would take a copy of them: 64 MB at 65,536 of 256, for each view."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, temperature: float, *negatives: Tensor) -> Tensor:
        positive = (queries * keys).sum(dim=1, keepdim=True)
        cosines = torch.cat((positive, *(queries @ rows.T for rows in negatives)), dim=1)
        log_share = (cosines / temperature).log_softmax(dim=1)
        if ctx.needs_input_grad[0]:
            of_positive, *of_negatives = log_share.exp().split([1, *map(len, negatives)], dim=1)
            gradient = (of_positive - 1) * keys
            for slope, rows in zip(of_negatives, negatives, strict=True):
                gradient.addmm_(slope, rows)
            ctx.save_for_backward(gradient / (temperature * len(queries)))
        return -log_share[:, 0].mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (of_queries,) = ctx.saved_tensors
        return gradient * of_queries, *[None] * (len(ctx.needs_input_grad) - 1)
