"""Losses of scores for every pixel, some of which have no label.

Under DDP each process divides by the mean over processes of what counts, not by its own: so two processes are one with
both batches, in value (the mean of theirs) and gradient, however unlabelled pixels are spread over them.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cmid.ops import gather

Average = Literal["counted", "all"]


def cross_entropy(
    logits: Tensor, labels: Tensor, *, ignore: int, weights: Tensor | None = None, average: Average = "counted"
) -> Tensor:
    """Mean cross-entropy of the pixels with a label.

    Args:
        logits: `(B, K, H, W)` float.
        labels: `(B, H, W)` int64, 0 to K - 1, or `ignore`.
        ignore: the label of pixels that do not count.
        weights: `(K,)` float, how much a pixel of each class counts.
        average: `counted`: the sum is divided by the weights of the pixels with a label, as torch does; `all`: by the
            number of all pixels, without a label or not, as mmsegmentation does unless told (`avg_non_ignore`).

    Returns:
        A scalar; 0 where no pixel has a label.
    """
    loss = F.cross_entropy(logits, labels, weight=weights, ignore_index=ignore, reduction="sum")
    return loss / _count(labels, ignore, weights, average)


def focal(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore: int,
    gamma: float = 2.0,
    weights: Tensor | None = None,
    average: Average = "counted",
) -> Tensor:
    """Cross-entropy of which a pixel of probability p keeps the share (1 - p) ** gamma (arXiv 1708.02002, equation 4).

    With the softmax; `weights` take the place of alpha. Arguments and result as for `cross_entropy`.
    """
    surprise = F.cross_entropy(logits, labels, ignore_index=ignore, reduction="none")
    # Not 1 - exp: exact where p is near 1; and no power of 0, whose gradient is infinite for a gamma below 1
    loss = (-torch.expm1(-surprise)).clamp(min=1e-12) ** gamma * surprise
    if weights is not None:
        loss = loss * _weight_of(labels, ignore, weights)
    return loss.sum() / _count(labels, ignore, weights, average)


def dice(logits: Tensor, labels: Tensor, *, ignore: int, weights: Tensor | None = None) -> Tensor:
    """One minus the soft Dice overlap, averaged over the classes that occur (arXiv 1606.04797, section 3, unsquared).

    The overlap of a class is that of all labelled pixels of all processes' batches together. Classes without a pixel do
    not count: their overlap is 0 whatever is predicted. `weights` weigh the mean over classes. Arguments and result as
    for `cross_entropy`.
    """
    counted = labels != ignore
    probabilities = logits.softmax(1) * counted[:, None]
    truth = F.one_hot(torch.where(counted, labels, 0), logits.shape[1]).movedim(-1, 1) * counted[:, None]
    over = (0, 2, 3)
    overlap = gather.summed((probabilities * truth).sum(over))
    predicted, there = gather.summed(probabilities.sum(over)), gather.total(truth.sum(over))
    missed = 1 - 2 * overlap / (predicted + there).clamp(min=1e-7)
    share = (there > 0).to(missed.dtype) * (1 if weights is None else weights)
    return (missed * share).sum() / _at_least_one(share.sum())


def _weight_of(labels: Tensor, ignore: int, weights: Tensor) -> Tensor:
    """The weight of each pixel, `(B, H, W)`; 0 without a label."""
    counted = labels != ignore
    return weights[torch.where(counted, labels, 0)] * counted


def _count(labels: Tensor, ignore: int, weights: Tensor | None, average: Average) -> Tensor:
    """What a sum over pixels is divided by: the mean over processes of what counts."""
    if average == "all":
        count = torch.full((), labels.numel(), device=labels.device)  # filled there: nothing waits for a copy
    elif weights is None:
        count = (labels != ignore).sum()
    else:
        count = _weight_of(labels, ignore, weights).sum()
    return _at_least_one(gather.total(count).float() / gather.processes())


def _at_least_one(count: Tensor) -> Tensor:
    """The count; 1 where it is 0, as then there is nothing to divide."""
    return torch.where(count > 0, count, 1)
