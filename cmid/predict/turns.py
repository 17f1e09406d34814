"""Averages over a square's mirror images and quarter turns."""

from collections.abc import Callable

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""`(B, C, S, S)` float32 on the device to `(B, K, S, S)` probabilities."""
WAYS = {
    "none": ((0, False),),
    "flips": ((0, False), (2, False), (0, True), (2, True)),
    "d4": tuple((quarters, mirrored) for mirrored in (False, True) for quarters in range(4)),
}
"""Quarter turns, and whether the window is mirrored left to right before them."""


def predict_in_turns(predict: Predict, images: Tensor, turns: str) -> Tensor:
    """The mean of what `predict` says of `images` `(B, C, S, S)` turned in each way, turned back; float32."""
    ways = WAYS[turns]
    if len(ways) == 1:
        return predict(images).float()
    total: Tensor | None = None
    for quarters, mirrored in ways:
        turned = torch.rot90(images.flip(-1) if mirrored else images, quarters, (-2, -1))
        back = torch.rot90(predict(turned.contiguous()).float(), -quarters, (-2, -1))
        back = back.flip(-1) if mirrored else back
        total = back if total is None else total + back
    assert total is not None
    return total / len(ways)
