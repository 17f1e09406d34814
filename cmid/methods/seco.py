"""SeCo: seasonal contrast (Mañas et al., arXiv 2103.16607), on momentum contrast with an MLP head (MoCo v2).

A place is seen at three dates. A query of one date is to find, in three embedding sub-spaces with a head and a queue
of keys each, the key of the same place that may differ from it in everything, in the season only, or in synthetic
changes (colours, blur, mirroring) only. In the last two, keys that differ in what the sub-space must tell apart are
negatives, so that it is invariant to the one and sensitive to the other.

    symbol in the paper or its code          here
    q = x_t0                                 batch[0], as it is
    k0 = T(x_t1)                             batch[1], another date, changed
    k1 = x_t2                                batch[2], another date, as it is
    k2 = T(x_t0)                             batch[3], the query's date, changed
    encoder f, heads h0, h1, h2              backbone, projectors; their teachers
    v, z_i                                   seen, rows of the sub-space i
    Z0, Z1, Z2                               SUB_SPACES
    queue, K, tau, m                         queues, queue_size, temperature, momentum

Which date and which changes a crop has is decided before it comes here: by the method's row in
`commands/learners.py` (`dates`, `recoloured`). Crops are cut at random from each of the four, as in the published code.
The paper could be read here in part only: the positives and negatives are those of its published code
(`models/moco2_module.py`), where the key of Z0 is k0, and k1 and k2 do not enter Z0.

Departure: three dates. The published code draws them with repetition, so that q and the keys of "another" date often
share it. Here the keys' dates are not the query's, and are two where the place has three or more.

Departure: keys of the batch that are negatives are those of all processes, as are the queues', so that several
processes equal one; the published code takes each process's own.

Departure: shuffled batch-norm is `batch_norm_groups`, as in `moco_v2.py`; the published code trains on one GPU without.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmid.config import SeCoConfig
from cmid.contracts import Backbone, Learner, Progress, View, Views
from cmid.layers.projection import Projector
from cmid.layers.teacher import teacher_of
from cmid.ops import gather
from cmid.ops.contrast import info_nce
from cmid.ops.groups import in_groups, in_shuffled_groups
from cmid.ops.momentum import follow
from cmid.ops.pooling import pooled
from cmid.ops.queue import enqueue, new_queue

SUB_SPACES = ("to_all", "to_season", "to_augmentation")
"""What each sub-space is invariant to; the name of its loss. The key of sub-space i is crop i + 1."""


class SeCo(Learner):
    """The method on any backbone.

    Args:
        backbone: the student; the teacher is a copy.
        config: the method's numbers.
    """

    queues: Tensor
    queue_pointers: Tensor

    def __init__(self, backbone: Backbone, config: SeCoConfig) -> None:
        super().__init__()
        c = self.config = config
        self.backbone = backbone
        self.teacher_backbone = teacher_of(backbone)
        self.projectors = nn.ModuleList(Projector(backbone.channels[-1], c.hidden, c.dim) for _ in SUB_SPACES)
        self.teacher_projectors = teacher_of(self.projectors)
        self.register_buffer("queues", torch.stack([new_queue(c.queue_size, c.dim) for _ in SUB_SPACES]))
        self.register_buffer("queue_pointers", torch.zeros(len(SUB_SPACES), 1, dtype=torch.int64))

    # ---------------------------------------------------------------- the paper, in its order

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The terms of the three sub-spaces, for four crops `(B, C, H, W)`; then each one's own keys enter its queue.

        They share the student's pass over the query, so the loss is of one part.
        """
        query_seen = in_groups(self._query_seen, batch[0].images, self.config.batch_norm_groups)
        keys_seen = torch.cat([self._see(view) for view in batch.crops[1:]])
        terms = {}
        for i, name in enumerate(SUB_SPACES):
            query = F.normalize(self.projectors[i](query_seen).float(), dim=1)
            keys = self._keys(i, keys_seen)
            everyone = gather.rows(keys)
            others = self._told_apart(i, everyone)
            terms[name] = info_nce(query, keys[:, i], self.queues[i], self.config.temperature, others)
            enqueue(self.queues[i], self.queue_pointers[i], everyone[:, i])
        return terms

    def _query_seen(self, images: Tensor) -> Tensor:
        return pooled(self.backbone(images).last)

    def _told_apart(self, i: int, everyone: Tensor) -> tuple[Tensor, ...]:
        """The other two keys `(nB, D)` of all images `(nB, 3, D)`, negatives beside the queue; none in Z0."""
        return tuple(everyone[:, j] for j in range(len(SUB_SPACES)) if j != i) if i else ()

    @torch.no_grad()
    def _see(self, view: View) -> Tensor:
        """What the teacher's backbone makes of a key's images: `(B, C)`, before any head."""
        groups = self.config.batch_norm_groups
        return in_shuffled_groups(lambda x: pooled(self.teacher_backbone(x).last), view.images, groups)

    @torch.no_grad()
    def _keys(self, i: int, seen: Tensor) -> Tensor:
        """Unit rows `(B, 3, D)` of the three keys in sub-space i, from `(3 B, C)`."""
        rows = F.normalize(self.teacher_projectors[i](seen).float(), dim=1)
        return rows.unflatten(0, (len(SUB_SPACES), -1)).transpose(0, 1)

    # ---------------------------------------------------------------- state between steps

    def after_step(self, progress: Progress) -> None:
        """Let the teacher follow the student that the optimiser has just moved."""
        follow(self.teacher_backbone, self.backbone, self.config.momentum)
        follow(self.teacher_projectors, self.projectors, self.config.momentum)

    def exported_backbones(self) -> dict[str, Backbone]:
        """The student (what the published code keeps) and the teacher."""
        return {"student": self.backbone, "teacher": self.teacher_backbone}
