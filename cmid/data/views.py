"""Batches of crops that remember where they were cut, from worker processes to the trainer.

Nothing here has state but the position in the epoch: the order is a function of (seed, epoch), a crop of (seed,
epoch, image, crop number), and the stand-in for an unreadable image of (seed, epoch, image). So a run that is
resumed, or loaded by another number of workers, sees the same numbers.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from cmid.config import ViewConfig
from cmid.contracts import View, Views
from cmid.data.crops import Box, cut_crops, draw_crop, generator_for, largest_reduction
from cmid.data.decode import BadImage
from cmid.data.sources import ImageSource, choose_workers, start_worker
from cmid.errors import CmidError, UsageError

STAND_IN = (1 << 32) - 1  # the crop number under which a stand-in is drawn
BANDS = 3


def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: a permutation of 0..images - 1 as int64, fixed by (seed, epoch)."""
    return np.random.default_rng([seed & (1 << 64) - 1, epoch]).permutation(images)


@dataclass(frozen=True)
class _Order:
    """What a worker is asked for."""

    epoch: int
    indices: np.ndarray


@dataclass(frozen=True)
class _Cut:
    """What a worker gives back: the batch, and which images it could not read."""

    views: Views
    bad: dict[int, str]

    def pin_memory(self) -> "_Cut":
        return _Cut(self.views.pin_memory(), self.bad)


class _Plan(Sampler[_Order]):
    """The order of an epoch, and the position in it. Read anew at each start, so workers live on.

    Knows nothing of the loader: a circle of references would keep its workers alive after it is dropped.
    """

    def __init__(self, images: int, seed: int, *, batch_size: int, rank: int, world_size: int, drop_last: bool) -> None:
        self.images, self.seed, self.rank, self.world_size = images, seed, rank, world_size
        self.together = batch_size * world_size
        self.batches = images // self.together if drop_last else -(-images // self.together)
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[_Order]:
        epoch, order = self.epoch, epoch_order(self.images, self.seed, self.epoch)
        for batch in range(self.batch, self.batches):
            yield _Order(epoch, self.share_of(order, batch))

    def share_of(self, order: np.ndarray, batch: int) -> np.ndarray:
        """This process's images of one batch; every process takes as many."""
        chunk = order[batch * self.together : (batch + 1) * self.together]
        each = -(-len(chunk) // self.world_size)
        chunk = np.concatenate([chunk, order[: each * self.world_size - len(chunk)]])
        return chunk[self.rank * each : (self.rank + 1) * each]


class _Batches(Dataset[_Cut]):
    """Cuts whole batches; lives in the workers."""

    def __init__(self, source: ImageSource, views: ViewConfig, seed: int, crops: int, bad_allowed: int) -> None:
        self.source, self.views, self.seed, self.crops, self.bad_allowed = source, views, seed, crops, bad_allowed
        self.scratch = torch.empty(0, dtype=torch.uint8)

    def __getitem__(self, order: _Order) -> _Cut:
        count, size = len(order.indices), self.views.size
        if self.scratch.shape[:1] != (count,):
            self.scratch = torch.empty((count, self.crops, BANDS, size, size), dtype=torch.uint8)
        boxes = np.zeros((self.crops, count, 4), dtype=np.float32)
        flips = np.zeros((self.crops, count), dtype=np.bool_)
        used = np.array(order.indices, dtype=np.int64)
        bad: dict[int, str] = {}
        for row, index in enumerate(order.indices.tolist()):
            outs = list(self.scratch[row])
            for candidate in self._candidates(order.epoch, index, bad):
                try:
                    boxes[:, row], flips[:, row] = self._cut(order.epoch, candidate, outs)
                except BadImage as error:
                    bad[candidate] = error.reason
                else:
                    used[row] = candidate
                    break
        # in a worker default_collate stacks right into the shared memory that the batch travels in
        views = tuple(
            View(
                default_collate(list(self.scratch[:, k])),
                torch.from_numpy(boxes[k].copy()),
                torch.from_numpy(flips[k].copy()),
            )
            for k in range(self.crops)
        )
        return _Cut(Views(views, torch.from_numpy(used), order.epoch), bad)

    def _candidates(self, epoch: int, index: int, bad: dict[int, str]) -> Iterator[int]:
        """The image, then its stand-ins in their order, until more are bad than the run allows."""
        yield index
        count = len(self.source)
        start = int(generator_for(self.seed, epoch, index, STAND_IN).integers(count))
        for step in range(count):
            if len(bad) > self.bad_allowed:
                return
            if (candidate := (start + step) % count) != index:
                yield candidate

    def _cut(self, epoch: int, index: int, outs: list[Tensor]) -> tuple[list[Box], list[bool]]:
        drawn: list[tuple[Box, bool]] = []

        def draw(width: int, height: int) -> None:
            generators = (generator_for(self.seed, epoch, index, crop) for crop in range(self.crops))
            drawn[:] = [draw_crop(generator, width, height, self.views) for generator in generators]

        def reduction(width: int, height: int) -> int:
            draw(width, height)
            return largest_reduction(width, height, [box for box, _ in drawn], self.views)

        image = self.source.decode(index, reduction)
        if not drawn:
            draw(image.width, image.height)
        return cut_crops(image, drawn, self.views, outs), [flipped for _, flipped in drawn]


def _as_is(cut: Any) -> Any:
    return cut


class ViewLoader:
    """Iterates over `Views` of uint8 crops, one epoch at a time, from wherever it stands.

    Each batch: per crop images `(B, 3, S, S)` uint8, boxes `(B, 4)` float32 in pixels of the source image (of the
    squashed image with `views.squash`), flipped `(B,)` bool; indices `(B,)` int64 of the images really used.

    An iterator begins at the loader's position, which is the number of batches handed out in this epoch, whatever
    the workers have prepared beyond it. With the last batch the position moves to the start of the next epoch.

    Args:
        source: images by position.
        views: how crops are cut; its colours are not used here.
        batch_size: images per batch and process.
        seed: with the epoch fixes the order, with the image and crop number every crop.
        workers: loader processes; 0 loads in this one, -1 chooses from the cores.
        crops: crops per image.
        rank: which of `world_size` processes this is; they share each epoch without overlap.
        world_size: number of training processes.
        drop_last: leave out the images of an epoch that do not fill a batch on every process; otherwise the last
            batch is smaller, and of one size on all processes.
        max_bad_share: unreadable images beyond this share of all stop the iteration.
        pin_memory: copy batches to page-locked memory, for GPUs.

    Attributes:
        skipped: position and reason of every image that could not be read so far, in this process.

    Raises:
        UsageError: where a batch takes more images than there are.
        CmidError: while iterating, where too many images are bad, or a worker dies.
    """

    def __init__(
        self,
        source: ImageSource,
        views: ViewConfig,
        *,
        batch_size: int,
        seed: int,
        workers: int = -1,
        crops: int = 2,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        max_bad_share: float = 0.05,
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, found {batch_size}")
        if batch_size * world_size > len(source):
            shared = f" on each of {world_size} processes" if world_size > 1 else ""
            raise UsageError(
                f"batch larger than the data set: {batch_size} images{shared}, but there are {len(source)}; "
                f"the largest batch that fits is {len(source) // world_size}"
            )
        self.source, self.views, self.batch_size, self.max_bad_share = source, views, batch_size, max_bad_share
        self.workers = choose_workers(workers, world_size)
        self.skipped: dict[int, str] = {}
        self._bad_allowed = int(max_bad_share * len(source))
        self._plan = _Plan(
            len(source), seed, batch_size=batch_size, rank=rank, world_size=world_size, drop_last=drop_last
        )
        self._batches = _Batches(source, views, seed, crops, self._bad_allowed)
        self._pin_memory = pin_memory
        self._loader: DataLoader | None = None

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._plan)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._plan.epoch

    @property
    def batch(self) -> int:
        """The number of the next batch in its epoch."""
        return self._plan.batch

    def __iter__(self) -> Iterator[Views]:
        if self._loader is None:
            self._loader = self._start()
        epoch, batches = self.epoch, iter(self._loader)
        try:
            while (cut := next(batches, None)) is not None:
                self._note(cut.bad)
                self.resume_at(epoch, self.batch + 1)
                yield cut.views
        except CmidError:
            del batches
            self.close()
            raise
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise CmidError(
                f"a loader process died, which is mostly for want of memory: {error}; try fewer workers "
                f"(now {self.workers}) or smaller images"
            ) from error

    def _start(self) -> DataLoader:
        return DataLoader(
            self._batches,
            batch_size=None,
            sampler=self._plan,
            collate_fn=_as_is,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=start_worker,
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # else each epoch would draw from, and so shift, the trainer's own numbers
        )

    def close(self) -> None:
        """End the worker processes; a later iteration starts new ones."""
        self._loader = None

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`; in that epoch already, stay at the position."""
        if epoch != self.epoch:
            self.resume_at(epoch, 0)

    def resume_at(self, epoch: int, batch: int) -> None:
        """Make batch number `batch` (from 0) of `epoch` the next one; past the last is the next epoch's first."""
        self._plan.epoch, self._plan.batch = (epoch, batch) if batch < len(self) else (epoch + 1, 0)

    def state_dict(self) -> dict[str, Any]:
        """Position and skipped images, as plain numbers and text."""
        return {"epoch": self.epoch, "batch": self.batch, "images": len(self.source), "skipped": dict(self.skipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where `state_dict` was taken. Skipped images are forgotten where the number of images has changed."""
        self.resume_at(int(state["epoch"]), int(state["batch"]))
        kept = state["skipped"] if state["images"] == len(self.source) else {}
        self.skipped = {int(index): str(reason) for index, reason in kept.items()}

    def names(self, indices: Tensor | Sequence[int]) -> list[str]:
        """The names of images by their positions, `Views.indices` for instance."""
        return [self.source.name(int(index)) for index in indices]

    def write_skipped(self, path: Path | str) -> None:
        """A CSV of path and reason of every image that could not be read."""
        with Path(path).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "reason"))
            writer.writerows((self.source.name(index), self.skipped[index]) for index in sorted(self.skipped))

    def _note(self, bad: dict[int, str]) -> None:
        self.skipped.update(bad)
        count, images = len(self.skipped), len(self.source)
        if count <= self._bad_allowed and count < images:
            return
        first = "; ".join(f"{self.source.name(i)} ({reason})" for i, reason in list(self.skipped.items())[:3])
        raise CmidError(
            f"too many unreadable images: {count} of {images} so far, where at most {self._bad_allowed} "
            f"({self.max_bad_share:.0%}) are allowed. First: {first}. Repair or remove them, or raise max_bad_share"
        )
