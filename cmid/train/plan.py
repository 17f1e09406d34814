"""How many batches, steps and epochs a run has, and what follows from a position in it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cmid.contracts import Progress


@dataclass(frozen=True)
class Plan:
    """The sizes of a run; a position in it is (epochs done, batches done of the next one).

    Attributes:
        epochs: passes over the data.
        batches_per_epoch: of one process.
        accumulate: batches per optimiser step; the last step of an epoch takes what is left.
        max_steps: stop after so many optimiser steps, without bending any schedule; 0 is never.
    """

    epochs: int
    batches_per_epoch: int
    accumulate: int = 1
    max_steps: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return -(-self.batches_per_epoch // self.accumulate)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all epochs; schedules run over these."""
        return self.epochs * self.steps_per_epoch

    @property
    def last_step(self) -> int:
        """Optimiser steps after which this run stops."""
        return min(self.total_steps, self.max_steps) if self.max_steps > 0 else self.total_steps

    def why_over(self, step: int) -> str:
        """Why nothing is left to train after so many optimiser steps, in words; empty where something is."""
        if step >= self.total_steps:
            return "Nothing is left to train: all epochs are done."
        if step < self.last_step:
            return ""
        return (
            f"Nothing is left to train: train.max_steps is {self.max_steps}; --train.max_steps 0 goes on to step "
            f"{self.total_steps}."
        )

    def window(self, batch: int) -> int:
        """Batches in the optimiser step that begins at `batch`."""
        return min(self.accumulate, self.batches_per_epoch - batch)

    def progress(self, epoch: int, batch: int) -> Progress:
        """What has been completed at a position, also amid an optimiser step."""
        whole = batch == self.batches_per_epoch
        step = epoch * self.steps_per_epoch + (self.steps_per_epoch if whole else batch // self.accumulate)
        return Progress(step, self.total_steps, epoch + batch / self.batches_per_epoch, self.epochs)

    def batch_among(self, processes: tuple[int, int], seen: int) -> tuple[int, int]:
        """Where these `processes`, as (how many, images that each takes at once), go on after others.

        Args:
            seen: images of the epoch that all of the others have had.

        Returns:
            The batch, not beyond `seen` and where an optimiser step begins or the epoch ends, and the images that are
            seen again.
        """
        together = processes[0] * processes[1]
        if seen // together >= self.batches_per_epoch:
            return self.batches_per_epoch, 0
        batch = seen // together // self.accumulate * self.accumulate
        return batch, seen - batch * together


def fixed_numbers(
    plan: Plan, seed: int, images_per_batch: int, processes: int, loader: Mapping[str, Any]
) -> dict[str, Any]:
    """What may not be otherwise when a run goes on; of images and labels what the `loader`'s state tells of them."""
    return {
        "epochs": plan.epochs, "seed": seed, "images_per_batch": images_per_batch, "accumulate": plan.accumulate,
        "batches_per_epoch": plan.batches_per_epoch, "processes": processes,
        **{name: loader[name] for name in ("images", "fingerprint", "labels") if name in loader},
    }  # fmt: skip


def differing_numbers(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`name was a, is b` of each that would make another run; other processes may have batches of their own.

    They may add up fewer or more of them, too, where a step has as many images as before.
    """
    moved = now["processes"] != before["processes"]
    free = {"processes", "images_per_batch", "batches_per_epoch"} if moved else set[str]()
    if moved and _images_a_step(before) == _images_a_step(now):
        free.add("accumulate")
    return [f"{n} was {before[n]}, is {now[n]}" for n in now if n in before and before[n] != now[n] and n not in free]


def _images_a_step(fixed: Mapping[str, Any]) -> int:
    return int(fixed["processes"] * fixed["images_per_batch"] * fixed["accumulate"])


def draw_seed(*position: int | str) -> int:
    """A seed of 63 bits for the draws at `position`; near positions get unrelated seeds."""
    text = "/".join(str(part) for part in position)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
