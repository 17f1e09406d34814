"""Whole images in batches, without crops or colours: what evaluation and figures look at."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cmid.data.crops import Box, Crop, as_planes, central_box, cut, reduction_for
from cmid.data.decode import BadImage
from cmid.data.reading import Reading, Stuck, give_up, look_every_s, patiently
from cmid.data.sources import ImageSource, choose_workers, start_worker
from cmid.errors import UsageError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class ImageBatch:
    """Images as the workers resized them.

    Attributes:
        images: `(B, C, S, S)`, uint8 or float32 as the source has them.
        indices: `(B,)` int64, positions in the source; unreadable images are left out.
        labels: `(B,)` int64, where the source has labels.
    """

    images: Tensor
    indices: Tensor
    labels: Tensor | None = None


def kept_box(width: int, height: int, crop: float = 1.0) -> Box:
    """Which part of a `width` x `height` image `resize_whole` keeps: the central square, of its side the share `crop`.

    With 0.875 and 224 px, what is left of an image whose shorter side was resized to 256 when its middle is cut out.
    """
    x0, y0, x1, y1 = central_box(width, height, (1.0, 1.0))
    away = min(round((x1 - x0) * (1 - crop) / 2), (x1 - x0 - 1) // 2)
    return x0 + away, y0 + away, x1 - away, y1 - away


def resize_whole(pixels: np.ndarray, size: int, crop: float = 1.0) -> Tensor:
    """`(H, W, C)` uint8 or float32 as a new `(C, size, size)`: what `kept_box` keeps, resized."""
    height, width, bands = pixels.shape
    out = torch.empty((bands, size, size), dtype=torch.from_numpy(pixels).dtype)
    cut(as_planes(pixels), Crop(kept_box(width, height, crop)), size, out)
    return out


class Readers(Protocol[T_co]):
    """A dataset whose items are read from files, and what is known of the reads.

    Attributes:
        reading: which image each loader process reads.
        hung: position, name and reason of the images whose reading never ended; they are not tried.
    """

    reading: Reading
    hung: dict[int, tuple[str, str]]

    def __len__(self) -> int:
        """Items."""

    def __getitem__(self, index: int) -> T_co:
        """Item `index`."""


def in_order(dataset: Readers[T], name: Callable[[int], str], workers: int, read_timeout_s: float) -> Iterator[T]:
    """The items of `dataset`, one after another, by loader processes; an image whose reading never ends is passed over.

    Args:
        dataset: is told of such images in `hung`.
        name: of the image at a position.
        workers: loader processes; 0 reads in this one, and waits.
        read_timeout_s: how long reading an image may take.

    Raises:
        CmidError: more than a few reads hang, or a loader process dies.
    """
    done = 0

    def begin() -> Iterator[T]:
        loader: DataLoader[T] = DataLoader(
            dataset, batch_size=None, sampler=range(done, len(dataset)), collate_fn=_as_is,  # type: ignore[arg-type]
            num_workers=workers, worker_init_fn=start_worker, timeout=look_every_s(read_timeout_s, workers),
            generator=torch.Generator(),
        )  # fmt: skip
        return iter(loader)

    def pass_over(stuck: Stuck) -> None:
        give_up(stuck, dataset.hung, name, read_timeout_s)

    for item in patiently(begin, dataset.reading, read_timeout_s, pass_over, workers):
        done += 1
        yield item


class _Chunks(Dataset[tuple[Tensor, Tensor, dict[int, str]]]):
    def __init__(self, source: ImageSource, size: int, batch_size: int, crop: float, workers: int) -> None:
        self.source, self.size, self.batch_size, self.crop = source, size, batch_size, crop
        self.reading = Reading(workers)
        self.hung: dict[int, tuple[str, str]] = {}
        self.left_out: dict[int, str] = {}

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def _reduction(self, width: int, height: int) -> int:
        return reduction_for(int(self.crop * min(width, height)), self.size)

    def __getitem__(self, chunk: int) -> tuple[Tensor, Tensor, dict[int, str]]:
        read: list[Tensor] = []
        indices: list[int] = []
        bad: dict[int, str] = {}
        for i in range(chunk * self.batch_size, min((chunk + 1) * self.batch_size, len(self.source))):
            if i in self.hung or i in self.left_out:
                bad[i] = self.hung[i][1] if i in self.hung else self.left_out[i]
                continue
            self.reading.begin(i)
            try:
                image = self.source.decode(i, self._reduction)
            except BadImage as error:
                bad[i] = error.reason
            else:
                read.append(resize_whole(image.pixels, self.size, self.crop))
                indices.append(i)
            finally:
                self.reading.end()
        empty = torch.empty((0, self.source.bands, self.size, self.size), dtype=self.source.dtype)
        images = torch.stack(read) if read else empty
        return images, torch.tensor(indices, dtype=torch.int64), bad


def _as_is(chunk: Any) -> Any:
    return chunk


class ImageLoader:
    """Iterates over all images of a source, in order, as `ImageBatch` of uint8; the last may be smaller.

    Each image's shorter side is resized to `size` (bilinear, antialiased) and of the longer the middle is taken.
    Normalise on the device with `cmid.ops.normalise.normalise`.

    Args:
        source: `FolderSource`, `LabelledImages` or the like; where it has `labels` `(N,)`, batches carry them.
        size: side in pixels.
        batch_size: images at once.
        workers: loader processes; 0 loads in this one, -1 chooses from the cores.
        crop: share of the shorter side that is kept, 0 to 1.
        read_timeout_s: as for `ViewLoader`: an image that takes longer is passed over, by later iterations too.

    Attributes:
        skipped: position and reason of each image that could not be read, filled while iterating.

    Raises:
        CmidError: while iterating, where more than a few reads hang, or a loader process dies.
    """

    def __init__(
        self,
        source: ImageSource,
        size: int,
        *,
        batch_size: int = 64,
        workers: int = -1,
        crop: float = 1.0,
        read_timeout_s: float = 300.0,
    ) -> None:
        if size < 1 or batch_size < 1:
            raise UsageError(f"size and batch size must be at least 1, found {size} and {batch_size}")
        self.source, self.read_timeout_s = source, read_timeout_s
        self.workers = min(choose_workers(workers), -(-len(source) // batch_size))
        self._chunks = _Chunks(source, size, batch_size, crop, self.workers)
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        """Batches, counting one that may turn out to be wholly unreadable."""
        return len(self._chunks)

    def leave_out(self, known: Mapping[int, str]) -> None:
        """Images that are known to be unreadable, by position, and why: nobody tries, or waits for them."""
        self._chunks.left_out = dict(known)

    def __iter__(self) -> Iterator[ImageBatch]:
        known = getattr(self.source, "labels", None)
        labels = None if known is None else torch.as_tensor(known)
        for images, indices, bad in in_order(self._chunks, self.source.name, self.workers, self.read_timeout_s):
            self.skipped.update(bad)
            if len(indices):
                yield ImageBatch(images, indices, None if labels is None else labels[indices])
