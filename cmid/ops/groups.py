"""A batch taken in groups, each with batch-norm statistics of its own, as each GPU's part of a batch has them."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_groups(see: Callable[[Tensor], Tensor], images: Tensor, groups: int) -> Tensor:
    """`see` of `images` `(B, ...)`, asked for `groups` parts of them one after another.

    B need not be a multiple of `groups`.
    """
    return see(images) if groups == 1 else torch.cat([see(group) for group in images.chunk(groups)])


def in_shuffled_groups(see: Callable[[Tensor], Tensor], images: Tensor, groups: int) -> Tensor:
    """`in_groups` of the images in an order drawn anew; rows in their own order. One group draws nothing."""
    if groups == 1:
        return see(images)
    order = torch.randperm(images.shape[0], device=images.device)
    return in_groups(see, images[order], groups)[order.argsort()]
