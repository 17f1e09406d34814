"""What a person sees while training: a bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_DRAWINGS = 0.25


@dataclass(frozen=True)
class Standing:
    """How the run stands.

    Attributes:
        step: optimiser steps done, of `total_steps`.
        total_steps: of this run, as far as it will go.
        epoch: the one being run, counted from 1, of `total_epochs`.
        total_epochs: of the whole run.
        terms: loss terms and their total, the newest known.
        images_per_s: 0 where not yet known.
        data_wait: share of the time spent waiting for data, 0 to 1.
    """

    step: int
    total_steps: int
    epoch: int
    total_epochs: int
    terms: Mapping[str, float]
    images_per_s: float
    data_wait: float


class ProgressLine:
    """Shows a run's standing; drawn by the training thread itself, since loader workers are forked from it.

    Args:
        console: where to; by default standard error.
        clock: seconds that only rise.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._console = console or Console(stderr=True, soft_wrap=True, highlight=False)
        self._first_step = 0
        self._began = self._clock()
        self._shown = -float("inf")
        self._newest: Standing | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def start(self, first_step: int) -> None:
        """Time counts from now; the `first_step` steps done before say nothing about the speed."""
        self._began, self._first_step = self._clock(), first_step

    def show(self, standing: Standing) -> None:
        """Draws, if it is time to."""
        now = self._clock()
        self._newest = standing
        pause = SECONDS_BETWEEN_DRAWINGS if self._console.is_terminal else SECONDS_BETWEEN_LINES
        if now - self._shown >= pause:
            self._shown = now
            self._present(standing)

    def _present(self, standing: Standing) -> None:
        self._newest = None
        if self._console.is_terminal:
            self._draw(standing)
        else:
            self._console.print(Text(f"step {standing.step}/{standing.total_steps}  {self._words(standing)}"))

    def say(self, text: str) -> None:
        """Prints a line of its own, above the bar."""
        self._console.print(Text(text))

    def close(self) -> None:
        """Shows the newest standing and ends."""
        if self._newest is not None:
            self._present(self._newest)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, standing: Standing) -> None:
        if self._bar is None:
            columns = (
                BarColumn(20),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.description}", markup=False),
            )
            self._bar = Progress(*columns, console=self._console, auto_refresh=False)
            self._task = self._bar.add_task("", total=standing.total_steps)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=standing.step, description=self._words(standing), refresh=True)

    def _words(self, s: Standing) -> str:
        parts = [f"epoch {s.epoch}/{s.total_epochs}", *(f"{name} {value:.4g}" for name, value in s.terms.items())]
        if s.images_per_s:
            rate = f"{s.images_per_s:.0f}" if s.images_per_s >= 10 else f"{s.images_per_s:.2g}"
            parts.append(f"{rate} images/s  waiting for data {100 * s.data_wait:.0f} %")
        done = s.step - self._first_step
        if done > 0:
            parts.append(f"{as_clock((self._clock() - self._began) / done * (s.total_steps - s.step))} left")
        return "  ".join(parts)


def as_clock(seconds: float) -> str:
    """1:02:33 or 2:33."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
