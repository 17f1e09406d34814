"""Places of transport: highway, airport, harbour."""

from math import atan2, cos, pi, sin
from random import Random

from cmid.data.generated import buildings as b
from cmid.data.generated import surfaces as s
from cmid.data.generated import vehicles as v
from cmid.data.generated.canvas import Canvas, Colour, Point
from cmid.data.generated.country import between, blob, moved, wander
from cmid.data.generated.plan import Layer, Plan
from cmid.data.generated.residential import GREY, foliage, lawn
from cmid.data.generated.works import bay_rows, crate


def highway(plan: Plan) -> None:
    """A motorway with an overpass and looping ramps, a roundabout, or a large junction."""
    rng = plan.rng
    plan.ground, plan.foliage, plan.crown_m = lawn(plan), foliage(plan), 6.0
    reach, asphalt = plan.reach + 12, rng.choice(GREY)
    x0, y0 = rng.uniform(-0.3, 0.3) * plan.half, rng.uniform(-0.3, 0.3) * plan.half
    kind = rng.random()
    keep_out: list[tuple[float, float, float]] = []
    if kind < 0.55:
        _interchange(plan, x0, y0, reach, asphalt)
    elif kind < 0.78:
        radius = rng.uniform(16, 28)
        for line in ([(-reach, y0), (reach, y0)], [(x0, -reach), (x0, reach)]):
            plan.add(Layer.ROAD, s.road, line, 9.0, asphalt, (172, 168, 160))
            plan.add(Layer.MARKING, s.dashes, line, 0.0)
        plan.put(Layer.MARKING, radius, s.roundabout, x0, y0, radius, asphalt, lawn(plan))
        for k in range(9):
            t = k * 2 * pi / 9
            plan.move(8, 0.45, v.car, x0 + radius * 0.76 * cos(t), y0 + radius * 0.76 * sin(t), t + pi / 2)
        for k in (-3, -2, 2, 3, 4):
            plan.move(8, 0.5, v.car, x0 + k * 17.0, y0 + 2.2, 0.0)
            plan.move(8, 0.5, v.car, x0 - 2.2, y0 + k * 17.0, pi / 2)
        for _ in range(5):
            plan.plant(rng.uniform(1.5, 2.8), b.tree, x0 + rng.uniform(-5, 5), y0 + rng.uniform(-5, 5))
        keep_out.append((x0, y0, radius + 4))
    else:
        _junction(plan, x0, y0, reach, asphalt)
    area, woods = (2 * plan.reach) ** 2, rng.uniform(0.1, 0.6)
    for _ in range(int(area / 160 * woods)):
        x, y = rng.uniform(-reach, reach), rng.uniform(-reach, reach)
        near = min(abs(x - x0), abs(y - y0))
        if near > (34 if kind < 0.55 else 14) and all((x - a) ** 2 + (y - c) ** 2 > r * r for a, c, r in keep_out):
            plan.plant(rng.uniform(1.6, 3.6), b.tree, x, y, 0.18)
    for _ in range(7):
        x, y = rng.uniform(-1, 1) * plan.half, rng.uniform(-1, 1) * plan.half
        if min(abs(x - x0), abs(y - y0)) > (44 if kind < 0.55 else 26):
            plan.build(
                14,
                b.flat,
                x,
                y,
                rng.uniform(12, 22),
                rng.uniform(10, 16),
                0.0,
                7.0,
                rng.choice(b.FLATS),
                3,
                rng.random(),
            )


def _carriageway(plan: Plan, line: list[Point], lanes: int, asphalt: Colour, layer: Layer) -> float:
    """One direction's lanes along a line; returns the width."""
    width = 3.6 * lanes + 2.4
    plan.add(layer, s.strip, line, width, asphalt, "asphalt")
    mark = Layer.MARKING if layer == Layer.ROAD else layer
    for k in range(1, lanes):
        plan.add(mark, s.dashes, line, (k - lanes / 2) * 3.6)
    for edge in (-1, 1):
        plan.add(mark, s.line, line, edge * 1.8 * lanes)
    return width


def _interchange(plan: Plan, x0: float, y0: float, reach: float, asphalt: Colour) -> None:
    rng, lanes = plan.rng, plan.rng.randint(2, 4)
    gap = rng.uniform(1.5, 8)
    width = 3.6 * lanes + 2.4
    span = 2 * width + gap
    radius = rng.uniform(17, 30)
    for qx in (-1, 1):
        for qy in (-1, 1):
            if rng.random() < 0.75:
                cx, cy = x0 + qx * (span / 2 + radius - 3), y0 + qy * (span / 2 + radius - 3)
                # Three quarters of a circle: the quarter towards the crossing is the roads themselves.
                start = atan2(-qy, -qx) + pi / 4
                turns = [start + k * 1.5 * pi / 21 for k in range(22)]
                loop = [(cx + radius * cos(t), cy + radius * sin(t)) for t in turns]
                plan.add(Layer.PAVING, s.strip, loop, 6.5, b.lit(asphalt, 1.03), "asphalt")
                plan.add(Layer.MARKING, s.line, loop, 2.7)
            if rng.random() < 0.8:
                far = span / 2 + 2.6 * radius
                first = (x0 + qx * far * 1.5, y0 + qy * span * 0.4)
                last = (x0 + qx * span * 0.4, y0 + qy * far * 1.5)
                bend = (x0 + qx * far * 0.62, y0 + qy * far * 0.62)
                ramp = [_curve(first, bend, last, k / 12) for k in range(13)]
                plan.add(Layer.PAVING, s.strip, ramp, 6.5, b.lit(asphalt, 0.97), "asphalt")
                plan.add(Layer.MARKING, s.dashes, ramp, 0.0)
                plan.move(8, 0.5, v.car, *ramp[6], pi * 0.75 if qx * qy > 0 else pi * 0.25)
    plan.add(Layer.GROUND, s.strip, [(-reach, y0), (reach, y0)], span + 8, (134, 130, 104), "meadow")
    for side in (-1, 1):
        middle = side * (width + gap) / 2
        _carriageway(plan, [(-reach, y0 + middle), (reach, y0 + middle)], lanes, asphalt, Layer.ROAD)
        x = -reach
        while (x := x + rng.uniform(8, 34)) < reach:
            lane = middle + (rng.randrange(lanes) - (lanes - 1) / 2) * 3.6
            plan.move(9, 0.75, v.truck if rng.random() < 0.22 else v.car, x, y0 + lane, 0.0 if side > 0 else pi)
    over = _Over(plan, x0, reach, lanes, asphalt, span)
    over.draw(y0)


class _Over:
    """The road that crosses above: carriageways on the ground, one deck over the other road."""

    def __init__(self, plan: Plan, x: float, reach: float, lanes: int, asphalt: Colour, span: float) -> None:
        self.plan, self.x, self.reach, self.lanes, self.asphalt, self.span = plan, x, reach, lanes, asphalt, span

    def draw(self, y: float) -> None:
        plan, width = self.plan, 3.6 * self.lanes + 2.4
        for side in (-1, 1):
            middle = self.x + side * (width / 2 + 0.6)
            line: list[Point] = [(middle, -self.reach), (middle, self.reach)]
            _carriageway(plan, line, self.lanes, b.lit(self.asphalt, 1.08), Layer.ROAD)
        lines = [side * (3.0 + 3.6 * k) for side in (-1, 1) for k in range(1, self.lanes)]
        deck = (self.span + 14, 2 * width + 3, pi / 2, 7.0, lines, 1.2)
        plan.put(Layer.OVERHEAD, self.span, s.bridge, self.x, y, *deck)
        for side in (-1, 1):
            at = -self.reach
            while (at := at + plan.rng.uniform(10, 36)) < self.reach:
                x = self.x + side * (2.6 + 3.6 * plan.rng.randrange(self.lanes))
                draw = v.truck if plan.rng.random() < 0.2 else v.car
                plan.move(9, 0.7, draw, x, at, pi / 2 if side < 0 else -pi / 2, layer=Layer.ABOVE)


def _curve(start: Point, bend: Point, end: Point, t: float) -> Point:
    p, q, r = (1 - t) ** 2, 2 * t * (1 - t), t * t
    return p * start[0] + q * bend[0] + r * end[0], p * start[1] + q * bend[1] + r * end[1]


def _junction(plan: Plan, x0: float, y0: float, reach: float, asphalt: Colour) -> None:
    rng, lanes = plan.rng, plan.rng.randint(2, 3)
    width = 3.5 * lanes
    half = width + 0.4
    for along in (True, False):
        for side in (-1, 1):
            off = side * (width / 2 + 0.4)
            line: list[Point] = (
                [(-reach, y0 + off), (reach, y0 + off)] if along else [(x0 + off, -reach), (x0 + off, reach)]
            )
            plan.add(Layer.PAVING, s.strip, line, width + 5.5, (172, 168, 160), "concrete")
            plan.add(Layer.ROAD, s.strip, line, width, asphalt, "asphalt")
            for k in range(1, lanes):
                plan.add(Layer.MARKING, s.dashes, line, (k - lanes / 2) * 3.5)
            at = -reach
            while (at := at + rng.uniform(6.5, 24)) < reach:
                lane = off + (rng.randrange(lanes) - (lanes - 1) / 2) * 3.5
                if abs(at - (x0 if along else y0)) > half + 8:
                    where = (at, y0 + lane) if along else (x0 + lane, at)
                    plan.move(9, 0.6, v.truck if rng.random() < 0.12 else v.car, *where, 0.0 if along else pi / 2)
        line = [(-reach, y0), (reach, y0)] if along else [(x0, -reach), (x0, reach)]
        plan.add(Layer.MARKING, s.line, line, 0.0, s.YELLOW, 0.35)
    plan.add(Layer.MARKING, s.polygon, s.rectangle(x0, y0, 2 * half, 2 * half, 0.0), asphalt, "asphalt")
    for turn in range(4):
        t = turn * pi / 2
        x, y = x0 + cos(t) * (half + 3), y0 + sin(t) * (half + 3)
        plan.put(Layer.LOW, half, s.crossing, x, y, 2 * half, t)
    for qx in (-1, 1):
        for qy in (-1, 1):
            x, y = x0 + qx * (half + 24), y0 + qy * (half + 22)
            plan.build(
                24,
                b.flat,
                x,
                y,
                rng.uniform(20, 34),
                rng.uniform(18, 28),
                0.0,
                rng.uniform(8, 22),
                rng.choice(b.FLATS),
                7,
                rng.random(),
            )
            plan.plant(2.6, b.tree, x0 + qx * (half + 5), y0 + qy * (half + 12))


def airport(plan: Plan) -> None:
    """An apron with aircraft at a terminal, taxiways, and a runway beyond the grass; or light aircraft at hangars."""
    rng = plan.rng
    plan.ground, plan.foliage = b.lit(lawn(plan), 1.08), foliage(plan)
    plan.ground_material, plan.crown_m, plan.row_m = "grass", 5.0, 3.0
    reach = plan.reach + 20
    concrete: Colour = rng.choice(((186, 184, 178), (170, 168, 164), (198, 192, 180), (156, 156, 156)))
    jets = rng.random() < 0.72
    if not jets:
        concrete = rng.choice(GREY)
    top = rng.uniform(-0.55, -0.2) * plan.half
    deep = rng.uniform(68, 92) if jets else rng.uniform(44, 62)
    plan.add(
        Layer.PAVING,
        s.polygon,
        [(-reach, -reach), (reach, -reach), (reach, top + deep), (-reach, top + deep)],
        concrete,
        "concrete",
    )
    joint, edge = b.lit(concrete, 0.9), top + deep
    step = rng.uniform(9, 16)
    for k in range(int(2 * reach / step)):
        plan.add(
            Layer.ROAD,
            s.strip,
            [(-reach + k * step, -reach), (-reach + k * step, edge)],
            plan.gsd * 0.55,
            joint,
            "concrete",
        )
    for k in range(int((edge + plan.reach) / step)):
        plan.add(
            Layer.ROAD,
            s.strip,
            [(-reach, edge - k * step), (reach, edge - k * step)],
            plan.gsd * 0.55,
            joint,
            "concrete",
        )
    for _ in range(7):
        x, y = rng.uniform(-reach, reach), rng.uniform(top, edge)
        plan.add(Layer.ROAD, s.polygon, blob(rng, x, y, rng.uniform(2, 6), 0.3), b.lit(concrete, 0.86), "concrete")
    lane = edge - 12
    plan.add(Layer.MARKING, s.line, [(-reach, lane), (reach, lane)], 0.0, s.YELLOW, 0.5)
    base = rng.choice((24.0, 30.0, 36.0)) if jets else rng.uniform(12.0, 16.0)
    pitch = base * 1.12 if jets else base * 1.7
    x = -reach + rng.uniform(0, pitch)
    while x < reach:
        length = base * rng.uniform(0.9, 1.12)
        nose = top + 6 + length / 2
        plan.add(Layer.MARKING, s.line, [(x, top + 4), (x, lane)], 0.0, s.YELLOW, 0.4)
        plan.move(length, 0.85, v.plane, x, nose, length, -pi / 2 + rng.uniform(-0.03, 0.03), jets)
        if jets:
            for _ in range(3):
                at = (x + rng.uniform(-0.4, 0.4) * pitch, top + rng.uniform(2, 0.9 * base))
                plan.move(8, 0.5, v.truck if rng.random() < 0.3 else v.car, *at, rng.uniform(0, pi))
        else:
            plan.move(length, 0.6, v.plane, x + 6, nose + 2 * base, length, pi / 2, jets)
        x += pitch
    plan.move(base, 0.5, v.plane, rng.uniform(-0.6, 0.6) * plan.half, lane, base, rng.choice((0.0, pi)), jets)
    if jets:
        roof = rng.choice(b.SHEETS[:3] + b.FLATS)
        y = top - 16
        x = -reach
        while x < reach:
            wide = rng.uniform(45, 90)
            plan.build(wide, b.flat, x + wide / 2, y, wide, 26.0, 0.0, 14.0, roof, int(wide / 7), rng.random())
            x += wide
        x = -reach + 20
        while x < reach:
            plan.build(16, b.flat, x, top + 2, 4.0, 18.0, 0.0, 6.0, b.lit(roof, 0.92), 0, 0.0)
            x += pitch
        bay_rows(plan, 0.0, y - 42, 2 * reach, 34, 3.0, 0.5)
    else:
        x = -reach
        while x < reach:
            wide = rng.uniform(20, 34)
            plan.build(wide, b.hall, x + wide / 2, top - 10, wide - 4, 20.0, 0.0, 8.0, rng.choice(b.SHEETS), 1, False)
            x += wide
        bay_rows(plan, 0.0, top - 44, 2 * reach, 34, 3.0, 0.4)
    runway = edge + rng.uniform(26, 40)
    asphalt = rng.choice(((92, 92, 96), (110, 110, 112), (78, 78, 82)))
    plan.add(Layer.ROAD, s.strip, [(-reach, runway + 12), (reach, runway + 12)], 32.0, asphalt, "asphalt")
    plan.add(Layer.MARKING, s.dashes, [(-reach, runway + 12), (reach, runway + 12)], 0.0, s.WHITE, 14.0, 10.0, 0.9)
    for side in (-13.5, 13.5):
        plan.add(Layer.MARKING, s.line, [(-reach, runway + 12 + side), (reach, runway + 12 + side)], 0.0, s.WHITE, 0.6)
    ends = rng.uniform(-0.8, 0.8) * plan.half
    for k in range(-5, 6):
        plan.add(Layer.LOW, s.polygon, s.rectangle(ends, runway + 12 + k * 2.2, 16, 1.1, 0.0), s.WHITE, "marking")
    for x in (ends - 45, ends + 60):
        taxi: list[Point] = [(x, lane), (x, edge + 4), (x + 9, runway - 2), (x + 22, runway + 12)]
        plan.add(Layer.PAVING, s.strip, taxi, 17.0, b.lit(asphalt, 1.15), "asphalt")
        plan.add(Layer.MARKING, s.line, taxi, 0.0, s.YELLOW, 0.4)


def harbour(plan: Plan) -> None:
    """A quay with ships, cranes' yards of containers and sheds; or a marina of jetties full of boats."""
    rng = plan.rng
    water = rng.choice(((44, 66, 78), (38, 78, 88), (58, 84, 82), (30, 52, 66), (70, 92, 86)))
    plan.ground, plan.ground_material = water, "sea"
    plan.foliage, plan.crown_m, plan.row_m = foliage(plan), 5.0, rng.uniform(1.8, 2.8)
    reach, edge = plan.reach + 15, rng.uniform(-0.35, 0.1) * plan.half
    land: Colour = rng.choice(((158, 154, 146), (142, 138, 130), (174, 168, 156), (130, 128, 124)))
    tone = moved(wander(rng, reach, 6, 50), edge + 0.8 * plan.half)
    plan.add(
        Layer.GROUND, s.polygon, between(tone, [(-reach, reach + 50), (reach, reach + 50)]), b.lit(water, 0.93), "sea"
    )
    marina = rng.random() < 0.45
    quay: list[Point] = [(-reach, -reach - 50), (reach, -reach - 50), (reach, edge), (-reach, edge)]
    plan.add(Layer.WATER, s.polygon, [(x, y + 0.9) for x, y in quay], b.lit(land, 0.62), "pier")
    plan.add(Layer.WATER, s.polygon, quay, land, "concrete")
    plan.add(Layer.MARKING, s.line, [(-reach, edge - 5), (reach, edge - 5)], 0.0, b.lit(land, 0.8), 0.6)
    if marina:
        _marina(plan, edge, reach)
    else:
        _docks(plan, edge, reach, land)
    asphalt = rng.choice(GREY)
    road = edge - (26 if marina else 62)
    plan.add(Layer.ROAD, s.road, [(-reach, road), (reach, road)], 8.0, asphalt)
    plan.add(Layer.MARKING, s.dashes, [(-reach, road), (reach, road)], 0.0)
    for k in range(-7, 8):
        plan.move(
            9, 0.5, v.truck if not marina and rng.random() < 0.5 else v.car, k * 17.0, road + rng.choice((-2, 2)), 0.0
        )
        if rng.random() < 0.7:
            wide, colour = rng.uniform(16, 30), rng.choice(b.SHEETS if not marina else b.TILES)
            where = (k * 32.0, road - 18, wide, rng.uniform(13, 20), 0.0)
            if marina:
                plan.build(wide, b.hipped, *where, 6.0, colour)
            else:
                plan.build(wide, b.hall, *where, 9.0, colour, 1, rng.random() < 0.4)
    for _ in range(rng.randint(0, 2)):
        x, y = rng.uniform(-1, 1) * plan.half, edge + rng.uniform(0.75, 1.2) * plan.half
        plan.move(30, 0.7, v.boat, x, y, rng.uniform(8, 14), rng.uniform(0, 2 * pi), rng.uniform(15, 45))


def _marina(plan: Plan, edge: float, reach: float) -> None:
    rng = plan.rng
    wood = rng.choice(((176, 166, 148), (196, 192, 184), (150, 136, 116)))
    long, boat = rng.uniform(42, 80), rng.uniform(7.5, 11)
    aisle, berth = 2 * boat + rng.uniform(9, 13), boat * 0.30 + 1.6
    x = -reach + rng.uniform(0, aisle)
    full = rng.uniform(0.55, 0.95)
    while x < reach:
        plan.build(long, s.pier, x, edge + long / 2, long, 2.4, pi / 2, wood, layer=Layer.ROAD)
        for k in range(int((long - 4) / (2 * berth / 1.15))):
            y = edge + 6 + k * 2 * berth / 1.15
            for side in (-1, 1):
                length = boat * rng.uniform(0.75, 1.12)
                away = pi if rng.random() < 0.8 else 0.0
                at = x + side * (1.7 + length / 2)
                plan.move(length, full, v.boat, at, y, length, (0.0 if side < 0 else pi) + away, 0.0)
        x += aisle
    for k in range(-6, 7):
        plan.plant(rng.uniform(1.4, 2.6), b.tree, k * 12.0 + rng.uniform(-3, 3), edge - 11)
        plan.move(3, 0.5, v.car, k * 9.0, edge - 17, pi / 2)


def _docks(plan: Plan, edge: float, reach: float, land: Colour) -> None:
    rng = plan.rng
    x = -reach + rng.uniform(0, 40)
    while x < reach:
        length = rng.uniform(48, 105)
        plan.move(length, 0.7, v.ship, x + length / 2, edge + length * 0.095 + 1.5, length, rng.choice((0.0, pi)), 0.0)
        if rng.random() < 0.5:
            ((cx, cy),) = [(x + length * 0.5, edge - 7)]
            plan.move(16, 0.95, _crane, cx, cy)
        x += length + rng.uniform(10, 36)
    if rng.random() < 0.5:
        x, long = rng.uniform(-0.7, 0.7) * plan.half, rng.uniform(60, 110)
        plan.build(long, s.pier, x, edge + long / 2, long, rng.uniform(8, 14), pi / 2, land, layer=Layer.ROAD)
    for i in range(int(2 * reach / 7.0)):
        for j in range(9):
            if (i // 6 + j // 5) % 3 and (i % 6) < 5 and rng.random() < 0.85:
                plan.move(6, 0.85, crate, -reach + i * 7.0, edge - 18 - 3.2 * j - (4 if j > 4 else 0))


def _crane(canvas: Canvas, x: float, y: float, rng: Random) -> None:
    x += rng.uniform(-8, 8)
    paint: Colour = rng.choice(((44, 84, 140), (196, 120, 50), (170, 56, 48), (200, 200, 196)))
    for dx in (-6, 6):
        canvas.cast(s.rectangle(x + dx, y, 1.2, 12, 0.0), 9.0)
        canvas.quad(x + dx, y, 1.4, 13, 0.0, paint, "clutter")
    canvas.cast(s.rectangle(x, y + 8, 3.0, 44, 0.0), 14.0)
    canvas.quad(x, y + 8, 3.2, 44, 0.0, b.lit(paint, 1.1), "clutter")
    canvas.quad(x, y - 5, 6.0, 5.0, 0.0, b.lit(paint, 0.8), "clutter")
