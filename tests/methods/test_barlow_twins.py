"""Barlow Twins against lightly's loss, and the paper's two rates by one."""

import copy

import pytest
import torch
from lightly.loss import BarlowTwinsLoss
from timm.optim import Lars

from cmid.config import OptimizerConfig
from cmid.contracts import Views
from cmid.train.optimisers import build_optimiser
from tests.methods.rivals import batch, learner


def total(model, views):
    return torch.stack(list(model(views).values())).sum()


def test_loss_and_gradient_are_those_of_lightly():
    model, views = learner("barlow_twins", redundancy_weight=0.1), batch("barlow_twins", count=8, seed=4)
    other = copy.deepcopy(model)
    found = total(model, views)
    found.backward()
    raw = [other.projector(other.backbone(v.images).last.mean((2, 3))) for v in views]
    expected = BarlowTwinsLoss(lambda_param=0.1)(*raw)
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        # against the norm: the last bias, before a normalisation, has a gradient of rounding alone
        assert (ours.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm() + 1e-4


def test_the_terms_are_those_of_equation_1():
    model = learner("barlow_twins", redundancy_weight=0.5, loss_scale=0.1)
    embeddings = torch.randn(2, 7, 16, dtype=torch.float64)
    given = iter(embeddings)
    model._embed = lambda images: next(given)
    terms = model(batch("barlow_twins"))
    on = off = 0.0
    for i in range(16):
        for j in range(16):
            correlation = sum(embeddings[0, b, i] * embeddings[1, b, j] for b in range(7)) / 7
            on, off = (on + (1 - correlation) ** 2, off) if i == j else (on, off + correlation**2)
    torch.testing.assert_close(terms["invariance"], 0.1 * on)
    torch.testing.assert_close(terms["redundancy"], 0.1 * 0.5 * off)


def test_swapping_the_views_and_scaling_the_embedding_change_no_loss():
    model, views = learner("barlow_twins"), batch("barlow_twins", count=8, seed=5)
    swapped = Views(views.crops[::-1], views.indices)
    there = total(copy.deepcopy(model), views)
    torch.testing.assert_close(there, total(copy.deepcopy(model), swapped), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for parameter in model.projector.layers[-1].parameters():
            parameter.mul_(3.0)
    torch.testing.assert_close(there, total(model, views), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_loss_scale_gives_biases_their_own_rate_and_leaves_the_weights_theirs(decay):
    """With LARS, one rate and the scaled loss are two rates and the paper's; decay counts as the scale does."""
    scaled, plain = learner("barlow_twins", loss_scale=0.024), learner("barlow_twins")
    with torch.no_grad():  # timm begins its residual branches at 0, and LARS does not adapt to a gradient of 0
        for model in (scaled, plain):
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.fill_(0.5)
    settings = OptimizerConfig(name="lars", betas=(0.9,), weight_decay=decay * 0.024 or 1e-30, eps=0.0)
    one = build_optimiser(scaled, settings, 0.2)
    groups = [[p for p in plain.parameters() if p.ndim > 1], [p for p in plain.parameters() if p.ndim <= 1]]
    two = Lars(
        [{"params": groups[0], "lr": 0.2, "weight_decay": decay or 1e-30}, {"params": groups[1], "lr": 0.0048}],
        momentum=0.9,
        eps=0.0,
    )
    for step in range(2):
        views = batch("barlow_twins", count=8, seed=step)
        two.zero_grad()
        total(plain, views).backward()
        for ours, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
            ours.grad = 0.024 * theirs.grad  # of a loss times 0.024; computed anew, two steps would differ by rounding
        one.step()
        two.step()
    torch.testing.assert_close(dict(scaled.named_parameters()), dict(plain.named_parameters()), rtol=1e-4, atol=1e-5)
