"""Where a classifier sees its classes: class activation maps.

Zhou et al., Learning Deep Features for Discriminative Localization (CVPR 2016), section 2. Where the head is a mean
over positions and one linear layer, the score of a class is the mean over positions of w · f(x, y) + b: the map is an
exact account of the score. Up to scale it is also what Grad-CAM (Selvaraju et al., ICCV 2017) finds on the last map,
before its negative part is cut away.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from cmid.contracts import Backbone


class PoolsLastMap(Protocol):
    """A task whose head is linear on the mean of the last map, as `cmid.tasks.classification.Classifier`."""

    backbone: Backbone
    head: nn.Linear


@torch.no_grad()
def class_activation(task: PoolsLastMap, images: Tensor) -> Tensor:
    """What every position of the last map says for each class.

    Args:
        task: in evaluation mode, on the device of `images`.
        images: `(B, C, H, W)` float, normalised.

    Returns:
        `(B, K, h, w)` float32, on the scale of the scores before softmax: its mean over positions is the score.
    """
    last = task.backbone(images).last
    with torch.autocast(images.device.type, enabled=False):
        found = torch.einsum("kc,bchw->bkhw", task.head.weight.float(), last.float())
        return found if task.head.bias is None else found + task.head.bias.float()[:, None, None]
