"""The classifier: its loss against scikit-learn's and a formula, what learns and what does not, two steps that help."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional as F

from cmid.backbones import create_backbone
from cmid.contracts import View, Views
from cmid.tasks.classification import Classifier


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return create_backbone("test_resnet", mask_stage=None)


def batch_of(labels, seed=0, size=64):
    count = len(labels)
    images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    view = View(images, torch.zeros(count, 4), torch.zeros(count, dtype=torch.bool))
    return Views((view,), torch.arange(count), labels=labels)


def test_the_loss_is_that_of_scikit_learn(backbone):
    task, batch = Classifier(backbone, 5).eval(), batch_of(torch.tensor([0, 4, 2, 2]))
    rows = task.probabilities(batch[0].images).detach()
    assert torch.allclose(rows.sum(1), torch.ones(4), atol=1e-6)
    rows = rows.double() / rows.double().sum(1, keepdim=True)
    expected = log_loss(batch.labels.numpy(), rows.numpy(), labels=range(5))
    assert task(batch)["classification"].item() == pytest.approx(expected, rel=1e-5)


def test_smoothed_and_mixed_labels_mean_the_same(backbone):
    task, labels = Classifier(backbone, 4, smoothing=0.1), torch.tensor([1, 3, 0])
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    soft = 0.9 * F.one_hot(labels, 4) + 0.1 / 4
    by_hand = -(soft * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(task.loss(logits, labels), by_hand) and torch.allclose(task.loss(logits, soft), by_hand)


def test_weights_of_classes_and_several_labels(backbone):
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 0, 1, 1, 2, 2])
    weights = torch.tensor([0.5, 1.0, 4.0])
    each = -logits.log_softmax(1)[torch.arange(6), labels] * weights[labels]
    weighted = Classifier(backbone, 3, class_weights=weights).loss(logits, labels)
    assert torch.allclose(weighted, each.sum() / weights[labels].sum())
    alike = torch.nn.functional.one_hot(labels, 3).float()  # as mixed with itself
    assert torch.allclose(Classifier(backbone, 3, class_weights=weights).loss(logits, alike), weighted)
    several = torch.tensor(np.random.default_rng(0).integers(0, 2, (6, 3)))
    p = logits.sigmoid()
    by_hand = -(several * p.log() + (1 - several) * (1 - p).log()).mean()
    assert torch.allclose(Classifier(backbone, 3, multi_label=True).loss(logits, several), by_hand, atol=1e-6)


def test_two_processes_with_weights_of_classes_equal_one(two_processes):
    two_processes("tests.tasks.classification_in_two_processes")


def test_a_frozen_backbone_does_not_change_at_all(backbone):
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    task = Classifier(backbone, 3, frozen=True).train()
    task(batch_of(torch.tensor([0, 1, 2])))["classification"].backward()
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items()), "batch-norm counted"
    assert all(p.grad is None for p in backbone.parameters()) and task.head.weight.grad is not None
    assert not backbone.training and task.head.training


def test_a_few_steps_lower_the_loss(backbone):
    task, batch = Classifier(backbone, 3).train(), batch_of(torch.tensor([0, 1, 2, 0, 1, 2]))
    optimiser = torch.optim.AdamW(task.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss = task(batch)["classification"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_batch_without_labels_is_refused(backbone):
    batch = batch_of(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="this batch has none"):
        Classifier(backbone, 2)(Views(batch.crops, batch.indices))
