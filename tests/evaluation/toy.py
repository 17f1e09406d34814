"""A backbone and a learner small enough to reason about."""

import torch
from torch import nn

from cmid.contracts import Backbone, Learner, Pyramid


class ToyBackbone(Backbone):
    """Two maps; batch norm and dropout, so that training mode shows."""

    def __init__(self, in_chans=3, channels=(4, 8)):
        super().__init__()
        self.name, self.in_chans, self.channels, self.strides, self.norm = "toy", in_chans, channels, (2, 4), "batch"
        self.fine = nn.Sequential(nn.Conv2d(in_chans, channels[0], 3, 2, 1), nn.BatchNorm2d(channels[0]))
        self.coarse = nn.Sequential(nn.Conv2d(channels[0], channels[1], 3, 2, 1), nn.Dropout(0.5))

    def forward(self, images, mask=None):
        fine = self.fine(images)
        return Pyramid((fine, self.coarse(fine)), self.strides)

    def weights(self):
        return self.state_dict()


class ToyLearner(Learner):
    def __init__(self, teacher=None):
        super().__init__()
        self.backbone = ToyBackbone()
        self.teacher = teacher

    def forward(self, batch):
        return {"loss": torch.zeros(())}

    def exported_backbones(self):
        return {"student": self.backbone} | ({"teacher": self.teacher} if self.teacher else {})


def coloured_batches(count=40, size=8, batch=16, seed=0):
    """Two classes told apart by the sign of their colour, with noise."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randn(count, 3, size, size, generator=random) + 2.0 * (2 * labels - 1).view(-1, 1, 1, 1)
    return list(zip(images.split(batch), labels.split(batch), strict=True))
