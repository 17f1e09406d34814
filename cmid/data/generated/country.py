"""Open places: farmland, forest, river, beach."""

from math import cos, pi, sin
from random import Random

from cmid.data.generated import buildings as b
from cmid.data.generated import surfaces as s
from cmid.data.generated import vehicles as v
from cmid.data.generated.canvas import Canvas, Colour, Point
from cmid.data.generated.plan import Layer, Plan
from cmid.data.generated.residential import GREY, foliage, house, lawn

CROPS: tuple[tuple[Colour, str], ...] = (
    ((84, 112, 58), "crop"), ((104, 128, 66), "crop"), ((64, 92, 50), "crop"), ((136, 138, 84), "crop"),
    ((182, 166, 112), "crop"), ((194, 180, 132), "crop"), ((150, 126, 94), "ploughed"), ((126, 104, 80), "ploughed"),
    ((164, 142, 112), "ploughed"), ((112, 118, 72), "meadow"), ((90, 108, 62), "meadow"), ((176, 168, 74), "crop"),
)  # fmt: skip


def wander(rng: Random, length: float, amplitude: float, wave: float, steps: int = 28) -> list[Point]:
    """A meandering line along x from -length to length, straying `amplitude` from y = 0."""
    waves = [(wave * (1, 0.47, 0.23)[k], amplitude * (1, 0.35, 0.12)[k], rng.uniform(0, 2 * pi)) for k in range(3)]
    xs = [-length + 2 * length * k / (steps - 1) for k in range(steps)]
    return [(x, sum(a * sin(x / w + p) for w, a, p in waves)) for x in xs]


def moved(points: list[Point], dy: float, rng: Random | None = None, jitter: float = 0.0) -> list[Point]:
    """A line shifted by `dy`, each point strayed by up to `jitter`."""
    if rng is None:
        return [(x, y + dy) for x, y in points]
    return [(x, y + dy + rng.uniform(-jitter, jitter)) for x, y in points]


def between(upper: list[Point], lower: list[Point]) -> list[Point]:
    """The area between two lines that run the same way."""
    return upper + lower[::-1]


def blob(rng: Random, x: float, y: float, radius: float, rough: float = 0.25, steps: int = 22) -> list[Point]:
    """A round, uneven outline."""
    waves = [(k, rough / k**0.7 * rng.uniform(0.3, 1), rng.uniform(0, 2 * pi)) for k in (2, 3, 5)]
    outline = []
    for i in range(steps):
        t = 2 * pi * i / steps
        r = radius * (1 + sum(a * cos(k * t + p) for k, a, p in waves))
        outline.append((x + r * cos(t), y + r * sin(t)))
    return outline


def farmland(plan: Plan) -> None:
    """Parcels of many crops, ploughed or grown in rows, with tracks, hedges, farmsteads; at times round fields."""
    rng = plan.rng
    plan.ground, plan.ground_material = (136, 126, 92), "meadow"
    plan.foliage, plan.crown_m, plan.row_m = foliage(plan), 7.0, rng.uniform(2.2, 5.5)
    reach = plan.reach + 10
    crops = rng.sample(CROPS, rng.randint(4, 7))
    smallest, hedges = rng.uniform(0.22, 0.55) * plan.half + 14, rng.random() < 0.5
    pivots = rng.random() < 0.15

    def split(x0: float, y0: float, x1: float, y1: float, depth: int) -> None:
        if not plan.sees((x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0) * 0.71):
            return
        wide, high = x1 - x0, y1 - y0
        if max(wide, high) > 2 * smallest or (max(wide, high) > smallest and rng.random() < 0.6):
            share = rng.uniform(0.35, 0.65)
            if wide * rng.uniform(0.8, 1.25) > high:
                split(x0, y0, x0 + wide * share, y1, depth + 1)
                split(x0 + wide * share, y0, x1, y1, depth + 1)
            else:
                split(x0, y0, x1, y0 + high * share, depth + 1)
                split(x0, y0 + high * share, x1, y1, depth + 1)
            return
        _parcel(plan, x0, y0, x1, y1, rng.choice(crops), hedges, pivots)

    split(-reach, -reach, reach, reach, 0)
    y = rng.uniform(-0.7, 0.7) * plan.half
    track = moved(wander(rng, reach, 3, 60), y)
    dirt = rng.choice(((176, 156, 122), (190, 174, 144), (128, 126, 124)))
    plan.add(Layer.ROAD, s.strip, track, rng.uniform(3.5, 6), dirt, "soil" if dirt[0] > 150 else "asphalt")
    if rng.random() < 0.5:
        x = rng.uniform(-0.8, 0.8) * plan.half
        plan.lay(Layer.ROAD, s.strip, [(x, -reach), (x + 9, 0), (x, reach)], 4.0, dirt, "soil")
    plan.move(6, 0.5, v.car, rng.uniform(-1, 1) * plan.half, y, 0.0)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        x, side = rng.uniform(-0.8, 0.8) * plan.half, rng.choice((-1, 1))
        plan.put(Layer.PAVING, 40, _yard, x, y + side * 22, 42.0, 34.0, dirt)
        house(plan, x - 9, y + side * 14, 14, 9, 0.0, rng.choice(b.TILES))
        plan.build(
            24,
            b.gabled,
            x + 8,
            y + side * 20,
            rng.uniform(18, 28),
            11,
            pi / 2,
            7,
            rng.choice(b.SHEETS),
            0.4,
            "ribbed_roof",
        )
        plan.build(
            22, b.gabled, x - 8, y + side * 30, rng.uniform(14, 20), 9, 0.0, 6, rng.choice(b.SHEETS), 0.4, "ribbed_roof"
        )
        if rng.random() < 0.4:
            plan.build(5, b.tank, x + 20, y + side * 12, rng.uniform(2.5, 4), 10.0, (196, 198, 198), False)
        plan.move(10, 0.6, v.truck, x, y + side * 22, pi / 2)
        for _ in range(7):
            plan.plant(rng.uniform(2, 4.5), b.tree, x + rng.uniform(-26, 26), y + side * rng.uniform(8, 44))


def _yard(canvas: Canvas, x: float, y: float, wide: float, deep: float, colour: Colour) -> None:
    canvas.quad(x, y, wide, deep, 0.0, colour, "soil")


def _parcel(
    plan: Plan, x0: float, y0: float, x1: float, y1: float, crop: tuple[Colour, str], hedges: bool, pivots: bool
) -> None:
    rng = plan.rng
    (red, green, blue), material = crop
    share = rng.uniform(0.9, 1.1)
    colour = (red * share, green * share, blue * share)
    if rng.random() < 0.5 and material != "meadow":
        material += "_across"
    gap = rng.uniform(0.4, 1.6)
    corners = [(x0 + gap, y0 + gap), (x1 - gap, y0 + gap), (x1 - gap, y1 - gap), (x0 + gap, y1 - gap)]
    if pivots:
        radius = min(x1 - x0, y1 - y0) * 0.48
        plan.add(Layer.GROUND, s.polygon, corners, (176, 160, 124), "soil")
        plan.add(Layer.GROUND, s.disc, (x0 + x1) / 2, (y0 + y1) / 2, radius, colour, material)
    else:
        plan.add(Layer.GROUND, s.polygon, corners, colour, material)
        if rng.random() < 0.16:
            radius = min(x1 - x0, y1 - y0) * 0.22
            wet = blob(rng, rng.uniform(x0, x1), rng.uniform(y0, y1), radius, 0.4)
            plan.add(Layer.GROUND, s.polygon, wet, b.lit(colour, 0.88), material)
    if hedges and rng.random() < 0.5:
        step = rng.uniform(4, 9)
        for k in range(int((x1 - x0) / step)):
            if rng.random() < 0.8:
                plan.plant(
                    rng.uniform(1.4, 3.2), b.tree, x0 + k * step + rng.uniform(-1, 1), y0 + rng.uniform(-0.8, 0.8)
                )


def forest(plan: Plan) -> None:
    """Closed canopy of mixed kinds, with a track, clearings, single tall crowns, rarely a pond or a cabin."""
    rng = plan.rng
    leaves = foliage(plan)
    plan.foliage, plan.crown_m = leaves, rng.uniform(4.5, 9)
    plan.ground, plan.ground_material = b.lit(leaves, rng.uniform(0.85, 1.1)), "canopy"
    reach = plan.reach + 5
    for _ in range(rng.randint(2, 6)):
        share, warm = rng.uniform(0.72, 1.2), rng.uniform(-8, 14)
        stand = (leaves[0] * share + warm, leaves[1] * share, leaves[2] * share)
        where = (rng.uniform(-1, 1) * plan.half, rng.uniform(-1, 1) * plan.half)
        plan.add(Layer.GROUND, s.polygon, blob(rng, *where, rng.uniform(0.2, 0.6) * plan.half, 0.45), stand, "canopy")
    clearings: list[Point] = []
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        x, y = rng.uniform(-0.85, 0.85) * plan.half, rng.uniform(-0.85, 0.85) * plan.half
        radius = rng.uniform(0.10, 0.28) * plan.half
        kind = rng.random()
        if kind < 0.2:
            plan.add(Layer.WATER, s.polygon, blob(rng, x, y, radius * 1.08, 0.3), (104, 104, 74), "soil")
            plan.add(Layer.WATER, s.polygon, blob(rng, x, y, radius, 0.3), (48, 64, 66), "water")
        else:
            earth = ((150, 134, 100), "soil") if kind < 0.4 else (b.lit(lawn(plan), 0.9), "meadow")
            plan.add(Layer.WATER, s.polygon, blob(rng, x, y, radius, 0.4), *earth)
            clearings.append((x, y))
    if rng.random() < 0.6:
        dirt, y = rng.choice(((168, 146, 112), (150, 118, 88), (176, 166, 144))), rng.uniform(-0.6, 0.6) * plan.half
        path = moved(wander(rng, reach, rng.uniform(2, 22), rng.uniform(30, 80)), y)
        width = rng.uniform(3, 7)
        plan.add(Layer.PAVING, s.strip, path, width * 1.9, b.lit(leaves, 1.15), "meadow")
        plan.lay(Layer.ROAD, s.strip, path, width, dirt, "soil")
        plan.move(4, 0.3, v.car, *path[14], 0.0)
    if clearings and rng.random() < 0.6:
        x, y = clearings[0]
        house(plan, x, y, rng.uniform(8, 12), rng.uniform(6, 8), rng.uniform(0, pi), rng.choice(b.TILES))
    if rng.random() < 0.5:
        where = (rng.uniform(-0.7, 0.7) * plan.half, rng.uniform(-0.7, 0.7) * plan.half)
        plan.build(9, b.gabled, *where, rng.uniform(8, 14), 7.0, rng.uniform(0, pi), 5.0, rng.choice(b.TILES))
    conifers = rng.random()
    for _ in range(int(min((2 * plan.reach) ** 2 / 700, 70))):
        x, y = rng.uniform(-reach, reach), rng.uniform(-reach, reach)
        if all((x - a) ** 2 + (y - c) ** 2 > 100 for a, c in clearings):
            plan.plant(
                plan.crown_m * rng.uniform(0.32, 0.62), b.conifer if rng.random() < conifers else b.tree, x, y, 0.2
            )


def river(plan: Plan) -> None:
    """A meandering river with sand bars and wooded banks through fields, mostly with a bridge."""
    rng = plan.rng
    plan.ground, plan.foliage, plan.crown_m = lawn(plan), foliage(plan), rng.uniform(6, 9)
    plan.ground_material, plan.row_m = "meadow", rng.uniform(2.5, 5)
    reach, width = plan.reach + 12, rng.uniform(0.3, 0.85) * plan.half
    course = wander(rng, reach, rng.uniform(0.08, 0.36) * plan.half, rng.uniform(0.5, 0.9) * plan.half, 40)
    water = rng.choice(((62, 82, 84), (78, 98, 88), (124, 112, 84), (50, 68, 82), (140, 122, 92), (70, 92, 74)))
    for _ in range(rng.randint(3, 7)):
        colour, material = rng.choice(CROPS)
        x, y = rng.uniform(-1, 1) * reach, rng.choice((-1, 1)) * rng.uniform(0.5, 1.2) * plan.half
        plan.add(
            Layer.GROUND, s.polygon, s.rectangle(x, y, rng.uniform(40, 110), rng.uniform(30, 80), 0.0), colour, material
        )
    bank = rng.choice(((168, 154, 122), (142, 128, 98), (190, 178, 150)))
    plan.add(Layer.WATER, s.strip, course, width * 1.0 + rng.uniform(3, 12), bank, "sand")
    plan.add(Layer.WATER, s.strip, course, width, b.lit(water, 1.12), "water")
    plan.add(Layer.WATER, s.strip, course, width * 0.72, b.lit(water, 1.05), "water")
    plan.add(Layer.WATER, s.strip, course, width * 0.42, water, "water")
    for _ in range(rng.choice((0, 1, 1, 2))):
        x, y = rng.choice(course)
        bar = [(u, w * 0.35 + y * 0.65) for u, w in blob(rng, x, y, width * rng.uniform(0.2, 0.5), 0.3)]
        plan.add(Layer.WATER, s.polygon, bar, bank, "sand")
    if rng.random() < 0.7:
        x = rng.uniform(-0.6, 0.6) * plan.half
        y = min(course, key=lambda p: abs(p[0] - x))[1]
        asphalt = rng.choice(GREY)
        plan.add(Layer.ROAD, s.road, [(x, -reach), (x, reach)], 9.0, asphalt)
        plan.add(Layer.MARKING, s.dashes, [(x, -reach), (x, reach)], 0.0)
        plan.put(Layer.ROAD, width, s.bridge, x, y, width * 1.25 + 12, 11.0, pi / 2, 6.0)
        for k in range(-5, 6):
            plan.move(8, 0.45, v.truck if rng.random() < 0.2 else v.car, x + rng.choice((-2.2, 2.2)), k * 19.0, pi / 2)
    for _ in range(rng.randint(0, 3)):
        x, y = rng.choice(course)
        plan.move(
            12,
            0.6,
            v.boat,
            x,
            y + rng.uniform(-0.25, 0.25) * width,
            rng.uniform(6, 12),
            rng.choice((0.0, pi)),
            rng.uniform(0, 28),
        )
    for _ in range(rng.randint(0, 4)):
        x, y = rng.choice(course)
        house(
            plan,
            x,
            y + rng.choice((-1, 1)) * (width * 0.5 + rng.uniform(18, 40)),
            rng.uniform(11, 17),
            9,
            0.2,
            rng.choice(b.TILES),
        )
    density = rng.uniform(0.3, 1.0)
    for x, y in course:
        for side in (-1, 1):
            for _ in range(4):
                if rng.random() < density:
                    off = width * 0.5 + 5 + abs(rng.gauss(0, 9))
                    plan.plant(rng.uniform(1.8, 4.6), b.tree, x + rng.uniform(-6, 6), y + side * off, 0.16)


def beach(plan: Plan) -> None:
    """Sea with surf, wet and dry sand, dunes or a promenade behind; at times sunshades, boats and huts."""
    rng = plan.rng
    sand = rng.choice(((214, 196, 160), (200, 180, 146), (190, 164, 126), (224, 208, 184), (178, 158, 130)))
    plan.ground, plan.ground_material = sand, "sand"
    plan.foliage, plan.crown_m = foliage(plan), 5.0
    reach = plan.reach + 10
    shore = moved(
        wander(rng, reach, rng.uniform(2, 14), rng.uniform(40, 110), 32), rng.uniform(-0.35, 0.35) * plan.half
    )
    far: list[Point] = [(-reach, reach + 60), (reach, reach + 60)]
    deep = rng.choice(((34, 74, 96), (28, 88, 108), (52, 92, 96), (30, 60, 88), (70, 98, 92)))
    shallow = rng.choice(((96, 158, 156), (118, 150, 138), (130, 156, 150), (84, 142, 150)))
    damp, wet = moved(shore, -rng.uniform(5, 11), rng, 0.8), moved(shore, -rng.uniform(2, 4), rng, 0.6)
    plan.add(Layer.GROUND, s.band, damp, moved(wet, 1.0), b.lit(sand, 0.9), "sand")
    plan.add(Layer.GROUND, s.band, wet, moved(shore, 1.0), b.lit(sand, 0.74), "sand")
    steps, slope = 11, rng.uniform(3, 8)
    lines = [moved(shore, k * slope, rng, 0.5) for k in range(steps)]
    for k in range(steps):
        t = (k / (steps - 1)) ** 0.8
        mix = tuple(shallow[c] * (1 - t) + deep[c] * t for c in range(3))
        # Each band a little under the next, or the ground would show between them.
        if k + 1 < steps:
            plan.add(Layer.WATER, s.band, lines[k], moved(lines[k + 1], 1.5), mix, "sea")
        else:
            plan.add(Layer.WATER, s.polygon, between(lines[k], far), mix, "sea")
    surf, rough = rng.randint(1, 4), rng.uniform(0.4, 1.0)
    for k in range(surf):
        base = (0.0, 9.0, 21.0, 36.0)[k] + rng.uniform(-1, 3)
        _breaker(plan, shore, base, (1.2 + 1.0 * k) * rough + 0.6)
    back = -rng.uniform(0.35, 0.75) * plan.half - 8
    inland = moved(shore, back, rng, 2.5)
    top: list[Point] = [(reach, -reach - 80), (-reach, -reach - 80)]
    kind = rng.random()
    if kind < 0.6:
        plan.add(Layer.GROUND, s.polygon, [*inland, *top], (136, 134, 92), "meadow")
        for x, y in inland * 3:
            plan.plant(rng.uniform(1.0, 3.0), b.tree, x + rng.uniform(-6, 6), y - abs(rng.gauss(3, 16)), 0.2)
    if kind > 0.35:
        y = inland[16][1] - rng.uniform(14, 22)
        plan.add(Layer.ROAD, s.road, [(-reach, y), (reach, y)], 7.0, rng.choice(GREY), (186, 178, 166))
        plan.add(Layer.MARKING, s.dashes, [(-reach, y), (reach, y)], 0.0)
        for k in range(-7, 8):
            plan.move(3, 0.35, v.car, k * 13.0 + rng.uniform(-3, 3), y + rng.choice((-1.8, 1.8)), 0.0)
            plan.plant(rng.uniform(1.8, 3), b.palm, k * 11.0 + rng.uniform(-2, 2), y + 6.5)
            if rng.random() < 0.55:
                where = (k * 24.0, y - 18 - rng.uniform(0, 5), rng.uniform(14, 20), 12.0, 0.0)
                plan.build(22, b.flat, *where, rng.uniform(5, 14), rng.choice(b.FLATS), 3, rng.random())
    if rng.random() < 0.45:
        shades = rng.sample(((206, 80, 66), (226, 220, 206), (66, 120, 170), (226, 186, 84)), 2)
        rows = rng.randint(1, 3)
        for x, y in moved(shore, -14.0):
            for k in range(rows):
                plan.move(2, 0.75, _sunshade, x + rng.uniform(-1, 1), y - 5.0 * k, rng.choice(shades))
    for x, y in rng.sample(inland, 3):
        if rng.random() < 0.5:
            plan.build(5, b.gabled, x, y + rng.uniform(4, 8), rng.uniform(4, 7), 3.6, 0.1, 3.0, rng.choice(b.TILES))
    for _ in range(rng.randint(0, 3)):
        x, y = rng.choice(shore)
        plan.move(
            12, 0.6, v.boat, x, y + rng.uniform(30, 70), rng.uniform(6, 11), rng.uniform(0, 2 * pi), rng.uniform(0, 26)
        )


def _breaker(plan: Plan, shore: list[Point], base: float, width: float) -> None:
    """A line of foam along the shore, torn into pieces further out."""
    rng, foam, torn = plan.rng, (226, 232, 230), base >= 6
    start = 0
    while start < len(shore) - 3:
        count = rng.randint(4, 13) if torn else len(shore)
        run = shore[start : start + count]
        start += count + (rng.randint(0, 4) if torn else 0)
        last = max(len(run) - 1, 1)
        line = moved(run, base, rng, 0.4 + 0.05 * base)
        # A torn breaker thins out towards both ends.
        thick = [width * (sin(pi * i / last) if torn else 1.0) * rng.uniform(0.55, 1.2) for i in range(len(run))]
        front = [(x, y - 0.4 * t) for (x, y), t in zip(line, thick, strict=True)]
        crest = [(x, y + 0.6 * t) for (x, y), t in zip(line, thick, strict=True)]
        trail = [(x, y + 1.7 * t) for (x, y), t in zip(line, thick, strict=True)]
        plan.add(Layer.WATER, s.band, front, trail, (146, 176, 174), "surf")
        plan.add(Layer.WATER, s.band, front, crest, foam, "surf")


def _sunshade(canvas: Canvas, x: float, y: float, colour: Colour, rng: Random) -> None:
    canvas.cast_disc(x, y, 1.3, 2.2)
    canvas.disc(x, y, 1.35, colour, "clutter")
    canvas.disc(x + canvas.towards_sun[0] * 0.3, y + canvas.towards_sun[1] * 0.3, 0.6, b.lit(colour, 1.2), "clutter")
