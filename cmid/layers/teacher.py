"""A teacher's weights: those of a student, without gradient."""

import copy
from typing import TypeVar

from timm.layers import DropPath
from torch import nn

M = TypeVar("M", bound=nn.Module)


def teacher_of(student: M, *, drops_blocks: bool = False) -> M:
    """A copy of `student` that is not trained; it leaves no block out at random, unless it `drops_blocks` as that does.

    What a teacher says is the student's target, which stochastic depth would only make uncertain.
    """
    teacher = copy.deepcopy(student).requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, DropPath) and not drops_blocks:
            module.drop_prob = 0.0
    return teacher
