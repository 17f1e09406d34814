"""Places to live: dense and sparse residential."""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sin

from cmid.data.generated import buildings as b
from cmid.data.generated import surfaces as s
from cmid.data.generated import vehicles as v
from cmid.data.generated.canvas import Canvas, Colour, Point
from cmid.data.generated.plan import Layer, Plan

GREY: tuple[Colour, ...] = ((104, 104, 106), (118, 116, 114), (92, 92, 96), (132, 130, 126))
PAVEMENT: Colour = (172, 168, 160)


def lawn(plan: Plan) -> Colour:
    """A colour of grass, from dry to lush."""
    dry = plan.rng.random()
    return (92 + 40 * dry + plan.rng.uniform(-8, 8), 108 + 12 * dry, 66 + 16 * dry)


def foliage(plan: Plan) -> Colour:
    """A colour of leaves."""
    return (plan.rng.uniform(52, 84), plan.rng.uniform(78, 98), plan.rng.uniform(40, 56))


def house(plan: Plan, x: float, y: float, length: float, width: float, angle: float, tint: Colour) -> None:
    """A house of one or two wings."""
    rng = plan.rng
    colour = b.lit(tint, rng.uniform(0.85, 1.15))
    height = rng.choice((4.0, 5.0, 7.0))
    draw = rng.choice((b.gabled, b.gabled, b.hipped, b.hipped, b.hipped))
    group = len(plan.items)
    if rng.random() < 0.35:
        side = rng.choice((-1, 1))
        u, w = side * length * 0.28, width * 0.45 * rng.choice((-1, 1))
        ((wx, wy),) = s.placed([(u, w)], x, y, angle)
        wing = (width * 0.9, length * 0.40, angle + pi / 2, height - 0.5, b.lit(colour, 0.97))
        plan.build(length, b.gabled, wx, wy, *wing, group=group)
    plan.build(length, draw, x, y, length, width, angle, height, colour, group=group)


def dense_residential(plan: Plan) -> None:
    """Rows of houses back to back along gently bent streets, with drives, gardens and street trees."""
    rng = plan.rng
    plan.ground, plan.foliage, plan.crown_m = lawn(plan), foliage(plan), rng.uniform(4, 7)
    bend, wave, shift = rng.uniform(0, 7), rng.uniform(60, 140), rng.uniform(0, 6.28)
    plot, depth, street = rng.uniform(11, 16), rng.uniform(22, 30), rng.uniform(6, 8.5)
    block, asphalt = 2 * depth + street, rng.choice(GREY)
    reach, greenery = plan.reach + 12, rng.uniform(0.15, 1.0)
    palette = rng.sample(b.TILES, rng.randint(2, 4))
    row_houses = rng.random() < 0.25

    def bent(x: float, y: float) -> tuple[float, float, float]:
        return x, y + bend * sin(x / wave + shift), bend / wave * sin(x / wave + shift + pi / 2)

    hood = _Street(bent, depth, street, palette, greenery, row_houses)
    y0 = rng.uniform(-0.5, 0.5) * block
    rows = range(int((-reach - y0) // block), int((reach - y0) // block) + 2)
    side_x = rng.uniform(-0.6, 0.6) * plan.half
    side_streets = [side_x + k * rng.uniform(110, 170) for k in (-1, 0, 1)]
    for x in side_streets:
        plan.add(Layer.PAVING, s.road, [(x, -reach), (x, reach)], street, asphalt, PAVEMENT)
        plan.add(Layer.MARKING, s.dashes, [(x, -reach), (x, reach)], 0.0)
    xs = [-reach + k * reach / 8 for k in range(17)]
    for row in rows:
        y = y0 + row * block
        points: list[Point] = [bent(x, y)[:2] for x in xs]
        plan.add(Layer.PAVING, s.strip, points, street + 3.0, PAVEMENT, "concrete")
        plan.add(Layer.ROAD, s.strip, points, street, asphalt, "asphalt")
        for lane in (-1, 1):
            x = -reach
            while (x := x + rng.uniform(9, 42)) < reach:
                cx, cy, angle = bent(x, y + lane * street * 0.30)
                turn = angle + (0 if lane > 0 else pi)
                plan.move(3, 0.55, v.car, cx, cy, turn)
        for side in (-1, 1):
            x = -reach - rng.uniform(0, plot)
            while x < reach:
                width = plot if row_houses else plot * rng.uniform(0.92, 1.25)
                centre = x + width / 2
                x += width
                if any(abs(centre - sx) < street / 2 + width * 0.6 for sx in side_streets):
                    continue
                _plot(plan, hood, centre, y, side, width)
    for row in rows:
        for x in side_streets:
            plan.add(
                Layer.ROAD, s.strip, [(x, y0 + row * block - 9), (x, y0 + row * block + 9)], street, asphalt, "asphalt"
            )


@dataclass(frozen=True)
class _Street:
    """What the plots of one neighbourhood share; `bent` maps straight (x, y) to x, y and the street's angle there."""

    bent: Callable[[float, float], tuple[float, float, float]]
    depth: float
    width: float
    palette: list[Colour]
    greenery: float
    joined: bool


def _plot(plan: Plan, street: _Street, x: float, y: float, side: int, width: float) -> None:
    """One house with its drive, garden and trees, on `side` of the street at y."""
    rng, bent, depth, joined = plan.rng, street.bent, street.depth, street.joined
    setback = street.width / 2 + 1.5 + rng.uniform(4.0, 6.5)
    deep, wide = rng.uniform(8.5, 11.5), (width + 0.4 if joined else min(width - 2.5, rng.uniform(9, 13)))
    cx, cy, angle = bent(x, y + side * (setback + deep / 2))
    if not plan.sees(cx, cy, depth):
        return
    if not joined:
        dx, dy, _ = bent(x + width * 0.36, y + side * (street.width / 2 + setback / 2 + 1))
        plan.put(
            Layer.PAVING, 8, pad, dx, dy, setback + 1.0, 3.0, angle + pi / 2, b.lit(PAVEMENT, rng.uniform(0.8, 1.1))
        )
        plan.move(4, 0.4, v.car, dx, dy, angle + pi / 2)
    if rng.random() < 0.97:
        house(
            plan,
            cx,
            cy,
            max(wide, deep),
            min(wide, deep),
            angle + (0 if wide >= deep else pi / 2),
            rng.choice(street.palette),
        )
    back = setback + deep + 2
    if rng.random() < 0.10 and depth - back > 5:
        px, py, _ = bent(x + rng.uniform(-2, 2), y + side * (back + 2.5))
        plan.put(Layer.LOW, 8, s.pool, px, py, rng.uniform(6, 9), rng.uniform(3.2, 4.4), angle, (74, 168, 196))
    elif rng.random() < 0.25:
        px, py, _ = bent(x + rng.uniform(-0.3, 0.3) * width, y + side * (depth - 3))
        plan.build(4, b.gabled, px, py, rng.uniform(3, 4.5), 2.6, angle, 2.4, (120, 112, 102))
    for _ in range(4):
        if rng.random() < street.greenery:
            tx, ty, _ = bent(
                x + rng.uniform(-0.5, 0.5) * width, y + side * (back + rng.uniform(0, max(depth - back, 1)))
            )
            plan.plant(rng.uniform(1.3, 3.4), b.tree, tx, ty)
    if rng.random() < street.greenery * 0.7:
        tx, ty, _ = bent(x - 0.4 * width, y + side * (street.width / 2 + 3))
        plan.plant(rng.uniform(1.6, 3.2), b.tree, tx, ty)


def pad(
    canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, colour: Colour,
    material: str = "concrete",
) -> None:  # fmt: skip
    """A rectangle of pavement or lawn."""
    canvas.quad(x, y, length, width, angle, colour, material)


def sparse_residential(plan: Plan) -> None:
    """One to a few large houses with long drives among lawns and many trees."""
    rng = plan.rng
    plan.ground, plan.foliage, plan.crown_m = lawn(plan), foliage(plan), rng.uniform(5, 9)
    plan.ground_material = "meadow"
    reach, asphalt = plan.reach + 10, rng.choice(GREY)
    side = rng.choice((-1, 1))
    road_y = side * rng.uniform(0.35, 0.62) * plan.half
    bend, wave = rng.uniform(-8, 8), rng.uniform(30, 60)
    xs = [-reach + k * reach / 10 for k in range(21)]
    lane: list[Point] = [(x, road_y + bend * sin(x / wave)) for x in xs]
    plan.add(Layer.ROAD, s.road, lane, rng.uniform(4.5, 6.0), asphalt)
    houses: list[Point] = []
    for base in (-side, side):
        x = -reach + rng.uniform(0, 25)
        while x < reach:
            y = road_y + base * rng.uniform(22, 44)
            if plan.sees(x, y, 0):
                houses.append((x, y))
            x += rng.uniform(44, 90)
    palette = rng.sample(b.TILES, 3)
    for x, y in houses:
        foot = road_y + bend * sin(x / wave)
        drive: list[Point] = [
            (x - 6, foot),
            (x - 5, foot + (y - foot) * 0.4),
            (x + 7, y - (y - foot) * 0.25),
            (x + 8, y),
        ]
        gravel = rng.choice(((176, 164, 142), (150, 148, 144), (190, 184, 172)))
        plan.add(Layer.PAVING, s.strip, drive, 3.4, gravel, "concrete")
        plan.put(Layer.PAVING, 9, pad, x + 8, y, 9, 8, 0.0, gravel)
        angle = rng.choice((0.0, pi / 2)) + rng.uniform(-0.3, 0.3)
        house(plan, x - 3, y, rng.uniform(14, 20), rng.uniform(9, 11), angle, rng.choice(palette))
        if rng.random() < 0.55:
            plan.build(
                6, b.gabled, x + rng.uniform(12, 17), y + rng.uniform(-6, 6), 7.0, 5.5, angle, 3.5, rng.choice(palette)
            )
        if rng.random() < 0.45:
            far = 1 if y > road_y else -1
            plan.put(Layer.LOW, 9, s.pool, x + rng.uniform(-6, 4), y + far * 13, 10, 5, angle, (66, 164, 198))
        for k in range(2):
            plan.move(4, 0.5, v.car, x + 8 + 2.6 * k, y - 1, pi / 2)
    for x in range(3):
        plan.move(4, 0.4, v.car, (x - 1) * 40.0, road_y + bend * sin((x - 1) * 40.0 / wave) + 1.2, 0.0)
    woods, area = rng.uniform(0.35, 1.0), (2 * plan.reach) ** 2
    centres = [(rng.uniform(-1, 1) * reach, rng.uniform(-1, 1) * reach) for _ in range(7)]
    for _ in range(int(area / 90 * woods)):
        if rng.random() < 0.6:
            x, y = rng.choice(centres)
            x, y = x + rng.gauss(0, 15), y + rng.gauss(0, 15)
        else:
            x, y = rng.uniform(-reach, reach), rng.uniform(-reach, reach)
        if abs(y - road_y - bend * sin(x / wave)) < 5 or any(abs(x - a) < 14 and abs(y - c) < 11 for a, c in houses):
            continue
        plan.plant(rng.uniform(1.8, 4.6), b.conifer if rng.random() < 0.2 else b.tree, x, y, 0.16)
