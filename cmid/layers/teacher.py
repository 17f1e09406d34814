"""A teacher's weights: those of a student, without gradient."""

import copy
from typing import TypeVar

from timm.layers import DropPath
from torch import nn

M = TypeVar("M", bound=nn.Module)


def teacher_of(student: M) -> M:
    """A copy of `student` that is not trained, and leaves no block out at random.

    What a teacher says is the student's target, which stochastic depth would only make uncertain.
    """
    teacher = copy.deepcopy(student).requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return teacher
