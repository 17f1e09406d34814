"""Run by torchrun in two processes: CMID on half a batch each must equal one process on all of it.

With layer norm (a small Swin), and with batch-norm over both processes (a ResNet).
"""

import copy
import sys

import torch
import torch.distributed as dist

from cmid.contracts import Progress, Views
from cmid.layers.batch_norm import synchronise
from tests.methods.test_cmid import batch, learner


def part(views, rank):
    rows = slice(2 * rank, 2 * rank + 2)
    crops = tuple(v.rows(rows) for v in views)
    return Views(crops, views.indices[rows])


def an_idle_last_stage(backbone):
    """DDP refuses a second step where a parameter had no gradient in the first."""
    model = learner(backbone, reconstruction_weight=0, global_weight=0, local_stage=2)
    together = torch.nn.parallel.DistributedDataParallel(synchronise(model, "cpu"))
    for _ in range(2):
        sum(together(batch(seed=3)).values()).backward()


def the_published_way(backbone, rank):
    """In parity mode each process has a spectrum of its own, and the centre is the mean of the processes' means."""
    model, views = learner(backbone, mode="parity", queue_size=24), batch(seed=4)
    masks, masked = model._hide(views)
    alone, whole, rows = copy.deepcopy(model), copy.deepcopy(model), slice(2 * rank, 2 * rank + 2)
    hidden = tuple(m[rows] for m in masks), tuple(m[rows] for m in masked)
    found = model.terms(part(views, rank), *hidden)["reconstruction"].detach()

    def check():
        own = alone.terms(part(views, rank), *hidden)["reconstruction"].detach()
        torch.testing.assert_close(found, own, rtol=1e-5, atol=1e-6)
        of_all = whole.terms(views, masks, masked)["reconstruction"].detach()
        assert (found - of_all).abs() > 1e-3 * of_all, "which is another"
        torch.testing.assert_close(model.centre, whole.centre, rtol=1e-5, atol=1e-7)

    return check


def compare(backbone):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.set_num_threads(1)
    an_idle_last_stage(backbone)
    published = the_published_way(backbone, rank) if backbone.startswith("swin") else None
    model, views = learner(backbone, queue_size=20), batch(seed=3)
    # one pair without overlap, so that the two halves have unequal counts of matches
    views.crops[1].boxes[0] += 1000
    masks, masked = model._hide(views)
    alone = copy.deepcopy(model)
    together = torch.nn.parallel.DistributedDataParallel(synchronise(copy.deepcopy(model), "cpu"))
    module = together.module
    module.before_step(Progress())
    rows = slice(2 * rank, 2 * rank + 2)
    module._hide = lambda _: (tuple(m[rows] for m in masks), tuple(m[rows] for m in masked))
    terms = together(part(views, rank))
    sum(terms.values()).backward()

    saved = dist.group.WORLD
    dist.barrier()
    losses = {k: v.detach().clone() for k, v in terms.items()}
    for value in losses.values():
        dist.all_reduce(value)
    dist.destroy_process_group()  # from here on every process is alone
    assert saved is not None
    expected = alone.terms(views, masks, masked)
    sum(expected.values()).backward()
    for name, value in losses.items():
        torch.testing.assert_close(value / 2, expected[name].detach(), rtol=1e-5, atol=1e-6)
    gradients = dict(alone.named_parameters())
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            theirs = gradients[name].grad
            # against the norm: a bias before batch-norm has a gradient of rounding alone
            assert (parameter.grad - theirs).norm() <= 2e-4 * theirs.norm() + 1e-5, name
    torch.testing.assert_close(module.centre, alone.centre, rtol=1e-5, atol=1e-7)
    ours, theirs = (m[m[:, 0].argsort()] for m in (module.queue[:8], alone.queue[:8]))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert torch.equal(module.queue_pointer, alone.queue_pointer)
    if published:
        published()


def main():
    compare(sys.argv[1])


if __name__ == "__main__":
    main()
