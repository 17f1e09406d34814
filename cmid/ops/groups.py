"""A batch taken in shuffled groups, each with batch-norm statistics of its own."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_shuffled_groups(see: Callable[[Tensor], Tensor], images: Tensor, groups: int) -> Tensor:
    """`see` of `images` `(B, ...)`, asked for `groups` random parts of them one by one; rows in the images' order.

    One group asks for all at once and draws nothing. B need not be a multiple of `groups`.
    """
    if groups == 1:
        return see(images)
    order = torch.randperm(images.shape[0], device=images.device)
    seen = torch.cat([see(images[group]) for group in order.chunk(groups)])
    return seen[order.argsort()]
