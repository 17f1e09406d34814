"""The names under which the published CMID code saves its backbones, turned into timm's."""

import re

import torch
from torch import Tensor

_RENAMED = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
_NOT_SAVED = ("relative_position_index", "attn_mask")


def swin_to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Swin backbone's state under timm's names; ResNets need no such thing.

    Three things differ besides names. timm keeps the patch merging of stage i in `layers.{i + 1}`. The published
    merging unfolds 2 x 2 neighbours channel by channel, timm stacks whole neighbours, columns first: the 4C inputs of
    `norm` and `reduction` are reordered. And of the norms on the outputs only the last stage's has a place in timm
    (`norm`); those of other stages, which the pre-trained files do not have, keep their names.

    Args:
        state: as the published extraction writes it: `patch_embed.projection.weight`, `stages.0.blocks.0 ...`,
            `norm3.weight`.

    Returns:
        A new dict; tensors that need no reordering are the same objects.

    Source: MMClassification's Swin layout, as used by the published CMID code.
    """
    last = max((int(key.split(".")[1]) for key in state if key.startswith("stages.")), default=None)
    converted = {}
    for key, value in state.items():
        if key.rsplit(".", 1)[-1] in _NOT_SAVED:
            continue
        if re.match(r"stages\.\d+\.downsample\.(norm|reduction)\.", key):
            value = _neighbours_first(value)
        for old, new in _RENAMED:
            key = re.sub(old, new, key)
        key = re.sub(r"^stages\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", key)
        key = re.sub(r"^stages\.", "layers.", key)
        if last is not None:
            key = re.sub(rf"^norm{last}\.", "norm.", key)
        converted[key] = value
    return converted


def _neighbours_first(value: Tensor) -> Tensor:
    """`(..., 4C)` ordered (channel, row, column) to (column, row, channel)."""
    by_channel = value.reshape(*value.shape[:-1], value.shape[-1] // 4, 4)
    columns_first = by_channel[..., torch.tensor([0, 2, 1, 3], device=value.device)]
    return columns_first.transpose(-1, -2).flatten(-2)
