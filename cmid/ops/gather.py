"""Sums, means and rows over all processes; with one process each returns what it was given."""

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def total(tensor: Tensor) -> Tensor:
    """Sum over all processes, without gradient."""
    if processes() == 1:
        return tensor
    tensor = tensor.clone()
    dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def rows(tensor: Tensor) -> Tensor:
    """`(B, ...)` of every process as `(processes * B, ...)` in order of rank, without gradient."""
    if processes() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(processes())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def mean(tensor: Tensor) -> Tensor:
    """Mean over all processes, with gradient: under DDP's averaging it is that of one process with all the data."""
    if processes() == 1:
        return tensor
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(tensor) / processes()
