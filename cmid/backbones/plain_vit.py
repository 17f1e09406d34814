"""A plain ViT, whose patches can be left out before they cost anything.

timm's own forward runs the blocks; patches leave through a hook on `patch_drop`, which timm's ViT calls between the
position embeddings and the first block. So what is trained that way and what `forward` runs are one and the same model.
"""

from typing import Any

import torch
from timm.layers import PatchEmbed, build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cmid.backbones.timm_backbone import TimmBackbone
from cmid.contracts import PatchBackbone
from cmid.errors import UsageError


def is_plain_vit(model: nn.Module) -> bool:
    """Whether the model is timm's ViT with square patches that are embedded one by one.

    Not one behind a convolutional stem, where a patch carries pixels of its neighbours, and no kin of it (Swin, BEiT,
    EVA), whose attention asks where a token lies.
    """
    if not isinstance(model, VisionTransformer) or not isinstance(model.patch_embed, PatchEmbed):
        return False
    embedding = model.patch_embed.proj
    return (
        isinstance(embedding, nn.Conv2d)
        and embedding.kernel_size == embedding.stride
        and embedding.stride[0] == embedding.stride[1]
        and model.pos_embed is not None
        and isinstance(model.patch_drop, nn.Identity)
    )


class PlainViT(TimmBackbone, PatchBackbone):
    """`create_backbone` makes these where `is_plain_vit`; the arguments are those of `TimmBackbone`."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.patch_px = int(self.model.patch_embed.patch_size[0])
        self.prefix_tokens = int(self.model.num_prefix_tokens)
        self._keep: Tensor | None = None
        self.model.patch_drop.register_forward_hook(self._leave_out)

    def visible_tokens(self, images: Tensor, keep: Tensor) -> Tensor:
        """See `PatchBackbone.visible_tokens`; at sizes other than the built one timm resamples the positions."""
        self._check_images(images)
        patches = (images.shape[2] // self.patch_px) * (images.shape[3] // self.patch_px)
        if keep.ndim != 2 or keep.shape[0] != images.shape[0] or keep.dtype != torch.int64 or keep.shape[1] > patches:
            raise UsageError(
                f"keep names patches as int64 ({images.shape[0]}, n), n at most {patches}; found {keep.dtype} "
                f"{tuple(keep.shape)}."
            )
        self._keep = keep
        try:
            tokens: Tensor = self.model.forward_features(images)
        finally:
            self._keep = None
        return tokens

    def fix_positions(self) -> None:
        """See `PatchBackbone.fix_positions`.

        The table is timm's: the features of the paper's code with the channels in another order, which weights drawn at
        random cannot tell.
        """
        positions: nn.Parameter = self.model.pos_embed
        table = build_sincos2d_pos_embed(list(self.model.patch_embed.grid_size), positions.shape[-1])
        with torch.no_grad():
            positions.zero_()
            positions[0, -table.shape[0] :] = table  # class and registers stand at zero
        positions.requires_grad_(False)

    def _leave_out(self, module: nn.Module, args: object, tokens: Tensor) -> Tensor | None:
        """The forward hook: of `tokens` `(B, prefix + L, C)` the prefix and the kept patches."""
        if self._keep is None:
            return None
        prefix, patches = tokens[:, : self.prefix_tokens], tokens[:, self.prefix_tokens :]
        kept = patches.gather(1, self._keep[..., None].expand(-1, -1, patches.shape[2]))
        return torch.cat((prefix, kept), 1)
