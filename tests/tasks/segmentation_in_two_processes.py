"""Run by torchrun in two processes: segmenters on half a batch each must equal one process on all of it."""

import copy
import dataclasses

import torch
import torch.distributed as dist

from cmid.backbones import create_backbone
from cmid.contracts import View, Views
from cmid.layers.batch_norm import synchronise
from cmid.tasks.segmentation import Segmenter

WEIGHTS = torch.tensor([0.5, 1.0, 3.0])
KINDS = {
    "counted": {},
    "all": {"average": "all", "head": "lateral_sum"},
    "weighted": {"class_weights": WEIGHTS, "head": "lateral_sum"},
    "focal and dice": {
        "cross_entropy": 0.0,
        "focal": 1.0,
        "dice": 0.5,
        "class_weights": WEIGHTS,
        "head": "lateral_sum",
    },
}


def segmenter(kind):
    torch.manual_seed(0)
    return Segmenter(create_backbone("test_resnet", mask_stage=None), 3, width=16, dropout=0.0, **KINDS[kind])


def batch(images=8, side=96):
    """Of the first half of the images nearly nothing is labelled, and one class occurs in the second half alone."""
    draw = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 3, (images, side, side), generator=draw)
    half = labels[: images // 2]
    half[half == 2] = 1
    half[torch.rand(half.shape, generator=draw) < 0.9] = 255
    view = View(torch.randn(images, 3, side, side, generator=draw), torch.zeros(images, 4), torch.zeros(images).bool())
    return Views((view,), torch.arange(images), labels=labels)


def half_of(views, rank):
    rows = slice(4 * rank, 4 * rank + 4)
    view = views[0].with_images(views[0].images[rows])
    return dataclasses.replace(views, crops=(view,), indices=views.indices[rows], labels=views.labels[rows])


def step(module, views):
    terms = module(views)
    sum(terms.values()).backward()
    return {name: term.detach().clone() for name, term in terms.items()}


def main():
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    done = {}
    for kind in KINDS:
        together = torch.nn.parallel.DistributedDataParallel(synchronise(segmenter(kind), "cpu"))
        terms = step(together, half_of(batch(), dist.get_rank()))
        for term in terms.values():
            dist.all_reduce(term)
        done[kind] = copy.copy(together.module), terms
    dist.barrier()
    dist.destroy_process_group()  # from here on every process is alone
    for kind, (module, terms) in done.items():
        alone = segmenter(kind)
        expected = step(alone, batch())
        assert terms.keys() == expected.keys() == {"segmentation", "auxiliary"}
        for name, term in terms.items():
            torch.testing.assert_close(term / 2, expected[name], rtol=1e-5, atol=1e-6, msg=f"{kind}, {name}")
        for (name, ours), theirs in zip(module.named_parameters(), alone.parameters(), strict=True):
            away = (ours.grad - theirs.grad).norm()
            # against the norm: a bias before batch-norm has a gradient of rounding alone
            assert away <= 2e-4 * theirs.grad.norm() + 1e-5, f"{kind}, gradient of {name}: {away}"


if __name__ == "__main__":
    main()
