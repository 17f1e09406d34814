"""Losses of pixels against formulas and against kornia's and segmentation-models-pytorch's."""

import kornia
import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from cmid.ops import pixel_losses

LOSSES = (pixel_losses.cross_entropy, pixel_losses.focal, pixel_losses.dice)


@pytest.fixture
def scored():
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 6, 5, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 6, 5), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.3] = 255
    return logits, labels


def flat(logits, labels):
    """The labelled pixels alone: probabilities `(n, K)` and labels `(n,)`."""
    kept = labels != 255
    return logits.softmax(1).movedim(1, -1)[kept], labels[kept]


def test_cross_entropy_by_the_formula(scored):
    logits, labels = scored
    p, y = flat(logits, labels)
    each = -p[torch.arange(len(y)), y].log()
    weights = torch.tensor([0.5, 1.0, 4.0, 2.0], dtype=torch.float64)
    found = pixel_losses.cross_entropy(logits, labels, ignore=255)
    torch.testing.assert_close(found, each.mean())
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, ignore_index=255))
    found = pixel_losses.cross_entropy(logits, labels, ignore=255, average="all")
    torch.testing.assert_close(found, each.sum() / labels.numel())
    found = pixel_losses.cross_entropy(logits, labels, ignore=255, weights=weights)
    torch.testing.assert_close(found, (each * weights[y]).sum() / weights[y].sum())
    found = pixel_losses.cross_entropy(logits, labels, ignore=255, weights=weights, average="all")
    torch.testing.assert_close(found, (each * weights[y]).sum() / labels.numel())


def test_focal_by_the_formula_and_as_kornia_has_it(scored):
    logits, labels = scored
    p, y = flat(logits, labels)
    own = p[torch.arange(len(y)), y]
    for gamma in (0.0, 0.5, 2.0):
        found = pixel_losses.focal(logits, labels, ignore=255, gamma=gamma)
        torch.testing.assert_close(found, (-((1 - own) ** gamma) * own.log()).mean())
        summed = kornia.losses.focal_loss(logits, labels, None, gamma, reduction="sum", ignore_index=255)
        torch.testing.assert_close(found, summed / len(y))
    weights = torch.tensor([0.5, 1.0, 4.0, 2.0], dtype=torch.float64)
    by_hand = (weights[y] * -((1 - own) ** 2) * own.log()).sum() / weights[y].sum()
    torch.testing.assert_close(pixel_losses.focal(logits, labels, ignore=255, weights=weights), by_hand)


def test_dice_by_the_formula_and_as_segmentation_models_has_it(scored):
    logits, labels = scored
    p, y = flat(logits, labels)
    scores = torch.stack([1 - 2 * p[y == k, k].sum() / (p[:, k].sum() + (y == k).sum()) for k in range(4)])
    torch.testing.assert_close(pixel_losses.dice(logits, labels, ignore=255), scores.mean())
    theirs = smp.losses.DiceLoss("multiclass", ignore_index=255)(logits, labels)
    torch.testing.assert_close(pixel_losses.dice(logits, labels, ignore=255), theirs)
    without = torch.where(labels == 1, 255, labels)  # a class that does not occur is left out of the mean
    p, y = flat(logits, without)
    scores = torch.stack([1 - 2 * p[y == k, k].sum() / (p[:, k].sum() + (y == k).sum()) for k in (0, 2, 3)])
    torch.testing.assert_close(pixel_losses.dice(logits, without, ignore=255), scores.mean())
    weights = torch.tensor([1.0, 9.0, 2.0, 5.0], dtype=torch.float64)
    found = pixel_losses.dice(logits, without, ignore=255, weights=weights)
    torch.testing.assert_close(found, (scores * weights[[0, 2, 3]]).sum() / 8)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("ignore", [255, -1])
def test_pixels_without_a_label_have_no_part(loss, ignore, scored):
    logits, labels = scored
    labels = torch.where(labels == 255, ignore, labels)
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, labels, ignore=ignore)
    value.backward()
    nowhere = (labels == ignore)[:, None].expand_as(logits)
    assert (leaf.grad[nowhere] == 0).all() and (leaf.grad[~nowhere] != 0).all()
    other = torch.where(nowhere, logits + 5 * torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(other, labels, ignore=ignore), value.detach())


@pytest.mark.parametrize("loss", LOSSES)
def test_without_any_label_there_is_nothing_to_learn(loss, scored):
    leaf = scored[0].clone().requires_grad_()
    value = loss(leaf, torch.full_like(scored[1], 255), ignore=255)
    value.backward()
    assert value == 0 and (leaf.grad == 0).all()


def test_a_pixel_that_is_certain_has_a_finite_gradient():
    leaf = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1).requires_grad_()
    pixel_losses.focal(leaf, torch.zeros(1, 1, 1, dtype=torch.int64), ignore=255, gamma=0.5).backward()
    assert leaf.grad.isfinite().all()
