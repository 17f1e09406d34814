"""SwAV against the paper's formula written out, its queue, and prototypes that stay where they are."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from cmid.commands.learners import build_learner
from cmid.config import OptimizerConfig, PretrainConfig, SwAVConfig, ViewConfig
from cmid.contracts import Progress, Views
from cmid.errors import UsageError
from cmid.train.optimisers import build_optimiser
from tests.methods.rivals import batch, learner


def balanced(scores, epsilon=0.05, rounds=3):
    """Codes `(n, K)` of scores `(n, K)`: equation 5 and the iterations of appendix A, in double precision."""
    codes = torch.exp(scores.double() / epsilon)
    codes = codes / codes.sum()
    for _ in range(rounds):
        codes = codes / codes.sum(0, keepdim=True) / codes.shape[1]  # each prototype 1 / K of all
        codes = codes / codes.sum(1, keepdim=True) / codes.shape[0]  # each image 1 / n
    return codes * codes.shape[0]


def expected_loss(model, views, queued=()):
    """Mean over the two assigned crops of the mean cross-entropy with every other crop."""
    maps = [model.backbone(torch.cat([v.images for v in part])).last for part in (views[:2], views[2:]) if part]
    heads = model.projector(torch.cat([m.mean((2, 3)) for m in maps]))
    count = views[0].images.shape[0]
    scores = (F.normalize(heads, dim=1) @ model.prototypes.weight.T).split(count)
    loss = 0
    for assigned in (0, 1):
        with torch.no_grad():
            more = [queued[:, assigned] @ model.prototypes.weight.T] if len(queued) else []
            codes = balanced(torch.cat([*more, scores[assigned]]))[-count:]
        others = [other for other in range(len(views)) if other != assigned]
        for other in others:
            log = (scores[other].double() / 0.1).log_softmax(1)
            loss = loss - (codes * log).sum(1).mean() / len(others) / 2
    return loss


@pytest.mark.parametrize("queue_size", [0, 6])
@pytest.mark.parametrize("small", [0, 3])
def test_loss_and_gradient_are_those_of_the_paper(queue_size, small):
    model, views = learner("swav", queue_size=queue_size), batch("swav", seed=4)
    views = Views(views.crops[: 2 + small], views.indices)
    other = copy.deepcopy(model)
    found = model(views)["swapped"]
    found.backward()
    expected = expected_loss(other, views.crops, other.queue if queue_size else ())
    expected.backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm() + 1e-6


def test_the_order_of_the_assigned_and_of_the_small_crops_changes_no_loss():
    model, views = learner("swav", queue_size=0), batch("swav", seed=5)
    a, b, *small = views.crops
    turned = Views((b, a, *small[::-1]), views.indices)
    there, back = (copy.deepcopy(model)(each)["swapped"] for each in (views, turned))
    torch.testing.assert_close(there, back, rtol=1e-5, atol=1e-6)


def test_crops_that_are_all_alike_are_assigned_to_all_prototypes_alike():
    model = learner("swav", queue_size=0)
    views = batch("swav", seed=6)
    same = [v.with_images(v.images[:1].expand_as(v.images)) for v in views]
    assert model(Views(tuple(same), views.indices))["swapped"].item() >= math.log(12) - 1e-4


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw", "adan"])
def test_frozen_prototypes_stay_and_are_freed_by_the_epoch(name):
    model, views = learner("swav", queue_size=0, freeze_epochs=1), batch("swav", seed=7)
    optimiser = build_optimiser(model, OptimizerConfig(name=name, weight_decay=0.1, betas=(0.9, 0.9, 0.9)), 0.1)
    start = model.prototypes.weight.detach().clone()
    torch.testing.assert_close(start.norm(dim=1), torch.ones(12))
    for step in range(3):
        model.before_step(Progress(step, 6, step / 3, 2))
        optimiser.zero_grad()
        model(views)["swapped"].backward()
        assert not model.prototypes.weight.grad.any(), "DDP waits for a gradient, and it is zero"
        optimiser.step()
        model.after_step(Progress(step + 1, 6, (step + 1) / 3, 2))
        assert torch.equal(model.prototypes.weight, start)
    model.before_step(Progress(3, 6, 1.0, 2))
    optimiser.zero_grad()
    model(views)["swapped"].backward()
    assert model.prototypes.weight.grad.any()
    optimiser.step()
    model.after_step(Progress(4, 6, 4 / 3, 2))
    assert not torch.allclose(model.prototypes.weight, start)
    torch.testing.assert_close(model.prototypes.weight.norm(dim=1), torch.ones(12))


def test_the_queue_fills_from_its_epoch_and_counts_once_it_is_full():
    model, views = learner("swav", queue_size=6, queue_start_epoch=2), batch("swav", seed=8)
    model.queue.zero_()
    model.queue_filled.zero_()
    model.eval()  # the same embeddings each time
    sizes = []
    inner = model.loss.forward
    model.loss.forward = lambda big, small, queue: sizes.append(queue and len(queue[0])) or inner(big, small, queue)
    for epoch in (0, 1, 2, 3, 4):
        model.before_step(Progress(epoch, 5, epoch, 5))
        with torch.no_grad():
            model(views)
    assert sizes == [None, None, None, None, 6]
    embeddings = torch.stack(model._embed(views)[:2], 1)
    torch.testing.assert_close(model.queue, embeddings[[2, 3, 0, 1, 2, 3]], rtol=1e-4, atol=1e-5)
    assert model.queue_filled.item() == 6


def test_what_cannot_take_small_crops_is_refused():
    views = ViewConfig(size=64, small_crops=2, small_size=32)
    with pytest.raises(UsageError, match="byol takes no small crops: set it to 0, or take a method that does"):
        build_learner(PretrainConfig(method="byol", backbone="resnet18", views=views))
    small = SwAVConfig(hidden=16, dim=8, prototypes=4)
    with pytest.raises(
        UsageError, match=r"takes crops of one size only: set views\.small_size to 64 or views\.small_c"
    ):
        build_learner(PretrainConfig(method="swav", backbone="maxvit_tiny_tf_224", views=views, swav=small))


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "convnext_atto", "vit_tiny_patch16_224"])
def test_backbones_of_other_kinds_take_both_sizes(backbone):
    views = ViewConfig(size=64, small_crops=2, small_size=32)
    small = SwAVConfig(hidden=16, dim=8, prototypes=4, freeze_epochs=0)
    model = build_learner(PretrainConfig(method="swav", backbone=backbone, views=views, swav=small))
    model(batch("swav"))["swapped"].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
