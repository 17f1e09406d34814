"""MoCo v2 against lightly's loss, its queue and its groups."""

import copy

import pytest
import torch
from lightly.loss import NTXentLoss

from cmid.commands.learners import build_learner
from cmid.config import MoCoV2Config, PretrainConfig, ViewConfig
from cmid.contracts import Progress, Views
from cmid.errors import UsageError
from cmid.ops.contrast import info_nce
from tests.methods.rivals import batch, learner


def seen(backbone, head, images):
    return head(backbone(images).last.mean((2, 3)))


def expected_of(model, query, key):
    """lightly's loss with the model's queue for its memory bank; it normalises by itself."""
    loss = NTXentLoss(temperature=model.config.temperature, memory_bank_size=tuple(model.queue.shape))
    loss.memory_bank.bank = model.queue.clone()
    loss.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    q = seen(model.backbone, model.projector, query.images)
    with torch.no_grad():
        k = seen(model.teacher_backbone, model.teacher_projector, key.images)
    return loss(q, k)


@pytest.mark.parametrize("symmetric", [False, True])
def test_loss_and_gradient_are_those_of_lightly(symmetric):
    model, views = learner("moco_v2", symmetric=symmetric), batch("moco_v2", seed=4)
    other = copy.deepcopy(model)
    found = model(views)["contrast"]
    found.backward()
    expected = expected_of(other, views[0], views[1])
    if symmetric:
        expected = expected + expected_of(other, views[1], views[0])
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)


def test_swapping_the_views_changes_the_symmetric_loss_not_at_all_and_the_published_one():
    views = batch("moco_v2", seed=5)
    swapped = Views(views.crops[::-1], views.indices)
    both = learner("moco_v2", symmetric=True)
    there, back = copy.deepcopy(both)(views)["contrast"], copy.deepcopy(both)(swapped)["contrast"]
    torch.testing.assert_close(there, back, rtol=1e-5, atol=1e-6)
    one = learner("moco_v2")
    assert not torch.allclose(copy.deepcopy(one)(views)["contrast"], copy.deepcopy(one)(swapped)["contrast"])


def test_the_keys_of_view_1_enter_the_queue_after_the_loss():
    model, views = learner("moco_v2"), batch("moco_v2", seed=6)
    before = model.queue.clone()
    with torch.no_grad():
        keys = seen(copy.deepcopy(model.teacher_backbone), model.teacher_projector, views[1].images)
    model(views)
    torch.testing.assert_close(model.queue[:4], torch.nn.functional.normalize(keys, dim=1), rtol=1e-5, atol=1e-6)
    assert torch.equal(model.queue[4:], before[4:]) and model.queue_pointer.item() == 4


def test_groups_give_every_image_its_own_key_by_the_statistics_of_its_group():
    model, views = learner("moco_v2", batch_norm_groups=2), batch("moco_v2", count=8, seed=7)
    reference = copy.deepcopy(model)
    torch.manual_seed(1)
    keys = model._see(views[1])
    torch.manual_seed(1)
    order = torch.randperm(8)
    assert not torch.equal(order, torch.arange(8))
    for half in (order[:4], order[4:]):
        with torch.no_grad():
            raw = seen(reference.teacher_backbone, reference.teacher_projector, views[1].images[half])
        torch.testing.assert_close(keys[half], torch.nn.functional.normalize(raw, dim=1), rtol=1e-5, atol=1e-6)


def test_queries_are_normalised_in_groups_as_well():
    model, views = learner("moco_v2", batch_norm_groups=2), batch("moco_v2", count=8, seed=7)
    reference = copy.deepcopy(model)
    torch.manual_seed(1)
    keys = model._see(views[1])
    torch.manual_seed(1)
    found = model(views)["contrast"]
    found.backward()
    halves = [seen(reference.backbone, reference.projector, views[0].images[part]) for part in (slice(4), slice(4, 8))]
    expected = info_nce(
        torch.nn.functional.normalize(torch.cat(halves), dim=1), keys, reference.queue, model.config.temperature
    )
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    ours, theirs = (next(m.backbone.parameters()).grad for m in (model, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_groups_change_nothing_where_nothing_is_normalised_over_the_batch():
    plain, grouped = (learner("moco_v2", "convnext_atto", batch_norm_groups=n) for n in (1, 4))
    views = batch("moco_v2", seed=8)
    torch.testing.assert_close(plain(views)["contrast"], grouped(views)["contrast"], rtol=1e-5, atol=1e-6)


def test_the_teacher_follows_at_one_pace():
    model = learner("moco_v2")
    with torch.no_grad():
        for p in (*model.backbone.parameters(), *model.projector.parameters()):
            p.add_(1.0)
    for step in (1, 100):
        before = [p.clone() for p in model.teacher_backbone.parameters()]
        head = model.teacher_projector[0].weight.clone()
        model.after_step(Progress(step, 100, step / 10, 10))
        for old, new, student in zip(
            before, model.teacher_backbone.parameters(), model.backbone.parameters(), strict=True
        ):
            torch.testing.assert_close(new, 0.9 * old + 0.1 * student, rtol=1e-5, atol=1e-6)
        expected = 0.9 * head + 0.1 * model.projector[0].weight
        torch.testing.assert_close(model.teacher_projector[0].weight, expected, rtol=1e-5, atol=1e-6)


def test_groups_of_unequal_size_are_refused():
    config = PretrainConfig(
        method="moco_v2", batch_size=6, views=ViewConfig(size=64), moco_v2=MoCoV2Config(batch_norm_groups=4)
    )
    with pytest.raises(UsageError, match="a batch of 6 images falls into no 4 groups of one size: take a divisor"):
        build_learner(config)
