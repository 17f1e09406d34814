"""What values a source's bands hold: percentiles, mean and deviation, from a sample that a seed fixes.

Pixels leave the workers as 8-bit numbers, or, where the data are deeper, as float32 stretched so that a band's
2nd percentile is 0 and its 98th is 1, without clipping. From there on everything (colours, normalisation, figures)
works on one scale, and a backbone's file holds the stretch beside mean and deviation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cmid.data.decode import BadImage
from cmid.data.images import in_order
from cmid.data.reading import Reading
from cmid.data.sources import choose_workers
from cmid.errors import CmidError

PIXELS_PER_WINDOW = 4096
PERCENTILES = (2.0, 98.0)
SUSPECT_SHARE = 0.05
"""Of a band's pixels at its least value, from which on they look like nodata."""
OUTSTANDING = 4
"""How many times as frequent as the next value such a one must be."""
USUAL_NODATA = (-9999.0, -32768.0)
NO_MEASUREMENT = -1e30
"""What is below is nodata such as the least float32."""


@dataclass(frozen=True)
class BandStatistics:
    """Of each band, in the order they are read.

    Attributes:
        names: what each is called.
        dtype: numpy's name of the type of the values.
        low: 2nd percentile, in the data's own units.
        high: 98th percentile.
        mean: of the pixels on their scale: values / 255 for 8-bit data, else stretched so that `low` is 0 and `high` 1,
            or what `measure` was given instead.
        std: standard deviation on that scale.
        minimum: least value seen, in the data's own units.
        maximum: greatest.
        pixels: how many valid pixels were looked at.
        nodata: share of the pixels looked at that was not valid.
        suspect: a value that looks like nodata although nothing says so; None in bands without.
        suspect_share: of the valid pixels that hold it.
    """

    names: tuple[str, ...]
    dtype: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    pixels: int
    nodata: float
    suspect: tuple[float | None, ...]
    suspect_share: tuple[float, ...]


class Sampled(Protocol):
    """What can be measured."""

    def sample(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image i in its own values `(C, h, w)`, and which are valid `(h, w)`; raises `BadImage`."""


def spread(i: int, count: int) -> int:
    """The place of image i of those measured, counted round and round: first ones are spread over all `count`."""
    return i * (7919 if count % 7919 else 7907) % count  # a prime that does not divide it, so that each comes once


@dataclass(frozen=True)
class _Sample:
    """Of one image: some of its valid pixels `(C, n)`, how many of its pixels are valid, and how many it has."""

    pixels: np.ndarray
    valid: int
    looked: int


class _Samples:
    """The first images of a source, as loader processes give them: a sample of each, or why there is none."""

    def __init__(self, source: Sampled, images: int, seed: int, workers: int) -> None:
        self.source, self.images, self.seed, self.reading = source, images, seed & (1 << 64) - 1, Reading(workers)
        self.hung: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, i: int) -> _Sample | str:
        if i in self.hung:
            return ": ".join(self.hung[i])
        self.reading.begin(i)
        try:
            values, valid = self.source.sample(i)
        except BadImage as error:
            return str(error)
        finally:
            self.reading.end()
        columns = values.reshape(len(values), -1)[:, valid.reshape(-1)]
        if columns.shape[1] > PIXELS_PER_WINDOW:  # here, so that whole images need not go from process to process
            drawn = np.random.default_rng([self.seed, self.images, i]).integers(
                columns.shape[1], size=PIXELS_PER_WINDOW
            )
            columns = columns[:, drawn]
        return _Sample(columns, int(valid.sum()), valid.size)


def measure(
    source: Sampled,
    names: tuple[str, ...],
    *,
    images: int,
    seed: int,
    low: tuple[float, ...] = (),
    high: tuple[float, ...] = (),
    workers: int = 0,
    read_timeout_s: float = 300.0,
    tick: Callable[[int, int], None] | None = None,
) -> BandStatistics:
    """Looks at `images` images of `source`, at most 4,096 valid pixels of each; unreadable ones are left out.

    Args:
        source: what is measured.
        names: of its bands.
        images: how many of its images are read, from the first on.
        seed: fixes which of their pixels are taken.
        low: value of each band that becomes 0 where the data are no 8-bit numbers; empty: its 2nd percentile.
        high: value of each band that becomes 1 there, above `low`; empty: its 98th percentile.
        workers: processes that read; 0 reads in this one, -1 chooses from the cores.
        read_timeout_s: what takes longer to read is left out, too, where other processes read it.
        tick: hears how many images are read, of how many.

    Raises:
        CmidError: nothing valid was found, or more than a few reads hang.
    """
    kept: list[np.ndarray] = []
    looked = valid_pixels = 0
    dtype, why = "", ""
    workers = min(choose_workers(workers), images)
    samples = _Samples(source, images, seed, workers)
    for i, sample in enumerate(in_order(samples, "image {} of those measured".format, workers, read_timeout_s)):
        if isinstance(sample, str):
            why = sample
        else:
            dtype = sample.pixels.dtype.name
            looked, valid_pixels = looked + sample.looked, valid_pixels + sample.valid
            kept.append(sample.pixels.astype(np.float64))
        if tick is not None:
            tick(i + 1, images)
    numbers = np.concatenate(kept, axis=1) if kept else np.empty((len(names), 0))
    if not numbers.shape[1]:
        raise CmidError(
            f"no valid pixel was found in {images} images or windows drawn to measure the bands"
            f"{f' ({why})' * bool(why)}: look at the nodata value or mask (`gdalinfo` tells), or leave such files out"
        )
    least, most = np.percentile(numbers, PERCENTILES, axis=1)
    # one value: there is nothing to stretch; beside a large one, 1 more is no other number, in float32 above all
    step = np.maximum(1, np.abs(least) * 2.0**-22)
    most = np.where(most > least, most, least + step)
    zero, one = np.array([low, high]) if low else (least, most)
    scaled = numbers / 255 if dtype == "uint8" else (numbers - zero[:, None]) / (one - zero)[:, None]
    varied = numbers.std(axis=1) > 1e-6 * (most - least)  # in their own units: a given scale may be as wide as it likes
    suspects = [looks_like_nodata(band, dtype) for band in numbers]
    return BandStatistics(
        names=names,
        dtype=dtype,
        low=tuple(least.tolist()),
        high=tuple(most.tolist()),
        mean=_rounded(scaled.mean(axis=1)),
        std=_rounded(np.where(varied, scaled.std(axis=1), 1.0)),  # a constant band becomes 0, not NaN
        minimum=tuple(numbers.min(axis=1).tolist()),
        maximum=tuple(numbers.max(axis=1).tolist()),
        pixels=int(numbers.shape[1]),
        nodata=round(1 - valid_pixels / max(1, looked), 6),
        suspect=tuple(value for value, _ in suspects),
        suspect_share=tuple(share for _, share in suspects),
    )


def looks_like_nodata(numbers: np.ndarray, dtype: str) -> tuple[float | None, float]:
    """A value of one band that is probably none, and the share of the pixels that hold it; None and 0 where none is.

    It is the least value (or, of integers of more than 8 bits, the greatest that the type holds), and usual for nodata
    or so frequent that it cannot be the end of a distribution: more than the next value, of which few-valued data have
    as many.

    Args:
        numbers: `(n,)`, at least one, float64.
        dtype: numpy's name of their type in the files.
    """
    values, counts = np.unique(numbers, return_counts=True)
    if len(values) == 1:  # a constant band is no measurement, but it does not spoil a scale either
        usual = values[0] != 0 and (values[0] in USUAL_NODATA or values[0] < NO_MEASUREMENT)
        return (float(values[0]), 1.0) if usual else (None, 0.0)
    kind, candidates = np.dtype(dtype), [(0, 1)]
    if kind.kind in "ui" and kind.itemsize > 1 and values[-1] == np.iinfo(kind).max:
        candidates.append((-1, -2))
    for at, beside in candidates:
        share = counts[at] / len(numbers)
        usual = at == 0 and (values[0] in USUAL_NODATA or values[0] < NO_MEASUREMENT)
        if usual or (share >= SUSPECT_SHARE and counts[at] > OUTSTANDING * counts[beside]):
            return float(values[at]), round(float(share), 6)
    return None, 0.0


def _rounded(numbers: np.ndarray) -> tuple[float, ...]:
    """Of numbers on the scale 0..1: processes compare theirs, and the last digits of a sum may be the processor's."""
    return tuple(float(f"{number:.6g}") for number in numbers)


@dataclass(frozen=True)
class Stretch:
    """How values become pixels.

    Attributes:
        low: value of each band that becomes 0; empty for 8-bit data, which stay as they are.
        high: value of each band that becomes 1.
        mean: of each band's pixels on the scale 0..1, put where nothing valid is; normalisation makes it 0.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]

    def pixels(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Values `(C, h, w)` of a file as contiguous pixels `(h, w, C)`, uint8 as they are, others float32.

        Args:
            values: in the file's own type and units.
            valid: `(h, w)` bool.
        """
        if values.dtype == np.uint8:
            pixels = np.ascontiguousarray(np.moveaxis(values, 0, -1))
            stand_in = np.round(255 * np.array(self.mean)).clip(0, 255).astype(np.uint8)
        else:
            pixels = np.empty((*values.shape[1:], len(values)), np.float32)
            stand_in = np.array(self.mean, np.float32)
            # float32 holds whole numbers up to 2**24, so that low and high may be one number there
            kind = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
            low, high = np.array(self.low), np.array(self.high)
            low, scale = low.astype(kind), (1 / (high - low)).astype(kind)
            hidden = None if valid.all() else ~valid
            for band, plane in enumerate(values):  # with the bands last, each step would take several times as long
                numbers = plane.astype(kind)
                if hidden is not None:  # replaced below, but nodata may be so large that it would overflow before
                    np.copyto(numbers, 0, where=hidden)
                if self.low:
                    numbers -= low[band]
                    numbers *= scale[band]
                pixels[..., band] = numbers
        if not valid.all():
            pixels[~valid] = stand_in
        return pixels
