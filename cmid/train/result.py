"""What a run came to."""

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
        epochs_done: as a fraction where `max_steps` stopped it amid an epoch.
        steps_done: optimiser steps.
        metrics: of the last whole epoch; before the first, the loss terms so far.
        images_per_s: median of this session.
        learner: as it is after the last step; in one piece on the leading process, whatever the strategy.
    """

    run: Path
    last_checkpoint: Path
    best_checkpoint: Path | None
    epochs_done: float
    steps_done: int
    metrics: dict[str, float]
    images_per_s: float
    learner: Any = field(repr=False)
