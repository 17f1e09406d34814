"""Noise tiles that stand for grass, asphalt, tree crowns, waves and the sensor; made once per process.

Each tile is filtered white noise, so it wraps around; a scene takes a window of it at a place of its own.
"""

from functools import lru_cache
from random import Random

import numpy as np

TILE_PX = 768
CROWN_TILE_PX = 384
UNIT = 16
"""What the tiles count as one standard deviation."""
CROWN_PX = (5.0, 7.0, 10.0, 14.0, 20.0)
"""Sizes of tree crown for which a canopy tile exists."""


def _band(seed: int, short_px: float, long_px: float, slope: float, stretch: float = 1.0) -> np.ndarray:
    """Noise of unit variance whose waves are `short_px` to `long_px` long, amplitude falling as f**-slope."""
    white = np.random.Generator(np.random.PCG64(seed)).standard_normal((TILE_PX, TILE_PX), np.float32)
    rows, columns = np.fft.fftfreq(TILE_PX)[:, None] * stretch, np.fft.rfftfreq(TILE_PX)[None, :]
    frequency = np.hypot(rows, columns).astype(np.float32)
    frequency[0, 0] = 1.0
    gain = frequency**-slope
    gain *= np.exp(-((frequency * short_px) ** 2) / 2) * (1 - np.exp(-((frequency * long_px) ** 2) / 2))
    noise = np.fft.irfft2(np.fft.rfft2(white) * gain, s=(TILE_PX, TILE_PX))
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


@lru_cache(maxsize=1)
def sheets() -> dict[str, np.ndarray]:
    """The tiles by name, each `(TILE_PX, TILE_PX)` int16 with a standard deviation of about `UNIT`."""
    tiles = {
        "grain": _band(1, 0.6, 6.0, 0.3),
        "mottle": _band(2, 4.0, 120.0, 1.5),
        "tint": _band(3, 6.0, 90.0, 1.5),
        "ripple": 0.7 * _band(4, 1.0, 10.0, 0.8, stretch=0.35) + 0.7 * _band(5, 2.0, 60.0, 1.2, stretch=0.45),
        "sensor": _band(6, 0.25, 1e3, 0.0),
    }
    return {name: _whole(tile) for name, tile in tiles.items()}


def _whole(tile: np.ndarray) -> np.ndarray:
    """A tile of unit variance in whole `UNIT`ths, int16."""
    return np.rint(tile * UNIT).astype(np.int16)


@lru_cache(maxsize=len(CROWN_PX))
def crowns(which: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Closed forest seen from above, crowns about `CROWN_PX[which]` wide.

    Returns:
        slope along x, slope along y, and lightness (high crowns and pale trees above 0), each
        `(CROWN_TILE_PX, CROWN_TILE_PX)` int16 with a standard deviation of about `UNIT`.
    """
    crown, side = CROWN_PX[which], CROWN_TILE_PX
    random = np.random.Generator(np.random.PCG64(100 + which))
    count = int(1.6 * (side / crown) ** 2)
    reach = int(crown * 0.8) + 1
    square = np.arange(-reach, reach + 1, dtype=np.float32)
    height = np.zeros((side + 2 * reach, side + 2 * reach), np.float32)
    pale = np.zeros_like(height)
    where = random.random((count, 2)) * side
    radii, tops, tones = (
        crown * random.uniform(0.38, 0.75, count),
        random.uniform(0.6, 1.3, count),
        random.random(count),
    )
    for (y, x), radius, top, tone in zip(where, radii, tops, tones, strict=True):
        i, j = int(y), int(x)
        dy, dx = (square - np.float32(y - i)) / np.float32(radius), (square - np.float32(x - j)) / np.float32(radius)
        dome = np.float32(top) - (dy * dy)[:, None] - (dx * dx)[None, :]
        part = (slice(i, i + 2 * reach + 1), slice(j, j + 2 * reach + 1))
        above = dome > height[part]
        np.copyto(height[part], dome, where=above)
        np.copyto(pale[part], np.float32(tone), where=above)
    # Leaves: a crown is not a smooth dome.
    domes = height[reach:-reach, reach:-reach] + np.float32(0.10 / UNIT) * sheets()["grain"][:side, :side]
    slope_x, slope_y = domes - np.roll(domes, 1, axis=1), domes - np.roll(domes, 1, axis=0)
    light = 0.8 * (domes - domes.mean()) / domes.std() + 1.7 * (pale[reach:-reach, reach:-reach] - 0.5)
    x, y, z = (_whole(tile / tile.std()) for tile in (slope_x, slope_y, light))
    return x, y, z


def window(tile: np.ndarray, size: int, corner: tuple[int, int]) -> np.ndarray:
    """`(size, size)` part of a tile from `corner` (row, column) on; wraps around for large sizes."""
    side = tile.shape[0]
    row, column = corner[0] % side, corner[1] % side
    if row + size <= side and column + size <= side:
        return tile[row : row + size, column : column + size]
    rows, columns = np.arange(row, row + size) % side, np.arange(column, column + size) % side
    return tile[np.ix_(rows, columns)]


def corner(rng: Random, size: int, side: int = TILE_PX) -> tuple[int, int]:
    """A random place on a tile, one from which a window of `size` need not wrap where that is possible."""
    span = side - size if side > size else side
    return int(rng.random() * span), int(rng.random() * span)
