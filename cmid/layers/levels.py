"""A backbone's maps as a decoder for every pixel takes them: one for each stride, finest first."""

import math
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

FINEST_PX = 4
LEVELS = 4


class Levels(nn.Module):
    """`Pyramid.maps` to maps whose strides differ.

    - Strides that rise (ResNet, Swin, ConvNeXt) stay. Where the backbone is of layer-norm, each map but the last,
      which has passed the backbone's own, gets one: this is how Swin's maps reach UPerNet.
    - Where all maps have one stride (plain ViT) four are made of four of them, evenly spaced: strides nearest to 4, 8,
      16 and 32 by learned doublings (transposed convolutions of 2 x 2, between two of them layer-norm and GELU),
      unchanged, or by max-pooling. ViTDet (arXiv 2203.16527, section 3) makes its maps of the last one in this way;
      here each comes from a depth of its own, as decoders of segmentation take them from ViTs.

    Args:
        channels: C_i of the backbone's maps.
        strides: of the backbone's maps, in pixels.
        norm: the backbone's normalisation.

    Attributes:
        channels: C_i of the maps that come out.
        strides: of the maps that come out; with patches of 14 px 3.5, 7, 14 and 28.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], norm: Literal["batch", "layer"]) -> None:
        super().__init__()
        count = len(strides)
        self.steps = nn.ModuleList()
        if len(set(strides)) > 1:
            self.sources = tuple(range(count))
            self.strides = tuple(float(s) for s in strides)
            for i, width in enumerate(channels):
                self.steps.append(LayerNorm2d(width) if norm == "layer" and i < count - 1 else nn.Identity())
        else:
            self.sources = tuple(max(0, (i + 1) * count // LEVELS - 1) for i in range(LEVELS))
            finest = round(math.log2(strides[0] / FINEST_PX))
            self.strides = tuple(strides[0] * 2.0 ** (i - finest) for i in range(LEVELS))
            for i, source in enumerate(self.sources):
                self.steps.append(_doublings(channels[source], finest - i))
        self.channels = tuple(channels[source] for source in self.sources)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps `(B, C_i, H_i, W_i)`, finest first."""
        return tuple(step(maps[source]) for step, source in zip(self.steps, self.sources, strict=True))


def _doublings(channels: int, times: int) -> nn.Module:
    """The side doubled so many times, or halved where negative (rounded up)."""
    if times <= 0:
        return nn.MaxPool2d(2**-times, ceil_mode=True) if times else nn.Identity()
    layers: list[nn.Module] = []
    for i in range(times):
        if i:
            layers += [LayerNorm2d(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels, 2, 2))
    return nn.Sequential(*layers)


def resized(features: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """`(B, C, h, w)` brought to `size` (height, width) bilinearly; as it is where it has it."""
    if tuple(features.shape[2:]) == tuple(size):
        return features
    return F.interpolate(features, tuple(size), mode="bilinear", align_corners=align_corners)
