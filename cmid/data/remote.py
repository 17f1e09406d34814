"""Scenes behind addresses are read in a thread of its own.

GDAL keeps its connections open from one request to the next, for each thread those that it has made. A loader process
that is forked from one that has read before (the bands are measured before training) would have inherited them with
all its sisters, and each would read what the server sends to another. Threads are not inherited.
"""

from collections.abc import Sequence

import numpy as np

from cmid.data.lasting_threads import lasting_threads
from cmid.data.rasters import OpenRasters


class RemoteRasters:
    """`OpenRasters` for lists with addresses; local scenes among them are read in the same thread."""

    def __init__(self) -> None:
        self._rasters = OpenRasters()

    def read(self, path: str, bands: Sequence[int], window: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """As `OpenRasters.read`; raises `BadImage`."""
        return lasting_threads("remote scenes", 1).submit(self._rasters.read_here, path, bands, window).result()
