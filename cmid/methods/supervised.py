"""Supervised pre-training, as on SEN12MS (Schmitt et al., arXiv 1906.07789; ISPRS Annals 2019).

The yardstick of the others: a backbone and one linear layer that learn the classes of labelled images. What the labels
bring beyond the images, and what they leave out, is the difference to a method without them.

    symbol in the authors' code              here
    bands, labels                            batch[0].images, batch.labels
    ResNet50 without fc, fc                  backbone, head
    CrossEntropyLoss (single_label)          labels (B,) of class numbers
    BCEWithLogitsLoss (multi_label)          labels (B, K), each class for itself
"""

import torch.nn.functional as F
from torch import Tensor, nn

from cmid.config import SupervisedConfig
from cmid.contracts import Backbone, Learner, Views
from cmid.ops.pooling import pooled


class Supervised(Learner):
    """The method on any backbone.

    Args:
        backbone: what is pre-trained; the linear layer on it is left behind.
        config: the method's numbers, with the number of classes filled in.

    Raises:
        ValueError: fewer than two classes.
    """

    def __init__(self, backbone: Backbone, config: SupervisedConfig) -> None:
        super().__init__()
        if config.classes < 2:
            raise ValueError(
                f"supervised.classes is {config.classes}, but to tell classes apart takes two or more: give data with "
                "labels, of which the number of classes is read"
            )
        self.backbone, self.config = backbone, config
        self.head = nn.Linear(backbone.channels[-1], config.classes)

    # ---------------------------------------------------------------- the paper, in its order

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The term `classification` of one view `(B, C, H, W)`; further views are not looked at.

        Raises:
            ValueError: the batch has no labels.
        """
        if batch.labels is None:
            raise ValueError(
                "supervised pre-training learns from labels, and this batch has none: give a labelled source"
            )
        logits = self.head(pooled(self.backbone(batch[0].images).last)).float()
        return {"classification": self._loss(logits, batch.labels)}

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of scores `(B, K)`; labels `(B,)` int64, or `(B, K)` bool where an image may have several."""
        if labels.ndim == 2:
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return F.cross_entropy(logits, labels)
