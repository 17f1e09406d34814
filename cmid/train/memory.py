"""How the C library hands memory back, which decides a good part of a step's time on a CPU."""

import ctypes
import os
import sys

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
