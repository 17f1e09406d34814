"""BYOL: bootstrap your own latent (Grill et al., arXiv 2006.07733; NeurIPS 2020).

A student predicts, from one view of an image, what a teacher that follows it makes of the other view. There are no
negatives: the predictor, and the teacher's slowness, keep all images from becoming one.

    symbol in the paper                      here
    views v, v'                              batch[0], batch[1]
    encoder f_theta, f_xi                    backbone, teacher_backbone
    projector g_theta, g_xi                  projector, teacher_projector
    predictor q_theta                        predictor
    tau                                      momentum
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmid.config import BYOLConfig
from cmid.contracts import Backbone, Learner, Progress, Views
from cmid.layers.projection import Projector
from cmid.layers.teacher import teacher_of
from cmid.ops.momentum import cosine_momentum, follow
from cmid.ops.pooling import pooled


class BYOL(Learner):
    """The method on any backbone.

    Args:
        backbone: the student; the teacher is a copy.
        config: the method's numbers.
    """

    parts = 2

    def __init__(self, backbone: Backbone, config: BYOLConfig) -> None:
        super().__init__()
        c = self.config = config
        self.backbone = backbone
        self.teacher_backbone = teacher_of(backbone)
        self.projector = Projector(backbone.channels[-1], c.hidden, c.dim, batch_norm=True)
        self.teacher_projector = teacher_of(self.projector)
        self.predictor = Projector(c.dim, c.hidden, c.dim, batch_norm=True)
        self._targets: list[Tensor] = []

    # ---------------------------------------------------------------- the paper, in its order

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The term `regression` of two augmented views `(B, C, H, W)`: equations 2 and 3, both directions summed.

        The views meet only through the teacher, so each direction is a part whose gradient can be taken alone.
        """
        if part in (None, 0):
            self._targets = self._see(batch)
        directions = [self._regression(batch, here) for here in ((0, 1) if part is None else (part,))]
        if part != 0:
            self._targets = []  # lets go of the batch
        return {"regression": torch.stack(directions).sum()}

    @torch.no_grad()
    def _see(self, batch: Views) -> list[Tensor]:
        """Unit rows `(B, D)` of the teacher, one tensor a view."""
        return [
            F.normalize(self.teacher_projector(pooled(self.teacher_backbone(view.images).last)).float(), dim=1)
            for view in batch
        ]

    def _regression(self, batch: Views, here: int) -> Tensor:
        """Squared distance of the student's prediction from view `here` to the teacher's other view: 2 - 2 cos."""
        projection = self.projector(pooled(self.backbone(batch[here].images).last))
        prediction = F.normalize(self.predictor(projection).float(), dim=1)
        return (2 - 2 * (prediction * self._targets[1 - here]).sum(1)).mean()

    # ---------------------------------------------------------------- state between steps

    def after_step(self, progress: Progress) -> None:
        """Let the teacher follow the student that the optimiser has just moved."""
        c = self.config
        momentum = cosine_momentum(progress.step - 1, progress.total_steps, c.momentum, c.momentum_end)
        followers: list[tuple[nn.Module, nn.Module]] = [
            (self.teacher_backbone, self.backbone),
            (self.teacher_projector, self.projector),
        ]
        for teacher, student in followers:
            follow(teacher, student, momentum)

    def exported_backbones(self) -> dict[str, Backbone]:
        """The student (what the paper keeps) and the teacher."""
        return {"student": self.backbone, "teacher": self.teacher_backbone}
