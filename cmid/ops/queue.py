"""A ring of past keys, the negatives of a contrastive loss."""

import torch
from torch import Tensor


def new_queue(size: int, dim: int) -> Tensor:
    """Random unit rows `(size, dim)` to begin with."""
    return torch.nn.functional.normalize(torch.randn(size, dim), dim=1)


@torch.no_grad()
def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Write `keys` `(n, dim)` over the oldest rows of `queue` `(size, dim)` and move `pointer` `(1,)` int64, in place.

    Any n: of more keys than rows, the last `size` are kept. No value travels to the host.
    """
    size = queue.shape[0]
    keys = keys[-size:]
    slots = (pointer + torch.arange(keys.shape[0], device=queue.device)) % size
    queue.index_copy_(0, slots, keys.to(queue.dtype))
    pointer.copy_((pointer + keys.shape[0]) % size)
