"""Run by torchrun in two processes: batch-norm over both halves must be torch's over the whole, value and gradient."""

import copy

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from cmid.layers.batch_norm import synchronise


def compare(module, x, rank):
    """`module` on all of `x` alone, against the synchronised one on this process's half."""
    together = synchronise(copy.deepcopy(module), "cpu")
    assert not any(type(m) in (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormAct2d) for m in together.modules())
    assert list(together.state_dict()) == list(module.state_dict())
    half = x.detach()[rank * len(x) // 2 : (rank + 1) * len(x) // 2].clone().requires_grad_()
    whole = x.detach().clone().requires_grad_()
    weight = torch.linspace(-1, 1, x[0].numel()).view(x.shape[1:])
    expected, found = module(whole), together(half)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    rows = slice(rank * len(x) // 2, (rank + 1) * len(x) // 2)
    torch.testing.assert_close(found, expected[rows], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(half.grad, whole.grad[rows], rtol=1e-3, atol=1e-5)
    for (name, ours), theirs in zip(together.named_parameters(), module.parameters(), strict=True):
        dist.all_reduce(ours.grad)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)
    for (name, ours), theirs in zip(together.named_buffers(), module.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=name)
    module.eval(), together.eval()
    torch.testing.assert_close(together(half), module(whole)[rows], rtol=1e-4, atol=1e-5)


def main():
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, rows = torch.randn(6, 4, 5, 5) * 3 + 40, torch.randn(8, 4) - 7  # a mean far from 0 cancels
    for module, x in (
        (nn.BatchNorm2d(4), images),
        (nn.BatchNorm2d(4), images.to(memory_format=torch.channels_last)),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=None), nn.ReLU()), images),
        (nn.BatchNorm2d(4, affine=False), images),
        (nn.BatchNorm1d(4), rows),
        (nn.BatchNorm1d(4), torch.randn(8, 4, 3)),
        (BatchNormAct2d(4), images),
    ):
        for parameter in module.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
        compare(module, x, dist.get_rank())

    dist.destroy_process_group()


if __name__ == "__main__":
    main()
