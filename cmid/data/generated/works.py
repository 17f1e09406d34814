"""Places to work, shop and play: industrial, parking, recreation."""

from math import pi
from random import Random

from cmid.data.generated import buildings as b
from cmid.data.generated import surfaces as s
from cmid.data.generated import vehicles as v
from cmid.data.generated.canvas import Canvas, Colour
from cmid.data.generated.plan import Layer, Plan
from cmid.data.generated.residential import GREY, PAVEMENT, foliage, lawn, pad


def industrial(plan: Plan) -> None:
    """Halls with ribbed or flat roofs on paved yards, lorries at docks, tanks, a road between."""
    rng = plan.rng
    concrete = rng.choice(((150, 148, 142), (138, 134, 128), (164, 160, 150), (122, 120, 118)))
    plan.ground, plan.ground_material = concrete, "concrete"
    plan.foliage, plan.crown_m, plan.row_m = foliage(plan), 5.0, rng.uniform(2.0, 3.2)
    reach, street, asphalt = plan.reach + 20, 10.0, rng.choice(GREY)
    road_x, road_y = rng.uniform(-0.6, 0.6) * plan.half, rng.uniform(-0.5, 0.5) * plan.half
    for line, verge in (([(road_x, -reach), (road_x, reach)], 22.0), ([(-reach, road_y), (reach, road_y)], 20.0)):
        plan.add(Layer.GROUND, s.strip, line, verge, lawn(plan), "grass")
        plan.add(Layer.ROAD, s.road, line, street, asphalt, PAVEMENT)
        plan.add(Layer.MARKING, s.dashes, line, 0.0)
    for k in range(-6, 7):
        if rng.random() < 0.6:
            plan.plant(rng.uniform(1.6, 2.8), b.tree, k * 14.0 + rng.uniform(-3, 3), road_y + rng.choice((-8.5, 8.5)))
        draw = v.truck if rng.random() < 0.45 else v.car
        plan.move(8, 0.4, draw, k * 22.0, road_y + 2.4, 0.0)
        plan.move(8, 0.4, draw, road_x - 2.4, k * 25.0 + 9, pi / 2)
    palette = rng.sample(b.SHEETS, 3) + rng.sample(b.FLATS, 1)
    for x_side in (-1, 1):
        for y_side in (-1, 1):
            u = 13.0
            while u < reach:
                wide = rng.uniform(30, 62)
                w = 13.0
                while w < reach:
                    deep = rng.uniform(24, 54)
                    x, y = road_x + x_side * (u + wide / 2), road_y + y_side * (w + deep / 2)
                    if plan.sees(x, y, max(wide, deep)):
                        _yard(plan, x, y, wide - 5, deep - 5, palette)
                    w += deep
                u += wide


def _yard(plan: Plan, x: float, y: float, wide: float, deep: float, palette: list[Colour]) -> None:
    rng, kind = plan.rng, plan.rng.random()
    if kind < 0.62:
        share = rng.uniform(0.62, 0.95)
        long, angle = (wide, 0.0) if wide * 1.0 >= deep * share else (deep * share, pi / 2)
        short = min(wide, deep * share)
        top = y - deep / 2 + deep * share / 2
        colour = b.lit(rng.choice(palette), rng.uniform(0.9, 1.08))
        if rng.random() < 0.7:
            bays = max(1, round(short / rng.uniform(11, 24)))
            plan.build(long, b.hall, x, top, long, short, angle, rng.uniform(7, 13), colour, bays, rng.random() < 0.35)
        else:
            units = rng.randint(4, 12)
            plan.build(long, b.flat, x, top, long, short, angle, rng.uniform(6, 16), colour, units, rng.random())
        dock = y + deep / 2 - deep * (1 - share) + 7.5
        if deep * (1 - share) > 10:
            for k in range(int(wide / 4.2)):
                plan.move(9, 0.4, v.truck, x - wide / 2 + 3 + 4.2 * k, dock, pi / 2)
    elif kind < 0.74:
        radius = rng.uniform(4.5, min(wide, deep) / 4.2)
        step, pale = 2 * radius + rng.uniform(3, 5), rng.choice(((206, 206, 200), (190, 194, 194), (176, 158, 132)))
        floating = rng.random() < 0.5
        plan.put(Layer.PAVING, wide, pad, x, y, wide, deep, 0.0, (156, 146, 124), "soil")
        for i in range(int(wide / step)):
            for j in range(int(deep / step)):
                u, w = x - wide / 2 + step * (i + 0.5), y - deep / 2 + step * (j + 0.5)
                plan.build(
                    radius, b.tank, u, w, radius, rng.uniform(7, 12), b.lit(pale, rng.uniform(0.92, 1.06)), floating
                )
    elif kind < 0.87:
        for i in range(int(wide / 7.2)):
            for j in range(int(deep / 3.4)):
                if rng.random() < 0.72:
                    plan.move(5, 0.9, crate, x - wide / 2 + 3.6 + 7.2 * i, y - deep / 2 + 1.7 + 3.4 * j)
    else:
        bay_rows(plan, x, y, wide, deep, 2.6, rng.uniform(0.3, 0.9))


def crate(canvas: Canvas, x: float, y: float, rng: Random) -> None:
    """A shipping container."""
    colour = rng.choice(v.CRATES)
    canvas.cast(s.rectangle(x, y, 6.1, 2.5, 0.0), 2.6)
    canvas.quad(x, y, 6.1, 2.5, 0.0, colour, "clutter")


def bay_rows(
    plan: Plan, x: float, y: float, wide: float, deep: float, pitch: float, full: float, gaps: tuple[float, ...] = ()
) -> None:
    """Double rows of parking bays with aisles, filled to the share `full` but for the islands at x in `gaps`."""
    rng, depth, aisle = plan.rng, 5.0, 6.4
    count = int(wide / pitch)
    module = 2 * depth + aisle
    for k in range(int(deep / module)):
        for half in (0, 1):
            row = y - deep / 2 + k * module + depth / 2 + half * (depth + aisle)
            if not plan.sees(x, row, wide / 2 + depth):
                continue
            visible = [i for i in range(count) if plan.sees(x + (i - count / 2 + 0.5) * pitch, row, 4)]
            if not visible:
                continue
            first, last = visible[0], visible[-1]
            middle = x + ((first + last) / 2 - count / 2 + 0.5) * pitch
            plan.add(Layer.MARKING, s.bays, middle, row, last - first + 1, pitch, depth, 0.0)
            for i in visible:
                turn = pi / 2 if rng.random() < 0.5 else -pi / 2
                if any(abs(x + (i - count / 2 + 0.5) * pitch - gap) < 2.4 for gap in gaps):
                    continue
                plan.move(3, full, v.car, x + (i - count / 2 + 0.5) * pitch, row + rng.uniform(-0.3, 0.3), turn)


def parking(plan: Plan) -> None:
    """A car park: double rows of bays, planted islands, a corner of the shop it belongs to."""
    rng = plan.rng
    plan.ground, plan.ground_material = (
        rng.choice(((96, 96, 98), (112, 110, 108), (128, 126, 122), (84, 84, 88))),
        "asphalt",
    )
    plan.foliage, plan.crown_m = foliage(plan), 3.5
    reach, full = plan.reach, rng.uniform(0.35, 0.95)
    grass, edge = lawn(plan), plan.half * rng.uniform(0.35, 0.9)
    pitch = rng.uniform(2.5, 2.9)
    islands = (-1.55 * plan.half, -0.5 * plan.half, 0.55 * plan.half, 1.6 * plan.half)
    bay_rows(plan, 0.0, edge - reach, 2 * reach, 2 * reach, pitch, full, islands)
    module = 2 * 5.0 + 6.4
    for k in range(int(2 * reach / module) + 1):
        y = edge - 2 * reach + k * module
        for x in islands:
            if rng.random() < 0.75 and plan.sees(x, y, 6):
                plan.put(Layer.LOW, 6, pad, x, y, 2.6, 10.2, 0.0, PAVEMENT)
                plan.put(Layer.LOW, 6, pad, x, y, 2.0, 9.4, 0.0, grass, "grass")
                plan.plant(rng.uniform(1.2, 2.2), b.tree, x, y + rng.uniform(-3, 3))
    for k in range(6):
        plan.move(
            3, 0.3, v.car, rng.uniform(-1, 1) * plan.half, edge - 3.2 - 8.2 - module * k + 8.2, rng.choice((0.0, pi))
        )
    for _ in range(rng.randint(1, 3)):
        # A shelter over a few bays.
        row = edge - 2 * reach + rng.randint(2, max(2, int(2 * reach / module))) * module + 2.5
        x = rng.uniform(-0.8, 0.8) * plan.half
        plan.build(9, b.flat, x, row, rng.uniform(7, 16), 5.0, 0.0, 3.0, rng.choice(b.SHEETS), 0, 0.0)
    depth = reach - edge + 30
    plan.add(
        Layer.LOW,
        s.polygon,
        [(-reach, edge + 3), (reach, edge + 3), (reach, edge + 9), (-reach, edge + 9)],
        grass,
        "grass",
    )
    x = -reach
    while x < reach:
        wide = rng.uniform(22, 46)
        if rng.random() < 0.8:
            roof = rng.choice(b.FLATS + b.SHEETS[:4])
            where = (x + wide / 2, edge + 12 + depth / 2, wide - 3, depth, 0.0)
            plan.build(max(wide, depth), b.flat, *where, rng.uniform(5, 9), roof, 9, rng.random())
        plan.plant(rng.uniform(1.4, 2.6), b.tree, x + rng.uniform(2, 14), edge + 6)
        x += wide


def recreation(plan: Plan) -> None:
    """Sports grounds: a track or pitches, courts, a baseball field, a pool, trees and a club house."""
    rng = plan.rng
    plan.ground, plan.foliage, plan.crown_m = lawn(plan), foliage(plan), rng.uniform(5, 7)
    grass = (rng.uniform(72, 104), rng.uniform(116, 134), rng.uniform(62, 78))
    reach, kind = plan.reach, rng.random()
    red = rng.choice(((168, 88, 70), (150, 72, 62), (176, 104, 84), (88, 104, 140)))
    x0, y0 = rng.uniform(-0.25, 0.25) * plan.half, rng.uniform(-0.25, 0.25) * plan.half
    if kind < 0.4:
        radius = rng.uniform(32, 37)
        half_length, half_width = 42 + radius, radius
        plan.put(Layer.PAVING, 90, s.track, x0, y0, 84.0, radius, 0.0, red, grass)
    elif kind < 0.65:
        half_length, half_width = 52.0, 34.0
        plan.put(Layer.PAVING, 80, s.pitch, x0, y0, 100.0, 64.0, 0.0, grass)
    elif kind < 0.82:
        half_length = half_width = 46.0
        plan.put(Layer.PAVING, 80, s.diamond, x0, y0, 88.0, rng.choice((0.0, pi / 2, pi)), grass, (172, 132, 98))
    else:
        half_length = half_width = 0.0
    inner, outer = rng.choice((
        ((56, 96, 142), (72, 122, 84)), ((64, 118, 80), (150, 78, 62)), ((168, 92, 70), (96, 122, 84)),
        ((70, 104, 150), (58, 82, 122)),
    ))  # fmt: skip
    path = rng.choice(((176, 168, 152), (190, 180, 160), (140, 138, 134)))
    side = rng.choice((-1, 1))
    y = y0 + side * (half_width + 15)
    plan.add(Layer.PAVING, s.strip, [(-reach, y - side * 9), (reach, y - side * 9)], 3.0, path, "concrete")
    for row in range(3):
        x = -reach + rng.uniform(0, 20)
        while x < reach:
            pick = rng.random()
            at = (x + 17, y + side * (4 + 21 * row))
            if pick < 0.5:
                plan.build(22, s.tennis_court, *at, 0.0, inner, outer, layer=Layer.PAVING)
            elif pick < 0.65:
                plan.build(22, s.basketball_court, *at, 0.0, inner, outer, layer=Layer.PAVING)
            elif pick < 0.72:
                plan.build(22, s.pool, *at, 25.0, 10.0, 0.0, (78, 172, 200), layer=Layer.LOW)
            elif pick < 0.82:
                plan.build(20, b.flat, *at, 26.0, 12.0, 0.0, 5.0, rng.choice(b.FLATS), 4, rng.random())
            else:
                for _ in range(9):
                    plan.plant(rng.uniform(1.8, 3.4), b.tree, at[0] + rng.uniform(-14, 14), at[1] + rng.uniform(-8, 8))
            x += 36.5
    other = y0 - side * (half_width + 12)
    plan.add(Layer.ROAD, s.road, [(-reach, other), (reach, other)], 6.0, rng.choice(GREY), PAVEMENT)
    for k in range(-4, 5):
        plan.move(3, 0.6, v.car, k * 17.0, other + 1.5, 0.0)
        plan.plant(rng.uniform(2, 3.6), b.tree, k * 12.0 + rng.uniform(-3, 3), other + side * 5)
        plan.plant(rng.uniform(2, 3.6), b.tree, k * 11.0 + rng.uniform(-3, 3), other - side * 6)
        house_y = other - side * 19
        if rng.random() < 0.5:
            plan.build(12, b.hipped, k * 22.0, house_y, 15.0, 10.0, 0.0, 6.0, rng.choice(b.TILES))
    for end in (-1, 1):
        for _ in range(12):
            x = x0 + end * (half_length + rng.uniform(6, 30))
            plan.plant(rng.uniform(1.8, 3.8), b.tree, x, y0 + rng.uniform(-1, 1) * (half_width - 2))
