"""Means of loss terms over many batches, summed on the device and read rarely."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Means:
    """Sums of named numbers, and how often each came; one addition a batch, no reading back.

    A term that is absent from some batches is averaged over those that have it.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    def add(self, names: tuple[str, ...], values: Tensor) -> None:
        """Adds `values` `(len(names),)`."""
        if names in self._sums:
            total, count = self._sums[names]
            self._sums[names] = (total.add_(values), count + 1)
        else:
            kind = torch.float32 if values.device.type == "mps" else torch.float64
            self._sums[names] = (values.to(kind, copy=True), 1)

    def read(self) -> dict[str, float]:
        """The means so far; makes the device finish."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, (total, count) in self._sums.items():
            for name, value in zip(names, total.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + count
        return {name: value / counts[name] for name, value in sums.items()}

    def clear(self) -> None:
        """Starts again."""
        self._sums = {}

    def state(self) -> list[dict[str, Any]]:
        """Plain values for a checkpoint."""
        return [{"names": list(n), "sums": t.tolist(), "count": c} for n, (t, c) in self._sums.items()]

    def restore(self, state: list[Mapping[str, Any]], device: torch.device) -> None:
        """The sums that `state` gave."""
        kind = torch.float32 if device.type == "mps" else torch.float64
        self._sums = {
            tuple(e["names"]): (torch.tensor(e["sums"], dtype=kind, device=device), e["count"]) for e in state
        }


def means_of(everywhere: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over those that have it."""
    names = dict.fromkeys(name for each in everywhere for name in each)
    having = {name: [each[name] for each in everywhere if name in each] for name in names}
    return {name: sum(values) / len(values) for name, values in having.items()}
