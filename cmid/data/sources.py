"""What every source of images offers, and how many processes read from it."""

import os
import signal
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from cmid.data.decode import Decoded, Reduction
from cmid.errors import UsageError

REPAIR = "Repair or remove them"
"""What to do about images that cannot be read; a source whose images are no files says otherwise by its `repair`."""


class ImageSource(Protocol):
    """Images by position, as `FolderSource` gives them."""

    @property
    def bands(self) -> int:
        """Of every image."""

    @property
    def dtype(self) -> torch.dtype:
        """Of every image's pixels: uint8 in 0..255, or float32 around 0..1."""

    @property
    def fresh(self) -> bool:
        """Each epoch sees images of its own: epoch e those from `e * len(source)` onwards, not 0 onwards again."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """What image i is called in messages."""

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Image i, shrunk as `reduction` allows; raises `BadImage`."""


@runtime_checkable
class LabelledSource(ImageSource, Protocol):
    """Images with one class each, or any number of them."""

    @property
    def labels(self) -> np.ndarray:
        """`(N,)` int64, positions in `classes`; or `(N, K)` float32 of 0 and 1, where an image may have several."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes."""


@runtime_checkable
class DatedSource(ImageSource, Protocol):
    """Places, each seen at two dates or more; `decode` gives the first."""

    def date_count(self, i: int) -> int:
        """At how many dates place i is seen."""

    def decode_date(self, i: int, date: int, reduction: Reduction | None = None) -> Decoded:
        """Place i at one of its dates, from 0; raises `BadImage`."""


def draw_dates(generator: np.random.Generator, count: int, wanted: int) -> list[int]:
    """`wanted` of `count` dates, two or more: the first is none of the later ones, which repeat where they must."""
    first, *others = generator.permutation(count).tolist()
    return [first, *(others[k % len(others)] for k in range(wanted - 1))]


def choose_workers(workers: int, world_size: int = 1) -> int:
    """Loader processes of one training process: `workers`, or for -1 its share of the cores less one, 1 to 8.

    The cores are those of its node, divided by the training processes there; of `world_size` in all, unless torchrun,
    SLURM or Lightning say how many of them are here. Cores that SLURM has bound to a process it has started are its own
    already; those of a shell, or of torchrun, are for all that are started there.
    """
    if workers >= 0:
        return workers
    if workers < -1:
        raise UsageError(f"workers must be -1 (choose from the cores) or above, found {workers}")
    everywhere = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else everywhere
    of_slurm = "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in {"bash", "interactive"}
    here = "LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE" if of_slurm else "", "WORLD_SIZE"
    processes = next((int(os.environ[name]) for name in here if os.environ.get(name, "").isdigit()), world_size)
    if of_slurm and "LOCAL_WORLD_SIZE" not in os.environ and cores < everywhere:
        processes = 1
    return min(8, max(1, cores // max(1, processes) - 1))


def start_worker(worker: int) -> None:
    """Set up a loader process: Ctrl-C is the main process's to answer, which then stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def is_multi_label(source: LabelledSource) -> bool:
    """Whether an image may be of several classes."""
    return source.labels.ndim == 2
