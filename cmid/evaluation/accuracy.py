"""Overall and average accuracy of a classifier."""

import torch
from torch import Tensor


def overall_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of right classes, 0 to 1, of `(M,)` predictions (OA)."""
    return (predicted == labels).double().mean().item()


def average_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes present in `labels` of the share of their images that are right, 0 to 1 (AA)."""
    right = (predicted == labels).double()
    return torch.stack([right[labels == number].mean() for number in labels.unique()]).mean().item()
