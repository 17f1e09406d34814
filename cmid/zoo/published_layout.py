"""The names under which the published CMID code saves its backbones, turned into timm's.

It writes two kinds of file: a backbone alone, and in training a full checkpoint `{epoch, num_gpus, model, optimizer,
metric_storage, hooks}`, whose `model` holds the backbone twice beside heads, queue and mask token.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

_RENAMED = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
BACKBONES = {"student": "online_encoder.model.", "teacher": "branch_encoder."}
"""What the names of the two backbones begin with in `model` of a full checkpoint."""

_SWINS: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "swin_tiny_patch4_window7_224",
    (96, (2, 2, 18, 2)): "swin_small_patch4_window7_224",
    (128, (2, 2, 18, 2)): "swin_base_patch4_window7_224",
}
_RESNETS: dict[tuple[int, tuple[int, ...]], str] = {
    (2, (2, 2, 2, 2)): "resnet18",
    (2, (3, 4, 6, 3)): "resnet34",
    (3, (3, 4, 6, 3)): "resnet50",
    (3, (3, 4, 23, 3)): "resnet101",
    (3, (3, 8, 36, 3)): "resnet152",
}
"""By convolutions a block and blocks a stage; others of the same counts differ in shapes, which loading compares."""
_NOT_SAVED = ("relative_position_index", "attn_mask")


def is_full_checkpoint(names: Collection[Any]) -> bool:
    """Whether `names`, the keys of any dict, are those of a full checkpoint's `model`."""
    texts = [name for name in names if isinstance(name, str)]
    both = all(any(name.startswith(prefix) for name in texts) for prefix in BACKBONES.values())
    return both and len(texts) == len(names)


def backbone_of(model: Mapping[str, Tensor], which: str) -> dict[str, Tensor]:
    """The `student`'s or `teacher`'s backbone of a full checkpoint's `model`, under timm's names."""
    prefix = BACKBONES[which]
    return to_timm({name.removeprefix(prefix): model[name] for name in model if name.startswith(prefix)})


def is_published_swin(state: Mapping[str, Tensor]) -> bool:
    """Whether a backbone's state has the published names of a Swin; ResNets have timm's."""
    return "patch_embed.projection.weight" in state


def is_extracted_swin(state: Mapping[str, Tensor]) -> bool:
    """Whether a state is what the published extraction writes of a Swin.

    Of the norms on outputs it has `norm3` alone: mmsegmentation's converted Swins, whose names are otherwise the same,
    have `norm`, and those trained there one for each stage. ResNets are named as everywhere, and cannot be told.
    """
    norms = {name.split(".")[0] for name in state if re.match(r"norm\d*\.", name)}
    return is_published_swin(state) and norms == {"norm3"} and state["patch_embed.projection.weight"].shape[1:2] == (3,)


def to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published backbone's state under timm's names; one that has them already is returned as it is."""
    return swin_to_timm(state) if is_published_swin(state) else state


def name_of(state: Mapping[str, Tensor]) -> str | None:
    """Which ResNet or Swin (224 px, windows of 7) a state under timm's names is of; None where it is neither."""

    def blocks(pattern: str) -> tuple[int, ...]:
        found = {(int(m[1]), int(m[2])) for m in map(re.compile(pattern).match, state) if m}
        stages = [stage for stage, _ in found]
        return tuple(stages.count(stage) for stage in sorted(set(stages)))

    if "patch_embed.proj.weight" in state:
        table = state.get("layers.0.blocks.0.attn.relative_position_bias_table")
        if table is None or table.shape[:1] != (13 * 13,):
            return None
        width = state["patch_embed.proj.weight"].shape[:1].numel()
        return _SWINS.get((width, blocks(r"layers\.(\d+)\.blocks\.(\d+)\.")))
    if "conv1.weight" not in state:  # the stems of resnet50d and its like are several convolutions
        return None
    convolutions = sum(f"layer1.0.conv{i}.weight" in state for i in range(1, 5))
    return _RESNETS.get((convolutions, blocks(r"layer(\d+)\.(\d+)\.")))


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
