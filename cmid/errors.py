"""Errors meant for the person at the keyboard: what was expected, what was found, what to do.

The command line prints such an error as one line and exits with its code; anything else is our own mistake
and keeps its traceback.
"""

import difflib
import os
from collections.abc import Iterable

LEADER = "CMID_LEADER"
"""Variable of the environment: the process that has started others to train with it."""


class CmidError(Exception):
    """A failure while running; exit code 1. One that is `quiet` is told by another process of the run."""

    exit_code = 1
    quiet = False


class NotFinite(CmidError):
    """A loss, features or scores that should be numbers are infinite or NaN; of other images they may be finite."""


class UsageError(CmidError, ValueError):
    """The request itself cannot be carried out: an unknown name, a path that is not there; exit code 2."""

    exit_code = 2


def exit_code(error: CmidError) -> int:
    """What to end with; 0 where another process tells `error` that has started this one, and ends with its code.

    Lightning kills the process that leads some seconds after one that it has started ends otherwise, although it may
    still be writing what it tells.
    """
    started_by = os.environ.get(LEADER, str(os.getpid()))
    return 0 if error.quiet and started_by != str(os.getpid()) else error.exit_code


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The `count` names of `known` most like `name`, without regard to case, best first; empty where none is near."""
    folded: dict[str, list[str]] = {}
    for each in known:
        folded.setdefault(each.casefold(), []).append(each)
    near = difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.5)
    return [each for hit in near for each in folded[hit]][:count]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`' Did you mean a, b?'`, or the empty string where nothing is near."""
    near = nearest(name, known)
    return f" Did you mean {', '.join(near)}?" if near else ""


SHORT_OF_MEMORY = ("tried to allocate", "allocate memory", "unable to allocate", "ALLOC_FAILED", "out of memory")
"""What torch and its libraries say, which has no kind of its own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: of Python or numpy, or of torch, which says it of the CPU and of libraries in words."""
    said = str(error).casefold()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words.casefold() in said for words in SHORT_OF_MEMORY)
    )


def cause_of(error: BaseException) -> str:
    """What an error says, in a line: its first, or the last of one from a loader process, which brings a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (lines[-1] if lines[0].startswith("Caught ") else lines[0])[:200]


def multiples(size: int, stride: int) -> str:
    """The multiples of `stride` next to `size`, in words."""
    return " or ".join(dict.fromkeys((str(size // stride * stride or stride), str(-(-size // stride) * stride))))
