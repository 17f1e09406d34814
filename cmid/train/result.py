"""What a run came to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FitResult:
    """What a run came to.

    Attributes:
        run: its folder.
        last_checkpoint: the newest checkpoint.
        best_checkpoint: the one of the best epoch; None before the first whole epoch.
        best_is_measured: whether that epoch was chosen by what a probe measured, and not by loss.
        epochs_done: as a fraction where `max_steps` stopped it amid an epoch.
        steps_done: optimiser steps.
        metrics: of the last whole epoch; before the first, the loss terms so far.
        images_per_s: median of this session.
        learner: gives it as it is after the last step, on the leading process in one piece whatever the strategy; to
            be called by all processes, as each gives its part.
    """

    run: Path
    last_checkpoint: Path
    best_checkpoint: Path | None
    best_is_measured: bool
    epochs_done: float
    steps_done: int
    metrics: dict[str, float]
    images_per_s: float
    learner: Callable[[], Any] = field(repr=False)
