"""MAE: masked autoencoders are scalable vision learners (He et al., arXiv 2111.06377; CVPR 2022).

Three quarters of an image's patches are left out, and the encoder never computes them. A small decoder gets the encoded
rest, with a learned token in every gap, and paints the patches that were left out, each measured against its own mean
and deviation. The decoder is thrown away.

    symbol in the paper or its code          here
    imgs                                     batch[0].images
    mask, ids_shuffle                        mask, order (visible patches first)
    encoder                                  backbone.visible_tokens
    decoder_embed, mask_token                decoder_embed, mask_token
    decoder_blocks, decoder_norm             decoder_blocks, decoder_norm
    decoder_pred                             decoder_pred
    norm_pix_loss                            normalise_pixels

The encoder is a plain ViT as timm has it, with class token and fixed sine-cosine positions, so what is exported is one,
too. The decoder's blocks are timm's; its positions are computed for the grid at hand and are no weights.
"""

import torch
import torch.nn.functional as F
from lightly.models.utils import set_at_index
from timm.layers import LayerNorm, build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from cmid.config import MAEConfig
from cmid.contracts import Backbone, Learner, Look, PatchBackbone, Views
from cmid.ops.masking import draw_masks, fill_with_mean, hidden_of, to_pixels
from cmid.ops.matching import take_rows
from cmid.ops.patches import to_patches


class MAE(Learner):
    """The method on a plain ViT. All weights are drawn anew, as in the published code.

    Args:
        backbone: the encoder.
        config: the method's numbers.

    Raises:
        ValueError: a backbone whose patches cannot be left out, or a decoder whose width its heads do not divide.
    """

    backbone: PatchBackbone

    def __init__(self, backbone: Backbone, config: MAEConfig) -> None:
        super().__init__()
        c = self.config = config
        if not isinstance(backbone, PatchBackbone):
            raise ValueError(
                "MAE encodes only the visible patches, which needs a plain ViT that embeds patches one by one, such as "
                f"vit_base_patch16_224; {backbone.name} is none. Name one with --backbone, or take --method simmim, "
                "which takes most others, too"
            )
        if c.decoder_width % 4 or c.decoder_width % c.decoder_heads:
            raise ValueError(
                f"mae.decoder_width is {c.decoder_width}, but must be a multiple of 4 (sine-cosine positions) and of "
                f"mae.decoder_heads {c.decoder_heads}"
            )
        self.backbone = backbone
        self.decoder_embed = nn.Linear(backbone.channels[-1], c.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.decoder_width))
        self.decoder_blocks = nn.Sequential(
            *(
                Block(c.decoder_width, c.decoder_heads, qkv_bias=True, norm_layer=LayerNorm)
                for _ in range(c.decoder_depth)
            )
        )
        self.decoder_norm = LayerNorm(c.decoder_width)
        self.decoder_pred = nn.Linear(c.decoder_width, backbone.patch_px**2 * backbone.in_chans)
        self._initialise()

    # ---------------------------------------------------------------- the paper, in its order

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The term `reconstruction` of one view `(B, C, H, W)`; further views are not looked at."""
        images = batch[0].images
        mask = self.draw_mask(images)
        return {"reconstruction": self._mse(self.predict(images, mask), images, mask)}

    def draw_mask(self, images: Tensor) -> Tensor:
        """Masking: patches drawn without replacement, bool `(B, h, w)`, True = hidden."""
        return draw_masks(images.shape[0], self._grid(images), self.config.mask_ratio, device=images.device)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """What the decoder makes of the patches that `mask` `(B, h, w)` hides: `(B, hidden, C * p * p)` float32."""
        order = self._order(mask)
        latent = self._encode(images, order)
        return self._decode(latent, order, self._grid(images))

    def _encode(self, images: Tensor, order: Tensor) -> Tensor:
        """The encoder on visible patches alone: `(B, prefix + visible, C)`."""
        return self.backbone.visible_tokens(images, order[:, : self._visible(order)])

    def _decode(self, latent: Tensor, order: Tensor, grid: tuple[int, int]) -> Tensor:
        """Visible tokens and mask tokens put back in their places, the blocks, and pixels of each hidden patch."""
        prefix, width = self.backbone.prefix_tokens, self.config.decoder_width
        tokens = self.decoder_embed(latent)
        hidden = self.mask_token.to(tokens.dtype).expand(len(order), order.shape[1] + prefix - tokens.shape[1], -1)
        patches = take_rows(torch.cat((tokens[:, prefix:], hidden), 1), order.argsort(1))
        patches = patches + build_sincos2d_pos_embed(list(grid), width, device=latent.device)
        tokens = torch.cat((tokens[:, :prefix], patches), 1)  # class and registers stand at position zero
        tokens = self.decoder_blocks(tokens)[:, prefix:]
        painted: Tensor = self.decoder_pred(self.decoder_norm(take_rows(tokens, self._hidden(order))))
        return painted.float()

    def _mse(self, prediction: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """Reconstruction target: squared distance per value, mean over the hidden patches."""
        target, mean, deviation = self._patches(images, self._hidden(self._order(mask)))
        if self.config.normalise_pixels:
            target = (target - mean) / deviation
        return F.mse_loss(prediction, target)

    def _order(self, mask: Tensor) -> Tensor:
        """Patches of `mask` `(B, h, w)`, visible ones first, each kind row by row: int64 `(B, L)`."""
        return mask.flatten(1).to(torch.uint8).argsort(dim=1, stable=True)

    def _hidden(self, order: Tensor) -> Tensor:
        return order[:, self._visible(order) :]

    def _visible(self, order: Tensor) -> int:
        # counted from the settings: reading it off the mask would wait for the device
        return order.shape[1] - hidden_of(order.shape[1], self.config.mask_ratio)

    def _patches(self, images: Tensor, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values `(B, n, C * p * p)` of patches `which` `(B, n)`; mean and deviation `(B, n, 1)` over all bands."""
        values = take_rows(to_patches(images.float(), self.backbone.patch_px), which)
        return values, values.mean(-1, keepdim=True), (values.var(-1, keepdim=True) + 1e-6).sqrt()

    def _grid(self, images: Tensor) -> tuple[int, int]:
        return images.shape[-2] // self.backbone.patch_px, images.shape[-1] // self.backbone.patch_px

    # ---------------------------------------------------------------- start, pictures

    @torch.no_grad()
    def _initialise(self) -> None:
        """Weights as the published code draws them: Xavier for all that is linear, patch embedding included."""
        self.backbone.fix_positions()
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, token in self.named_parameters():
            if name.endswith(("cls_token", "reg_token", "mask_token")):
                nn.init.normal_(token, std=0.02)

    @torch.no_grad()
    def look(self, batch: Views) -> Look:
        """The first view, and the reconstruction of its hidden patches; visible ones, never predicted, are as they are.

        Where pixels are normalised, each patch gets its own mean and deviation back: the method predicts neither.
        """
        images = batch[0].images
        mask = self.draw_mask(images)
        painted, hidden = self.predict(images, mask), self._hidden(self._order(mask))
        _, mean, deviation = self._patches(images, hidden)
        if self.config.normalise_pixels:
            painted = painted * deviation + mean
        every = to_patches(images.float(), self.backbone.patch_px)
        painted = set_at_index(every, hidden, painted)
        rows, columns = self._grid(images)
        painted = F.pixel_shuffle(painted.transpose(1, 2).unflatten(2, (rows, columns)), self.backbone.patch_px)
        return Look((mask,), (fill_with_mean(images, to_pixels(mask, images.shape[-2:])),), (painted,))
