"""Barlow Twins: self-supervision by redundancy reduction (Zbontar et al., arXiv 2103.03230; ICML 2021).

Two views of the images of a batch give two embeddings. Their cross-correlation over the batch is to be the identity:
each dimension the same in both views, and no two dimensions alike. No negatives, no teacher.

    symbol in the paper                      here
    views Y^A, Y^B                           batch[0], batch[1]
    embeddings Z^A, Z^B, normalised          first, second
    cross-correlation C                      its diagonal, and the sum of its squares; C itself is never built
    lambda                                   redundancy_weight
    scale-loss (published code)              loss_scale

The projector is lightly's; its last layer has a bias, which the normalisation after it takes away again. The loss is
ours: lightly's normalises each process's embeddings by their own statistics, so that several processes are not one; and
it holds C, 8,192 x 8,192 numbers, with its gradients, and sums it over the processes. With embeddings Z of N images,

    sum of C^2 = |Z^A' Z^B|^2 / N^2 = sum of (Z^A Z^A') * (Z^B Z^B') / N^2,

products of N x N, for which processes exchange their embeddings alone.

Departure: the paper gives biases and batch-norm a rate of their own, 0.0048 beside 0.2. Our optimisers have one rate.
The published model was trained with one rate, too, and with the loss times 0.024: LARS is blind to the loss's scale
where it adapts, which is the weights, and 0.2 * 0.024 = 0.0048 is what the others get. `loss_scale` is that factor.
"""

import torch
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from lightly.utils.dist import gather as gather_with_gradient
from torch import Tensor, nn

from cmid.config import BarlowTwinsConfig
from cmid.contracts import Backbone, Learner, Views
from cmid.ops import gather
from cmid.ops.pooling import pooled


class BarlowTwins(Learner):
    """The method on any backbone.

    Args:
        backbone: what is trained.
        config: the method's numbers.
    """

    def __init__(self, backbone: Backbone, config: BarlowTwinsConfig) -> None:
        super().__init__()
        c = self.config = config
        self.backbone = backbone
        self.projector = BarlowTwinsProjectionHead(backbone.channels[-1], c.hidden, c.dim)
        self.normalise = nn.BatchNorm1d(c.dim, affine=False)

    # ---------------------------------------------------------------- the paper, in its order

    def forward(self, batch: Views, part: int | None = None) -> dict[str, Tensor]:
        """The terms `invariance` and `redundancy` of two augmented views `(B, C, H, W)`: equation 1.

        Both views meet in one matrix, so the loss is one part.
        """
        c = self.config
        first, second = (self._embed(view.images) for view in batch)
        diagonal = gather.mean((first * second).mean(0))
        apart = self._sum_of_squares(first, second) - diagonal.square().sum()
        return {
            "invariance": c.loss_scale * (1 - diagonal).square().sum(),
            "redundancy": c.loss_scale * c.redundancy_weight * apart,
        }

    def _embed(self, images: Tensor) -> Tensor:
        """Embeddings `(B, D)`, each dimension of mean 0 and variance 1 over the images of all processes."""
        embedding: Tensor = self.normalise(self.projector(pooled(self.backbone(images).last)).float())
        return embedding

    def _sum_of_squares(self, first: Tensor, second: Tensor) -> Tensor:
        """Of all entries of the cross-correlation of two normalised embeddings `(B, D)` over all processes."""
        with torch.autocast(first.device.type, enabled=False):  # sums over many: bf16 is too coarse
            alike = [own @ _of_all_processes(own).T for own in (first, second)]  # (B, processes * B)
            return gather.summed((alike[0] * alike[1]).sum()) / alike[0].shape[1] ** 2


def _of_all_processes(own: Tensor) -> Tensor:
    """Rows `(B, D)` of every process, `(processes * B, D)`, with gradient."""
    return torch.cat(gather_with_gradient(own.contiguous())) if gather.processes() > 1 else own
