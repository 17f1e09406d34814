"""SwAV: swapping assignments between views (Caron et al., arXiv 2006.09882; NeurIPS 2020).

The embeddings of a batch are assigned to prototypes so that all prototypes are used alike; then each crop of an image
is to predict the assignment of its other crops. Small crops predict, but are not assigned.

    symbol in the paper or its code          here
    z_t, z_s, embedding                      embeddings
    C, prototypes                            prototypes
    q_t, q_s, Sinkhorn's Q                   codes in `SwaVLoss` (lightly)
    tau, epsilon                             temperature, sinkhorn_epsilon
    crops_for_assign                         the first two crops
    freeze_prototypes_niters                 freeze_epochs

Loss and Sinkhorn are lightly's, whose sums over prototypes are of all processes; so is an image's share of the mean.

Departure: the published queue is one for each process, and not in the checkpoint. Here all processes hold the same
queue, and each brings its share of it to the Sinkhorn iterations. Lightly's take it that all processes have as many
rows, so a remainder that they cannot share alike sits out.
Departure: while they are frozen, the published prototypes are unknown to the optimiser. Here they get a gradient of
zeros, for which DDP waits, and are put back after the step; an optimiser with moments counts these steps.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightly.loss import SwaVLoss
from torch import Tensor, nn

from cmid.config import SwAVConfig
from cmid.contracts import Backbone, Learner, Progress, Views
from cmid.layers.projection import Projector
from cmid.ops import gather
from cmid.ops.pooling import pooled
from cmid.ops.queue import enqueue

ASSIGNED = 2
"""Crops of each image that are assigned to prototypes, the first of a batch."""


class SwAV(Learner):
    """The method on any backbone that takes crops of both sizes.

    Args:
        backbone: what is trained.
        config: the method's numbers.
    """

    queue: Tensor
    queue_pointer: Tensor
    queue_filled: Tensor

    def __init__(self, backbone: Backbone, config: SwAVConfig) -> None:
        super().__init__()
        c = self.config = config
        self.backbone = backbone
        self.projector = Projector(backbone.channels[-1], c.hidden, c.dim, batch_norm=True)
        self.prototypes = nn.Linear(c.dim, c.prototypes, bias=False)
        self.loss = SwaVLoss(c.temperature, c.sinkhorn_iterations, c.sinkhorn_epsilon, dist.is_available())
        if c.queue_size:
            self.register_buffer("queue", torch.zeros(c.queue_size, ASSIGNED, c.dim))
            self.register_buffer("queue_pointer", torch.zeros(1, dtype=torch.int64))
            self.register_buffer("queue_filled", torch.zeros(1, dtype=torch.int64))
        self._full = False
        self._normalise_prototypes()
        self.before_step(Progress())

    # ---------------------------------------------------------------- the paper, in its order

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The term `swapped` of crops `(B, C, H, W)`, two to be assigned and then any number of small ones: equation 2.

        Each crop meets all others in the loss, so it is one part.
        """
        embeddings = self._embed(batch)
        with torch.autocast(embeddings[0].device.type, enabled=False):  # cosines over 0.05 go through an exponential
            scores = [F.linear(embedding, self._weight()) for embedding in embeddings]
            swapped: Tensor = self.loss(scores[:ASSIGNED], scores[ASSIGNED:], self._queue_scores())
        if self.queueing:
            self._remember(embeddings[:ASSIGNED])
        return {"swapped": swapped.sum()}  # lightly's is `(1,)`

    def _embed(self, batch: Views) -> tuple[Tensor, ...]:
        """Unit rows `(B, D)` of each crop; as published, crops of one size share batch-norm; all share the head's."""
        sizes = (batch.crops[:ASSIGNED], batch.crops[ASSIGNED:])
        features = [pooled(self.backbone(torch.cat([view.images for view in views])).last) for views in sizes if views]
        embeddings = F.normalize(self.projector(torch.cat(features)).float(), dim=1)
        return embeddings.split(batch.crops[0].images.shape[0])

    def _weight(self) -> Tensor:
        """Unit rows `(K, D)`, the prototypes; with a gradient of zeros while they are frozen."""
        weight = self.prototypes.weight
        return weight if self._held is None else weight.detach() + 0 * weight

    @torch.no_grad()
    def _queue_scores(self) -> list[Tensor] | None:
        """Scores `(n, K)` of this process's share of either crop's queue; None until the queue is full."""
        if not self.queueing:
            return None
        if not self._full:  # a full queue stays full: only while it fills does a number travel to the host
            self._full = int(self.queue_filled) >= self.config.queue_size
            if not self._full:
                return None
        return [F.linear(rows, self.prototypes.weight) for rows in gather.share(self.queue).unbind(1)]

    # ---------------------------------------------------------------- state between steps

    def before_step(self, progress: Progress) -> None:
        """Whether prototypes are frozen, and whether there is a queue, in the step to come."""
        c = self.config
        self.queueing = c.queue_size > 0 and progress.epoch >= c.queue_start_epoch
        self._held = self.prototypes.weight.detach().clone() if progress.epoch < c.freeze_epochs else None

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Prototypes back on the unit sphere, or to where they were while they are frozen."""
        if self._held is None:
            self._normalise_prototypes()
        else:  # a gradient of zeros does not keep weight decay, and what follows from it, from moving them
            self.prototypes.weight.copy_(self._held)

    @torch.no_grad()
    def _normalise_prototypes(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    @torch.no_grad()
    def _remember(self, embeddings: tuple[Tensor, ...]) -> None:
        """Put the assigned crops' embeddings, `(B, D)` each, of all processes into the queue."""
        rows = gather.rows(torch.stack(embeddings, dim=1).detach())
        enqueue(self.queue, self.queue_pointer, rows)
        self.queue_filled.add_(rows.shape[0]).clamp_(max=self.config.queue_size)
