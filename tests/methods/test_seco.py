"""SeCo against its formula written out, its three sub-spaces, its queues."""

import copy

import pytest
import torch

from cmid.commands.learners import METHODS, build_learner
from cmid.config import PretrainConfig, SeCoConfig, ViewConfig
from cmid.contracts import View, Views
from cmid.data.crops import kinds_of_crops
from cmid.errors import UsageError
from cmid.methods.seco import SUB_SPACES
from tests.methods.rivals import batch, learner


def unit(rows):
    return rows / rows.square().sum(1, keepdim=True).sqrt()


def seen(backbone, view):
    return backbone(view.images).last.mean((2, 3))


def expected_of(model, views):
    """-log of the share that the right key has, image by image, as the paper writes it.

    Which key is right in which sub-space, and which keys are wrong ones, is said here in words of its own: k0 differs
    in both, k1 in the season, k2 in synthetic changes.
    """
    q, (k0, k1, k2) = (
        seen(model.backbone, views[0]),
        (seen(model.teacher_backbone, v).detach() for v in views.crops[1:]),
    )
    right = {"to_all": (k0, []), "to_season": (k1, [k0, k2]), "to_augmentation": (k2, [k0, k1])}
    losses = {}
    for i, (name, (positive, negatives)) in enumerate(right.items()):
        head, teacher_head = model.projectors[i], model.teacher_projectors[i]
        z, key = unit(head(q)), unit(teacher_head(positive)).detach()
        wrong = [*model.queues[i].clone(), *(row for k in negatives for row in unit(teacher_head(k)).detach())]
        each = []
        for image in range(len(z)):
            match = torch.exp(z[image] @ key[image] / model.config.temperature)
            others = sum(torch.exp(z[image] @ row / model.config.temperature) for row in wrong)
            each.append(-torch.log(match / (match + others)))
        losses[name] = torch.stack(each).mean()
    return losses


def test_loss_and_gradient_are_those_of_the_formula():
    model, views = learner("seco"), batch("seco", seed=4)
    other = copy.deepcopy(model)
    found = model(views)
    assert tuple(found) == SUB_SPACES
    sum(found.values()).backward()
    expected = expected_of(other, views)
    sum(expected.values()).backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)


def test_neither_keys_nor_queues_get_a_gradient():
    model, views = learner("seco"), batch("seco", seed=5)
    for view in views:
        view.images.requires_grad_()
    sum(model(views).values()).backward()
    assert views[0].images.grad.abs().sum() > 0
    assert all(view.images.grad is None for view in views.crops[1:])
    assert not model.queues.requires_grad
    assert all(p.grad is None for n, p in model.named_parameters() if n.startswith("teacher_"))


def terms_of(model, views):
    return {name: value.item() for name, value in copy.deepcopy(model)(views).items()}


def test_each_sub_space_learns_from_its_own_key():
    """Where the crop that may differ is the query itself, the loss of that sub-space alone is the least."""
    model, views = learner("seco"), batch("seco", seed=6)
    usual = terms_of(model, views)
    for i, name in enumerate(SUB_SPACES):
        crops = list(views.crops)
        crops[i + 1] = crops[0]
        found = terms_of(model, Views(tuple(crops), views.indices))
        assert found[name] < usual[name]
        worse = [other for other in SUB_SPACES[1:] if other != name]
        assert all(found[other] > usual[other] for other in worse), "what it must tell apart is like the query"


def test_keys_of_the_other_sub_spaces_do_not_enter_the_first():
    model, views = learner("seco"), batch("seco", seed=7)
    noise = [View(torch.randn_like(v.images), v.boxes, v.flipped) for v in views.crops[2:]]
    other = Views((*views.crops[:2], *noise), views.indices)
    assert terms_of(model, other)["to_all"] == terms_of(model, views)["to_all"]


def test_the_order_of_the_images_changes_no_loss():
    model, views = learner("seco"), batch("seco", seed=8)
    turn = torch.tensor([2, 0, 3, 1])
    turned = Views(tuple(v.rows(turn) for v in views), views.indices[turn])
    there, back = terms_of(model, views), terms_of(model, turned)
    assert there == pytest.approx(back, rel=1e-5)


def test_each_queue_takes_its_own_keys_after_the_loss():
    model, views = learner("seco"), batch("seco", seed=9)
    before, teachers = model.queues.clone(), copy.deepcopy(model)
    model(views)
    for i in range(3):
        with torch.no_grad():
            keys = unit(teachers.teacher_projectors[i](seen(teachers.teacher_backbone, views[i + 1])))
        torch.testing.assert_close(model.queues[i, :4], keys, rtol=1e-5, atol=1e-6)
    assert torch.equal(model.queues[:, 4:], before[:, 4:])
    assert model.queue_pointers.flatten().tolist() == [4, 4, 4]


def test_groups_change_nothing_where_nothing_is_normalised_over_the_batch():
    plain, grouped = (learner("seco", "convnext_atto", batch_norm_groups=n) for n in (1, 4))
    views = batch("seco", seed=10)
    torch.testing.assert_close(plain(views), grouped(views), rtol=1e-5, atol=1e-6)


def test_groups_of_unequal_size_are_refused():
    config = PretrainConfig(
        method="seco", batch_size=6, views=ViewConfig(size=64), seco=SeCoConfig(batch_norm_groups=4)
    )
    with pytest.raises(
        UsageError, match=r"seco\.batch_norm_groups is 4, but a batch of 6 images falls into no 4 groups"
    ):
        build_learner(config)


def test_the_query_and_the_seasonal_key_are_only_cut():
    row = METHODS["seco"]
    assert row.dates == (0, 1, 2, 0), "q and k2 share a date; k0 and k1 have others"
    kinds = kinds_of_crops(ViewConfig(recoloured=row.recoloured, flip=0.5), row.crops)
    assert [kind.flip for kind in kinds] == [0, 0.5, 0, 0.5]
    assert [kind.flip for kind in kinds_of_crops(ViewConfig(flip=0.5), 2)] == [0.5, 0.5]
