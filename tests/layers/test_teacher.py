"""A teacher copies its student, has no gradient, and drops no blocks."""

import pytest
import torch
from timm.layers import DropPath

from cmid.backbones import create_backbone
from cmid.commands.learners import build_learner
from cmid.config import PretrainConfig, ViewConfig
from cmid.layers.teacher import teacher_of


def dropped(module):
    return [m.drop_prob for m in module.modules() if isinstance(m, DropPath) and m.drop_prob]


def test_a_copy_without_gradient_and_without_stochastic_depth():
    student = create_backbone("convnext_atto", mask_stage=None, drop_path=0.5).train()
    teacher = teacher_of(student)
    assert dropped(student) and not dropped(teacher)
    for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        assert torch.equal(ours, theirs) and ours is not theirs
        assert theirs.requires_grad and not ours.requires_grad


@pytest.mark.parametrize("method", ["cmid", "byol", "moco_v2", "seco", "indexnet"])
def test_every_method_has_such_a_teacher(method):
    config = PretrainConfig(
        method=method, backbone="convnext_atto", drop_path=0.5, batch_size=4, views=ViewConfig(size=64)
    )
    learner = build_learner(config)
    assert dropped(learner.backbone) and not dropped(learner.teacher_backbone)
    teachers = [p for name, p in learner.named_parameters() if name.startswith("teacher")]
    assert teachers and not any(p.requires_grad for p in teachers)
