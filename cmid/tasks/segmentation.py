"""Semantic segmentation: a class for every pixel, by UPerNet or a light decoder on the backbone's maps.

The published fine-tuning of CMID (Potsdam, Vaihingen) is UPerNet of 512 channels with a fully convolutional auxiliary
head on the map of stride 16, cross-entropy averaged over all pixels (`average="all"`) and 0.4 of the auxiliary head's.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from cmid.contracts import Backbone, Learner, Views
from cmid.errors import UsageError
from cmid.layers.levels import Levels, resized
from cmid.layers.upernet import ConvNormRelu, LateralSum, PixelScores, UPerNet
from cmid.ops import pixel_losses

IGNORE = 255
AUXILIARY_STRIDE_PX = 16
AUXILIARY_WIDTH = 256
HEADS: dict[str, type[UPerNet] | type[LateralSum]] = {"upernet": UPerNet, "lateral_sum": LateralSum}


class Segmenter(Learner):
    """A backbone that names the class of every pixel.

    Args:
        backbone: gives the maps; without mask token.
        classes: K, how many there are.
        head: `upernet`, or `lateral_sum` for small machines.
        width: channels of the head; unset: 512 of `upernet`, 128 of `lateral_sum`.
        dropout: share of the channels that are dropped before the scores, of both heads.
        align_corners: of every resizing, to the image's size too.
        auxiliary_weight: how much the auxiliary head's loss counts; 0 builds none. It works in training alone.
        frozen: the backbone stays as it is, in evaluation mode; only the heads learn.
        ignore: the label of pixels that do not count.
        class_weights: `(K,)` float, how much a pixel of each class counts; None: all the same.
        average: what cross-entropy and focal loss are divided by, see `pixel_losses.cross_entropy`.
        cross_entropy: how much it counts.
        focal: how much the focal loss counts.
        gamma: of the focal loss.
        dice: how much the Dice loss counts.

    Raises:
        UsageError: an unknown head, fewer than two classes, not a weight for each, or no loss that counts.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        head: Literal["upernet", "lateral_sum"] = "upernet",
        width: int | None = None,
        dropout: float = 0.1,
        align_corners: bool = False,
        auxiliary_weight: float = 0.4,
        frozen: bool = False,
        ignore: int = IGNORE,
        class_weights: Tensor | None = None,
        average: pixel_losses.Average = "counted",
        cross_entropy: float = 1.0,
        focal: float = 0.0,
        gamma: float = 2.0,
        dice: float = 0.0,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise UsageError(f"A head of segmentation is one of {', '.join(HEADS)}; found {head!r}.")
        if classes < 2:
            raise UsageError(f"Segmentation tells 2 classes or more apart; found {classes}.")
        if max(cross_entropy, focal, dice) <= 0 or min(cross_entropy, focal, dice, gamma, auxiliary_weight) < 0:
            raise UsageError(
                "cross_entropy, focal, dice, gamma and auxiliary_weight are 0 or more, and one of the three losses "
                f"above 0; found {cross_entropy}, {focal}, {dice}, {gamma} and {auxiliary_weight}."
            )
        if class_weights is not None and tuple(class_weights.shape) != (classes,):
            raise UsageError(f"class_weights are one a class, ({classes},); found {tuple(class_weights.shape)}.")
        self.backbone, self.classes, self.frozen, self.align_corners = backbone, classes, frozen, align_corners
        self.auxiliary_weight, self.ignore, self.average, self.gamma = auxiliary_weight, ignore, average, gamma
        self.shares = {"cross_entropy": cross_entropy, "focal": focal, "dice": dice}
        self.levels = Levels(backbone.channels, backbone.strides, backbone.norm)
        sizes = {} if width is None else {"width": width}
        self.decoder = HEADS[head](self.levels.channels, **sizes, align_corners=align_corners)
        self.scores = PixelScores(int(self.decoder.width), classes, dropout)
        self.auxiliary: nn.Sequential | None = None
        if auxiliary_weight > 0:
            self.auxiliary_level = max(0, sum(s <= AUXILIARY_STRIDE_PX for s in self.levels.strides) - 1)
            self.auxiliary = nn.Sequential(
                ConvNormRelu(self.levels.channels[self.auxiliary_level], AUXILIARY_WIDTH, 3),
                PixelScores(AUXILIARY_WIDTH, classes, dropout),
            )
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        if frozen:
            backbone.requires_grad_(False)
            backbone.eval()

    def train(self, mode: bool = True) -> "Segmenter":
        """As `Module.train`; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def logits(self, images: Tensor) -> Tensor:
        """Scores `(B, K, H, W)` float32 of normalised images `(B, C, H, W)`, whose sides the strides divide."""
        return self._in_size_of(images, self.scores(self.decoder(self._maps(images))))

    def probabilities(self, images: Tensor) -> Tensor:
        """`(B, K, H, W)` float32; they sum to 1 over the classes of each pixel."""
        return self.logits(images).softmax(1)

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The terms `segmentation` and, with an auxiliary head, `auxiliary` of a batch of one view.

        Its labels are `(B, H, W)` int64: classes, or `ignore`.

        Raises:
            ValueError: the batch has no labels, or not one for every pixel.
        """
        images = batch[0].images
        labels = self._labels_of(batch)
        maps = self._maps(images)
        terms = {"segmentation": self.loss(self._in_size_of(images, self.scores(self.decoder(maps))), labels)}
        if self.auxiliary is not None:
            scores = self._in_size_of(images, self.auxiliary(maps[self.auxiliary_level]))
            terms["auxiliary"] = self.auxiliary_weight * self.loss(scores, labels)
        return terms

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The losses that count, weighted and summed, of scores `(B, K, H, W)` and labels `(B, H, W)` int64."""
        weights, terms = self.class_weights, []
        if share := self.shares["cross_entropy"]:
            found = pixel_losses.cross_entropy(
                logits, labels, ignore=self.ignore, weights=weights, average=self.average
            )
            terms.append(share * found)
        if share := self.shares["focal"]:
            found = pixel_losses.focal(
                logits, labels, ignore=self.ignore, gamma=self.gamma, weights=weights, average=self.average
            )
            terms.append(share * found)
        if share := self.shares["dice"]:
            terms.append(share * pixel_losses.dice(logits, labels, ignore=self.ignore, weights=weights))
        return torch.stack(terms).sum()

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.backbone(images).maps
        return self.levels(maps)

    def _in_size_of(self, images: Tensor, scores: Tensor) -> Tensor:
        return resized(scores.float(), images.shape[2:], self.align_corners)

    def _labels_of(self, batch: Views) -> Tensor:
        images, labels = batch[0].images, batch.labels
        if labels is None:
            raise ValueError("a segmenter learns from labels, and this batch has none: give a labelled source")
        expected = (images.shape[0], *images.shape[2:])
        if labels.dtype != torch.int64 or tuple(labels.shape) != expected:
            raise UsageError(
                f"A segmenter learns from a class for every pixel, int64 {expected}; found {labels.dtype} "
                f"{tuple(labels.shape)}. Cut the labels as the images are cut."
            )
        return labels
