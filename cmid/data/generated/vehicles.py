"""Things that come and go: cars, trucks, aircraft, ships. None of them counts as change."""

from math import cos, sin
from random import Random

from cmid.data.generated.buildings import lit
from cmid.data.generated.canvas import Canvas, Colour, Point, placed, rectangle

PAINTS: tuple[Colour, ...] = (
    (228, 228, 226), (232, 232, 230), (60, 62, 66), (38, 38, 42), (164, 168, 172), (190, 192, 194), (122, 124, 128),
    (150, 40, 38), (44, 66, 116), (92, 108, 120), (180, 164, 130), (54, 84, 62),
)  # fmt: skip
"""Car paints, the common ones more than once."""
CRATES: tuple[Colour, ...] = (
    (168, 72, 48), (40, 84, 140), (60, 120, 84), (196, 150, 60), (150, 152, 154), (120, 48, 44), (206, 204, 198),
)  # fmt: skip
"""Shipping containers."""


def car(canvas: Canvas, x: float, y: float, angle: float, rng: Random) -> None:
    """A car, 4.0 to 4.9 m long."""
    length, width = rng.uniform(4.0, 4.9), rng.uniform(1.8, 2.0)
    paint = rng.choice(PAINTS)
    canvas.cast_quad(x, y, length, width, angle, 1.2)
    canvas.quad(x, y, length, width, angle, paint, "car")
    ahead, aside = cos(angle) * length, sin(angle) * length
    glass = (48, 54, 62) if sum(paint) > 300 else (96, 104, 112)
    if canvas.gsd < 0.6:
        canvas.quad(x + 0.18 * ahead, y + 0.18 * aside, length * 0.13, width * 0.8, angle, glass, "car")
    if canvas.gsd < 0.4:
        canvas.quad(x - 0.10 * ahead, y - 0.10 * aside, length * 0.34, width * 0.78, angle, lit(paint, 1.12), "car")
        canvas.quad(x - 0.34 * ahead, y - 0.34 * aside, length * 0.09, width * 0.76, angle, glass, "car")
    canvas.box("small-vehicle", x, y, length, width, angle, "car")


def truck(canvas: Canvas, x: float, y: float, angle: float, rng: Random) -> None:
    """A lorry or bus, 9 to 16 m long."""
    articulated = rng.random() < 0.6
    length, width = (rng.uniform(13, 16), 2.6) if articulated else (rng.uniform(9, 12), 2.5)
    body: Colour = rng.choice(((226, 226, 222), (208, 206, 200), (150, 156, 160), (70, 96, 140), (168, 70, 52)))
    cab: Colour = rng.choice(((222, 222, 220), (150, 40, 38), (44, 66, 116), (60, 62, 66)))
    canvas.cast(rectangle(x, y, length, width, angle), 2.8)
    front = 2.4 if articulated else 1.8
    ((bx, by), (cx, cy)) = placed([(-front / 2 - 0.2, 0), (length / 2 - front / 2, 0)], x, y, angle)
    canvas.quad(x, y, length, width * 0.7, angle, (58, 58, 60), "car")
    canvas.quad(bx, by, length - front - 0.4, width, angle, body, "car")
    canvas.quad(cx, cy, front, width * 0.95, angle, cab, "car")
    canvas.box("large-vehicle", x, y, length, width, angle, "car")


def _mirrored(half: list[Point]) -> list[Point]:
    return half + [(u, -v) for u, v in reversed(half)]


# Halves of outlines, nose at +0.5, length 1, wing tip at v = span / 2 / length.
_JET = _mirrored([
    (0.500, 0.000), (0.480, 0.022), (0.430, 0.042), (0.360, 0.050), (0.150, 0.052), (-0.130, 0.445), (-0.200, 0.450),
    (-0.115, 0.052), (-0.330, 0.040), (-0.435, 0.170), (-0.490, 0.172), (-0.455, 0.024), (-0.500, 0.008),
])  # fmt: skip
_PROP = _mirrored([
    (0.500, 0.000), (0.470, 0.035), (0.300, 0.055), (0.220, 0.060), (0.205, 0.660), (0.055, 0.670), (0.030, 0.058),
    (-0.330, 0.030), (-0.350, 0.230), (-0.470, 0.230), (-0.480, 0.018), (-0.500, 0.010),
])  # fmt: skip


def plane(canvas: Canvas, x: float, y: float, length: float, angle: float, jet: bool, rng: Random) -> None:
    """An aircraft: an airliner with swept wings and engines, or a light one with straight wings."""
    outline, half_span = (_JET, 0.450) if jet else (_PROP, 0.670)
    body: Colour = rng.choice(((236, 238, 240), (228, 230, 230), (214, 218, 222), (196, 204, 214)))
    tail: Colour = rng.choice(((40, 70, 140), (170, 40, 44), (60, 120, 90), (222, 222, 222), (220, 150, 40)))
    shape = placed([(u * length, v * length) for u, v in outline], x, y, angle)
    canvas.cast_outline(shape, 0.075 * length)
    canvas.polygon(shape, lit(body, 0.9), "plane")
    canvas.quad(x, y, length * 0.86, length * 0.05, angle, lit(body, 1.06), "plane")
    if jet:
        for side in (-1, 1):
            ((ex, ey),) = placed([(0.07 * length, side * 0.165 * length)], x, y, angle)
            canvas.quad(ex, ey, 0.10 * length, 0.036 * length, angle, (150, 154, 160), "plane")
    ((nx, ny), (tx, ty)) = placed([(0.455 * length, 0), (-0.42 * length, 0)], x, y, angle)
    canvas.quad(nx, ny, 0.025 * length, 0.04 * length, angle, (60, 66, 74), "plane")
    canvas.quad(tx, ty, 0.13 * length, 0.018 * length, angle, tail, "plane")
    canvas.box("plane", x, y, length, 2 * half_span * length, angle, "plane")


def _hull(length: float, width: float, bow: float) -> list[Point]:
    a, w = length / 2, width / 2
    return [
        (a, 0), (a - bow * 0.30, w * 0.52), (a - bow, w), (-a + width * 0.1, w), (-a, w * 0.72),
        (-a, -w * 0.72), (-a + width * 0.1, -w), (a - bow, -w), (a - bow * 0.30, -w * 0.52),
    ]  # fmt: skip


def ship(canvas: Canvas, x: float, y: float, length: float, angle: float, wake: float, rng: Random) -> None:
    """A cargo ship, with a wake `wake` metres long if it moves."""
    width = length * rng.uniform(0.15, 0.19)
    hull: Colour = rng.choice(((120, 48, 42), (52, 58, 70), (70, 84, 96), (44, 62, 92), (96, 98, 100)))
    deck: Colour = rng.choice(((148, 92, 74), (126, 130, 132), (110, 128, 112), (168, 160, 148)))
    if wake:
        _wake(canvas, x, y, length, width, angle, wake)
    outline = placed(_hull(length, width, width * 1.1), x, y, angle)
    canvas.cast_outline(outline, 5.0)
    canvas.polygon(outline, hull, "ship")
    canvas.polygon(placed(_hull(length - 1.6, width - 1.6, width), x, y, angle), deck, "ship")
    if rng.random() < 0.6:
        rows, size = max(int(width / 3.4), 1), 6.4
        for k in range(int(length * 0.62 / size)):
            for r in range(rows):
                if rng.random() < 0.85:
                    u, v = -length * 0.26 + k * size, (r - (rows - 1) / 2) * 2.7
                    ((cx, cy),) = placed([(u, v)], x, y, angle)
                    canvas.quad(cx, cy, 6.0, 2.4, angle, rng.choice(CRATES), "ship")
    else:
        for k in range(4):
            ((cx, cy),) = placed([((-0.22 + 0.17 * k) * length, 0)], x, y, angle)
            canvas.quad(cx, cy, length * 0.12, width * 0.62, angle, lit(deck, 0.72), "ship")
    ((bx, by),) = placed([(-length * 0.40, 0)], x, y, angle)
    canvas.quad(bx, by, length * 0.085, width * 0.86, angle, (230, 230, 226), "ship")
    canvas.quad(bx, by, length * 0.04, width * 0.4, angle, (150, 154, 158), "ship")
    canvas.box("ship", x, y, length, width, angle, "ship")


def boat(canvas: Canvas, x: float, y: float, length: float, angle: float, wake: float, rng: Random) -> None:
    """A yacht or launch."""
    width = length * rng.uniform(0.28, 0.34)
    hull: Colour = rng.choice(((234, 234, 232), (240, 240, 238), (222, 224, 226), (60, 80, 120), (190, 176, 150)))
    if wake:
        _wake(canvas, x, y, length, width, angle, wake)
    outline = placed(_hull(length, width, length * 0.34), x, y, angle)
    canvas.cast_outline(outline, 1.4)
    canvas.polygon(outline, hull, "ship")
    ((cx, cy),) = placed([(-0.10 * length, 0)], x, y, angle)
    canvas.quad(cx, cy, length * 0.34, width * 0.55, angle, rng.choice(((96, 110, 124), (186, 160, 124))), "ship")
    canvas.box("ship", x, y, length, width, angle, "ship")


def _wake(canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, wake: float) -> None:
    stern = -length * 0.35
    spread = width * 0.5 + wake * 0.16
    fan = [(stern, -width * 0.4), (-length / 2 - wake, -spread), (-length / 2 - wake * 0.9, 0),
           (-length / 2 - wake, spread), (stern, width * 0.4)]  # fmt: skip
    canvas.polygon(placed(fan, x, y, angle), (122, 146, 150), "water")
    churn = [(stern, -width * 0.3), (-length / 2 - wake * 0.55, 0), (stern, width * 0.3)]
    canvas.polygon(placed(churn, x, y, angle), (214, 224, 224), "surf")
