"""What each loader process is reading, and since when: so that a read that never ends can be named.

The processes write into shared memory, and the main process looks only when no batch has come for a while. Time is
the monotonic clock, which all processes of a machine share and which no correction of the date moves.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import active_children

import torch
from torch.utils.data import get_worker_info

NAME_BYTES = 512
_own: "Reading | None" = None


@dataclass(frozen=True)
class Stuck:
    """A read that goes on.

    Attributes:
        image: its position in the source.
        file: what is being read, as far as the source said it; else empty.
        seconds: for how long.
        process: id of the loader process.
        since: when it began, by the monotonic clock.
    """

    image: int
    file: str
    seconds: float
    process: int
    since: float

    def same_as(self, other: "Stuck") -> bool:
        """Whether it is still that read."""
        return (self.process, self.image, self.since) == (other.process, other.image, other.since)


class Reading:
    """A row for each loader process.

    Args:
        workers: loader processes; with 0 nothing is noted, as nobody could look.
    """

    def __init__(self, workers: int) -> None:
        self._since = torch.zeros(workers, dtype=torch.float64).share_memory_()  # 0: not reading
        self._who = torch.zeros((workers, 3), dtype=torch.int64).share_memory_()  # image, process, length of the name
        self._name = torch.zeros((workers, NAME_BYTES), dtype=torch.uint8).share_memory_()

    def begin(self, image: int) -> None:
        """This process starts to read an image."""
        global _own
        if (info := get_worker_info()) is None or info.id >= len(self._since):
            return
        _own = self
        self._who.numpy()[info.id] = (image, os.getpid(), 0)
        self._since.numpy()[info.id] = time.monotonic()

    def end(self) -> None:
        """This process reads no longer."""
        if (info := get_worker_info()) is not None and info.id < len(self._since):
            self._since.numpy()[info.id] = 0.0

    def file(self, name: str) -> None:
        """Which file this process opens for the image."""
        if (info := get_worker_info()) is not None and info.id < len(self._since):
            encoded = name.encode("utf-8", "surrogateescape")[-NAME_BYTES:]
            self._name.numpy()[info.id, : len(encoded)] = memoryview(encoded)
            self._who.numpy()[info.id, 2] = len(encoded)

    def longest(self) -> Stuck | None:
        """The read that has gone on for longest; None where nobody reads."""
        reading = [(since, i) for i, since in enumerate(self._since.tolist()) if since]
        if not reading:
            return None
        since, worker = min(reading)
        image, process, length = self._who[worker].tolist()
        name = bytes(self._name[worker, :length].tolist()).decode("utf-8", "surrogateescape")
        return Stuck(image, name, time.monotonic() - since, process, since)


def note_file(name: str) -> None:
    """For sources that choose among files while they read: which one it is now."""
    if _own is not None:
        _own.file(name)


def end_process(process: int) -> None:
    """Kills a loader process that a request to end does not reach."""
    for child in active_children():
        if child.pid == process:
            with suppress(OSError):
                child.kill()
