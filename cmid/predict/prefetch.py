"""Windows read ahead of the model by a thread, in batches that are the same however often a map is interrupted."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from cmid.errors import CmidError
from cmid.predict.scene import Scene, Window, as_model_input
from cmid.predict.windows import Block, Layout

AHEAD = 2
"""Batches that wait for the model, beside the one that is being read."""


@dataclass
class Batch:
    """Some windows of a block: those whose pixels are to be scored, and what is known of all that were read.

    Attributes:
        block: to which they belong.
        places: row and column of each window to be scored.
        images: `(N, C, S, S)`, N may be 0.
        seen: of each window read since the batch before: where it lies, its values `(C, h, w)` where they are still
            needed for the quick look, and valid `(h, w)`.
        read: how many windows of the block have been read, up to this batch.
        last: whether the block ends with it.
    """

    block: Block
    places: list[tuple[int, int]] = field(default_factory=list)
    images: np.ndarray = field(default_factory=lambda: np.empty(0))
    seen: list[tuple[Window, np.ndarray, np.ndarray]] = field(default_factory=list)
    read: int = 0
    last: bool = False


class Picture:
    """A scene's colours at evenly spaced pixels, gathered from the windows as they pass.

    Attributes:
        step: pixels of the scene between two that are kept.
        values: `(3 or 1, h, w)` float32; NaN where there is no measurement, or none yet.
    """

    def __init__(self, width: int, height: int, colours: int, side: int) -> None:
        self.step = max(1, -(-max(width, height) // side))
        shape = (-(-height // self.step), -(-width // self.step))
        self.values = np.full((colours, *shape), np.nan, np.float32)

    def rows(self, begin: int, end: int) -> slice:
        """The rows (or columns) kept of the scene's from `begin` to before `end`."""
        return slice(-(-begin // self.step), -(-end // self.step))

    def sample(self, window: Window, values: np.ndarray) -> np.ndarray:
        """What is kept of `values` `(..., h, w)` of a window."""
        x0, y0, _, _ = window
        return values[..., -y0 % self.step :: self.step, -x0 % self.step :: self.step]

    def put(self, window: Window, sampled: np.ndarray) -> None:
        """Keeps what `sample` gave."""
        x0, y0, x1, y1 = window
        self.values[:, self.rows(y0, y1), self.rows(x0, x1)] = sampled


def batches(
    scene: Scene, layout: Layout, blocks: list[Block], picture: Picture, fill: tuple[float, ...] | None
) -> Iterator[Batch]:
    """Reads the windows of `blocks` in order; a window that counts for no valid pixel is in no batch."""
    for block in blocks:
        batch = Batch(block)
        images: list[np.ndarray] = []
        for read, (i, j) in enumerate(block.places, 1):
            (y0, y1), (x0, x1) = layout.y.span(i), layout.x.span(j)
            window = (x0, y0, x1, y1)
            values, valid = scene.read(window)
            if values.shape != (scene.bands, y1 - y0, x1 - x0) or valid.shape != values.shape[1:]:
                raise CmidError(
                    f"{scene.name}: window {window} was read as {values.shape} with valid {valid.shape}; expected "
                    f"{(scene.bands, y1 - y0, x1 - x0)}"
                )
            sampled = picture.sample(window, values[list(scene.colours)]).astype(np.float32)
            sampled[:, ~picture.sample(window, valid)] = np.nan
            batch.seen.append((window, sampled, valid))
            if _counts(valid, window, layout, block, i, j):
                batch.places.append((i, j))
                images.append(_whole_window(values, valid, layout.tiling.window, fill))
            if len(images) == layout.tiling.batch or read == block.size:
                batch.images = np.stack(images) if images else batch.images
                batch.read, batch.last = read, read == block.size
                yield batch
                batch, images = Batch(block), []


def _counts(valid: np.ndarray, window: Window, layout: Layout, block: Block, i: int, j: int) -> bool:
    (y0, y1), (x0, x1) = layout.y.counted(i), layout.x.counted(j)
    left, top = window[:2]
    return bool(valid[y0 - top : y1 - top, max(x0, block.x0) - left : min(x1, block.x1) - left].any())


def _whole_window(values: np.ndarray, valid: np.ndarray, side: int, fill: tuple[float, ...] | None) -> np.ndarray:
    """`values` as the model may see them: nothing that is no number, and mirrored at the edge of a small scene."""
    values = as_model_input(values)
    if not valid.all():
        values = values.copy()
        if fill is not None:
            numbers = np.array(fill) if values.dtype.kind == "f" else np.round(fill)
            values[:, ~valid] = numbers[:, None].astype(values.dtype)
        elif values.dtype.kind == "f":
            np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    missing = [side - n for n in values.shape[1:]]
    if not any(missing):
        return values
    # numpy mirrors again and again where the scene is smaller than what is missing
    return np.pad(values, ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect")


class ReadAhead:
    """Hands on what an iterator gives, which runs in a thread of its own, a few items ahead.

    Used in a `with`: the thread has ended when it is left.
    """

    def __init__(self, source: Iterator[Batch]) -> None:
        self._source = source
        self._ready: queue.Queue[Batch | BaseException | None] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read ahead", daemon=True)

    def __enter__(self) -> "ReadAhead":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Batch]:
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        try:
            for batch in self._source:
                if not self._give(batch):
                    return
            self._give(None)
        except BaseException as error:  # whatever it is, the map ends with it
            self._give(error)

    def _give(self, item: Batch | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
