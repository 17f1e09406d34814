"""A scene: one place seen at two dates, with the labels of all four tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from random import Random

import numpy as np

from cmid.data.generated import country, residential, routes, works
from cmid.data.generated.canvas import Canvas, Point, corners
from cmid.data.generated.light import Ground, Light, expose
from cmid.data.generated.materials import CHANGED, CODE, table
from cmid.data.generated.plan import Plan

PLACES: dict[str, tuple[Callable[[Plan], None], float, float]] = {
    "airport": (routes.airport, 0.50, 0.85),
    "beach": (country.beach, 0.35, 0.65),
    "dense_residential": (residential.dense_residential, 0.38, 0.60),
    "farmland": (country.farmland, 0.60, 1.40),
    "forest": (country.forest, 0.40, 0.85),
    "harbour": (routes.harbour, 0.42, 0.75),
    "highway": (routes.highway, 0.40, 0.70),
    "industrial": (works.industrial, 0.45, 0.80),
    "parking": (works.parking, 0.20, 0.30),
    "recreation": (works.recreation, 0.40, 0.65),
    "river": (country.river, 0.50, 1.00),
    "sparse_residential": (residential.sparse_residential, 0.35, 0.55),
}
"""Scene classes: how each is planned, and its least and greatest ground sample distance in metres."""
SCENE_CLASSES: tuple[str, ...] = tuple(PLACES)
SMALLEST_PX = 64

_SEMANTIC = table("semantic")
_HIDES = np.isin(np.arange(256) % CHANGED, [CODE["tree"], CODE["bridge"], CODE["roof"]])
_SHARES = np.linspace(-0.42, 0.42, 6)
_WITHIN = np.stack([np.ones(36), np.tile(_SHARES, 6), np.repeat(_SHARES, 6)])
"""What each of 6 x 6 points of a box takes of its middle, its length and its width."""


@dataclass(frozen=True)
class Box:
    """An object of a scene.

    Attributes:
        name: its class under DOTA's name.
        corners: four (x, y) in pixels of the image, clockwise on screen, the image spanning 0 to its size.
        difficult: True where the image's edge cuts it or something hides much of it.
    """

    name: str
    corners: tuple[Point, Point, Point, Point]
    difficult: bool


@dataclass(frozen=True)
class Scene:
    """One generated place.

    Attributes:
        name: scene class.
        gsd: metres per pixel.
        image: `(H, W, 3)` uint8 RGB, the first date.
        mask: `(H, W)` uint8, indices into `SEMANTIC_CLASSES`, of the first date.
        boxes: objects of the first date.
        later: `(H, W, 3)` uint8 RGB, the second date; None if it was not asked for.
        change: `(H, W)` uint8, 255 on the visible pixels of structures that are new or gone; None likewise.
    """

    name: str
    gsd: float
    image: np.ndarray
    mask: np.ndarray
    boxes: tuple[Box, ...]
    later: np.ndarray | None
    change: np.ndarray | None


def class_of(index: int) -> str:
    """The scene class of scene `index`: they take turns, so any run of scenes is balanced."""
    return SCENE_CLASSES[index % len(SCENE_CLASSES)]


def draw_scene(seed: int, index: int, size: int, *, second_date: bool = True) -> Scene:
    """Scene `index` of the endless series that `seed` fixes; depends on nothing but the arguments.

    Args:
        seed: names the series.
        index: position in the series, from 0.
        size: side in pixels, at least 64.
        second_date: whether to draw the later picture too, at about the cost of the first.

    Raises:
        ValueError: if `size` is under 64 or `index` negative.
    """
    if size < SMALLEST_PX or index < 0:
        raise ValueError(f"a scene needs a size of at least {SMALLEST_PX} px and an index from 0; got {size}, {index}")
    name = class_of(index)
    plan_place, finest, coarsest = PLACES[name]
    rng = Random(f"cmid scene {seed}/{index}/{size}")
    # Small pictures are taken from higher up, or they would show one roof.
    gsd = rng.uniform(finest, coarsest) * max(1.0, 256 / size) ** 0.5
    plan = Plan(rng, size, gsd, rng.uniform(0, 2 * pi))
    plan_place(plan)
    plan.choose_changes()
    ground = Ground.draw(rng, size, gsd, plan.crown_m, plan.row_m)
    light = Light.draw(rng)
    first, second = Random(rng.getrandbits(64)), Random(rng.getrandbits(64))
    image, material, canvas = _take(plan, light, ground, 0, first)
    boxes = _visible(canvas, material)
    mask = np.frombuffer(bytearray(material).translate(_SEMANTIC), np.uint8).reshape(size, size)
    later = change = None
    if second_date:
        later, after, _ = _take(plan, Light.draw(second, light), ground, 1, second)
        change = np.where((material | after) >= CHANGED, np.uint8(255), np.uint8(0))
    return Scene(name, gsd, image, mask, boxes, later, change)


def _take(plan: Plan, light: Light, ground: Ground, date: int, rng: Random) -> tuple[np.ndarray, np.ndarray, Canvas]:
    surface = plan.size, plan.gsd, plan.turn_rad, plan.ground, plan.ground_material
    canvas = Canvas(*surface, light.sun, light.slope_light, light.tones())
    plan.draw(canvas, date, rng)
    image, material = expose(canvas, light, ground, rng)
    return image, material, canvas


def _visible(canvas: Canvas, material: np.ndarray) -> tuple[Box, ...]:
    """The canvas's objects without those mostly outside the picture or hidden; those partly so are difficult."""
    names, frames = canvas.frames()
    if not names:
        return ()
    grid = frames @ _WITHIN
    inside = np.logical_and(*(np.abs(grid - canvas.size / 2) < canvas.size / 2))
    column, row = np.clip(grid, 0, canvas.size - 1, out=grid).astype(np.intp)
    under = material[row, column]
    own = np.array([CODE[made_of] for _, made_of in names], np.uint8)[:, None]
    hidden = _HIDES[under] & ((under % CHANGED) != own) & inside
    shown = inside.mean(1)
    covered = hidden.sum(1) / np.maximum(inside.sum(1), 1)
    difficult = (shown < 0.8) | (covered > 0.3)
    kept = np.flatnonzero((shown >= 0.3) & (covered <= 0.6))
    outlines = corners(frames[:, kept]).tolist()
    return tuple(
        Box(names[i][0], ((a, b), (c, d), (e, f), (g, h)), hard)
        for i, ((a, b), (c, d), (e, f), (g, h)), hard in zip(kept, outlines, difficult[kept].tolist(), strict=True)
    )
