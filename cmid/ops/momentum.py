"""A teacher that follows its student."""

import math

import torch
from torch import nn


def cosine_momentum(step: int, total_steps: int, start: float, end: float) -> float:
    """Momentum after `step` of `total_steps`, from `start` to `end` along half a cosine (BYOL, section 3.3)."""
    share = min(step, total_steps) / max(1, total_steps)
    return end - (end - start) * (math.cos(math.pi * share) + 1) / 2


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every parameter of `teacher` to `momentum * teacher + (1 - momentum) * student`; buffers stay its own."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
