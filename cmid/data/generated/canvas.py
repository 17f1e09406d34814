"""The drawing surface: metres of a place in, pixels with a material and a shadow out.

Colour and material share one canvas of twice the resolution, so that one call draws both and averaging
smooths the edges; shadows have a canvas of their own because they darken whatever lies under them.
"""

from collections.abc import Sequence
from math import atan2, cos, hypot, sin

import numpy as np
from PIL import Image, ImageDraw

from cmid.data.generated.materials import CHANGED, CODE

Point = tuple[float, float]
Colour = tuple[float, float, float]


class Canvas:
    """A square picture of a place, `size` pixels of `gsd` metres, turned by `turn_rad` against the place's axes.

    Args:
        size: side in pixels.
        gsd: metres per pixel.
        turn_rad: angle from the image's x axis to the place's, clockwise on screen.
        ground: colour of the ground everything is drawn on.
        material: the ground's material.
        sun: where shadows fall and how long they are: image (dx, dy) per metre of height, in metres.
        slope_light: what a roof gains in brightness per unit of slope towards the sun.
    """

    def __init__(
        self,
        size: int,
        gsd: float,
        turn_rad: float,
        ground: Colour,
        material: str,
        sun: Point = (0.6, 0.4),
        slope_light: float = 0.6,
    ) -> None:
        self.size, self.gsd, self.turn_rad = size, gsd, turn_rad
        fine = 2 * size
        self._paint = Image.new("RGBA", (fine, fine), _ink(ground, CODE[material]))
        self._draw = ImageDraw.Draw(self._paint)
        self._shadow = Image.new("L", (fine, fine), 0)
        self._shade = ImageDraw.Draw(self._shadow)
        scale = 2.0 / gsd
        self._c, self._s = scale * cos(turn_rad), scale * sin(turn_rad)
        self._o = size - 0.5  # the middle of the fine canvas; Pillow counts from pixel centres
        # The shadow vector in the place's axes.
        self.sun = (
            sun[0] * cos(turn_rad) + sun[1] * sin(turn_rad),
            -sun[0] * sin(turn_rad) + sun[1] * cos(turn_rad),
        )
        length = max((self.sun[0] ** 2 + self.sun[1] ** 2) ** 0.5, 1e-6)
        self.towards_sun = (-self.sun[0] / length, -self.sun[1] / length)
        self.slope_light = slope_light
        self.flag = 0
        self.used = {material}
        self._objects: list[tuple[str, str, float, float, float, float, float]] = []

    # -- primitives, all in metres of the place ---------------------------------------------------------------

    def fine(self, points: Sequence[Point]) -> list[float]:
        """Points as x, y, x, y ... on the fine canvas."""
        c, s, o = self._c, self._s, self._o
        return [w for x, y in points for w in (o + c * x - s * y, o + s * x + c * y)]

    def polygon(self, points: Sequence[Point], colour: Colour, material: str) -> None:
        """A filled polygon."""
        self.used.add(material)
        self._draw.polygon(self.fine(points), fill=_ink(colour, CODE[material] | self.flag))

    def quad(
        self, x: float, y: float, length: float, width: float, angle: float, colour: Colour, material: str
    ) -> None:
        """A filled rectangle around (x, y), `length` along `angle`."""
        flat = self._fine_rectangle(x, y, length, width, angle)
        if flat is not None:
            self.used.add(material)
            self._draw.polygon(flat, fill=_ink(colour, CODE[material] | self.flag))

    def _fine_rectangle(self, x: float, y: float, length: float, width: float, angle: float) -> list[float] | None:
        """A rectangle as x, y, x, y ... on the fine canvas; None if it is out of sight."""
        c, s, o = self._c, self._s, self._o
        u, v = o + c * x - s * y, o + s * x + c * y
        along, up = cos(angle), sin(angle)
        along, up = (c * along - s * up) / 2, (s * along + c * up) / 2
        ax, ay, bx, by = along * length, up * length, -up * width, along * width
        reach, end = abs(ax) + abs(bx) + abs(ay) + abs(by), o + o + 1
        if not (-reach < u < end + reach and -reach < v < end + reach):
            return None
        return [u - ax - bx, v - ay - by, u + ax - bx, v + ay - by, u + ax + bx, v + ay + by, u - ax + bx, v - ay + by]

    def disc(self, x: float, y: float, radius: float, colour: Colour, material: str) -> None:
        """A filled circle."""
        self.used.add(material)
        r = radius * 2 / self.gsd
        u, v = self._o + self._c * x - self._s * y, self._o + self._s * x + self._c * y
        self._draw.ellipse([u - r, v - r, u + r, v + r], fill=_ink(colour, CODE[material] | self.flag))

    def strip(self, points: Sequence[Point], width: float, colour: Colour, material: str) -> None:
        """A band of constant width along a line of points."""
        points = self._in_sight(points, width)
        if points:
            self.polygon(ribbon(points, width), colour, material)

    def _in_sight(self, points: Sequence[Point], width: float) -> Sequence[Point]:
        """The line without its ends out of sight: a polygon costs Pillow its corners times its rows."""
        if len(points) < 4:
            return points
        (x0, y0), (x1, y1) = points[:2]
        margin = width + 2 * hypot(x1 - x0, y1 - y0)
        seen = [i for i, (x, y) in enumerate(points) if self.sees(x, y, margin)]
        return points[max(seen[0] - 1, 0) : seen[-1] + 2] if seen else ()

    # -- shadows -----------------------------------------------------------------------------------------------

    def cast(self, footprint: Sequence[Point], height: float) -> None:
        """The shadow of an upright prism on a convex footprint."""
        if not self.sees(*footprint[0], 200.0):
            return
        sx, sy = self.sun[0] * height, self.sun[1] * height
        n = len(footprint)
        if n == 4:
            # All corners but the far one where they are, all but the near one moved.
            reach = [sx * x + sy * y for x, y in footprint]
            far = reach.index(max(reach))
            back, left, front, right = (footprint[(far + k) % 4] for k in (2, 3, 0, 1))
            outline = [back, left, *((x + sx, y + sy) for x, y in (left, front, right)), right]
        else:
            side = [sx * y - sy * x for x, y in footprint]
            first, last = side.index(max(side)), side.index(min(side))
            one = [footprint[(first + k) % n] for k in range((last - first) % n + 1)]
            other = [footprint[(last + k) % n] for k in range((first - last) % n + 1)]
            if sum(sx * x + sy * y for x, y in one) / len(one) < sum(sx * x + sy * y for x, y in other) / len(other):
                one, other = other, one
            outline = [(x + sx, y + sy) for x, y in one] + other
        self._shade.polygon(self.fine(outline), fill=255)

    def cast_outline(self, outline: Sequence[Point], height: float, strength: int = 255) -> None:
        """The shadow of a thin thing held `height` metres up, of any outline."""
        sx, sy = self.sun[0] * height, self.sun[1] * height
        self._shade.polygon(self.fine([(x + sx, y + sy) for x, y in outline]), fill=strength)

    def cast_disc(self, x: float, y: float, radius: float, height: float, strength: int = 255) -> None:
        """The shadow of a ball or crown `height` metres up."""
        x, y = x + self.sun[0] * height, y + self.sun[1] * height
        r = radius * 2 / self.gsd
        u, v = self._o + self._c * x - self._s * y, self._o + self._s * x + self._c * y
        self._shade.ellipse([u - r, v - r, u + r, v + r], fill=strength)

    # -- labels and results ------------------------------------------------------------------------------------

    def box(self, name: str, x: float, y: float, length: float, width: float, angle: float, material: str) -> None:
        """Records an object that fills the rectangle around (x, y), under its DOTA name."""
        self._objects.append((name, material, x, y, length, width, angle))

    def objects(self) -> tuple[list[tuple[str, str]], np.ndarray]:
        """Name and material of the recorded objects, and their corners.

        Returns:
            N pairs, and `(N, 4, 2)` float64 x, y in pixels of the image, which spans 0 to its size; clockwise on
            screen, the first side along the object's length.
        """
        names = [(name, material) for name, material, *_ in self._objects]
        x, y, length, width, angle = np.array([row[2:] for row in self._objects], np.float64).reshape(-1, 5).T
        scale, turn = 1 / self.gsd, self.turn_rad
        u = self.size / 2 + scale * (cos(turn) * x - sin(turn) * y)
        v = self.size / 2 + scale * (sin(turn) * x + cos(turn) * y)
        along, up = np.cos(angle + turn) * scale / 2, np.sin(angle + turn) * scale / 2
        ahead, aside = np.stack([along * length, up * length], -1), np.stack([-up * width, along * width], -1)
        centre = np.stack([u, v], -1)
        return names, np.stack([centre + i * ahead + j * aside for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))], 1)

    def mark_changed(self, changed: bool) -> None:
        """Whether what is drawn next exists at one date only."""
        self.flag = CHANGED if changed else 0

    def sees(self, x: float, y: float, radius: float) -> bool:
        """Whether anything within `radius` metres of (x, y) can be in the picture."""
        half = 0.5 * self.size * self.gsd + radius
        c, s = self._c * self.gsd / 2, self._s * self.gsd / 2
        return abs(c * x - s * y) < half and abs(s * x + c * y) < half

    def waves(self, length: float, across: bool) -> np.ndarray:
        """`(size, size)` float32 sine waves of `length` metres along the place's y axis (`across`) or its x axis."""
        axis = (np.arange(self.size) + 0.5 - self.size / 2) * (2 * np.pi * self.gsd / length)
        c, s = cos(self.turn_rad), sin(self.turn_rad)
        kx, ky = (-s, c) if across else (c, s)
        # sin(a + b), so that only two rows of sines are worked out.
        parts = (np.sin(ky * axis), np.cos(kx * axis), np.cos(ky * axis), np.sin(kx * axis))
        sin_b, cos_a, cos_b, sin_a = (part.astype(np.float32) for part in parts)
        waves: np.ndarray = sin_b[:, None] * cos_a
        waves += cos_b[:, None] * sin_a
        return waves

    def pixels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colour `(H, W, 4)` uint8 (the fourth meaningless), material `(H, W)` uint8, shadow `(H, W)` uint8."""
        fine = 2 * self.size
        packed = np.frombuffer(self._paint.tobytes(), np.uint32).reshape(fine, fine)
        material = packed.view(np.uint8).reshape(fine, fine, 4)[::2, ::2, 3].copy()
        # Two of each four pixels, on the diagonal: an edge of any direction still falls in three steps.
        colour = _mean_of_bytes(packed[0::2, 0::2], packed[1::2, 1::2])
        dark = np.asarray(self._shadow)
        shade = (dark[0::2, 0::2] >> 1) + (dark[1::2, 1::2] >> 1)
        return colour.view(np.uint8).reshape(self.size, self.size, 4), material, shade


def _mean_of_bytes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean, rounded down, of each of the four bytes in two uint32 arrays, as a contiguous one."""
    differ = a ^ b
    differ &= np.uint32(0xFEFEFEFE)
    differ >>= np.uint32(1)
    differ += a & b
    return differ


def _ink(colour: Colour, code: int) -> tuple[int, int, int, int]:
    r, g, b = colour
    return (
        0 if r < 0 else 255 if r > 255 else int(r),
        0 if g < 0 else 255 if g > 255 else int(g),
        0 if b < 0 else 255 if b > 255 else int(b),
        code,
    )


def rectangle(x: float, y: float, length: float, width: float, angle: float) -> list[Point]:
    """Corners of a rectangle around (x, y), `length` along `angle`, clockwise on screen."""
    c, s = cos(angle), sin(angle)
    a, b, p, q = c * length / 2, s * length / 2, -s * width / 2, c * width / 2
    return [(x - a - p, y - b - q), (x + a - p, y + b - q), (x + a + p, y + b + q), (x - a + p, y - b + q)]


def placed(outline: Sequence[Point], x: float, y: float, angle: float) -> list[Point]:
    """An outline given around the origin, turned by `angle` and moved to (x, y)."""
    c, s = cos(angle), sin(angle)
    return [(x + c * u - s * v, y + s * u + c * v) for u, v in outline]


def ribbon(points: Sequence[Point], width: float) -> list[Point]:
    """Outline of the band of `width` around a line of points."""
    left: list[Point] = []
    right: list[Point] = []
    n, half = len(points), width / 2
    for i, (x, y) in enumerate(points):
        (x0, y0), (x1, y1) = points[max(i - 1, 0)], points[min(i + 1, n - 1)]
        angle = atan2(y1 - y0, x1 - x0)
        dx, dy = -sin(angle) * half, cos(angle) * half
        left.append((x + dx, y + dy))
        right.append((x - dx, y - dy))
    return left + right[::-1]
