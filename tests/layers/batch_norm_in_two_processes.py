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


def compare_bfloat16(x, rank):
    """Both halves in bfloat16 against float64 on the whole: as near as torch's own layer comes."""
    exact = nn.BatchNorm2d(x.shape[1], dtype=torch.float64)
    together = synchronise(nn.BatchNorm2d(x.shape[1]), "cpu")
    whole = x.bfloat16().double().requires_grad_()
    rows = slice(rank * len(x) // 2, (rank + 1) * len(x) // 2)
    half = x[rows].bfloat16().requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected, found = exact(whole), together(half)
    assert found.dtype == half.dtype == torch.bfloat16
    expected.backward(weight.double())
    found.backward(weight[rows])

    def error(ours, theirs):
        return float((ours.double() - theirs).norm() / theirs.norm())

    assert error(found, expected[rows]) < 4e-3 and error(half.grad, whole.grad[rows]) < 5e-3
    for ours, theirs in zip(together.parameters(), exact.parameters(), strict=True):
        dist.all_reduce(ours.grad)
        assert error(ours.grad, theirs.grad) < 3e-3
    for ours, theirs in zip(together.buffers(), exact.buffers(), strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=1e-6)


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
    for x in (images, images.to(memory_format=torch.channels_last), torch.randn(16, 8, 6, 6)):
        compare_bfloat16(x, dist.get_rank())
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
