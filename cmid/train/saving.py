"""When checkpoints are written, and what happens when they cannot be."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cmid.errors import CmidError, NotFinite
from cmid.train.checkpoints import former_of, keep_as, weights_are_finite, write_checkpoint
from cmid.train.run_directory import RunDirectory

BY_PROBE = ("validation_accuracy", "validation_map", "validation_mean_iou", "knn_top1")
"""What a run's best epoch is chosen by where a probe measures it: the higher the better."""

MUCH_MINUTES = 1.0
"""Training that is worth a checkpoint before a measurement, which may take long or never end."""


class Saver:
    """Writes `last` and `best` of a run; a write that fails leaves the former ones and the run goes on.

    Args:
        run: the run.
        minutes: a checkpoint is due so long after the one before; with 0 or less only the ends of epochs have one.
        say: prints a line.
    """

    def __init__(self, run: RunDirectory, minutes: float, say: Callable[[str], object]) -> None:
        self._run = run
        self._minutes = minutes
        self._say = say
        self._written = time.monotonic()
        self.failure: str | None = None
        self.best: dict[str, Any] | None = None
        self._candidate: dict[str, Any] | None = None
        self._former = former_of(run.last)
        self._is_for_now = self._former.is_file()  # as a session that was killed while it measured has left it

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint amid an epoch."""
        return self._minutes > 0 and time.monotonic() - self._written >= 60 * self._minutes

    def much_is_unsaved(self) -> bool:
        """Whether `MUCH_MINUTES` have passed since the last checkpoint, or those after which one is due."""
        minutes = min(MUCH_MINUTES, self._minutes) if self._minutes > 0 else MUCH_MINUTES
        return time.monotonic() - self._written >= 60 * minutes

    def note(self, epochs_done: int, metrics: dict[str, float]) -> None:
        """Judges an epoch that has ended: by the first of `BY_PROBE` that a probe gives, else by loss.

        One that is the best so far becomes `best` with the checkpoint of its end; if that cannot be written, never.
        """
        best, self._candidate = self.best, None
        name = next((each for each in BY_PROBE if each in metrics), "total")
        if name not in metrics or (best is not None and best["name"] in BY_PROBE and name == "total"):
            return
        value = metrics[name]
        if math.isnan(value):  # a probe that had nothing to measure; no later one would be better than that
            return
        if (
            best is None
            or best["name"] != name
            or (value > best["value"] if name in BY_PROBE else value < best["value"])
        ):
            self._candidate = {"name": name, "value": value, "epoch": epochs_done}

    def save(self, state: dict[str, Any], learner: Any, *, for_now: bool = False) -> bool:
        """Writes `state` as `last`, and keeps it as `best` if it is; False, with a warning, where that failed.

        One that is `for_now` has yet to be measured: until `settle`, `take_back` puts the one before in its place.

        Raises:
            NotFinite: the learner's weights; nothing is written.
        """
        if not weights_are_finite(learner):
            raise NotFinite(
                "The weights are no longer finite although every loss was, so they are not saved; the last good "
                "checkpoint is kept: go on with --resume with a lower --optimizer.lr, gradient clipping "
                "(--optimizer.clip_norm 1) or --train.precision 32."
            )
        self._written = time.monotonic()
        chosen = self._candidate  # of the epoch whose end this is, where it is one
        if chosen is not None and state["position"] != {"epoch": chosen["epoch"], "batch": 0}:
            chosen = None
        best, is_best = chosen or self.best, chosen is not None
        try:
            if for_now and self._run.last.is_file():
                keep_as(self._run.last, self._former)
            write_checkpoint(self._run.last, {**state, "best": best, "is_best": is_best})
        except OSError as error:
            self.failure = str(error.strerror or error)
            kept = "the one before is kept" if self._run.last.is_file() else "there is none yet"
            self._say(
                f"Warning: the checkpoint {self._run.last} could not be written ({self.failure}); {kept}. Training "
                "goes on; make room on the disk."
            )
            return False
        self.failure, self.best, self._candidate = None, best, None
        if for_now:
            self._is_for_now = True
        else:
            self.settle()
        if is_best:
            self.keep_best()
        return True

    def require_saved(self) -> None:
        """That the last checkpoint of a run that has ended was written; raises `CmidError`."""
        if not self.failure:
            return
        advice = "Make room on the disk and go on with --resume."
        if not self._run.last.is_file():
            advice = "There is none from before, so that all is lost: make room on the disk and begin anew."
        raise CmidError(
            f"The run has ended, but its last checkpoint {self._run.last} could not be written: {self.failure}. "
            f"{advice}"
        )

    def take_back(self) -> None:
        """Undoes a write that was `for_now`: what diverged is nothing to go on from."""
        with suppress(OSError):
            if self._is_for_now and self._former.is_file():
                self._former.replace(self._run.last)
            elif self._is_for_now:
                self._run.last.unlink()

    def settle(self) -> None:
        """What was written for now stays."""
        self._is_for_now = False
        with suppress(OSError):
            self._former.unlink(missing_ok=True)

    def keep_best(self) -> None:
        """Makes `best` what `last` is now."""
        try:
            keep_as(self._run.last, self._run.best)
        except OSError as error:
            self._say(f"Warning: {self._run.best} could not be written ({error.strerror or error}).")
