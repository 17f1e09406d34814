import copy

import torch
from torch import nn

from cmid.layers.batch_norm import synchronise


def test_two_processes_equal_one(two_processes):
    two_processes("tests.layers.batch_norm_in_two_processes")


def test_alone_it_is_torchs(monkeypatch):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    together, x = synchronise(copy.deepcopy(module), "cpu"), torch.randn(4, 3, 6, 6)
    assert torch.equal(module(x), together(x))
    assert all(torch.equal(a, b) for a, b in zip(module.buffers(), together.buffers(), strict=True))
