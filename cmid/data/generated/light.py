"""The day and the sensor: sun, season, haze, colour cast, blur and noise of one date, and the picture they give."""

import threading
from dataclasses import dataclass
from math import cos, radians, sin, tan
from random import Random

import numpy as np

from cmid.data.generated.canvas import Canvas
from cmid.data.generated.materials import CODE, table
from cmid.data.generated.texture import CROWN_PX, CROWN_TILE_PX, corner, crowns, sheets, window

GRAIN, MOTTLE, TINT, CANOPY = table("grain"), table("mottle"), table("tint"), table("canopy")
RIPPLE, ROWS, ACROSS = table("ripple"), table("rows"), table("across")
SHADED, SEASON, SNOW = table("shaded"), table("season"), table("snow")

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
    """`(6, size, size)` float32 of this thread to work in; fresh ones each time take about 5 % longer."""
    if getattr(_scratch, "size", None) != size:
        _scratch.size, _scratch.arrays = size, np.empty((6, size, size), np.float32)
    return _scratch.arrays


def expose(canvas: Canvas, light: Light, ground: Ground, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    """The picture of a canvas on a day.

    Returns:
        image `(H, W, 3)` uint8 and material `(H, W)` uint8 with the changed bit.
    """
    size, tiles = canvas.size, sheets()
    colour, material, shadow = canvas.pixels()
    index = material.astype(np.intp)
    present = [CODE[name] for name in canvas.used]
    texture, dark, tint, share, plane, spare = _buffers(size)

    def spread(of: np.ndarray, out: np.ndarray) -> bool:
        """Writes the strength of something at each pixel into `out`; False, and nothing, if it is nowhere."""
        if not of[present].any():
            return False
        of.take(index, out=out, mode="clip")  # "raise" would work in a copy
        return True

    def scatter(of: np.ndarray, tile: np.ndarray) -> None:
        if spread(of, share):
            np.multiply(share, tile, out=share)
            np.add(texture, share, out=texture)

    texture.fill(1)
    scatter(GRAIN, window(tiles["grain"], size, ground.grain))
    scatter(MOTTLE, window(tiles["mottle"], size, ground.mottle))
    scatter(RIPPLE, window(tiles["ripple"], size, corner(rng, size)))
    if CANOPY[present].any():
        x, y = light.sun
        reach = max((x * x + y * y) ** 0.5, 1e-6)
        slope_x, slope_y, lightness = (window(tile, size, ground.crowns) for tile in crowns(ground.crown))
        # A slope facing the sun is bright: minus the gradient along the shadow.
        np.multiply(slope_x, np.float32(-0.7 * x / reach), out=plane)
        plane -= np.multiply(slope_y, np.float32(0.7 * y / reach), out=spare)
        plane += np.multiply(lightness, np.float32(0.7), out=spare)
        scatter(CANOPY, plane)
    for of, across in ((ROWS, True), (ACROSS, False)):
        if of[present].any():
            scatter(of, canvas.waves(ground.row_m, across))

    spread(SHADED, dark) or dark.fill(0)
    np.multiply(dark, shadow, out=dark)
    tinted = spread(TINT, tint)
    if tinted:
        np.multiply(tint, window(tiles["tint"], size, ground.tint), out=tint)
    image = np.empty((size, size, 3), np.uint8)
    noise = window(tiles["sensor"], size + 2, corner(rng, size + 2))
    for c in range(3):
        np.copyto(plane, colour[..., c])
        gain = (1 + SEASON * np.float32(light.season[c] - 1)) * np.float32(light.gain[c])
        if light.snow:
            white = np.float32(light.snow) * SNOW.take(index)
            plane += white * (np.float32(225 + 8 * c) - plane)
            gain = 1 + (gain - 1) * np.float32(1 - light.snow)
        plane *= gain.take(index, out=share, mode="clip")
        if tinted and c != 1:
            # Paler plants are redder and less blue.
            np.multiply(tint, np.float32(1 if c == 0 else -0.6), out=spare)
            plane *= np.add(spare, texture, out=spare)
        else:
            plane *= texture
        np.multiply(plane, dark, out=spare)
        plane -= np.multiply(spare, np.float32(light.dark[c] / 255), out=spare)
        if light.blur:
            soften(plane, light.blur, spare)
        # Each band reads its own place of the noise tile, a pixel apart.
        own = noise[c : c + size, 2 - c : 2 - c + size]
        plane += np.multiply(own, np.float32(light.noise), out=spare)
        plane += np.float32(light.haze[c] + 0.5)
        np.clip(plane, 0, 255, out=plane)
        image[..., c] = plane
    return image, material


def soften(plane: np.ndarray, weight: float, spare: np.ndarray) -> None:
    """Blurs `(H, W)` float32 in place, each neighbour in a row or column counting `weight`; overwrites `spare`."""
    for view, step in ((plane, spare[1:]), (plane.T, spare[:, 1:].T)):
        np.subtract(view[1:], view[:-1], out=step)
        np.multiply(step, np.float32(weight), out=step)
        view[:-1] += step
        view[1:] -= step
