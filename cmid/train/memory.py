"""A process's memory: the most it held, and whether the C library hands it back, which decides a step's time."""

import ctypes
import math
import os
import re
import sys
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of glibc's malloc.h, the same on every architecture


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees instead of returning it to the kernel; says whether that was done.

    By default glibc maps every tensor over some MB afresh and unmaps it when it is freed: each step then faults all
    its pages in again, zeroed by the kernel. Kept, the same step took 0.84 of the time on two cores (ResNet-18,
    96 px, batch 64, float32). Only glibc knows the call; whoever has set MALLOC_ variables or preloaded another
    allocator is left alone.
    """
    if not sys.platform.startswith("linux") or os.environ.get("LD_PRELOAD"):
        return False
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (musl has a mallopt too, of another meaning)
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))


def peak_memory_gb() -> float:
    """The most that this process held of the GPU, or, without one, of the machine's memory, in GiB; NaN if untold."""
    if torch.cuda.is_available() and (held := torch.cuda.max_memory_allocated()):  # 0 where a CPU trained beside a GPU
        return held / 2**30
    try:  # what getrusage tells on Linux begins with the greatest that the parent held before this process was made
        said = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        said = None
    if said:
        return int(said[1]) / 2**20
    try:
        import resource  # not on Windows
    except ImportError:
        return math.nan
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
