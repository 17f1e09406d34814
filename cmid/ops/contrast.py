"""An image told from others."""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    queries: Tensor, keys: Tensor, queue: Tensor, temperature: float, others: tuple[Tensor, ...] = ()
) -> Tensor:
    """Cross-entropy of picking each query's own key among the queue's rows (MoCo, arXiv 1911.05722, equation 1).

    Args:
        queries, keys: `(B, D)` unit rows; keys without gradient.
        queue: `(K, D)`, the negatives.
        temperature: divides the cosines.
        others: further negatives, each `(n, D)`, for every query alike.
    """
    positive = (queries * keys).sum(dim=1, keepdim=True)
    with torch.autocast(queries.device.type, enabled=False):  # bf16 would round cosines near 1 to steps of 0.004
        # A copy, because the queue is written before the gradient is taken.
        negatives = [queries @ rows.T for rows in (queue.clone(), *others)]
    logits = torch.cat((positive, *negatives), dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(logits.shape[0], dtype=torch.long))
