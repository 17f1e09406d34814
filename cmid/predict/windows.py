"""Which windows of a scene are looked at, what each of them counts, and in which order their rows are finished.

Along each axis windows lie a stride apart and the last is moved in to the edge. The outer `margin` pixels of a window
count nothing, except at the edge of the scene; then its weight rises over the rest of the overlap. So every pixel is
seen with at least `margin` pixels around it, and a model that looks no further gives what it would give for the scene
as a whole.

Scores are held for some rows only: a strip of window rows is added up, the rows that no later strip touches are
finished, and the next strip begins. A scene so wide that even those rows would take too much memory is cut into panels
of columns, mapped one after the other; windows across their border are then computed twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cmid.errors import UsageError

TILE = 512
"""Pixels a side of the blocks of the output; panels are whole numbers of them wide."""
SCORES_BYTES = 256 << 20
"""What the scores held at once may take."""


@dataclass(frozen=True)
class Tiling:
    """How a scene is cut into windows and the windows' scores are put together.

    Attributes:
        window: pixels a side of what the model sees at once.
        overlap: pixels that neighbouring windows share, at most half a window; -1 is a quarter of it.
        margin: pixels at a window's edge that count nothing; at most half the overlap; -1 is a quarter of it.
        blend: how the weight rises over the rest of the overlap.
        turns: average over this one view, over four mirrored ones, or over all eight ways to turn and mirror a square.
        batch: windows at once.
    """

    window: int = 512
    overlap: int = -1
    margin: int = -1
    blend: Literal["hann", "linear"] = "hann"
    turns: Literal["none", "flips", "d4"] = "none"
    batch: int = 8

    def __post_init__(self) -> None:
        if self.window < 1 or self.batch < 1:
            raise UsageError(f"window is {self.window} and batch {self.batch}; both are at least 1")
        if self.overlap == -1:
            object.__setattr__(self, "overlap", self.window // 4)
        if self.margin == -1:
            object.__setattr__(self, "margin", self.overlap // 4)
        if not 0 <= self.overlap <= self.window // 2:
            raise UsageError(f"overlap is {self.overlap}; from 0 to half the window, {self.window // 2}")
        if not 0 <= self.margin <= self.overlap // 2:
            raise UsageError(f"margin is {self.margin}; from 0 to half the overlap, {self.overlap // 2}")
        if self.blend not in ("hann", "linear"):
            raise UsageError(f"blend is {self.blend!r}; hann or linear")
        if self.turns not in ("none", "flips", "d4"):
            raise UsageError(f"turns is {self.turns!r}; none, flips or d4")


@dataclass(frozen=True)
class Axis:
    """The windows along one side of a scene.

    Attributes:
        length: pixels of the scene.
        tiling: how it is cut.
    """

    length: int
    tiling: Tiling

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each window, ascending; one window where the scene is no longer than it."""
        last = self.length - self.tiling.window
        if last <= 0:
            return (0,)
        return (*range(0, last, self.tiling.window - self.tiling.overlap), last)

    def span(self, i: int) -> tuple[int, int]:
        """Pixels of the scene from, and before, which window i lies; shorter than a window in a smaller scene."""
        return self.starts[i], min(self.starts[i] + self.tiling.window, self.length)

    def counted(self, i: int) -> tuple[int, int]:
        """Pixels of the scene from, and before, which window i counts anything."""
        begin, end = self.span(i)
        first, last = i == 0, i == len(self.starts) - 1
        return begin if first else begin + self.tiling.margin, end if last else end - self.tiling.margin

    def weights(self, i: int) -> NDArray[np.float32]:
        """What window i counts at each of its `counted` pixels, above 0 to 1."""
        begin, end = self.counted(i)
        weights = np.ones(end - begin, np.float32)
        rise = self.tiling.overlap - 2 * self.tiling.margin
        slope = (np.arange(rise, dtype=np.float64) + 0.5) / max(rise, 1)
        if self.tiling.blend == "hann":
            slope = np.sin(slope * np.pi / 2) ** 2
        if i > 0:
            weights[:rise] = slope
        if i < len(self.starts) - 1:
            weights[len(weights) - rise :] *= slope[::-1].astype(np.float32)
        return weights

    def total(self, begin: int, end: int) -> NDArray[np.float32]:
        """Sum of all windows' weights at pixels `begin` to before `end`."""
        total = np.zeros(end - begin, np.float32)
        for i in self.touching(begin, end):
            a, b = self.counted(i)
            low, high = max(a, begin), min(b, end)
            total[low - begin : high - begin] += self.weights(i)[low - a : high - a]
        return total

    def touching(self, begin: int, end: int) -> range:
        """The windows that count something between `begin` and before `end`."""
        inside = [i for i in range(len(self.starts)) if self.counted(i)[0] < end and self.counted(i)[1] > begin]
        return range(inside[0], inside[-1] + 1)


@dataclass(frozen=True)
class Block:
    """Windows that are added up together, and the pixels that are finished with them.

    Attributes:
        number: from 0, in the order of work.
        x0: first column of the panel.
        x1: first column beyond the panel.
        columns: windows along x.
        rows: windows along y.
        y0: first row that is finished with this block.
        y1: first row beyond them.
        reach: first row beyond all that its windows touch.
    """

    number: int
    x0: int
    x1: int
    columns: range
    rows: range
    y0: int
    y1: int
    reach: int

    @property
    def places(self) -> Iterator[tuple[int, int]]:
        """Row and column of each window, row by row."""
        return ((i, j) for i in self.rows for j in self.columns)

    @property
    def size(self) -> int:
        """Number of windows."""
        return len(self.rows) * len(self.columns)


class Layout:
    """All windows of a scene in the order of work.

    Attributes:
        x: the windows along a row.
        y: the windows along a column.
        blocks: what is added up together, panel by panel, each from top to bottom.
    """

    def __init__(self, width: int, height: int, classes: int, tiling: Tiling, scores_bytes: int = SCORES_BYTES) -> None:
        self.tiling = tiling
        self.x, self.y = Axis(width, tiling), Axis(height, tiling)
        at_once = max(1, tiling.batch // len(self.x.starts))  # of narrow scenes several rows, or batches would be small
        strips = [range(i, min(i + at_once, len(self.y.starts))) for i in range(0, len(self.y.starts), at_once)]
        held = min(height, tiling.window + (at_once - 1) * (tiling.window - tiling.overlap))
        widest = max(TILE, scores_bytes // (4 * classes * held) // TILE * TILE)
        panels = -(-width // widest)
        wide = -(-width // panels // TILE) * TILE if panels > 1 else width
        self.blocks: list[Block] = []
        for x0 in range(0, width, wide):
            x1 = min(x0 + wide, width)
            for k, rows in enumerate(strips):
                y0 = self.y.counted(rows[0])[0]
                y1 = self.y.counted(strips[k + 1][0])[0] if k + 1 < len(strips) else height
                reach = self.y.counted(rows[-1])[1]
                columns = self.x.touching(x0, x1)
                self.blocks.append(Block(len(self.blocks), x0, x1, columns, rows, y0, y1, reach))

    @property
    def held(self) -> int:
        """Rows whose scores are held at most."""
        return max(block.reach - block.y0 for block in self.blocks)

    def rerun(self, done: int) -> int:
        """From which block work is taken up so that the rows of block `done` get all their windows."""
        first = done
        while first > 0 and first < len(self.blocks):
            before, here = self.blocks[first - 1], self.blocks[done]
            if before.x0 != here.x0 or before.reach <= here.y0:
                break
            first -= 1
        return first
