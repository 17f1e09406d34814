"""MoCo v2: momentum contrast with an MLP head (Chen et al., arXiv 2003.04297; MoCo is He et al., arXiv 1911.05722).

A student's view of an image is to find, among a queue of keys of earlier images, the key that a teacher made of the
other view. The teacher follows the student so slowly that keys of many batches can be compared.

    symbol in the paper or its code          here
    im_q, im_k                               batch[0], batch[1]
    encoder f_q, f_k                         backbone and projector, their teachers
    q, k                                     query, key
    queue, K, T, m                           queue, queue_size, temperature, momentum

Departure: shuffled batch-norm. The published code trains on 8 GPUs whose batch-norm is their own, and shuffles the
keys' images between them, because a query that shares its statistics with its key, and with no negative, knows the key
by them. Here `batch_norm_groups` stand for the GPUs, on any number of processes: queries are normalised in so many
groups, keys in as many others that are drawn anew each step, so that a query and its key share few of the images
behind their statistics. With one group, the default, they share all. Batch-norm over all processes
(`train.sync_batch_norm`) joins the groups of all of them, one by one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cmid.config import MoCoV2Config
from cmid.contracts import Backbone, Learner, Progress, View, Views
from cmid.layers.projection import Projector
from cmid.layers.teacher import teacher_of
from cmid.ops import gather
from cmid.ops.contrast import info_nce
from cmid.ops.groups import in_groups, in_shuffled_groups
from cmid.ops.momentum import follow
from cmid.ops.pooling import pooled
from cmid.ops.queue import enqueue, new_queue


class MoCoV2(Learner):
    """The method on any backbone.

    Args:
        backbone: the student; the teacher is a copy.
        config: the method's numbers.
    """

    queue: Tensor
    queue_pointer: Tensor

    def __init__(self, backbone: Backbone, config: MoCoV2Config) -> None:
        super().__init__()
        c = self.config = config
        self.queries = (0, 1) if c.symmetric else (0,)
        self.parts = len(self.queries)
        self.backbone = backbone
        self.teacher_backbone = teacher_of(backbone)
        self.projector = Projector(backbone.channels[-1], c.hidden, c.dim)
        self.teacher_projector = teacher_of(self.projector)
        self.register_buffer("queue", new_queue(c.queue_size, c.dim))
        self.register_buffer("queue_pointer", torch.zeros(1, dtype=torch.int64))
        self._keys: dict[int, Tensor] = {}

    # ---------------------------------------------------------------- the paper, in its order

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The term `contrast` of two augmented views `(B, C, H, W)`; then the keys enter the queue.

        As published, view 0 is the query and view 1 the key. Symmetric adds the other direction (summed, as in the
        authors' CIFAR notebook); the views meet only through the teacher, so each direction is a part.
        """
        if part in (None, 0):
            self._keys = {1 - here: self._see(batch[1 - here]) for here in self.queries}
        chosen = self.queries if part is None else self.queries[part : part + 1]
        losses = [self._contrast(batch[here], self._keys[1 - here]) for here in chosen]
        if part in (None, self.parts - 1):
            for key in self._keys.values():
                enqueue(self.queue, self.queue_pointer, gather.rows(key))
            self._keys = {}  # lets go of the batch
        return {"contrast": torch.stack(losses).sum()}

    def _contrast(self, view: View, key: Tensor) -> Tensor:
        """Cross-entropy of picking each image's own key `(B, D)` among the queue's."""
        query = in_groups(self._query, view.images, self.config.batch_norm_groups)
        return info_nce(query, key, self.queue, self.config.temperature)

    def _query(self, images: Tensor) -> Tensor:
        return F.normalize(self.projector(pooled(self.backbone(images).last)).float(), dim=1)

    @torch.no_grad()
    def _see(self, view: View) -> Tensor:
        """The teacher's unit rows `(B, D)`."""
        return in_shuffled_groups(self._key, view.images, self.config.batch_norm_groups)

    def _key(self, images: Tensor) -> Tensor:
        return F.normalize(self.teacher_projector(pooled(self.teacher_backbone(images).last)).float(), dim=1)

    # ---------------------------------------------------------------- state between steps

    def after_step(self, progress: Progress) -> None:
        """Let the teacher follow the student that the optimiser has just moved."""
        follow(self.teacher_backbone, self.backbone, self.config.momentum)
        follow(self.teacher_projector, self.projector, self.config.momentum)

    def exported_backbones(self) -> dict[str, Backbone]:
        """The student (what the published code keeps) and the teacher."""
        return {"student": self.backbone, "teacher": self.teacher_backbone}
