"""The same picture twice: within a set of images, or in train and in test.

- **Exact**: equal decoded pixels, whatever file they are stored in.
- **Near**: the same picture re-encoded, resized, recoloured, turned by quarter turns or mirrored, or its window moved
  or cut by some 2 % of its side. A perceptual hash proposes pairs (63 signs of the lowest frequencies of the cosine
  transform, compared by the number of bits that differ: the DCT hash of Zauner, Implementation and Benchmarking of
  Perceptual Image Hash Functions, 2010), and a second look decides: the correlation of the two thumbnails' detail, at
  the best of the shifts allowed.

Why a second look, and why of detail: neither the hash nor the plain correlation of thumbnails suffices for overhead
images. Of UC Merced's, different stretches of one beach correlate at 0.99, and different aeroplanes differ in 8 bits.
Detail, which is what is left without the local mean, tells them apart: over all pairs of UC Merced's and AID's images
in eight positions, up to 16 bits apart, the six above 0.9 show one place, while different stretches of a runway reach
0.88. Of copies of 300 images of UC Merced, at the default thresholds: of JPEG at quality 30, other sizes, grey, noise,
brightness and quarter turns 99 % are found or more; of windows moved by 2, 4 and 8 of 256 pixels along both sides 83,
99 and 62 %; of those without their outer 3 and 5 pixels 86 and 8 %. None was taken for the copy of another.

Not found: crops of one scene that overlap by less (UC Merced's sparseresidential52 and 55 share nine tenths,
tenniscourt37 and 44 three quarters), one place from another side or day, and pictures without any detail. Turned
copies count because published sets hold augmented ones: Adimoolam et al. (arXiv 2304.02296) found 93 % of a
validation set among its training images.

The hash is our own few lines, a matrix product: the libraries for it are no dependency of the project, and take
8-bit pictures only.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cmid.data.sources import ImageSource
from cmid.data.thumbnails import SIDE, Fingerprints, Tick, fingerprint
from cmid.errors import UsageError

SHIFT = 8
"""Pixels of the thumbnail by which two may be moved against each other."""
FREQUENCIES = 8
BITS = FREQUENCIES**2 - 1
MAX_DISTANCE = 12
MIN_SIMILARITY = 0.9
_NEIGHBOURHOODS = (3, 9)  # thumbnail pixels: detail is the mean over the one less the mean over the other
_DISTANCES_AT_ONCE = 2**24  # float32: 64 MB, whatever the number of images
_LOOKS_AT_ONCE = 512
_POSITIONS = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))


@dataclass(frozen=True)
class DuplicatePair:
    """Two positions that hold one picture.

    Attributes:
        first: position in the first set.
        second: position in the second set, or a later one in the first.
        kind: exact (equal pixels) or near.
        distance: bits of 63 in which the hashes differ.
        similarity: correlation of detail, at most 1.
        turned: degrees counterclockwise by which the second must be turned to match the first,
        mirrored: after it was mirrored left to right.
    """

    first: int
    second: int
    kind: Literal["exact", "near"]
    distance: int = 0
    similarity: float = 1.0
    turned: int = 0
    mirrored: bool = False


@dataclass(frozen=True)
class Duplicates:
    """What two sets, usually train and test, share, and what each holds twice.

    Attributes:
        between: first is a position in train, second in test.
        within_train: both in train.
        within_test: both in test.
        skipped_train: position and reason of each image that could not be read.
        skipped_test: likewise.
    """

    between: tuple[DuplicatePair, ...]
    within_train: tuple[DuplicatePair, ...] = ()
    within_test: tuple[DuplicatePair, ...] = ()
    skipped_train: dict[int, str] = field(default_factory=dict)
    skipped_test: dict[int, str] = field(default_factory=dict)

    @property
    def leaked(self) -> tuple[int, ...]:
        """Positions in test whose picture is in train too, sorted: what to leave out of a clean score."""
        return tuple(sorted({pair.second for pair in self.between}))

    def to_plain(self) -> dict[str, Any]:
        """Lists, numbers and text for JSON."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return plain | {"leaked": list(self.leaked)}


def find_duplicates(
    train: ImageSource,
    test: ImageSource,
    *,
    within: bool = True,
    max_distance: int = MAX_DISTANCE,
    min_similarity: float = MIN_SIMILARITY,
    workers: int = 0,
    read_timeout_s: float = 300.0,
    tick: Tick | None = None,
) -> Duplicates:
    """Read every image of both once, and compare.

    Args:
        train: any source of images, of any bands.
        test: likewise.
        within: also look inside each; the time grows with the square of its images.
        max_distance: bits of 63 up to which the second look is taken; 16 finds nine in ten windows moved by 3 %
            along both sides where 12 finds six, and takes sixty times as many looks.
        min_similarity: of detail, above which a pair is near.
        workers: processes that read; 0 reads in this one, -1 chooses from the cores.
        read_timeout_s: an image that takes longer counts as unreadable, where other processes read it.
        tick: hears how many images are read or compared, of how many.

    Raises:
        UsageError: thresholds out of range.
        CmidError: more than a few reads hang.
    """
    _check(max_distance, min_similarity)
    sizes = len(train), len(test)
    total = sum(sizes) * (2 if within else 1) + sizes[0]
    before = 0

    def step(size: int) -> Tick:
        nonlocal before
        start, before = before, before + size
        # of equal pictures one is compared, so that `of` may be less than `size`
        return lambda done, of: tick(start + size * done // of, total) if tick else None

    def pairs(size: int, *sets: Fingerprints) -> tuple[DuplicatePair, ...]:
        return find_pairs(*sets, max_distance=max_distance, min_similarity=min_similarity, tick=step(size))

    first, second = (
        fingerprint(source, workers=workers, read_timeout_s=read_timeout_s, tick=step(size))
        for source, size in zip((train, test), sizes, strict=True)
    )
    between = pairs(sizes[0], first, second)
    inside = [pairs(size, one) for size, one in zip(sizes, (first, second), strict=True)] if within else [(), ()]
    if tick is not None:
        tick(total, total)
    return Duplicates(between, inside[0], inside[1], first.skipped, second.skipped)


def find_pairs(
    first: Fingerprints,
    second: Fingerprints | None = None,
    *,
    max_distance: int = MAX_DISTANCE,
    min_similarity: float = MIN_SIMILARITY,
    tick: Tick | None = None,
) -> tuple[DuplicatePair, ...]:
    """Pairs of equal or nearly equal pictures, sorted by position, each once.

    Equal pictures are told by one pair a copy, with the first of them (a set with a thousand black tiles has 999
    pairs, not half a million), and near ones with the first of the equal pictures of `first`. So every image of
    `second` that has a counterpart is named.

    Args:
        first: one set.
        second: the other; unset: pairs within the first.
        max_distance: bits of 63 up to which the second look is taken.
        min_similarity: of detail, above which a pair is near.
        tick: hears how many images of the first are compared, of how many.

    Raises:
        UsageError: thresholds out of range.
    """
    _check(max_distance, min_similarity)
    other = first if second is None else second
    firsts, others = _equal(first), _equal(other)
    pairs = []
    for digest, rows in others.items():
        if second is None:
            pairs += [DuplicatePair(int(first.indices[rows[0]]), int(first.indices[row]), "exact") for row in rows[1:]]
        elif digest in firsts:
            original = int(first.indices[firsts[digest][0]])
            pairs += [DuplicatePair(original, int(other.indices[row]), "exact") for row in rows]
    a = _detailed(first, [rows[0] for rows in firsts.values()])
    b = a if second is None else _detailed(other, [rows[0] for rows in others.values()])
    copies = {rows[0]: rows for rows in others.values()}
    for i, j, distance, similarity, turns, mirrored in _near(first, other, a, b, max_distance, min_similarity, tick):
        if second is not None and torch.equal(first.digests[i], other.digests[j]):
            continue
        for row in copies[j] if second is not None else (j,):
            places = int(first.indices[i]), int(other.indices[row])
            pairs.append(DuplicatePair(*places, "near", distance, similarity, 90 * turns, mirrored))
    return tuple(sorted(pairs, key=lambda pair: (pair.first, pair.second)))


def _check(max_distance: int, min_similarity: float) -> None:
    if not 0 <= max_distance < BITS / 2 or not 0 < min_similarity <= 1:
        raise UsageError(
            f"expected a distance of 0 to {BITS // 2} bits (unrelated pictures differ in {BITS // 2}) and a "
            f"similarity above 0, at most 1; found {max_distance} and {min_similarity:g}"
        )


def _equal(prints: Fingerprints) -> dict[bytes, list[int]]:
    """Rows by digest, in order."""
    rows: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(prints.digests.numpy()):
        rows[digest.tobytes()].append(row)
    return rows


def _detailed(prints: Fingerprints, rows: list[int]) -> Tensor:
    """Those of `rows` whose thumbnail is not of one grey."""
    kept = torch.tensor(rows, dtype=torch.int64)
    return kept[prints.thumbnails[kept].flatten(1).amax(dim=1) > 0]


def _turn(thumbnails: Tensor, turns: int, mirrored: bool) -> Tensor:
    return torch.rot90(thumbnails.flip(-1) if mirrored else thumbnails, turns, (-2, -1))


def _signs(thumbnails: Tensor) -> Tensor:
    """`(M, 63)` float32 of -1 and 1: which low frequencies of `(M, 64, 64)` uint8 are above their median.

    The constant term is left out: it says only how bright a picture is.
    """
    at = torch.arange(SIDE, dtype=torch.float32)
    cosines = torch.cos(math.pi / SIDE * torch.arange(FREQUENCIES)[:, None] * (at + 0.5))
    cosines[0] /= math.sqrt(2)  # the orthonormal DCT-II up to one factor
    parts = [(cosines @ part.float() @ cosines.T).flatten(1)[:, 1:] for part in thumbnails.split(4096)]
    waves = torch.cat(parts) if parts else torch.empty((0, BITS))
    return torch.where(waves > waves.median(dim=1, keepdim=True).values, 1.0, -1.0)


def _near(
    first: Fingerprints,
    other: Fingerprints,
    a: Tensor,
    b: Tensor,
    max_distance: int,
    min_similarity: float,
    tick: Tick | None,
) -> Iterator[tuple[int, int, int, float, int, bool]]:
    """Rows, distance, similarity and position of pairs among rows `a` and `b`; within one set each pair once."""
    if not len(a) or not len(b):
        return
    signs = _signs(first.thumbnails[a])
    turned = [_signs(_turn(other.thumbnails[b], *position)) for position in _POSITIONS]
    rows = max(1, _DISTANCES_AT_ONCE // len(b))
    for start in range(0, len(a), rows):
        best: dict[tuple[int, int], tuple[int, float, int, bool]] = {}  # one position a pair
        for position, signs_b in zip(_POSITIONS, turned, strict=True):
            agreement = signs[start : start + rows] @ signs_b.T  # bits alike less bits that differ
            i, j = (agreement >= BITS - 2 * max_distance).nonzero(as_tuple=True)
            distance = ((BITS - agreement[i, j]) / 2).round().long()
            i, j = a[i + start], b[j]
            if first is other:
                once = i < j
                i, j, distance = i[once], j[once], distance[once]
            for at in range(0, len(i), _LOOKS_AT_ONCE):
                some = slice(at, at + _LOOKS_AT_ONCE)
                similarity = _similarity(first.thumbnails[i[some]], _turn(other.thumbnails[j[some]], *position))
                looked = zip(
                    i[some].tolist(), j[some].tolist(), distance[some].tolist(), similarity.tolist(), strict=True
                )
                for row, column, bits, value in looked:
                    if value > max(min_similarity, best.get((row, column), (0, 0.0))[1]):
                        best[row, column] = bits, value, *position
        yield from ((*key, *found) for key, found in best.items())
        if tick is not None:
            tick(min(start + rows, len(a)), len(a))


def _similarity(a: Tensor, b: Tensor) -> Tensor:
    """Normalised correlation `(K,)` of the detail of `(K, 64, 64)` uint8 each, at the best shift of up to 8 pixels."""
    a, b = (_detail(each) for each in (a, b))
    size = (SIDE + SHIFT, SIDE + SHIFT)  # room enough that no shift looked at wraps around
    products = torch.fft.irfft2(torch.fft.rfft2(a, s=size) * torch.fft.rfft2(b, s=size).conj(), s=size)
    shifts = torch.arange(-SHIFT, SHIFT + 1)
    low, high = shifts.clamp(min=0), SIDE + shifts.clamp(max=0)  # of the part of a that b covers when moved so
    energy = _energy(a, low, high) * _energy(b, low.flip(0), high.flip(0))
    return (products[:, shifts][:, :, shifts] / energy.sqrt().clamp_min(1e-6)).flatten(1).amax(dim=1)


def _detail(thumbnails: Tensor) -> Tensor:
    """What is finer than 9 pixels, yet coarse enough that a shift by half a pixel does not undo it."""
    levels = thumbnails.float()[:, None]
    near, far = (F.avg_pool2d(levels, side, 1, side // 2, count_include_pad=False) for side in _NEIGHBOURHOODS)
    return (near - far)[:, 0]


def _energy(detail: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Sums of squares of `(K, 64, 64)` over rows and columns low..high of each pair of shifts, `(K, 17, 17)`."""
    sums = F.pad(detail.double().square().cumsum(1).cumsum(2), (1, 0, 1, 0))
    bands = sums[:, high] - sums[:, low]
    return (bands[:, :, high] - bands[:, :, low]).float()
