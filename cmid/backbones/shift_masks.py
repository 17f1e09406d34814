"""Swin's attention masks of shifted windows, made once for a size of map.

timm makes them anew in each forward where images may have any size: 539 of the 2,232 operations of a Swin-B's forward
at 224 px, which a GPU with few images would wait for. A mask depends on nothing but the map's size.
"""

from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn


class _Remembered:
    """`get_attn_mask` of a block: for a map as the one before, the mask as before."""

    def __init__(self, block: Any) -> None:
        self._block = block
        self._of: tuple[Any, ...] | None = None
        self._mask: Tensor | None = None

    def __call__(self, x: Tensor | None = None, **where: Any) -> Tensor | None:
        """The mask `(windows, positions, positions)` for a padded map `x` `(B, H, W, C)`; None without a shift."""
        make: Any = type(self._block).get_attn_mask
        if x is None or torch.compiler.is_compiling():  # a compiler folds it into its graph
            return make(self._block, x, **where)
        of = (*x.shape[1:3], self._block.window_size, self._block.shift_size, x.device, x.dtype)
        if of != self._of:
            with torch.inference_mode(False):  # else a probe's mask could not be used in training afterwards
                self._mask, self._of = make(self._block, x.detach()), of
        return self._mask


def remember_shift_masks(model: nn.Module) -> None:
    """Has the blocks of a Swin or SwinV2 that make their masks in each forward keep them; others are left alone."""
    for block in model.modules():
        if isinstance(block, SwinTransformerBlock | SwinTransformerV2Block) and block.dynamic_mask:
            of_instance: Any = block
            of_instance.get_attn_mask = _Remembered(block)
