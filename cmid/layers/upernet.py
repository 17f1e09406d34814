"""Decoders that score every pixel: UPerNet, a light one, and the parts both are made of.

UPerNet: Xiao et al., Unified Perceptual Parsing for Scene Understanding (arXiv 1807.10221), as mmsegmentation builds it
and the published fine-tuning of CMID uses it; pyramid pooling: arXiv 1612.01105.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cmid.errors import UsageError
from cmid.layers.batch_norm import SyncedBatchNorm
from cmid.layers.levels import resized
from cmid.ops import gather

SCORES_STD = 0.01


class ConvNormRelu(nn.Sequential):
    """Convolution without bias (drawn as He et al. draw it, by fan-out), batch-norm, ReLU; the size stays."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int) -> None:
        conv = nn.Conv2d(in_dim, out_dim, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(conv, nn.BatchNorm2d(out_dim), nn.ReLU(inplace=True))


class PixelScores(nn.Sequential):
    """Dropout of whole channels, then a 1 x 1 convolution: `(B, C, h, w)` to scores `(B, classes, h, w)`."""

    def __init__(self, in_dim: int, classes: int, dropout: float) -> None:
        conv = nn.Conv2d(in_dim, classes, 1)
        nn.init.normal_(conv.weight, std=SCORES_STD)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        super().__init__(nn.Dropout2d(dropout), conv)


class PyramidPooling(nn.Module):
    """The map beside its means over 1, 2, 3 and 6 cells a side, fused: `(B, C, h, w)` to `(B, width, h, w)`."""

    def __init__(
        self, in_dim: int, width: int, cells: Sequence[int] = (1, 2, 3, 6), align_corners: bool = False
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvNormRelu(in_dim, width, 1)) for side in cells
        )
        self.fuse = ConvNormRelu(in_dim + len(cells) * width, width, 3)

    def forward(self, features: Tensor) -> Tensor:
        """See the class.

        Raises:
            UsageError: one image in training, whose single cell has no variance to be normalised by.
        """
        self._check_batch(features.shape[0])
        pooled = [resized(branch(features), features.shape[2:], self.align_corners) for branch in self.branches]
        fused: Tensor = self.fuse(torch.cat((features, *pooled), 1))
        return fused

    def _check_batch(self, images: int) -> None:
        norm = self.fuse[1]
        if isinstance(norm, SyncedBatchNorm | nn.SyncBatchNorm):
            images *= gather.processes()
        if norm.training and images == 1:
            raise UsageError(
                "UPerNet's batch-norm needs 2 images or more a training step, over all processes; found 1. Use a "
                "larger batch, leave out a last batch of one image, or take the head lateral_sum."
            )


class UPerNet(nn.Module):
    """Pyramid pooling on the coarsest map, a feature pyramid from there to the finest, and all of them fused.

    Args:
        channels: C_i of the maps, finest first, two or more.
        width: D, channels of everything inside and of what comes out.
        align_corners: of every resizing.

    Attributes:
        width: D.
    """

    def __init__(self, channels: Sequence[int], width: int = 512, *, align_corners: bool = False) -> None:
        super().__init__()
        self.width, self.align_corners = width, align_corners
        self.pooling = PyramidPooling(channels[-1], width, align_corners=align_corners)
        self.laterals = nn.ModuleList(ConvNormRelu(c, width, 1) for c in channels[:-1])
        self.smoothers = nn.ModuleList(ConvNormRelu(width, width, 3) for _ in channels[:-1])
        self.fuse = ConvNormRelu(len(channels) * width, width, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """`(B, D, h, w)` in the size of the first of `maps`.

        Raises:
            UsageError: one image in training.
        """
        sums = [self.pooling(maps[-1])]
        for lateral, features in zip(reversed(self.laterals), reversed(maps[:-1]), strict=True):
            sums.append(lateral(features) + resized(sums[-1], features.shape[2:], self.align_corners))
        coarsest, *finer = sums
        smooth = [smoother(each) for smoother, each in zip(self.smoothers, reversed(finer), strict=True)]
        size = maps[0].shape[2:]
        fused: Tensor = self.fuse(
            torch.cat([resized(each, size, self.align_corners) for each in (*smooth, coarsest)], 1)
        )
        return fused


class LateralSum(nn.Module):
    """A decoder for small machines: each map to D channels linearly, resized and summed, then one 3 x 3 convolution.

    The sum of linear maps is what SegFormer's decoder (arXiv 2105.15203, section 3.2) computes with one 1 x 1
    convolution over all maps side by side; the 3 x 3 convolution is added, for backbones whose finest maps see little.

    Args:
        channels: C_i of the maps, finest first.
        width: D.
        align_corners: of every resizing.

    Attributes:
        width: D.
    """

    def __init__(self, channels: Sequence[int], width: int = 128, *, align_corners: bool = False) -> None:
        super().__init__()
        self.width, self.align_corners = width, align_corners
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.smoother = ConvNormRelu(width, width, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """`(B, D, h, w)` in the size of the first of `maps`."""
        size = maps[0].shape[2:]
        laterals = [lateral(each) for lateral, each in zip(self.laterals, maps, strict=True)]
        summed = laterals[0]
        for each in laterals[1:]:  # stacked and summed at once it would take four times as long on a CPU
            summed = summed + resized(each, size, self.align_corners)
        smooth: Tensor = self.smoother(self.norm(summed))
        return smooth
