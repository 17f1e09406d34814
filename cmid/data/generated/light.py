"""The day and the sensor: sun, season, haze, colour cast, blur and noise of one date, and the picture they give."""

import threading
from dataclasses import dataclass
from math import cos, radians, sin, tan
from random import Random

import numpy as np

from cmid.data.generated.canvas import Canvas
from cmid.data.generated.materials import CODE, MATERIALS, table
from cmid.data.generated.texture import CROWN_PX, CROWN_TILE_PX, UNIT, corner, crowns, sheets, window

ONE = 128
"""What brightness counts as 1."""
SHARE = 256
"""What a material's strength of a texture counts as 1; with more, the strongest sums would leave 16 bits."""
TO_ONE = (SHARE * UNIT // ONE).bit_length() - 1
"""Bits from a strength times a noise tile to brightness."""
BRIGHTNESS, BYTE = (np.int16(24), np.int16(231)), (np.int16(0), np.int16(255))
"""Least and greatest of what texture makes of brightness, and of a grey level."""
GRAIN, MOTTLE, TINT, CANOPY = (table(name, SHARE) for name in ("grain", "mottle", "tint", "canopy"))
RIPPLE, ROWS, ACROSS = (table(name, SHARE) for name in ("ripple", "rows", "across"))
SHADED = table("shaded", ONE)
SEASON, SNOW = (np.array([getattr(m, name) for m in MATERIALS.values()])[:, None] for name in ("season", "snow"))

SEASONS: dict[str, tuple[float, float, float]] = {
    "spring": (0.98, 1.12, 0.92),
    "summer": (1.0, 1.0, 1.0),
    "lush": (0.84, 0.94, 0.88),
    "dry": (1.20, 1.06, 1.02),
    "autumn": (1.24, 1.02, 0.90),
    "winter": (1.14, 1.0, 1.10),
}
"""What each season does to the red, green and blue of plants."""


@dataclass(frozen=True)
class Light:
    """One date's conditions.

    Attributes:
        sun: image (dx, dy) of a shadow per metre of height, in metres.
        slope_light: gain in brightness per unit of slope towards the sun.
        dark: share of the light that a shadow takes from red, green and blue.
        season: gains of plants in red, green and blue.
        snow: how white the ground is, 0 to 1.
        gain: gains of the picture in red, green and blue.
        haze: grey levels added to red, green and blue.
        blur: weight of each neighbour in the three-pixel blur, 0 to 0.33.
        noise: standard deviation of the sensor's noise in grey levels.
    """

    sun: tuple[float, float]
    slope_light: float
    dark: tuple[float, float, float]
    season: tuple[float, float, float]
    snow: float
    gain: tuple[float, float, float]
    haze: tuple[float, float, float]
    blur: float
    noise: float

    @classmethod
    def draw(cls, rng: Random, previous: "Light | None" = None) -> "Light":
        """A day at random; with `previous`, a later date of the same place: another season, the sun moved a little."""
        if previous is None:
            azimuth, elevation = rng.uniform(0, 2 * np.pi), radians(rng.uniform(32, 68))
        else:
            azimuth = np.arctan2(previous.sun[1], previous.sun[0]) + rng.uniform(-0.5, 0.5)
            elevation = radians(rng.uniform(32, 68))
        reach = 1 / tan(elevation)
        season = SEASONS[rng.choice(list(SEASONS))]
        snow = rng.uniform(0.5, 0.95) if rng.random() < (0.02 if previous is None else 0.08) else 0.0
        brightness = rng.uniform(0.88, 1.22)
        warmth, green = rng.gauss(0, 0.035), rng.gauss(0, 0.015)
        veil = max(0.0, rng.gauss(4, 9)) if rng.random() < 0.75 else rng.uniform(15, 42)
        depth = rng.uniform(0.48, 0.72)
        contrast = 1 - veil / 255
        return cls(
            sun=(float(cos(azimuth)) * reach, float(sin(azimuth)) * reach),
            slope_light=min(0.75 * reach, 1.0),
            dark=(depth, depth * 0.96, depth * 0.86),
            season=(
                season[0] * rng.gauss(1, 0.05), season[1] * rng.gauss(1, 0.04), season[2] * rng.gauss(1, 0.05),
            ),
            snow=snow,
            gain=(
                brightness * contrast * (1 + warmth), brightness * contrast * (1 + green),
                brightness * contrast * (1 - warmth),
            ),
            haze=(veil * 0.88, veil * 0.97, veil * 1.12),
            blur=max(0.0, rng.uniform(-0.14, 0.25)),
            noise=rng.uniform(0.8, 4.5),
        )  # fmt: skip

    def tones(self) -> list[tuple[float, ...]]:
        """How the day colours each material, in the order of their codes.

        Returns:
            per material the gains of red, green and blue and the grey levels added to them, six numbers. The levels
            count half of one more, as the canvas drops what follows the point.
        """
        white = self.snow * SNOW
        gain = (1 + SEASON * (np.array(self.season) - 1)) * np.array(self.gain)
        gain = 1 + (gain - 1) * (1 - self.snow)
        lifted = white * np.array((225.0, 233.0, 241.0)) * gain + 0.5
        return list(map(tuple, np.concatenate([(1 - white) * gain, lifted], 1).tolist()))


@dataclass(frozen=True)
class Ground:
    """What stays of a place's texture from one date to the next: windows on the noise tiles, furrow spacing, crowns.

    Attributes:
        grain, mottle, tint, crowns: corners of the windows on the tiles.
        row_m: metres from furrow to furrow (or rib to rib).
        crown: index into `CROWN_PX`.
    """

    grain: tuple[int, int]
    mottle: tuple[int, int]
    tint: tuple[int, int]
    crowns: tuple[int, int]
    row_m: float
    crown: int

    @classmethod
    def draw(cls, rng: Random, size: int, gsd: float, crown_m: float, row_m: float) -> "Ground":
        """Windows at random for a picture of `size` pixels of `gsd` metres, with crowns `crown_m` wide."""
        nearest = min(range(len(CROWN_PX)), key=lambda i: abs(CROWN_PX[i] - crown_m / gsd))
        grain, mottle, tint = corner(rng, size), corner(rng, size), corner(rng, size)
        return cls(grain, mottle, tint, corner(rng, size, CROWN_TILE_PX), max(row_m, 3.0 * gsd), nearest)


_scratch = threading.local()


def _buffers(size: int) -> np.ndarray:
    """`(7, size, size)` int16 of this thread to work in; fresh ones each time take longer."""
    if getattr(_scratch, "size", None) != size:
        _scratch.size, _scratch.arrays = size, np.empty((7, size, size), np.int16)
    return _scratch.arrays


def expose(canvas: Canvas, light: Light, ground: Ground, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    """The picture of a canvas on a day; the canvas was painted in `light.tones()`.

    All in whole numbers of 16 bits, of which numpy works through four times as many a second as of float32:
    brightness in `ONE`ths, grey levels in quarters, both finer than the noise of any day.

    Returns:
        image `(H, W, 3)` uint8 and material `(H, W)` uint8 with the changed bit.
    """
    size, tiles = canvas.size, sheets()
    colour, material, shadow = canvas.pixels()
    # A bytearray, whose `translate` takes 0.6 of the time of that of bytes, which looks whether anything changes.
    codes, present = bytearray(material), bytes(CODE[name] for name in canvas.used)
    texture, tint, less_blue, dark, bright, plane, spare = _buffers(size)

    def strength(of: bytes) -> np.ndarray | None:
        """How strong something is at each pixel, `(H, W)` uint8; None if it is nowhere."""
        return np.frombuffer(codes.translate(of), np.uint8).reshape(size, size) if any(present.translate(of)) else None

    def scatter(of: bytes, tile: np.ndarray) -> None:
        share = strength(of)
        if share is not None:
            np.multiply(share, tile, out=spare)
            np.add(texture, spare, out=texture)

    texture.fill(SHARE * UNIT)
    scatter(GRAIN, window(tiles["grain"], size, ground.grain))
    scatter(MOTTLE, window(tiles["mottle"], size, ground.mottle))
    scatter(RIPPLE, window(tiles["ripple"], size, corner(rng, size)))
    if any(present.translate(CANOPY)):
        x, y = light.sun
        reach = max((x * x + y * y) ** 0.5, 1e-6)
        plane.fill(0)
        # A slope facing the sun is bright: minus the gradient along the shadow.
        for share, tile in zip((-x / reach, -y / reach, 1.0), crowns(ground.crown), strict=True):
            plane += np.multiply(window(tile, size, ground.crowns), np.int16(round(0.7 * 64 * share)), out=spare)
        plane >>= 6
        scatter(CANOPY, plane)
    for of, across in ((ROWS, True), (ACROSS, False)):
        if any(present.translate(of)):
            scatter(of, canvas.waves(ground.row_m, across))
    texture >>= TO_ONE
    # Room for the tint, so that bands stay within a byte without a look at each.
    np.clip(texture, *BRIGHTNESS, out=texture)
    shaded = strength(SHADED)
    if shaded is None:
        dark.fill(0)
    else:
        np.multiply(shaded, shadow, out=dark.view(np.uint16), dtype=np.uint16)
        dark.view(np.uint16)[:] >>= 8
    paler = strength(TINT)
    if paler is not None:
        np.multiply(paler, window(tiles["tint"], size, ground.tint), out=tint)
        tint >>= TO_ONE
        np.multiply(tint, np.int16(-0.6 * ONE), out=less_blue)
        less_blue >>= 7
    noise = window(tiles["sensor"], size + 2, corner(rng, size + 2)) * np.int16(round(64 * light.noise))
    noise >>= 8
    image = np.empty((size, size, 3), np.uint8)
    for c in range(3):
        np.multiply(dark, np.int16(round(-ONE * light.dark[c])), out=bright)
        bright >>= 7
        bright += np.int16(ONE)
        if paler is None or c == 1:
            bright *= texture
        else:
            # Paler plants are redder and less blue.
            np.add(texture, tint if c == 0 else less_blue, out=spare)
            bright *= spare
        bright >>= 7
        whole = np.multiply(colour[..., c], bright, out=plane).view(np.uint16)  # up to 65,025
        whole >>= 5
        soften(plane, round(64 * light.blur), spare)
        # Each band reads its own place of the noise tile, a pixel apart.
        plane += noise[c : c + size, 2 - c : 2 - c + size]
        plane += np.int16(round(4 * light.haze[c] + 2))
        plane >>= 2
        np.clip(plane, *BYTE, out=plane)
        image[..., c] = plane
    return image, material


def soften(plane: np.ndarray, weight: int, spare: np.ndarray) -> None:
    """Blurs `(H, W)` int16 in place, each neighbour in a row or column counting `weight` 64ths; overwrites `spare`.

    Values are to be within 0 and 2,047, the weight within 0 and 16, or products leave the 16 bits.
    """
    flat = plane.reshape(-1)
    for apart in (1, plane.shape[1]) if weight else ():
        step = np.subtract(flat[apart:], flat[:-apart], out=spare.reshape(-1)[:-apart])
        if apart == 1:
            spare[:, -1] = 0  # from the end of a row to the start of the next
        step *= np.int16(weight)
        step >>= 6
        flat[:-apart] += step
        flat[apart:] -= step
