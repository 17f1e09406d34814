"""SimMIM: a simple framework for masked image modelling (Xie et al., arXiv 2111.09886; CVPR 2022).

Large cells of one crop are hidden behind a learned token, and a single linear layer on the last map paints their raw
pixels. There is no teacher and no second view: what the backbone must know to do it is what it learns.

    symbol in the paper or its code          here
    x, M                                     batch[0].images, mask
    mask token                               backbone.mask_token (put in place of hidden positions)
    encoder, encoder_stride                  backbone, backbone.strides[-1]
    decoder (one layer)                      pixel_head
    Omega(x_M)                               hidden pixels of all bands

The paper has Swin and ViT, whose patch embedding looks at one patch at a time; there the token is all that is seen of
a hidden patch. Departure: in a convolutional network the stem reads across the edges of cells, so hidden pixels are
first filled with their image's mean, as A2MIM (arXiv 2205.13943) and CMID do: nothing of them but a share in that mean
reaches the network. Where the token replaces whole patches that would change nothing, and plain ViTs go without.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmid.config import SimMIMConfig
from cmid.contracts import Backbone, Learner, Look, PatchBackbone, Views
from cmid.layers.projection import PixelHead
from cmid.ops.masking import draw_masks, fill_with_mean, hidden_positions, to_pixels
from cmid.ops.matching import take_positions, take_rows
from cmid.ops.patches import to_patches

TOKEN_STD = 0.02
"""Spread of the mask token at the start, as in the published code."""


class SimMIM(Learner):
    """The method on any backbone that takes a mask.

    Args:
        backbone: its mask token is built in, and replaces what is at a hidden position.
        config: the method's numbers.
    """

    def __init__(self, backbone: Backbone, config: SimMIMConfig) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        self.pixel_head = PixelHead(backbone.channels[-1], backbone.in_chans, backbone.strides[-1])
        for name, token in backbone.named_parameters():
            if name == "mask_token":
                nn.init.trunc_normal_(token, std=TOKEN_STD)

    # ---------------------------------------------------------------- the paper, in its order

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The term `reconstruction` of one view `(B, C, H, W)`; further views are not looked at."""
        images = batch[0].images
        mask = self.draw_mask(images)
        features = self._encode(images, mask)
        if self.config.mask_cell_px % self.backbone.strides[-1]:
            return {"reconstruction": self._l1(self.pixel_head(features).float(), images, mask)}
        return {"reconstruction": self._l1_where_hidden(features, images, mask)}

    def draw_mask(self, images: Tensor) -> Tensor:
        """Section 3.2: cells hidden at random, bool `(B, h, w)`, True = hidden."""
        cell = self.config.mask_cell_px
        grid = (images.shape[-2] // cell, images.shape[-1] // cell)
        return draw_masks(images.shape[0], grid, self.config.mask_ratio, device=images.device)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """Sections 3.2 and 3.3: every pixel `(B, C, H, W)` float32, from what `mask` `(B, h, w)` leaves to be seen."""
        painted: Tensor = self.pixel_head(self._encode(images, mask))
        return painted.float()

    def _encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """The last map `(B, C, h, w)` of what is left to be seen."""
        if not isinstance(self.backbone, PatchBackbone):  # there, nothing of a hidden patch is left to be filled
            images = fill_with_mean(images, to_pixels(mask, images.shape[-2:]))
        return self.backbone(images, mask).last

    def _l1(self, prediction: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """Section 3.4: absolute difference over hidden pixels, divided by their number and that of the bands."""
        hidden = to_pixels(mask, images.shape[-2:]).float()
        return ((prediction - images.float()).abs() * hidden).sum() / (hidden.sum() + 1e-5) / images.shape[1]

    def _l1_where_hidden(self, features: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """The same where each position of the map is hidden whole or not at all: only the hidden ones are painted."""
        hidden = hidden_positions(mask, features.shape[-2:], self.config.mask_ratio)
        painted = self.pixel_head.of_rows(take_positions(features, hidden))
        target = take_rows(to_patches(images.float(), self.backbone.strides[-1]), hidden)
        return F.l1_loss(painted.float(), target)

    # ---------------------------------------------------------------- pictures

    @torch.no_grad()
    def look(self, batch: Views) -> Look:
        """What the method sees in the first view; its mask is drawn from torch's default generator."""
        images = batch[0].images
        mask = self.draw_mask(images)
        masked = fill_with_mean(images, to_pixels(mask, images.shape[-2:]))
        return Look((mask,), (masked,), (self.predict(images, mask),))
