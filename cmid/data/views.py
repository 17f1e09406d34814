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
from torch.utils.data import DataLoader, Dataset, Sampler

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
    """The orders of one epoch from the loader's position on; read anew at each start, so workers may live on."""

    def __init__(self, loader: "ViewLoader") -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[_Order]:
        loader, epoch = self.loader, self.loader.epoch
        order = epoch_order(len(loader.source), loader.seed, epoch)
        for batch in range(loader.batch, len(loader)):
            yield _Order(epoch, loader.share_of(order, batch))


class _Batches(Dataset[_Cut]):
    """Cuts whole batches; lives in the workers."""

    def __init__(self, source: ImageSource, views: ViewConfig, seed: int, crops: int, bad_allowed: int) -> None:
        self.source, self.views, self.seed, self.crops, self.bad_allowed = source, views, seed, crops, bad_allowed

    def __getitem__(self, order: _Order) -> _Cut:
        count, size = len(order.indices), self.views.size
        images = [torch.empty((count, BANDS, size, size), dtype=torch.uint8) for _ in range(self.crops)]
        boxes = np.zeros((self.crops, count, 4), dtype=np.float32)
        flips = np.zeros((self.crops, count), dtype=np.bool_)
        used = np.array(order.indices, dtype=np.int64)
        bad: dict[int, str] = {}
        for row, index in enumerate(order.indices.tolist()):
            outs = [crop[row] for crop in images]
            for candidate in self._candidates(order.epoch, index, bad):
                try:
                    boxes[:, row], flips[:, row] = self._cut(order.epoch, candidate, outs)
                except BadImage as error:
                    bad[candidate] = error.reason
                else:
                    used[row] = candidate
                    break
        views = tuple(
            View(images[k], torch.from_numpy(boxes[k].copy()), torch.from_numpy(flips[k].copy()))
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
        epoch: the epoch of the next batch.
        batch: the number of the next batch in it.
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
        self.source, self.views, self.batch_size, self.seed = source, views, batch_size, seed
        self.rank, self.world_size, self.drop_last, self.max_bad_share = rank, world_size, drop_last, max_bad_share
        self.workers = choose_workers(workers, world_size)
        self.epoch, self.batch = 0, 0
        self.skipped: dict[int, str] = {}
        self._bad_allowed = int(max_bad_share * len(source))
        self._loader = DataLoader(
            _Batches(source, views, seed, crops, self._bad_allowed),
            batch_size=None,
            sampler=_Plan(self),
            collate_fn=_as_is,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=start_worker,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # else each epoch would draw from, and so shift, the trainer's own numbers
        )

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        together = self.batch_size * self.world_size
        return len(self.source) // together if self.drop_last else -(-len(self.source) // together)

    def __iter__(self) -> Iterator[Views]:
        epoch = self.epoch
        batches = iter(self._loader)
        while True:
            try:
                cut: _Cut = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise CmidError(
                    f"a loader process died, which is mostly for want of memory: {error}; try fewer workers "
                    f"(now {self.workers}) or smaller images"
                ) from error
            self._note(cut.bad)
            self.resume_at(epoch, self.batch + 1)
            yield cut.views

    def share_of(self, order: np.ndarray, batch: int) -> np.ndarray:
        """This process's images of one batch of an epoch in `order`."""
        together = self.batch_size * self.world_size
        chunk = order[batch * together : (batch + 1) * together]
        each = -(-len(chunk) // self.world_size)
        chunk = np.concatenate([chunk, order[: each * self.world_size - len(chunk)]])  # all processes take as many
        return chunk[self.rank * each : (self.rank + 1) * each]

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`; in that epoch already, stay at the position."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def resume_at(self, epoch: int, batch: int) -> None:
        """Make batch number `batch` (from 0) of `epoch` the next one; past the last is the next epoch's first."""
        self.epoch, self.batch = (epoch, batch) if batch < len(self) else (epoch + 1, 0)

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
        if len(self.skipped) <= self._bad_allowed:
            return
        count, images = len(self.skipped), len(self.source)
        first = "; ".join(f"{self.source.name(i)} ({reason})" for i, reason in list(self.skipped.items())[:3])
        raise CmidError(
            f"too many unreadable images: {count} of {images} so far, where at most {self._bad_allowed} "
            f"({self.max_bad_share:.0%}) are allowed. First: {first}. Repair or remove them, or raise max_bad_share"
        )
