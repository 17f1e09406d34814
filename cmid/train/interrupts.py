"""Ctrl-C and SIGTERM asked for politely: finish the step, save, leave."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from cmid.errors import CmidError

TWICE_S = 0.3
"""Seconds in which a signal that comes again is the same request."""


class Interrupted(CmidError):
    """The run was asked to stop; its exit code is 128 + the signal's number, as shells have it."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Interrupts:
    """While entered, the first SIGINT or SIGTERM only sets `requested`; a second one stops at once.

    One of the same kind that follows within `TWICE_S` is the same request: who asks a whole process group reaches a
    run directly and through what started it. Outside the main thread Python allows no handlers; then nothing is caught.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested: int | None = None
        self._since = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._caught) for s in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _caught(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.requested is None:
            self.requested, self._since = number, now
        elif number != self.requested or now - self._since > TWICE_S:
            raise KeyboardInterrupt


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps the death of a loader's worker from raising here; the next batch asked for will tell of it.

    A signal to the whole process group kills the workers, too, and torch's handler would then raise amid a step,
    leaving nothing consistent to save.
    """
    here = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    handler = signal.getsignal(signal.SIGCHLD) if here else None
    if handler is None or handler == signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
