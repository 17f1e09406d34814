"""The bar of `cmid predict segmentation`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cmid.commands.scene_list import Found


class MapBar:
    """The bar over all pixels of all scenes, with windows a second and the time left."""

    def __init__(self, bar: Progress, pixels: int) -> None:
        self._bar, self._task = bar, bar.add_task("", total=pixels, scene="", pace="")
        self._found: Found | None = None
        self._before, self._windows, self._begin, self._last = 0, 0, 0.0, 0

    def begin(self, found: Found) -> None:
        """A scene is begun."""
        self._found, self._last = found, 0
        self._bar.update(self._task, scene=Path(found.path).name)

    def tick(self, done: int, total: int) -> None:
        """Of the scene that was begun, `done` of `total` windows are done."""
        assert self._found is not None
        now = time.perf_counter()
        if self._last:  # what an earlier call had done counts for the bar, not for the pace
            self._windows += done - self._last
        else:
            self._begin = self._begin or now
        self._last = done
        pace = self._windows / (now - self._begin) if now > self._begin else 0.0
        at = self._before + self._found.pixels * done // total
        self._bar.update(self._task, completed=at, pace=f"{pace:.1f} windows/s" if pace else "")

    def end(self) -> None:
        """The scene is mapped, or skipped."""
        assert self._found is not None
        self._before += self._found.pixels
        self._bar.update(self._task, completed=self._before)


@contextmanager
def map_bar(console: Console, pixels: int) -> Iterator[MapBar]:
    """A `MapBar` over so many pixels, shown on `console` while a `with` lasts."""
    columns = (
        TextColumn("mapping {task.fields[scene]}"), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[pace]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield MapBar(bar, pixels)
