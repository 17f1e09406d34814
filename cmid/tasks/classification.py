"""Scene classification: global average pooling and one linear layer on the backbone's last map.

The published fine-tuning of CMID (UC Merced) is this head under timm's recipe; see docs/classification.md.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmid.contracts import Backbone, Learner, Views
from cmid.ops import gather

HEAD_STD = 0.02
"""Spread of a new head's weights, as timm draws those of Swin and ViT; biases are zero."""


class Classifier(Learner):
    """A backbone that names classes.

    Args:
        backbone: gives the maps; without mask token.
        classes: K, how many there are.
        multi_label: an image may be of several classes at once: a sigmoid and binary cross-entropy for each, instead
            of one softmax.
        frozen: the backbone stays as it is, in evaluation mode; only the head learns.
        smoothing: share of the target that is spread over all classes, where labels are class numbers.
        class_weights: `(K,)` float, how much an image (or a positive, where there may be several) of each class
            counts; None: all the same.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        multi_label: bool = False,
        frozen: bool = False,
        smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.multi_label, self.frozen, self.smoothing = backbone, multi_label, frozen, smoothing
        self.head = nn.Linear(backbone.channels[-1], classes)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        if frozen:
            backbone.requires_grad_(False)
            backbone.eval()

    def train(self, mode: bool = True) -> "Classifier":
        """As `Module.train`; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def logits(self, images: Tensor) -> Tensor:
        """Scores `(B, K)` float32 of normalised images `(B, C, H, W)`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(images).last.mean(dim=(2, 3))
        return self.head(features).float()

    def probabilities(self, images: Tensor) -> Tensor:
        """`(B, K)` float32; each row sums to 1, or each is by itself where there may be several classes."""
        scores = self.logits(images)
        return scores.sigmoid() if self.multi_label else scores.softmax(1)

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The term `classification` of a batch of one view with labels `(B,)` int64 or `(B, K)` float.

        Raises:
            ValueError: the batch has no labels.
        """
        if batch.labels is None:
            raise ValueError("a classifier learns from labels, and this batch has none: give a labelled source")
        return {"classification": self.loss(self.logits(batch[0].images), batch.labels)}

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of scores `(B, K)`; labels `(B,)` int64, or `(B, K)` float, mixed or several."""
        weights = self.class_weights
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=weights)
        mixed = labels.is_floating_point()  # of two images, and smoothed where they were mixed
        labels, smoothing = (labels.to(logits.dtype), 0.0) if mixed else (labels, self.smoothing)
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        # Torch divides by this process's own weights, and mixed labels by their number: the mean over the processes
        # would not be one process's, nor the scale of mixed batches that of others.
        loss = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing, reduction="sum")
        weight = (labels @ weights if mixed else weights[labels]).sum()
        return loss / gather.mean(weight)
