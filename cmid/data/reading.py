"""What each loader process is reading, and since when: so that a read that never ends can be named.

The processes write into shared memory, and the main process looks only when no batch has come for a while. Time is
the monotonic clock, which all processes of a machine share and which no correction of the date moves.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import active_children
from typing import TypeVar

import torch
from torch.utils.data import get_worker_info

from cmid.data.decode import BadImage
from cmid.errors import CmidError

T = TypeVar("T")
LOOK_EVERY_S = 5.0
"""How often the reads are looked at while nothing comes."""
HANGS_ALLOWED = 3
"""Reads without end that are passed over before it is the disk that is to blame, and not the file."""
NAME_BYTES = 512
DEAD = "DataLoader worker (pid"
"""What torch's message of a loader process that died begins with."""
CAUGHT = "Caught "
"""What its message of an error in a loader process begins with; the traceback follows."""
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


def patiently(
    begin: Callable[[], Iterator[T]],
    reading: Reading,
    timeout_s: float,
    pass_over: Callable[[Stuck], None],
    workers: int,
) -> Iterator[T]:
    """What `workers` loader processes give; one that hangs in a read makes `begin` start anew, where it stands.

    Args:
        begin: iterates over a `DataLoader` whose timeout is `look_every_s`, from what has not been given yet on.
        reading: what the processes read.
        timeout_s: a read may take so long.
        pass_over: is told of a read that took longer; ends the processes, and has the next ones leave the image out.
        workers: named where one of them dies.

    Raises:
        CmidError: a process has died; or what one of them raised, of its own kind and with its own words.
    """
    stuck: Stuck | None = None
    try:
        items = begin()
        while True:
            late = False
            try:
                item = next(items, None)
            except RuntimeError as error:
                if "DataLoader timed out" not in str(error):
                    raise
                late = True
            if late:  # acted on out here, as the error's traceback would keep the processes alive
                pinning = getattr(items, "_pin_memory_thread", None)
                if pinning is not None and not pinning.is_alive():  # torch looks only where it has no timeout
                    raise CmidError(
                        "the thread that moves batches to page-locked memory has died, mostly as too many files are "
                        f"open: raise the limit (ulimit -n), or take fewer workers (now {workers})"
                    )
                looked, stuck = stuck, reading.longest()
                # seen twice: a process that was itself suspended finds a long time gone by, and no read to blame
                if stuck and looked and stuck.same_as(looked) and stuck.seconds >= timeout_s:
                    del items
                    pass_over(stuck)
                    items = begin()
                continue  # else one of them is only slow
            if item is None:
                return
            yield item
    except CmidError as error:  # of a kind that torch could build anew, which puts the traceback into its words
        if (words := words_raised(error, type(error))) is None:
            raise
        raise type(error)(words) from error
    except (RuntimeError, ConnectionError, EOFError) as error:
        if (words := words_raised(error, BadImage)) is not None:
            raise CmidError(words) from error
        if isinstance(error, RuntimeError) and not str(error).startswith(DEAD):
            raise
        raise CmidError(
            f"a loader process died, which is mostly for want of memory: {error}; try fewer workers "
            f"(now {workers}) or smaller images"
        ) from error


def words_raised(error: Exception, kind: type[CmidError]) -> str | None:
    """What an error of that kind said in a loader process, where `error` is what torch makes of it; else None."""
    _, named, words = str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
    return words.strip() if named and str(error).startswith(CAUGHT) else None


def look_every_s(timeout_s: float, workers: int) -> float:
    """The timeout of a `DataLoader` that is iterated patiently; 0, which is none, where nobody could look."""
    return min(timeout_s, LOOK_EVERY_S) if workers else 0


def give_up(stuck: Stuck, hung: dict[int, tuple[str, str]], name: Callable[[int], str], timeout_s: float) -> None:
    """Ends the process that hangs, and adds name and reason of its image to `hung`.

    Raises:
        CmidError: there are more than `HANGS_ALLOWED`.
    """
    end_process(stuck.process)  # which may not hear, where a disk has gone away
    hung[stuck.image] = (stuck.file or name(stuck.image), f"reading it did not end within {timeout_s:g} s")
    if len(hung) > HANGS_ALLOWED:
        last = ", ".join(sorted({name for name, _ in hung.values()}))
        raise CmidError(
            f"{len(hung)} reads did not end within {timeout_s:g} s each: {last}. Look after the disk or the network "
            "they are on, or raise read_timeout_s"
        )


def end_process(process: int) -> None:
    """Kills a loader process that a request to end does not reach."""
    for child in active_children():
        if child.pid == process:
            with suppress(OSError):
                child.kill()
