"""Things that lie flat: roads and their markings, courts, pools, fields, water's edges."""

from collections.abc import Sequence
from itertools import pairwise
from math import atan2, ceil, cos, hypot, pi, sin

from cmid.data.generated.buildings import lit
from cmid.data.generated.canvas import Canvas, Colour, Point, edges, placed, rectangle

WHITE: Colour = (214, 214, 208)
YELLOW: Colour = (206, 172, 70)


def polygon(canvas: Canvas, points: Sequence[Point], colour: Colour, material: str) -> None:
    """A flat patch of anything."""
    canvas.polygon(points, colour, material)


def strip(canvas: Canvas, points: Sequence[Point], width: float, colour: Colour, material: str) -> None:
    """A flat band of anything."""
    canvas.strip(points, width, colour, material)


def band(canvas: Canvas, upper: Sequence[Point], lower: Sequence[Point], colour: Colour, material: str) -> None:
    """The flat area between two lines of as many points that run the same way."""
    canvas.band(upper, lower, colour, material)


def disc(canvas: Canvas, x: float, y: float, radius: float, colour: Colour, material: str) -> None:
    """A flat circle of anything."""
    canvas.disc(x, y, radius, colour, material)


def road(
    canvas: Canvas, points: Sequence[Point], width: float, colour: Colour, kerb: Colour | None = None,
    material: str = "asphalt",
) -> None:  # fmt: skip
    """A carriageway, with pale kerbs or pavements if `kerb` is given."""
    if kerb is not None:
        canvas.strip(points, width + 3.0, kerb, "concrete")
    canvas.strip(points, width, colour, material)


def dashes(
    canvas: Canvas, points: Sequence[Point], offset: float, colour: Colour = WHITE, dash: float = 3.0,
    gap: float = 6.0, width: float = 0.22, material: str = "marking",
) -> None:  # fmt: skip
    """A broken line along a line of points, `offset` metres to its right."""
    width = max(width, 0.45 * canvas.gsd)
    start = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        length, angle = hypot(x1 - x0, y1 - y0), atan2(y1 - y0, x1 - x0)
        c, s = cos(angle), sin(angle)
        # Straight to the first dash that can be seen: the picture's middle is at (0, 0).
        middle, period, reach = -(x0 * c + y0 * s), dash + gap, 0.72 * canvas.size * canvas.gsd + dash + abs(offset)
        first = start + max(0, int((middle - reach - start) / period)) * period
        middles = []
        while first + dash / 2 <= min(length, middle + reach):
            along = first + dash / 2
            middles.append((x0 + c * along - s * offset, y0 + s * along + c * offset))
            first += period
        canvas.quads(middles, dash, width, angle, colour, material)
        start += max(0, ceil((length - dash / 2 - start) / period)) * period
        start -= length


def line(
    canvas: Canvas, points: Sequence[Point], offset: float, colour: Colour = WHITE, width: float = 0.2,
    material: str = "marking",
) -> None:  # fmt: skip
    """An unbroken line along a line of points, `offset` metres to its right."""
    width = max(width, 0.45 * canvas.gsd)
    canvas.strip(edges(points, 2 * offset)[0] if offset else points, width, colour, material)


def crossing(canvas: Canvas, x: float, y: float, span: float, angle: float) -> None:
    """A zebra crossing over a road `span` metres wide that runs along `angle`."""
    stripes = int(span / 1.1)
    across = placed([(0, (k + 0.5) * span / stripes - span / 2) for k in range(stripes)], x, y, angle)
    canvas.quads(across, 3.0, 0.5, angle, WHITE, "marking")


def bays(canvas: Canvas, x: float, y: float, count: int, pitch: float, depth: float, angle: float) -> None:
    """Lines between parking bays side by side along `angle`, and the line at their head."""
    width = max(0.14, 0.45 * canvas.gsd)
    heads = placed([((k - count / 2) * pitch, 0) for k in range(count + 1)], x, y, angle)
    canvas.quads(heads, width, depth, angle, WHITE, "marking")


def pool(canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, colour: Colour) -> None:
    """A swimming pool in a paved rim."""
    canvas.quad(x, y, length + 2.4, width + 2.4, angle, (198, 190, 176), "concrete")
    canvas.quad(x, y, length, width, angle, colour, "pool")
    ((sx, sy),) = placed([(-length * 0.3, 0)], x, y, angle)
    canvas.quad(sx, sy, length * 0.3, width * 0.8, angle, lit(colour, 1.12), "pool")
    canvas.box("swimming-pool", x, y, length, width, angle, "pool")


def _court_line(canvas: Canvas, x: float, y: float, u: float, v: float, a: float, b: float, angle: float) -> None:
    ((cx, cy),) = placed([(u, v)], x, y, angle)
    wide = max(0.12, 0.5 * canvas.gsd)
    canvas.quad(cx, cy, max(a, wide), max(b, wide), angle, (226, 228, 226), "court")


def tennis_court(canvas: Canvas, x: float, y: float, angle: float, inner: Colour, outer: Colour) -> None:
    """A tennis court with its run-off; the box is the marked court, 23.8 x 11 m."""
    canvas.quad(x, y, 35.0, 17.0, angle, outer, "court")
    canvas.quad(x, y, 23.8, 11.0, angle, inner, "court")
    for v in (-5.45, -4.1, 4.1, 5.45):
        _court_line(canvas, x, y, 0, v, 23.8, 0, angle)
    for u in (-11.85, 11.85):
        _court_line(canvas, x, y, u, 0, 0, 11.0, angle)
    for u in (-6.4, 0.0, 6.4):
        _court_line(canvas, x, y, u, 0, 0, 8.2, angle)
    _court_line(canvas, x, y, 0, 0, 12.8, 0, angle)
    canvas.box("tennis-court", x, y, 23.8, 11.0, angle, "court")


def basketball_court(canvas: Canvas, x: float, y: float, angle: float, inner: Colour, outer: Colour) -> None:
    """A basketball court; the box is the marked court, 28 x 15 m."""
    canvas.quad(x, y, 32.0, 19.0, angle, outer, "court")
    canvas.quad(x, y, 28.0, 15.0, angle, inner, "court")
    for v in (-7.4, 7.4):
        _court_line(canvas, x, y, 0, v, 28.0, 0, angle)
    for u in (-13.9, 0.0, 13.9):
        _court_line(canvas, x, y, u, 0, 0, 15.0, angle)
    for side in (-1, 1):
        ((cx, cy),) = placed([(side * 11.1, 0)], x, y, angle)
        canvas.disc(*placed([(side * 8.2, 0)], x, y, angle)[0], 1.9, outer, "court")
        canvas.quad(cx, cy, 5.8, 4.9, angle, outer, "court")
    canvas.disc(x, y, 1.9, outer, "court")
    canvas.box("basketball-court", x, y, 28.0, 15.0, angle, "court")


def pitch(canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, colour: Colour) -> None:
    """A football pitch mown in bands."""
    bands = 12
    for k in range(bands):
        ((cx, cy),) = placed([((k + 0.5) * length / bands - length / 2, 0)], x, y, angle)
        canvas.quad(cx, cy, length / bands + 0.2, width, angle, lit(colour, 0.94 if k % 2 else 1.06), "turf")
    wide = max(0.25, 0.5 * canvas.gsd)
    white = (214, 222, 210)

    def mark(u: float, v: float, a: float, b: float) -> None:
        ((cx, cy),) = placed([(u, v)], x, y, angle)
        canvas.quad(cx, cy, max(a, wide), max(b, wide), angle, white, "turf")

    for side in (-1, 1):
        mark(0, side * (width / 2 - 1.2), length - 2.4, 0)
        mark(side * (length / 2 - 1.2), 0, 0, width - 2.4)
        edge = length / 2 - 1.2 - 0.157 * length
        mark(side * edge, 0, 0, 0.59 * width)
        for v in (-0.295 * width, 0.295 * width):
            mark(side * (edge + 0.0785 * length), v, 0.157 * length, 0)
    mark(0, 0, 0, width - 2.4)
    circle = [(x + 0.13 * width * cos(k * pi / 12), y + 0.13 * width * sin(k * pi / 12)) for k in range(25)]
    canvas.strip(circle, wide, white, "turf")
    canvas.box("soccer-ball-field", x, y, length, width, angle, "turf")


def stadium_outline(x: float, y: float, straight: float, radius: float, angle: float) -> list[Point]:
    """A rectangle `straight` long with half circles of `radius` at its ends."""
    points = []
    for k in range(13):
        t = -pi / 2 + k * pi / 12
        points.append((straight / 2 + radius * cos(t), radius * sin(t)))
    points += [(-u, -v) for u, v in points]
    return placed(points, x, y, angle)


def track(
    canvas: Canvas, x: float, y: float, straight: float, radius: float, angle: float, colour: Colour, grass: Colour,
    lanes: int = 6,
) -> None:  # fmt: skip
    """An athletics track around a football pitch."""
    wide = 1.22 * lanes
    canvas.polygon(stadium_outline(x, y, straight, radius, angle), colour, "court")
    for k in range(1, lanes):
        ring = stadium_outline(x, y, straight, radius - 1.22 * k, angle)
        canvas.strip([*ring, ring[0]], 0.4 * canvas.gsd, (222, 206, 196), "court")
    inner = radius - wide
    canvas.polygon(stadium_outline(x, y, straight, inner, angle), grass, "turf")
    pitch(canvas, x, y, straight * 1.12, inner * 1.55, angle, grass)
    canvas.box("ground-track-field", x, y, straight + 2 * radius, 2 * radius, angle, "court")


def diamond(canvas: Canvas, x: float, y: float, side: float, angle: float, grass: Colour, soil: Colour) -> None:
    """A baseball field, home plate in one corner of its square of `side` metres."""

    def fan(radius: float) -> list[Point]:
        arc = [(-side / 2 + radius * cos(k * pi / 20), -side / 2 + radius * sin(k * pi / 20)) for k in range(11)]
        return placed([(-side / 2, -side / 2), *arc], x, y, angle)

    canvas.polygon(fan(side), grass, "turf")
    canvas.polygon(fan(side * 0.44), soil, "soil")
    base = side * 0.27
    ((cx, cy), (mx, my)) = placed([(-side / 2 + base * 0.62,) * 2, (-side / 2 + base * 0.6,) * 2], x, y, angle)
    canvas.quad(cx, cy, base * 0.88, base * 0.88, angle, lit(grass, 1.05), "turf")
    canvas.disc(mx, my, 1.6, soil, "soil")
    canvas.box("baseball-diamond", x, y, side, side, angle, "turf")


def bridge(
    canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, height: float,
    lines: Sequence[float] = (0.0,), median: float = 0.0,
) -> None:  # fmt: skip
    """A straight road bridge with parapets, broken lines at the offsets `lines`, and a median `median` m wide."""
    canvas.cast(rectangle(x, y, length, width, angle), height)
    canvas.quad(x, y, length, width, angle, (186, 184, 178), "bridge")
    canvas.quad(x, y, length, width - 1.6, angle, (118, 118, 120), "bridge")
    if median:
        canvas.quad(x, y, length, median, angle, (176, 174, 168), "bridge")
    ends = placed([(1.6 - length / 2, 0), (length / 2 - 1.6, 0)], x, y, angle)
    for offset in lines:
        dashes(canvas, ends, offset, material="bridge")
    canvas.box("bridge", x, y, length, width, angle, "bridge")


def pier(canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, colour: Colour) -> None:
    """A jetty, DOTA's harbor."""
    canvas.cast(rectangle(x, y, length, width, angle), 1.5)
    canvas.quad(x, y, length, width, angle, colour, "pier")
    canvas.box("harbor", x, y, length, width, angle, "pier")


def roundabout(canvas: Canvas, x: float, y: float, radius: float, asphalt: Colour, grass: Colour) -> None:
    """A ring of road around a green island."""
    canvas.disc(x, y, radius + 1.5, (170, 168, 162), "concrete")
    canvas.disc(x, y, radius, asphalt, "asphalt")
    canvas.disc(x, y, radius * 0.52 + 0.8, (188, 186, 180), "concrete")
    canvas.disc(x, y, radius * 0.52, grass, "grass")
    canvas.box("roundabout", x, y, 2 * radius, 2 * radius, -canvas.turn_rad, "asphalt")
