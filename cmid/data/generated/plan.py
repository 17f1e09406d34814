"""A plan is the list of things at a place, drawn up once and drawn out once per date.

The place's random numbers are spent on the plan only, so that both dates show the same place. Structures may be
chosen to be new or removed; movable things (cars, ships, aircraft) appear by chance at each date and are no change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from math import cos, sin
from random import Random
from typing import Any

from cmid.data.generated.canvas import Canvas, Colour


class Layer(IntEnum):
    """What is drawn over what."""

    GROUND = 0
    WATER = 1
    PAVING = 2
    ROAD = 3
    MARKING = 4
    LOW = 5
    MOVABLE = 6
    STRUCTURE = 7
    PLANT = 8
    OVERHEAD = 9
    ABOVE = 10


@dataclass(slots=True)
class Item:
    """One thing to draw.

    Attributes:
        layer: its layer; things of one layer are drawn in the order they were planned.
        draw: called as `draw(canvas, *args)`, or with `rng=` besides if it is movable.
        args: its arguments.
        chance: probability of being there at a date, for movable things.
        structure: whether it may be new or removed.
        dates: at which dates it stands.
        group: items of one group come and go together.
        where: (x, y, radius) in metres.
    """

    layer: Layer
    draw: Callable[..., None]
    args: tuple[Any, ...]
    chance: float | None = None
    structure: bool = False
    dates: tuple[bool, bool] = (True, True)
    group: int = -1
    where: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Plan:
    """The things at a place that a picture of `size` pixels of `gsd` metres, turned by `turn_rad`, can show.

    Args:
        rng: the place's random numbers.
        size: side of the picture in pixels.
        gsd: metres per pixel.
        turn_rad: angle from the picture's x axis to the place's.
    """

    def __init__(self, rng: Random, size: int, gsd: float, turn_rad: float) -> None:
        self.rng, self.size, self.gsd, self.turn_rad = rng, size, gsd, turn_rad
        self.half = 0.5 * size * gsd
        self._c, self._s = cos(turn_rad), sin(turn_rad)
        self.reach = self.half * (abs(self._c) + abs(self._s))
        """Half the side, in metres, of the square along the place's axes that covers the picture."""
        self.items: list[Item] = []
        self.ground: Colour = (104, 116, 76)
        self.ground_material = "grass"
        self.crown_m, self.row_m = 7.0, 2.5
        self.foliage: Colour = (66, 88, 48)

    def sees(self, x: float, y: float, radius: float) -> bool:
        """Whether anything within `radius` metres of (x, y) can be in the picture."""
        half = self.half + radius
        return abs(self._c * x - self._s * y) < half and abs(self._s * x + self._c * y) < half

    def add(self, layer: Layer, draw: Callable[..., None], *args: Any) -> None:
        """Something that is always there, whatever its place and size."""
        self.items.append(Item(layer, draw, args))

    def put(self, layer: Layer, radius: float, draw: Callable[..., None], x: float, y: float, *args: Any) -> None:
        """Something that is always there, within `radius` of (x, y); left out if out of sight."""
        if self.sees(x, y, radius):
            self.items.append(Item(layer, draw, (x, y, *args)))

    def move(
        self, radius: float, chance: float, draw: Callable[..., None], x: float, y: float, *args: Any,
        layer: Layer = Layer.MOVABLE,
    ) -> None:  # fmt: skip
        """Something that is there at each date with probability `chance`."""
        if self.sees(x, y, radius):
            self.items.append(Item(layer, draw, (x, y, *args), chance=chance))

    def build(
        self, radius: float, draw: Callable[..., None], x: float, y: float, *args: Any, group: int = -1,
        layer: Layer = Layer.STRUCTURE,
    ) -> None:  # fmt: skip
        """A structure around (x, y), which may come or go between the dates."""
        if self.sees(x, y, radius):
            self.items.append(Item(layer, draw, (x, y, *args), structure=True, group=group, where=(x, y, radius)))

    def lay(self, layer: Layer, draw: Callable[..., None], *args: Any) -> None:
        """A structure without a middle (a road), which may come or go between the dates."""
        self.items.append(Item(layer, draw, args, structure=True))

    def plant(self, radius: float, draw: Callable[..., None], x: float, y: float, spread: float = 0.12) -> None:
        """A tree in a shade of the place's foliage."""
        if self.sees(x, y, radius * 4):
            share = 1 + self.rng.uniform(-spread, spread) * 1.6
            r, g, b = self.foliage
            warm = self.rng.uniform(-6, 10)
            colour = (r * share + warm, g * share, b * share - warm / 3)
            self.items.append(Item(Layer.PLANT, draw, (x, y, radius, colour)))

    def choose_changes(self) -> None:
        """Makes some structures new at the second date and some gone; about one place in seven does not change."""
        rng = self.rng
        groups: dict[int, list[Item]] = {}
        for number, item in enumerate(self.items):
            x, y, _ = item.where
            if item.structure and self.sees(x, y, -0.06 * self.half):
                groups.setdefault(item.group if item.group >= 0 else -2 - number, []).append(item)
        roll, share = rng.random(), rng.uniform(0.08, 0.4)
        if roll < 0.14 or not groups:
            return
        for key in rng.sample(list(groups), max(1, round(share * len(groups)))):
            dates = (False, True) if rng.random() < 0.6 else (True, False)
            for item in groups[key]:
                item.dates = dates

    def draw(self, canvas: Canvas, date: int, rng: Random) -> None:
        """Draws the place as it stands at `date` (0 or 1), movable things by `rng`."""
        for item in sorted(self.items, key=lambda i: i.layer):
            if not item.dates[date]:
                continue
            if item.chance is not None:
                if rng.random() < item.chance:
                    item.draw(canvas, *item.args, rng=rng)
                continue
            if item.structure:
                canvas.mark_changed(not all(item.dates))
            item.draw(canvas, *item.args)
            canvas.flag = 0
