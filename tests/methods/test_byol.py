"""BYOL against lightly's loss, and what it alone must do."""

import torch
from lightly.loss import NegativeCosineSimilarity

from cmid.contracts import Progress, Views
from tests.methods.rivals import batch, learner


def test_the_loss_is_that_of_lightly_in_both_directions():
    model, views = learner("byol"), batch("byol", seed=4)
    found = model(views)["regression"]
    with torch.no_grad():
        students = [model.backbone(v.images).last.mean((2, 3)) for v in views]
        predictions = [model.predictor(model.projector(s)) for s in students]
        targets = [model.teacher_projector(model.teacher_backbone(v.images).last.mean((2, 3))) for v in views]
        cosine = NegativeCosineSimilarity()
        expected = 4 + 2 * (cosine(predictions[0], targets[1]) + cosine(predictions[1], targets[0]))
    torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-6)


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
