"""Maps to vectors."""

from torch import Tensor


def pooled(features: Tensor) -> Tensor:
    """Mean over positions: `(B, C, H, W)` to `(B, C)`."""
    return features.mean(dim=(2, 3))
