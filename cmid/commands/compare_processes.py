"""How a comparison is stopped, how it has its runs trained by processes of their own, and how it holds its folder."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cmid.errors import CmidError
from cmid.train import Interrupted

GOES_ON = "The comparison was interrupted; the same command goes on where it stopped."


class _Stop(KeyboardInterrupt):
    """A signal; no `Exception`, so that nothing on the way takes it for a failure that it can go on after."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """While entered, Ctrl-C and SIGTERM end what is done here; raises `Interrupted`, which says how to go on."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stop(number)

    try:
        with _handled_by(stop):
            yield
    except KeyboardInterrupt as asked:
        raise Interrupted(GOES_ON, getattr(asked, "number", signal.SIGINT)) from None


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield
        return
    before = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class _PassingOn:
    """Signals are for the child: that saves its run and ends. One that comes before it is there is kept for it."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        if self._child is not None:  # which the group's signal may have reached already: see `Interrupts`
            self._child.send_signal(number)

    def to(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        if self.asked is not None:
            child.send_signal(self.asked)


def in_a_process(module: str, settings: Path, result: Path) -> None:
    """What `python -m module` does with the settings, in a process of its own; it writes `result`.

    Raises:
        Interrupted: it, or this process, was asked to stop; the run is saved.
        CmidError: it failed; what it said stands above.
    """
    passing = _PassingOn()
    with _handled_by(passing.handle):
        child = subprocess.Popen([sys.executable, "-m", module, str(settings), str(result)])
        passing.to(child)
        child.wait()
    ended = child.returncode
    stopped = ended in (130, 143, -signal.SIGINT, -signal.SIGTERM)
    if stopped or (passing.asked is not None and not ended):  # it may have been at its end
        alone = signal.SIGTERM if ended in (143, -signal.SIGTERM) else signal.SIGINT
        raise Interrupted(GOES_ON, passing.asked or alone)
    if ended or not result.is_file():
        raise CmidError(
            f"A run of the comparison ended with code {ended}; what it said stands above. When that is put right, the "
            "same command goes on."
        )
