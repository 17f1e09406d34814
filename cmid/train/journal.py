"""What is written down of a run: steps.csv, metrics.csv, the loggers, the line a person watches."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cmid.contracts import Progress
from cmid.train.loggers import Loggers
from cmid.train.means import Means
from cmid.train.plan import Plan
from cmid.train.progress_line import ProgressLine, Standing
from cmid.train.run_directory import RunDirectory
from cmid.train.tables import Table


@dataclass
class Pace:
    """Images taken, seconds they took, and seconds of those spent waiting for data."""

    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    @property
    def images_per_s(self) -> float:
        """0 before anything has been measured."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def data_wait(self) -> float:
        """Share of the time, 0 to 1."""
        return min(1.0, self.waited / self.seconds) if self.seconds else 0.0

    def add(self, images: int, seconds: float, waited: float) -> None:
        """Adds one step's."""
        self.images, self.seconds, self.waited = self.images + images, self.seconds + seconds, self.waited + waited


class Journal:
    """Keeps the tables of a run in step with its checkpoints.

    A row of steps.csv holds means over the optimiser steps since the row before; the first step has a row of its own.
    The last row of a run that `max_steps` stops between two rows gives way to the next one when the run is resumed, so
    that its table is that of a run never stopped.

    Args:
        run: where the tables are.
        plan: sizes of the run.
        log_every: optimiser steps between rows.
        device: numbers on a CPU can be shown at every step; elsewhere reading them makes the device wait.
        line: what a person watches.
    """

    def __init__(self, run: RunDirectory, plan: Plan, log_every: int, device: torch.device, line: ProgressLine) -> None:
        self.line = line
        self._plan = plan
        self._log_every = log_every
        self._device = device
        self._steps = Table(run.steps, line.say, needs=("step", "epoch"))
        self._metrics = Table(run.metrics, line.say, needs=("step", "epoch"))
        self._loggers: Loggers | None = None
        self._interval, self._epoch = Means(), Means()
        self._interval_pace, self._epoch_pace = Pace(), Pace()
        self._rates: list[float] = []
        self._stopgap: int | None = None
        self._shown: dict[str, float] = {}
        self._shown_pace = Pace()
        self._clock = time.perf_counter()

    def attach(self, loggers: Loggers) -> None:
        """Rows go to `loggers`, too."""
        self._loggers = loggers

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside (probes, saving) is no training time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._clock += time.perf_counter() - began

    def batch(self, names: tuple[str, ...], values: Tensor) -> None:
        """Notes the loss terms of a batch, `values` `(len(names),)` on the device."""
        self._interval.add(names, values)
        self._epoch.add(names, values)

    def step(self, images: int, waited: float, norm: Tensor | None) -> None:
        """Notes a finished optimiser step: its images, seconds of waiting, and gradient norm `(1,)`."""
        if norm is not None:
            self._interval.add(("grad_norm",), norm)
        now = time.perf_counter()
        for pace in (self._interval_pace, self._epoch_pace):
            pace.add(images, now - self._clock, waited)
        self._clock = now

    def row_is_due(self, step: int) -> bool:
        """Whether steps.csv gets a row after `step` optimiser steps."""
        return self._ends_interval(step) or step == self._plan.last_step

    def row(self, progress: Progress, lr: float, extra: Callable[[], Mapping[str, float]]) -> None:
        """Writes a row of steps.csv; `extra` is asked for further numbers."""
        terms = self._interval.read()
        norm = terms.pop("grad_norm", None)
        pace = self._interval_pace
        row = {"step": progress.step, "epoch": progress.epoch, "lr": lr, **terms}
        row |= {} if norm is None else {"grad_norm": norm}
        row |= extra()
        row |= {"images_per_s": pace.images_per_s, "data_wait": pace.data_wait}
        self._steps.append(row)
        if self._loggers:
            self._loggers.log({k: v for k, v in row.items() if k != "step"}, progress.step)
        self._rates.append(pace.images_per_s)
        self._shown, self._shown_pace = terms, pace
        if self._ends_interval(progress.step):
            self._interval, self._interval_pace, self._stopgap = Means(), Pace(), None
        else:
            self._stopgap = progress.step

    def _ends_interval(self, step: int) -> bool:
        return step == 1 or step % self._log_every == 0 or step == self._plan.total_steps

    def show(self, progress: Progress) -> None:
        """Shows how the run stands."""
        if self._device.type == "cpu" and (newest := self._interval.read()):
            newest.pop("grad_norm", None)
            self._shown = newest
        pace = self._shown_pace if self._shown_pace.seconds else self._interval_pace
        epoch = max(1, math.ceil(progress.epoch))
        sizes = (progress.step, self._plan.last_step, epoch, progress.total_epochs)
        self.line.show(Standing(*sizes, self._shown, pace.images_per_s, pace.data_wait))

    def epoch(self, epochs_done: int, step: int, lr: float, probed: Mapping[str, float]) -> dict[str, float]:
        """Writes a row of metrics.csv and starts the next epoch; gives the row's numbers."""
        pace = self._epoch_pace
        numbers = {**self._epoch.read(), **{name: float(value) for name, value in probed.items()}}
        numbers |= {"images_per_s": pace.images_per_s, "data_wait": pace.data_wait, "seconds": pace.seconds}
        self._metrics.append({"epoch": epochs_done, "step": step, "lr": lr, **numbers})
        if self._loggers:
            self._loggers.log({f"per_epoch/{name}": value for name, value in numbers.items()}, step)
        self._epoch, self._epoch_pace = Means(), Pace()
        return numbers

    def past_metrics(self) -> list[dict[str, float]]:
        """Numbers of the epochs before, as metrics.csv has them."""
        return [{k: float(v) for k, v in row.items() if v} for row in self._metrics.rows()]

    def unfinished_epoch(self) -> dict[str, float]:
        """Means of the terms over the epoch being run."""
        return self._epoch.read()

    @property
    def median_images_per_s(self) -> float:
        """Over the rows of this session; the first, with all its warming up, counts only if it is alone."""
        rates = self._rates[1:] or self._rates or [self._interval_pace.images_per_s]
        return statistics.median(rates)

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint; what is written so far is on disk afterwards."""
        self._steps.sync()
        self._metrics.sync()
        return {
            "interval": self._interval.state(),
            "epoch": self._epoch.state(),
            "interval_pace": asdict(self._interval_pace),
            "epoch_pace": asdict(self._epoch_pace),
            "stopgap": self._stopgap,
        }

    def restore(self, state: Mapping[str, Any], progress: Progress, epochs: int, *, moved: bool = False) -> None:
        """Goes back to a checkpoint: rows beyond it are dropped.

        Args:
            state: what `state` gave.
            progress: what had been completed.
            epochs: those that have ended, with a row; one may have had its last batch and no more.
            moved: other processes made it, whose steps were of another size: rows are told by their epoch.
        """
        step = progress.step
        self._stopgap = None if moved else state.get("stopgap")  # absent from older checkpoints
        dropped = self._stopgap if step < self._plan.last_step else None
        if moved:
            self._steps.keep(lambda row: float(row["epoch"]) <= progress.epoch + 1e-6)
        else:
            self._steps.keep(lambda row: float(row["step"]) <= step and float(row["step"]) != dropped)
        self._metrics.keep(lambda row: float(row["epoch"]) <= epochs)
        self._interval.restore(state["interval"], self._device)
        self._epoch.restore(state["epoch"], self._device)
        self._interval_pace, self._epoch_pace = Pace(**state["interval_pace"]), Pace(**state["epoch_pace"])

    def start(self, step: int) -> None:
        """Time counts from now, when `step` optimiser steps are done."""
        self._clock = time.perf_counter()
        self.line.start(step)

    def close(self, status: str) -> None:
        """Ends the loggers and the line; `status` is success, failed or aborted."""
        self.line.close()
        if self._loggers:
            self._loggers.close(status)
