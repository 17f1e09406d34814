"""Reconstruction losses: focal L1 in space, focal distance in frequency."""

import torch
from torch import Tensor

from cmid.ops import gather


def focal_l1(
    error: Tensor, *, alpha: float = 0.2, gamma: float = 1.0, activation: str = "sigmoid", residual: bool = False
) -> Tensor:
    """Absolute error weighted by itself, elementwise: `|d| * w ** gamma`, `w = 2 sigmoid(alpha |d|) - 1` or a tanh.

    Args:
        error: prediction minus target, any shape and float dtype; the weight carries gradient too.
        alpha, gamma: slope and power of the weight.
        activation: `sigmoid` or `tanh`, the form of the weight.
        residual: add the plain absolute error.

    Source: the reconstruction loss of the published code.
    """
    slope = alpha if activation == "tanh" else alpha / 2  # 2 sigmoid(x) - 1 is tanh(x / 2)
    weight = torch.tanh(slope * error)
    # Each operation is a pass over all pixels: the signs of error and weight cancel, and a power of 1 is none.
    loss = error * weight if gamma == 1 else error.abs() * weight.abs() ** gamma
    return loss + error.abs() if residual else loss


def focal_frequency(error: Tensor, *, average: bool = True, over_all: bool = True, log: bool = True) -> Tensor:
    """Squared distance of two spectra, weighted by their own distance; a scalar.

    Args:
        error: prediction minus target, `(B, C, H, W)` float32; the spectrum of a difference is that of spectra.
        average: average the spectra over the batch before comparing them.
        over_all: that of all processes together; else each process averages its own.
        log: weight by `log(1 + |dF|)` instead of `|dF|`; either is scaled to a maximum of 1 and carries no gradient.

    Source: focal frequency loss (arXiv 2012.12821), as the published code sets it.
    """
    if average:
        # The transform is linear: the mean of the spectra is the spectrum of the mean, at 1/B of the work.
        error = error.mean(dim=0, keepdim=True)
        error = gather.mean(error) if over_all else error
    spectrum = torch.fft.fft2(error, norm="ortho")
    squared = spectrum.real**2 + spectrum.imag**2
    with torch.no_grad():
        weight = squared.sqrt()
        weight = torch.log1p(weight) if log else weight
        weight = (weight / weight.max()).nan_to_num(0.0).clamp(0.0, 1.0)
    return (weight * squared).mean()
