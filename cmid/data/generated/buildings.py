"""Things that stand: houses, halls, tanks, trees."""

from math import cos, pi, sin
from random import Random

from cmid.data.generated.canvas import Canvas, Colour, Point, placed, rectangle

TILES: tuple[Colour, ...] = (
    (150, 84, 62), (132, 74, 58), (165, 104, 78), (118, 100, 88), (102, 98, 96), (84, 82, 84), (140, 128, 116),
    (172, 150, 128), (96, 78, 68), (122, 116, 118),
)  # fmt: skip
"""Roofs of houses: clay, slate, shingle."""
SHEETS: tuple[Colour, ...] = (
    (205, 206, 204), (188, 190, 190), (160, 164, 166), (86, 124, 176), (70, 110, 158), (120, 168, 190), (170, 96, 80),
    (142, 146, 138), (218, 214, 200),
)  # fmt: skip
"""Roofs of halls: bare, white or painted sheet metal."""
FLATS: tuple[Colour, ...] = ((168, 164, 158), (190, 188, 182), (138, 136, 134), (112, 112, 114), (206, 202, 192))
"""Flat roofs: gravel, membrane, concrete."""


def lit(colour: Colour, share: float) -> Colour:
    """A colour at `share` of its brightness."""
    return (colour[0] * share, colour[1] * share, colour[2] * share)


def _slope(canvas: Canvas, angle: float, pitch: float) -> float:
    """Brightness of a roof plane that falls towards `angle`."""
    facing = cos(angle) * canvas.towards_sun[0] + sin(angle) * canvas.towards_sun[1]
    return max(0.45, 1.0 + canvas.slope_light * pitch * facing)


def gabled(
    canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, height: float, colour: Colour,
    pitch: float = 0.5, material: str = "tiled_roof",
) -> None:  # fmt: skip
    """A house with two roof planes and a ridge along its length."""
    canvas.cast(rectangle(x, y, length, width, angle), height)
    nx, ny = -sin(angle) * width / 4, cos(angle) * width / 4
    canvas.quad(x, y, length, width, angle, lit(colour, _slope(canvas, angle - pi / 2, pitch)), material)
    canvas.quad(
        x + nx, y + ny, length, width / 2, angle, lit(colour, _slope(canvas, angle + pi / 2, pitch)), material
    )  # fmt: skip
    canvas.quad(x, y, length, 0.45, angle, lit(colour, 1.18), material)


def hipped(
    canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, height: float, colour: Colour,
    pitch: float = 0.5, material: str = "tiled_roof",
) -> None:  # fmt: skip
    """A house with four roof planes."""
    corners = rectangle(x, y, length, width, angle)
    canvas.cast(corners, height)
    run = max(length / 2 - width / 2, 0.0)
    a = (x - cos(angle) * run, y - sin(angle) * run)
    b = (x + cos(angle) * run, y + sin(angle) * run)
    p, q, r, s = corners
    faces = ((-pi / 2, (p, q, b, a)), (0.0, (q, r, b)), (pi / 2, (r, s, a, b)), (pi, (s, p, a)))
    for side, face in faces:
        canvas.polygon(face, lit(colour, _slope(canvas, angle + side, pitch)), material)


def flat(
    canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, height: float, colour: Colour,
    units: int = 0, seed: float = 0.0, material: str = "roof",
) -> None:  # fmt: skip
    """A block with a parapet and `units` boxes of plant on the roof."""
    canvas.cast(rectangle(x, y, length, width, angle), height)
    canvas.quad(x, y, length, width, angle, lit(colour, 1.16), material)
    canvas.quad(x, y, length - 1.4, width - 1.4, angle, colour, material)
    rng = Random(seed)
    for _ in range(units):
        u, v = rng.uniform(-0.4, 0.4) * length, rng.uniform(-0.36, 0.36) * width
        a, b = rng.uniform(1.2, 3.6), rng.uniform(1.2, 2.6)
        ((cx, cy),) = placed([(u, v)], x, y, angle)
        canvas.quad(cx + canvas.sun[0] * 1.2, cy + canvas.sun[1] * 1.2, a, b, angle, lit(colour, 0.55), material)
        canvas.quad(cx, cy, a, b, angle, lit(colour, 0.8 + 0.5 * rng.random()), material)


def hall(
    canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, height: float, colour: Colour,
    bays: int = 1, lights: bool = False,
) -> None:  # fmt: skip
    """A large shed: `bays` low ridges side by side, with or without bands of roof light."""
    canvas.cast(rectangle(x, y, length, width, angle), height)
    bay = width / bays
    for i in range(bays):
        v = -width / 2 + (i + 0.5) * bay
        ((cx, cy), (dx, dy)) = placed([(0, v - bay / 4), (0, v + bay / 4)], x, y, angle)
        canvas.quad(cx, cy, length, bay / 2, angle, lit(colour, _slope(canvas, angle - pi / 2, 0.28)), "ribbed_roof")
        canvas.quad(dx, dy, length, bay / 2, angle, lit(colour, _slope(canvas, angle + pi / 2, 0.28)), "ribbed_roof")
        if lights:
            pale = (214, 222, 224)
            for k in range(int(length / 9)):
                u = -length / 2 + 5 + 9 * k
                for cx, cy in placed([(u, v - bay / 4), (u, v + bay / 4)], x, y, angle):
                    canvas.quad(cx, cy, 1.2, bay * 0.3, angle, pale, "ribbed_roof")


def tank(canvas: Canvas, x: float, y: float, radius: float, height: float, colour: Colour, floating: bool) -> None:
    """A storage tank; a floating roof lies lower than the rim, which shades it."""
    steps = 16
    rim = [(x + radius * cos(2 * pi * k / steps), y + radius * sin(2 * pi * k / steps)) for k in range(steps)]
    canvas.cast(rim, height)
    canvas.disc(x, y, radius, lit(colour, 1.1), "tank")
    if floating:
        canvas.disc(x, y, radius * 0.92, lit(colour, 0.55), "tank")
        sx, sy = canvas.sun[0], canvas.sun[1]
        reach = min(0.22 * radius / max((sx * sx + sy * sy) ** 0.5, 1e-6), 3.0)
        canvas.disc(x + sx * reach, y + sy * reach, radius * 0.74, lit(colour, 0.9), "tank")
    else:
        tx, ty = canvas.towards_sun
        canvas.disc(x + tx * radius * 0.12, y + ty * radius * 0.12, radius * 0.76, lit(colour, 1.18), "tank")
        canvas.disc(x, y, radius * 0.12, lit(colour, 0.8), "tank")
    canvas.box("storage-tank", x, y, 2 * radius, 2 * radius, -canvas.turn_rad, "tank")


def tree(canvas: Canvas, x: float, y: float, radius: float, colour: Colour) -> None:
    """A broad crown, brighter towards the sun, and its shadow."""
    canvas.cast_disc(x, y, radius * 0.95, radius * 1.5)
    tx, ty = canvas.towards_sun
    canvas.disc(x, y, radius, lit(colour, 0.72), "tree")
    canvas.disc(x + tx * radius * 0.22, y + ty * radius * 0.22, radius * 0.72, lit(colour, 1.05), "tree")
    if radius > 4 * canvas.gsd:
        canvas.disc(x + tx * radius * 0.38, y + ty * radius * 0.38, radius * 0.40, lit(colour, 1.3), "tree")


def conifer(canvas: Canvas, x: float, y: float, radius: float, colour: Colour) -> None:
    """A pointed crown: a long, narrow shadow."""
    height = radius * 3.2
    sx, sy = canvas.sun[0] * height, canvas.sun[1] * height
    nx, ny = -canvas.towards_sun[1] * radius * 0.9, canvas.towards_sun[0] * radius * 0.9
    canvas.cast_outline([(x + nx, y + ny), (x + sx, y + sy), (x - nx, y - ny)], 0.0)
    tx, ty = canvas.towards_sun
    canvas.disc(x, y, radius, lit(colour, 0.6), "tree")
    canvas.disc(x + tx * radius * 0.3, y + ty * radius * 0.3, radius * 0.6, lit(colour, 0.95), "tree")


def palm(canvas: Canvas, x: float, y: float, radius: float, colour: Colour) -> None:
    """A star of fronds and its shadow."""
    star: list[Point] = []
    for k in range(14):
        r = radius * (1.0 if k % 2 == 0 else 0.38)
        star.append((x + r * cos(k * pi / 7 + x), y + r * sin(k * pi / 7 + x)))
    canvas.cast_outline(star, radius * 2.4)
    canvas.polygon(star, lit(colour, 0.95), "tree")
    canvas.disc(x, y, radius * 0.3, lit(colour, 1.25), "tree")
