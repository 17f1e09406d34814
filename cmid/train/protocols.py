"""What the trainer is handed besides a learner: a loader of views, and probes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cmid.contracts import Learner, Views


class Loader(Protocol):
    """Batches of views whose content depends on seed, epoch and position alone."""

    @property
    def skipped(self) -> dict[int, tuple[str, str]]:
        """Images that could not be read so far, by position, with name and reason; other processes' are added."""

    def require_readable(self) -> None:
        """Raises `CmidError` where there are too many in `skipped`."""

    def __iter__(self) -> Iterator[Views]:
        """The rest of the epoch that `resume_at` named, from the batch that it named."""

    def __len__(self) -> int:
        """Batches in a whole epoch."""

    def resume_at(self, epoch: int, batch: int) -> None:
        """The next iteration is epoch `epoch` from its batch `batch` on, both counted from 0."""

    def names(self, indices: Tensor) -> Sequence[str]:
        """File names of `indices` `(B,)` int64."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values that `load_state_dict` takes.

        Those under `images`, `fingerprint` and `labels` may not differ when a run is resumed.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` gave."""

    def write_skipped(self, path: Path) -> None:
        """Writes the unreadable images and why as CSV."""


class Probe(Protocol):
    """A measurement of the learner while it trains."""

    name: str
    every_epochs: int

    def __call__(self, learner: Learner, device: torch.device) -> dict[str, float]:
        """Numbers for metrics.csv; called without gradient, and training modes are put back afterwards."""
