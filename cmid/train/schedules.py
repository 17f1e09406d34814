"""The learning rate as a pure function of the step, so that a resumed run continues on the same curve."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CosineWithWarmup:
    """Cosine from `peak` to `floor` over all steps; during warm-up its value is multiplied by a rising line.

    The cosine is not restarted after warm-up, and the last step is a little above `floor` since its fraction of
    the run is (total - 1) / total. Source: the published code's schedule (CosineAnnealingLrUpdaterHook of mmcv 1.6).

    Attributes:
        peak: rate where the cosine starts.
        floor: rate where the cosine ends; taken as `peak` if it is higher.
        total_steps: optimiser steps of the run.
        warmup_steps: steps of warm-up, may be fractional; 0 is none.
        warmup_ratio: factor at the first step.
    """

    peak: float
    floor: float
    total_steps: int
    warmup_steps: float = 0.0
    warmup_ratio: float = 0.01

    def __call__(self, step: int) -> float:
        """The rate of optimiser step `step`, counted from 0."""
        floor = min(self.floor, self.peak)
        rate = floor + (self.peak - floor) * 0.5 * (1 + math.cos(math.pi * step / self.total_steps))
        if step < self.warmup_steps:
            rate *= 1 - (1 - step / self.warmup_steps) * (1 - self.warmup_ratio)
        return rate
