"""Sums, means and rows over all processes; with one process each returns what it was given."""

from typing import Any

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
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def rows(tensor: Tensor) -> Tensor:
    """`(B, ...)` of every process as `(processes * B, ...)` in order of rank, without gradient."""
    if processes() == 1:
        return tensor
    tensor = tensor.contiguous()  # which the parts then are as well: not every backend takes others
    parts = [torch.empty_like(tensor) for _ in range(processes())]
    dist.all_gather(parts, tensor)
    return torch.cat(parts)


def share(rows: Tensor) -> Tensor:
    """This process's part of rows that all hold alike; parts are of one size, and rows that fill none are left out."""
    if processes() == 1:
        return rows
    size = rows.shape[0] // processes()
    return rows[dist.get_rank() * size : (dist.get_rank() + 1) * size]


class _Sum(torch.autograd.Function):
    """Sum over all processes; as each process' loss depends on it, its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return total(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient)


def summed(tensor: Tensor) -> Tensor:
    """Sum over all processes, with gradient."""
    if processes() == 1:
        return tensor
    result: Tensor = _Sum.apply(tensor)
    return result


def mean(tensor: Tensor) -> Tensor:
    """Mean over all processes, with gradient: under DDP's averaging it is that of one process with all the data."""
    return summed(tensor) / processes()
