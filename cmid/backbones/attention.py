"""Where a transformer looks: attention followed from the last map, which a head pools, back to the image.

Attention rollout (Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020): of each block half stays
where it is, which is the residual path, and half goes where the attention, mean over heads, sends it. A head here pools
all positions of the last map alike, so the start is an equal share at each of them. Following one vector backwards
gives what multiplying all matrices would, and so it can be done for Swin as well, block by block within its (shifted)
windows; where patches were merged, each of the four gets a quarter.

It says where information may have come from, for all classes alike; it does not say for which class it spoke.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import Attention
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from cmid.backbones.timm_backbone import TimmBackbone
from cmid.contracts import Backbone
from cmid.errors import UsageError

RESIDUAL = 0.5
"""Share of each block that stays where it is."""


def has_attention(backbone: Backbone) -> bool:
    """Whether `attention_map` can follow the attention of `backbone`: ViT and kin, Swin and SwinV2."""
    model = getattr(backbone, "model", None)
    if isinstance(model, VisionTransformer):
        return all(isinstance(block, Block) and isinstance(block.attn, Attention) for block in model.blocks)
    return isinstance(model, SwinTransformer | SwinTransformerV2)


@torch.no_grad()
def attention_map(backbone: Backbone, images: Tensor) -> Tensor:
    """How much of the pooled feature each position may have come from, as a multiple of an equal share.

    Args:
        backbone: in evaluation mode, on the device of `images`.
        images: `(B, C, H, W)` float, normalised.

    Returns:
        `(B, h, w)` float32, 0 or above, on the grid of patches (Swin: of stride 4); its mean is 1. What went to class
        and register tokens, or to the padding of windows, came from no position and is left out.

    Raises:
        UsageError: a backbone whose attention cannot be followed; see `has_attention`.
    """
    if not isinstance(backbone, TimmBackbone) or not has_attention(backbone):
        raise UsageError(
            f"attention can be followed in ViT, Swin and SwinV2, and {backbone.name} is none of them: take class "
            "activation maps"
        )
    model = backbone.model
    with _noted_attention(model) as attention:
        height, width = backbone(images).last.shape[-2:]
    share = images.new_full((len(images), height, width), 1 / (height * width), dtype=torch.float32)
    with torch.autocast(images.device.type, enabled=False):
        through = _through_vit if isinstance(model, VisionTransformer) else _through_swin
        found = through(model, attention, share)
    return found / found.mean((1, 2), keepdim=True)


def _through_vit(model: Any, attention: dict[nn.Module, Tensor], share: Tensor) -> Tensor:
    """`share` `(B, h, w)` of the last map, followed to the patches."""
    prefix = model.num_prefix_tokens
    tokens = nn.functional.pad(share.flatten(1), (prefix, 0))
    for block in reversed(model.blocks):
        sent = torch.einsum("bij,bi->bj", attention[block.attn], tokens)
        tokens = RESIDUAL * tokens + (1 - RESIDUAL) * sent
    return tokens[:, prefix:].reshape(share.shape)


def _through_swin(model: Any, attention: dict[nn.Module, Tensor], share: Tensor) -> Tensor:
    """`share` `(B, h, w)` of the last map, followed through windows and mergings to the patches of stride 4."""
    for stage in reversed(model.layers):
        for block in reversed(stage.blocks):
            share = RESIDUAL * share + (1 - RESIDUAL) * _sent_in_windows(block, attention[block.attn], share)
        if not isinstance(stage.downsample, nn.Identity):
            share = share.repeat_interleave(2, 1).repeat_interleave(2, 2) / 4
    return share


def _sent_in_windows(block: Any, attention: Tensor, share: Tensor) -> Tensor:
    """The block's own shift, padding and windows, with the transposed attention in place of the attention.

    Shifting and cutting windows out are undone by shifting back and setting them together, so that the transpose of
    the whole is the whole with each window's matrix transposed.
    """

    def transposed(windows: Tensor, mask: Tensor | None = None) -> Tensor:
        return attention.transpose(1, 2) @ windows

    with _forward_of(block.attn, transposed):
        return block._attn(share[..., None])[..., 0]


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _noted_attention(model: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """Each attention module's matrix `(windows, N, N)` float32, mean over heads, of the forward made inside.

    timm's AttentionExtract asks for models that were created without fused attention; here it is off for the moment.
    """
    found: dict[nn.Module, Tensor] = {}
    modules = [module for module in model.modules() if isinstance(getattr(module, "attn_drop", None), nn.Module)]
    fused = [module for module in modules if getattr(module, "fused_attn", False)]

    def note(module: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(drop: nn.Module, given: tuple[Tensor, ...]) -> None:
            found[module] = given[0].float().mean(1)

        return hook

    handles = [module.attn_drop.register_forward_pre_hook(note(module)) for module in modules]  # type: ignore
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]
    try:
        yield found
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]
        for handle in handles:
            handle.remove()
