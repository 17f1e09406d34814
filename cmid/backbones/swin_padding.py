"""The order of padding and shifting in Swin's windows, where a map is not a whole number of windows.

timm shifts the map and then pads it, while its attention mask is laid out for a map that was padded first: rows from
the top edge then see rows of the bottom edge. The authors' detection and segmentation code, and with it the published
CMID code (`pad_small_map`), pads and then shifts. Both give the same where windows divide every map.
"""

import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn

from cmid.errors import UsageError


def _whole_windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """`(B, H, W, C)` padded with zeros at the bottom and the right to multiples of `window`."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % window[1], 0, -x.shape[1] % window[0]))


class _PaddedBlock(SwinTransformerBlock):
    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        return super()._attn(_whole_windows(x, self.window_size))[:, :height, :width].contiguous()


class _PaddedBlockV2(SwinTransformerV2Block):
    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        return super()._attn(_whole_windows(x, self.window_size))[:, :height, :width].contiguous()


def pad_before_shift(model: nn.Module) -> None:
    """Makes the blocks of a Swin or SwinV2 pad before they shift; its weights and their names stay.

    Raises:
        UsageError: where `model` has no such blocks.
    """
    padded = {SwinTransformerBlock: _PaddedBlock, SwinTransformerV2Block: _PaddedBlockV2}
    blocks = [module for module in model.modules() if type(module) in padded]
    if not blocks:
        raise UsageError("window_padding='published' is for Swin and SwinV2; leave it at 'timm' for other backbones.")
    for block in blocks:
        block.__class__ = padded[type(block)]
