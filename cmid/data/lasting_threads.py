"""Threads that read rasters and do not end before their process does.

GDAL gives each thread a database of coordinate systems of its own, which is closed, under locks that the whole process
shares, when the thread ends; and a thread ends some time after it has been waited for. A loader process that is forked
at that very moment inherits a lock that nobody will ever open again, and hangs at the first raster it opens. Idle
threads hold no lock.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache


def lasting_threads(purpose: str, count: int) -> ThreadPoolExecutor:
    """The threads of this process for `purpose`, `count` of them, always the same; never shut them down."""
    return _started(purpose, count, os.getpid())


@cache
def _started(purpose: str, count: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, purpose)
