"""BYOL against lightly's loss, and what it alone must do."""

import copy

import torch
from lightly.loss import NegativeCosineSimilarity

from cmid.contracts import Progress, Views
from tests.methods.rivals import batch, learner


def test_loss_and_gradient_are_those_of_lightly_in_both_directions():
    model, views = learner("byol"), batch("byol", seed=4)
    other = copy.deepcopy(model)
    found = model(views)["regression"]
    found.backward()
    predictions = [other.predictor(other.projector(other.backbone(v.images).last.mean((2, 3)))) for v in views]
    with torch.no_grad():
        targets = [other.teacher_projector(other.teacher_backbone(v.images).last.mean((2, 3))) for v in views]
    cosine = NegativeCosineSimilarity()
    expected = 4 + 2 * (cosine(predictions[0], targets[1]) + cosine(predictions[1], targets[0]))
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (ours.grad is None) == name.startswith("teacher"), name
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)


def test_swapping_the_views_changes_no_loss():
    model, views = learner("byol"), batch("byol", seed=5)
    swapped = Views(views.crops[::-1], views.indices)
    torch.testing.assert_close(model(views)["regression"], model(swapped)["regression"], rtol=1e-5, atol=1e-6)


def test_the_teacher_follows_along_a_cosine_and_arrives():
    model = learner("byol")
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.add_(1.0)
    before = [p.clone() for p in model.teacher_backbone.parameters()]
    model.after_step(Progress(1, 100, 0.1, 10))
    for old, new, student in zip(before, model.teacher_backbone.parameters(), model.backbone.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student, rtol=1e-5, atol=1e-6)
    last = [p.clone() for p in model.teacher_backbone.parameters()]
    model.after_step(Progress(101, 100, 10, 10))  # at the end the momentum is 1
    assert all(torch.equal(a, b) for a, b in zip(last, model.teacher_backbone.parameters(), strict=True))
