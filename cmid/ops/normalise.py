"""Grey levels to the numbers a backbone sees, and back: one place, so that training, evaluation and figures agree."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cmid.ops.transfer import to_device


def band_values(values: Sequence[float], images: Tensor) -> Tensor:
    """`values` as `(C, 1, 1)` float32 beside `images` `(..., C, H, W)`; ValueError where C differs."""
    if len(values) != images.shape[-3]:
        raise ValueError(
            f"{len(values)} values of mean or std for images of {images.shape[-3]} bands: give one for each band"
        )
    return to_device(torch.tensor(tuple(values), dtype=torch.float32), images.device).view(-1, 1, 1)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`(images - mean) / std` per band, on values scaled to 0..1.

    Args:
        images: `(..., C, H, W)`; uint8 in 0..255, or float already in 0..1.
        mean: C numbers on the scale 0..1.
        std: C numbers on the scale 0..1, above 0.

    Returns:
        float32, contiguous, same shape; a new tensor.

    Raises:
        ValueError: where the number of bands differs.
    """
    scale = 1 / 255 if images.dtype == torch.uint8 else 1.0
    centre, spread = band_values(mean, images), band_values(std, images)
    numbers = images.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    return numbers.mul_(scale / spread).sub_(centre / spread)


def denormalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The inverse of `normalise`: float32 `(..., C, H, W)` in 0..1, clipped to it, ready to be drawn."""
    return (images.float() * band_values(std, images) + band_values(mean, images)).clamp_(0, 1)
