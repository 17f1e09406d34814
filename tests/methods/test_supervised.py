"""Supervised pre-training against its formula, with one label and with several."""

from dataclasses import replace

import pytest
import torch

from cmid.commands.learners import build_learner
from cmid.config import PretrainConfig
from cmid.contracts import Views
from cmid.errors import UsageError
from tests.methods.rivals import batch, learner


def test_one_label_loss_and_gradient():
    model, views = learner("supervised"), batch("supervised", seed=4)
    found = model(views)["classification"]
    found.backward()
    with torch.no_grad():
        features = model.backbone(views[0].images).last.mean((2, 3))
        scores = features @ model.head.weight.T + model.head.bias
        shares = scores.exp() / scores.exp().sum(1, keepdim=True)
        wanted = torch.eye(3)[views.labels]
        expected = -(wanted * shares.log()).sum(1).mean()
        gradient = (shares - wanted).T @ features / 4
    torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.head.weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_several_labels_loss_and_gradient():
    model, views = learner("supervised"), batch("supervised", seed=5)
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)
    found = model(replace(views, labels=labels))["classification"]
    found.backward()
    with torch.no_grad():
        features = model.backbone(views[0].images).last.mean((2, 3))
        chances = 1 / (1 + (-(features @ model.head.weight.T + model.head.bias)).exp())
        expected = -torch.where(labels, chances, 1 - chances).log().mean()
        gradient = (chances - labels.float()).T @ features / 12
    torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.head.weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_renaming_the_classes_changes_no_loss():
    model, views = learner("supervised"), batch("supervised", seed=6)
    found = model(views)["classification"]
    new_name = torch.tensor([2, 0, 1])
    with torch.no_grad():
        weight, bias = model.head.weight.clone(), model.head.bias.clone()
        model.head.weight[new_name], model.head.bias[new_name] = weight, bias
    renamed = replace(views, labels=new_name[views.labels])
    torch.testing.assert_close(model(renamed)["classification"], found, rtol=1e-5, atol=1e-6)


def test_a_batch_without_labels():
    views = batch("supervised")
    with pytest.raises(ValueError, match="this batch has none: give a labelled source"):
        learner("supervised")(Views(views.crops, views.indices))


def test_fewer_than_two_classes():
    with pytest.raises(UsageError, match=r"supervised\.classes is 0, but to tell classes apart takes two or more"):
        build_learner(PretrainConfig(method="supervised", backbone="resnet18"))
