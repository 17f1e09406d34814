"""Probabilities that are none are not passed on, and what is advised can be done."""

import pytest
import torch

from cmid.backbones import create_backbone
from cmid.errors import CmidError
from cmid.evaluation.probabilities import predict_probabilities
from cmid.tasks.classification import Classifier


@pytest.mark.parametrize(
    ("precision", "advice"),
    [
        ("bf16", r"earlier checkpoint, or try --precision 32 \(of cmid finetune: --train\.precision 32\)\.$"),
        ("32", r"earlier checkpoint\.$"),
    ],
)
def test_weights_that_diverged(precision, advice):
    task = Classifier(create_backbone("test_resnet", mask_stage=None), 2)
    with torch.no_grad():
        next(task.backbone.parameters()).fill_(float("nan"))
    with pytest.raises(CmidError, match=f"2 of 2 images have none.*{advice}"):
        predict_probabilities(task, [(torch.rand(2, 3, 32, 32), torch.zeros(2))], "cpu", precision)
