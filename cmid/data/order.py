"""The order in which an epoch sees its images, and each process's share of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

MIXED_BLOCKS = 16


def epoch_order(images: int, seed: int, epoch: int, block: int = 1) -> np.ndarray:
    """The order of an epoch: a permutation of 0..images - 1 as int64, fixed by (seed, epoch).

    Where `block` images are read in one go, blocks of neighbours come in a random order, and the images of
    `MIXED_BLOCKS` of them at a time are mixed.
    """
    generator = np.random.default_rng([seed & (1 << 64) - 1, epoch])
    if block <= 1 or images <= block * MIXED_BLOCKS:
        return generator.permutation(images)
    starts = np.arange(-int(generator.integers(block)), images, block)  # blocks begin elsewhere in each epoch
    order = generator.permutation(starts)
    groups = []
    for first in range(0, len(order), MIXED_BLOCKS):
        spans = (np.arange(max(0, s), min(s + block, images)) for s in order[first : first + MIXED_BLOCKS].tolist())
        groups.append(generator.permutation(np.concatenate(list(spans))))
    return np.concatenate(groups)


@dataclass(frozen=True)
class Order:
    """What a worker is asked for."""

    epoch: int
    indices: np.ndarray


class Plan(Sampler[Order]):
    """The order of an epoch, and the position in it. Read anew at each start, so workers live on.

    Knows nothing of the loader: a circle of references would keep its workers alive after it is dropped.
    """

    def __init__(
        self,
        images: int,
        seed: int,
        *,
        fresh: bool,
        block: int,
        batch_size: int,
        rank: int,
        world_size: int,
        drop_last: bool,
    ) -> None:
        self.images, self.seed, self.rank, self.world_size = images, seed, rank, world_size
        self.fresh, self.block = fresh, block
        self.together = batch_size * world_size
        self.batches = images // self.together if drop_last else -(-images // self.together)
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Order]:
        epoch, order = self.epoch, epoch_order(self.images, self.seed, self.epoch, self.block)
        order = order + epoch * self.images if self.fresh else order
        for batch in range(self.batch, self.batches):
            yield Order(epoch, self.share_of(order, batch))

    def share_of(self, order: np.ndarray, batch: int) -> np.ndarray:
        """This process's images of one batch; every process takes as many."""
        chunk = order[batch * self.together : (batch + 1) * self.together]
        each = -(-len(chunk) // self.world_size)
        chunk = np.concatenate([chunk, order[: each * self.world_size - len(chunk)]])
        return chunk[self.rank * each : (self.rank + 1) * each]
