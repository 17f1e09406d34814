"""What a loader process does: it decodes images and cuts their crops, a whole batch at a time.

Nothing here has state: a crop is a function of (seed, epoch, image, crop number), the stand-in for an unreadable image
of (seed, epoch, image).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from cmid.config import ViewConfig
from cmid.contracts import View, Views
from cmid.data.crops import Crop, cut_crops, draw_crop, generator_for, kinds_of_crops, largest_reduction
from cmid.data.decode import BadImage, Decoded, Reduction
from cmid.data.order import Order
from cmid.data.reading import Reading
from cmid.data.sources import DatedSource, ImageSource, draw_dates

STAND_IN = (1 << 32) - 1  # the crop number under which a stand-in is drawn
TOUCHED = (1 << 32) - 4  # and the one that `touch` is seeded by
DATES = (1 << 32) - 5  # and the one under which the dates of a place are drawn
Decode = Callable[[Reduction], Decoded]
Touch = Callable[[Tensor, int], None]
"""Changes a crop `(C, S, S)` in place, drawing from the seed."""


@dataclass(frozen=True)
class Cut:
    """What a worker gives back: the batch, which images it could not read, and how many rows are `empty`.

    An empty row has found no stand-in and holds what an earlier batch left there: the batch must not be used.
    """

    views: Views
    bad: dict[int, tuple[str, str]]
    empty: int = 0

    def pin_memory(self) -> "Cut":
        """Page-locked copies; `DataLoader(pin_memory=True)` calls this."""
        return replace(self, views=self.views.pin_memory())


def images_until(source: ImageSource, epoch: int) -> int:
    """How many images a run has been offered by the end of `epoch`, of which a share may be bad."""
    return len(source) * (epoch + 1) if source.fresh else len(source)


class Batches(Dataset[Cut]):
    """Cuts whole batches; lives in the workers. Arguments as for `ViewLoader`."""

    def __init__(
        self,
        source: ImageSource,
        views: ViewConfig,
        seed: int,
        crops: int,
        max_bad_share: float,
        workers: int,
        touch: Touch | None,
        dates: tuple[int, ...],
    ) -> None:
        self.source, self.views, self.seed, self.max_bad_share = source, views, seed, max_bad_share
        self.kinds, self.dates = kinds_of_crops(views, crops), dates
        self.turned = views.turn > 0
        self.places = source if dates and isinstance(source, DatedSource) else None
        self.touch = touch
        self.labels = getattr(source, "labels", None)
        self.reading = Reading(workers)
        self.hung: dict[int, tuple[str, str]] = {}
        self.scratch: list[Tensor] = []

    def __getitem__(self, order: Order) -> Cut:
        count, crops = len(order.indices), len(self.kinds)
        if not self.scratch or len(self.scratch[0]) != count:
            sizes = [(count, self.source.bands, kind.size, kind.size) for kind in self.kinds]
            self.scratch = [torch.empty(size, dtype=self.source.dtype) for size in sizes]
        boxes = np.zeros((crops, count, 4), dtype=np.float32)
        flips = np.zeros((crops, count), dtype=np.bool_)
        turns = np.zeros((crops, count), dtype=np.int64)
        used = np.array(order.indices, dtype=np.int64)
        bad: dict[int, tuple[str, str]] = {}
        empty = 0
        for row, index in enumerate(order.indices.tolist()):
            outs = [crop[row] for crop in self.scratch]
            for candidate in self._candidates(order.epoch, index, bad):
                try:
                    cut = self.cut(order.epoch, candidate, outs, row)
                except BadImage as error:
                    bad[candidate] = (str(error.path), error.reason)
                else:
                    boxes[:, row], flips[:, row], turns[:, row] = zip(*cut, strict=True)
                    used[row] = candidate
                    break
            else:
                empty += 1
        # in a worker default_collate stacks right into the shared memory that the batch travels in
        views = tuple(
            View(
                default_collate(list(self.scratch[k])),
                torch.from_numpy(boxes[k].copy()),
                torch.from_numpy(flips[k].copy()),
                torch.from_numpy(turns[k].copy()) if self.turned else None,
            )
            for k in range(crops)
        )
        labels = self.labels_of(used)
        return Cut(Views(views, torch.from_numpy(used), order.epoch, labels), bad, empty)

    def _candidates(self, epoch: int, index: int, bad: dict[int, tuple[str, str]]) -> Iterator[int]:
        """The image, then its stand-ins in their order, until more are bad than the run allows."""
        yield index
        count = len(self.source)
        first = epoch * count if self.source.fresh else 0
        allowed = self.max_bad_share * images_until(self.source, epoch)
        start = int(generator_for(self.seed, epoch, index, STAND_IN).integers(count))
        for step in range(count):
            if len(bad) > allowed:
                return
            if (candidate := first + (start + step) % count) != index and candidate not in bad:
                yield candidate

    def labels_of(self, used: np.ndarray) -> Tensor | None:
        """What is known of the images that the batch was cut from, by their positions `(B,)`."""
        return None if self.labels is None else torch.from_numpy(self.labels[used])

    def cut(self, epoch: int, index: int, outs: list[Tensor], row: int) -> list[Crop]:
        """Cuts the crops of image `index` into `outs`, for that row of the batch.

        Raises:
            BadImage: it cannot be read.
        """
        if index in self.hung:
            raise BadImage(*self.hung[index])
        done: dict[int, Crop] = {}
        for decode, crops in self._pictures(epoch, index):
            cut = self._cut_from(decode, epoch, index, crops, [outs[crop] for crop in crops])
            done.update(zip(crops, cut, strict=True))
        if self.touch is not None:
            draws = generator_for(self.seed, epoch, index, TOUCHED)
            for out in outs:
                self.touch(out, int(draws.integers(1 << 31)))
        return [done[crop] for crop in sorted(done)]

    def _pictures(self, epoch: int, index: int) -> Iterator[tuple[Decode, list[int]]]:
        """What there is to decode, and which crops are cut from it: the image, or a place's dates one by one."""
        if self.places is None:
            yield partial(self.source.decode, index), list(range(len(self.kinds)))
            return
        generator = generator_for(self.seed, epoch, index, DATES)
        drawn = draw_dates(generator, self.places.date_count(index), 1 + max(self.dates))
        for number, date in enumerate(drawn):
            crops = [crop for crop, wanted in enumerate(self.dates) if wanted == number]
            yield partial(self.places.decode_date, index, date), crops

    def _cut_from(self, decode: Decode, epoch: int, index: int, crops: list[int], outs: list[Tensor]) -> list[Crop]:
        drawn: list[Crop] = []
        kinds = [self.kinds[crop] for crop in crops]

        def draw(width: int, height: int) -> None:
            generators = (generator_for(self.seed, epoch, index, crop) for crop in crops)
            drawn[:] = [draw_crop(g, width, height, kind) for g, kind in zip(generators, kinds, strict=True)]

        def reduction(width: int, height: int) -> int:
            draw(width, height)
            sizes = [kind.size for kind in kinds]
            return largest_reduction(width, height, [crop.box for crop in drawn], sizes, self.views)

        self.reading.begin(index)
        try:
            image = decode(reduction)
        finally:
            self.reading.end()
        if not drawn:
            draw(image.width, image.height)
        return cut_crops(image, drawn, self.views, outs)
