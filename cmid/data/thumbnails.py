"""What is kept of images while they are compared: a digest of the pixels, and a thumbnail."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cmid.data.crops import as_planes
from cmid.data.decode import BadImage
from cmid.data.images import in_order
from cmid.data.reading import Reading
from cmid.data.sources import ImageSource, choose_workers

SIDE = 64
"""Of a thumbnail, in pixels."""
_CHUNK = 64  # images a worker reads at once

Tick = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """What is kept of each readable image of a source, 4 kB; M of N.

    Attributes:
        indices: `(M,)` int64, positions in the source.
        digests: `(M, 16)` uint8, of shape, number type and pixels.
        thumbnails: `(M, 64, 64)` uint8, the whole image squashed, mean of its bands, from its darkest to its brightest.
        skipped: position and reason of each image that could not be read.
    """

    indices: Tensor
    digests: Tensor
    thumbnails: Tensor
    skipped: dict[int, str]


class _Chunks:
    def __init__(self, source: ImageSource, workers: int) -> None:
        self.source, self.reading = source, Reading(workers)
        self.hung: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return -(-len(self.source) // _CHUNK)

    def __getitem__(self, chunk: int) -> tuple[Tensor, Tensor, Tensor, dict[int, str]]:
        indices, digests, thumbnails = [], [b""], [torch.empty((0, SIDE, SIDE), dtype=torch.uint8)]
        bad: dict[int, str] = {}
        for i in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(self.source))):
            if i in self.hung:
                bad[i] = self.hung[i][1]
                continue
            self.reading.begin(i)
            try:
                pixels = self.source.decode(i).pixels
            except BadImage as error:
                bad[i] = error.reason
            else:
                indices.append(i)
                digests.append(_digest(pixels))
                thumbnails.append(thumbnail(pixels)[None])
            self.reading.end()
        joined = np.frombuffer(bytearray(b"".join(digests)), dtype=np.uint8).reshape(-1, 16)
        return torch.tensor(indices, dtype=torch.int64), torch.from_numpy(joined), torch.cat(thumbnails), bad


def fingerprint(
    source: ImageSource, *, workers: int = 0, read_timeout_s: float = 300.0, tick: Tick | None = None
) -> Fingerprints:
    """Read every image of a source once; unreadable ones are passed over and named in `skipped`.

    Args:
        source: of any size, bands and number type.
        workers: processes that read; 0 reads in this one, -1 chooses from the cores.
        read_timeout_s: an image that takes longer counts as unreadable, where other processes read it.
        tick: hears how many images are read, of how many.

    Raises:
        CmidError: more than a few reads hang.
    """
    workers = min(choose_workers(workers), -(-len(source) // _CHUNK))
    chunks = _Chunks(source, workers)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    skipped: dict[int, str] = {}
    for indices, digests, thumbnails, bad in in_order(chunks, source.name, workers, read_timeout_s):
        parts.append((indices, digests, thumbnails))
        skipped.update(bad)
        if tick is not None:
            tick(min(len(parts) * _CHUNK, len(source)), len(source))
    if not parts:
        parts = [(torch.empty(0, dtype=torch.int64), torch.empty((0, 16)), torch.empty((0, SIDE, SIDE)))]
    indices, digests, thumbnails = (torch.cat(column) for column in zip(*parts, strict=True))
    return Fingerprints(indices, digests.byte(), thumbnails.byte(), skipped)


def _digest(pixels: np.ndarray) -> bytes:
    said = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
    said.update(np.ascontiguousarray(pixels).data)
    return said.digest()


def thumbnail(pixels: np.ndarray) -> Tensor:
    """`(64, 64)` uint8 of `(H, W, C)` uint8 or float32; all 0 where the picture is of one grey."""
    grey = as_planes(pixels).to(torch.float32).mean(dim=1, keepdim=True)
    grey = grey.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)  # nodata
    small = F.interpolate(grey, size=(SIDE, SIDE), mode="bilinear", antialias=True)[0, 0]
    low, high = small.min(), small.max()
    # one grey comes out of the resampling with errors of rounding, which must not be stretched into a picture
    if high - low <= 1e-5 * max(abs(low), abs(high)):
        return torch.zeros((SIDE, SIDE), dtype=torch.uint8)
    return ((small - low) * (255 / (high - low))).round().to(torch.uint8)
