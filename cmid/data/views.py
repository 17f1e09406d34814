"""Batches of crops that remember where they were cut, from worker processes to the trainer.

Nothing here has state but the position in the epoch: the order is a function of (seed, epoch), and what the workers do
(`batches.py`) is too. So a run that is resumed, or loaded by another number of workers, sees the same numbers.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cmid.config import ViewConfig
from cmid.contracts import Views
from cmid.data.batches import Batches, Cut, Touch, images_until
from cmid.data.order import Plan
from cmid.data.reading import Stuck, give_up, look_every_s, patiently
from cmid.data.sources import REPAIR, DatedSource, ImageSource, choose_workers, start_worker
from cmid.errors import CmidError, UsageError


def _as_is(cut: Any) -> Any:
    return cut


def _none_stands_in(cut: Cut) -> str:
    first = "; ".join(f"{name} ({reason})" for name, reason in list(cut.bad.values())[:3])
    return (
        f"{cut.empty} of the {cut.views.batch_size} images of a batch cannot be read, and no other image of this epoch "
        f"that could stand in for them. First: {first}. Look after the disk or the network they are on"
    )


class ViewLoader:
    """Iterates over `Views` of uint8 crops, one epoch at a time, from wherever it stands.

    Each batch: per crop images `(B, C, S, S)` uint8 or float32 as the source has them, boxes `(B, 4)` float32 in
    pixels of the source image (of the squashed image with `views.squash`), flipped `(B,)` bool; indices `(B,)` int64
    of the images really used; labels of those, where the source has some.

    An iterator begins at the loader's position, which is the number of batches handed out in this epoch, whatever
    the workers have prepared beyond it. With the last batch the position moves to the start of the next epoch.

    Args:
        source: images by position.
        views: how crops are cut; its colours are not used here.
        batch_size: images per batch and process.
        seed: with the epoch fixes the order, with the image and crop number every crop.
        workers: loader processes; 0 loads in this one, -1 chooses from the cores.
        crops: crops per image; small ones of `views.small_crops` come after them.
        rank: which of `world_size` processes this is; they share each epoch without overlap.
        world_size: number of training processes.
        drop_last: leave out the images of an epoch that do not fill a batch on every process; otherwise the last
            batch is smaller, and of one size on all processes.
        max_bad_share: unreadable images beyond this share of all stop the iteration; of windows, which each epoch draws
            anew, of those of all epochs so far.
        read_timeout_s: an image that takes longer to read is passed over like an unreadable one; 0 waits for ever.
            Works with loader processes only: they are ended and started anew.
        pin_memory: copy batches to page-locked memory, for GPUs.
        touch: what else is done to each crop by the worker that cut it.
        batches: what cuts the batches.
        dates: of a source of places, from which of the dates drawn each crop is cut, as in (0, 1, 2, 0): the first date
            is none of the others, which differ as far as the place has so many. Empty: all are cut from one image.
        fingerprint: says whether the images are those of another time; kept in `state_dict`.
        labels: the same of their labels; empty where nothing is learned from any.

    Attributes:
        skipped: position of every image that could not be read so far, in this process, with name and reason.

    Raises:
        UsageError: where a batch takes more images than there are.
        CmidError: while iterating, where too many images are bad or none is left to stand in for one, more than a few
            reads hang, or a worker dies.
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
        read_timeout_s: float = 300.0,
        pin_memory: bool = False,
        touch: Touch | None = None,
        batches: Callable[..., Batches] = Batches,
        dates: tuple[int, ...] = (),
        fingerprint: str = "",
        labels: str = "",
    ) -> None:
        if dates and not (isinstance(source, DatedSource) and len(dates) == crops and not views.small_crops):
            raise ValueError(f"dates {dates} are for a source of places and as many crops, all of one size")
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
        self.read_timeout_s = read_timeout_s
        self.skipped: dict[int, tuple[str, str]] = {}
        self._plan = Plan(
            len(source), seed, fresh=source.fresh, block=getattr(source, "block", 1), batch_size=batch_size,
            rank=rank, world_size=world_size, drop_last=drop_last,
        )  # fmt: skip
        self._batches = batches(source, views, seed, crops, max_bad_share, self.workers, touch, dates)
        self._pin_memory = pin_memory
        self._fingerprint, self._labels = fingerprint, labels
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
        epoch, reading = self.epoch, self._batches.reading
        try:
            for cut in patiently(self._begin, reading, self.read_timeout_s, self._pass_over, self.workers):
                self._note(cut.bad)
                if cut.empty:
                    raise CmidError(_none_stands_in(cut))
                self.resume_at(epoch, self.batch + 1)
                yield cut.views
        except CmidError:
            self.close()
            raise

    def _begin(self) -> Iterator[Cut]:
        if self._loader is None:
            self._loader = self._start()
        return iter(self._loader)

    def _pass_over(self, stuck: Stuck) -> None:
        """Ends the processes, and counts the image that one of them hangs in as unreadable."""
        self.close()
        give_up(stuck, self._batches.hung, self.source.name, self.read_timeout_s)
        self._note({stuck.image: self._batches.hung[stuck.image]})

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
            timeout=look_every_s(self.read_timeout_s, self.workers),
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
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "images": len(self.source),
            "fingerprint": self._fingerprint,
            "labels": self._labels,
            "skipped": dict(self.skipped),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where `state_dict` was taken. Skipped images are forgotten where the number of images has changed."""
        self.resume_at(int(state["epoch"]), int(state["batch"]))
        kept = state["skipped"] if state["images"] == len(self.source) else {}
        # checkpoints of earlier versions hold the reason alone
        said = {i: (self.source.name(int(i)), e) if isinstance(e, str) else e for i, e in kept.items()}
        self.skipped = {int(index): (str(name), str(reason)) for index, (name, reason) in said.items()}

    def names(self, indices: Tensor | Sequence[int]) -> list[str]:
        """The names of images by their positions, `Views.indices` for instance."""
        return [self.source.name(int(index)) for index in indices]

    def write_skipped(self, path: Path | str) -> None:
        """A CSV of path and reason of every image that could not be read."""
        with Path(path).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "reason"))
            writer.writerows(self.skipped[index] for index in sorted(self.skipped))

    def require_readable(self) -> None:
        """Raises CmidError where too many images could not be read, counting those that were added to `skipped`."""
        self._require_readable(max(1, self.epoch + (self.batch > 0)))

    def _note(self, bad: dict[int, tuple[str, str]]) -> None:
        self.skipped.update(bad)
        self._require_readable(self.epoch + 1)

    def _require_readable(self, epochs: int) -> None:
        count, images = len(self.skipped), images_until(self.source, epochs - 1)
        if count <= self.max_bad_share * images and count < images:
            return
        first = "; ".join(f"{name} ({reason})" for name, reason in list(self.skipped.values())[:3])
        repair = getattr(self.source, "repair", REPAIR)
        raise CmidError(
            f"too many unreadable images: {count} of {images} so far, where at most {int(self.max_bad_share * images)} "
            f"({self.max_bad_share:.0%}) are allowed. First: {first}. {repair}, or raise max_bad_share"
        )
