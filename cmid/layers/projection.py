"""Heads that methods put on top of a backbone."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projector(nn.Sequential):
    """Linear, (batch-norm,) ReLU, Linear: `(B, in_dim)` to `(B, out_dim)`.

    CMID's contrastive form has no normalisation; BYOL (arXiv 2006.07733, section 3.3) has it.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, *, batch_norm: bool = False) -> None:
        norm = [nn.BatchNorm1d(hidden_dim)] if batch_norm else []
        super().__init__(nn.Linear(in_dim, hidden_dim), *norm, nn.ReLU(inplace=True), nn.Linear(hidden_dim, out_dim))


class PrototypeHead(nn.Module):
    """Three linear layers with GELU, L2 normalisation, then cosine with learned prototypes; per position.

    `(..., in_dim)` to `(..., prototypes)`. Batch-norm after the first two layers for convolutional backbones, none
    for transformers.

    Source: the DINO head (arXiv 2104.14294, appendix C) as the published code applies it to positions.
    """

    def __init__(
        self, in_dim: int, hidden_dim: int, bottleneck: int, prototypes: int, *, norm: Literal["batch", "layer"]
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (in_dim, hidden_dim):
            layers.append(nn.Linear(width, hidden_dim))
            if norm == "batch":
                layers.append(nn.BatchNorm1d(hidden_dim))
            layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden_dim, bottleneck))
        self.prototypes = nn.Linear(bottleneck, prototypes, bias=False)

    def initialise(self) -> None:
        """Truncated normal of 0.02 for the weights, zero for the biases, as DINO has it."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Cosines in [-1, 1] with each prototype, float32."""
        embedding = self.mlp(features.flatten(0, -2)).unflatten(0, features.shape[:-1])
        with torch.autocast(features.device.type, enabled=False):  # cosines are divided by 0.04: bf16 is too coarse
            return F.linear(F.normalize(embedding.float(), dim=-1), F.normalize(self.prototypes.weight, dim=-1))


class PixelHead(nn.Sequential):
    """A 1 x 1 convolution and a pixel shuffle: `(B, C, h, w)` to images `(B, bands, h * stride, w * stride)`."""

    def __init__(self, in_dim: int, bands: int, stride_px: int) -> None:
        super().__init__(nn.Conv2d(in_dim, bands * stride_px**2, 1), nn.PixelShuffle(stride_px))

    def of_rows(self, features: Tensor) -> Tensor:
        """The same of single positions `(..., C)`: `(..., bands * stride * stride)`, as `pixel_unshuffle` orders it."""
        weight, bias = self[0].parameters()
        return F.linear(features, weight.flatten(1), bias)

    def mean_of_rows(self, features: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums of `of_rows` over a batch, at the cost of one image each: painting is linear.

        Features `(B, n, C)` and weights `(K, B, n)` to float32 `(K, n, bands * stride * stride)`.
        """
        weight, bias = self[0].parameters()
        with torch.autocast(features.device.type, enabled=False):
            means = torch.einsum("kbn,bnc->knc", weights, features.float())
            return F.linear(means, weight.flatten(1)) + weights.sum(1)[..., None] * bias
