"""The drawing surface: metres of a place in, pixels with a material and a shadow out.

Colour and material share one canvas of twice the resolution, so that one call draws both and averaging
smooths the edges; shadows have a canvas of their own because they darken whatever lies under them.
"""

from collections.abc import Iterable, Sequence
from math import atan2, cos, hypot, sin
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from cmid.data.generated.materials import CHANGED, CODE

Point = tuple[float, float]
Colour = tuple[float, float, float]
_CORNERS = np.array(((1, 1, 1, 1), (-0.5, 0.5, 0.5, -0.5), (-0.5, -0.5, 0.5, 0.5)))
"""What each corner takes of a box's middle, its length and its width."""
PIECE = 5
"""Segments of a band that are drawn as one polygon."""


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
        tones: per material, in the order of the codes, the gains of red, green and blue and the grey levels added to
            them; unset: colours as they are.
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
        tones: Sequence[tuple[float, ...]] | None = None,
    ) -> None:
        self.size, self.gsd, self.turn_rad = size, gsd, turn_rad
        self._tones = dict(zip(CODE, tones or [(1.0, 1.0, 1.0, 0.0, 0.0, 0.0)] * len(CODE), strict=True))
        self.flag = 0
        self.used = {material}
        self._paint = np.full((2 * size, 2 * size), self._ink(ground, material), np.int32)
        self._draw_polygon, self._draw_ellipse = _brush(self._paint, "RGBA")
        self._shadow = np.zeros((2 * size, 2 * size), np.uint8)
        self._shade_polygon, self._shade_ellipse = _brush(self._shadow, "L")
        self._scale = 2.0 / gsd
        self._c, self._s = self._scale * cos(turn_rad), self._scale * sin(turn_rad)
        self._o = size - 0.5  # the middle of the fine canvas; Pillow counts from pixel centres
        # The shadow vector in the place's axes.
        self.sun = (
            sun[0] * cos(turn_rad) + sun[1] * sin(turn_rad),
            -sun[0] * sin(turn_rad) + sun[1] * cos(turn_rad),
        )
        length = max((self.sun[0] ** 2 + self.sun[1] ** 2) ** 0.5, 1e-6)
        self.towards_sun = (-self.sun[0] / length, -self.sun[1] / length)
        self.slope_light = slope_light
        self._objects: list[tuple[str, str, float, float, float, float, float]] = []

    # -- primitives, all in metres of the place ---------------------------------------------------------------

    def fine(self, points: Sequence[Point]) -> list[float]:
        """Points as x, y, x, y ... on the fine canvas."""
        c, s, o = self._c, self._s, self._o
        return [w for x, y in points for w in (o + c * x - s * y, o + s * x + c * y)]

    def polygon(self, points: Sequence[Point], colour: Colour, material: str) -> None:
        """A filled polygon."""
        self.used.add(material)
        self._draw_polygon(self.fine(points), self._ink(colour, material), 1)

    def quad(
        self, x: float, y: float, length: float, width: float, angle: float, colour: Colour, material: str
    ) -> None:
        """A filled rectangle around (x, y), `length` along `angle`."""
        self.quads(((x, y),), length, width, angle, colour, material)

    def quads(
        self, middles: Iterable[Point], length: float, width: float, angle: float, colour: Colour, material: str
    ) -> None:
        """Filled rectangles alike around several points, `length` along `angle`."""
        flats = self._fine_rectangles(middles, length, width, angle)
        if flats:
            self.used.add(material)
            ink = self._ink(colour, material)
            for flat in flats:
                self._draw_polygon(flat, ink, 1)

    def _ink(self, colour: Colour, material: str) -> int:
        """The colour in the day's tone and above it the material's code: the canvas's four bytes as a signed number."""
        gain_r, gain_g, gain_b, more_r, more_g, more_b = self._tones[material]
        r, g, b = colour
        r, g, b = int(r * gain_r + more_r), int(g * gain_g + more_g), int(b * gain_b + more_b)
        if (r | g | b) & -256:  # one of them under 0 or over 255
            r, g, b = min(max(r, 0), 255), min(max(g, 0), 255), min(max(b, 0), 255)
        return r | g << 8 | b << 16 | CODE[material] - self.flag << 24

    def _fine_rectangles(
        self, middles: Iterable[Point], length: float, width: float, angle: float
    ) -> list[tuple[float, ...]]:
        """Rectangles as x, y, x, y ... on the fine canvas, without those out of sight."""
        c, s, o = self._c, self._s, self._o
        along, up = cos(angle), sin(angle)
        along, up = (c * along - s * up) / 2, (s * along + c * up) / 2
        ax, ay, bx, by = along * length, up * length, -up * width, along * width
        reach = abs(ax) + abs(bx) + abs(ay) + abs(by)
        least, most = -reach, o + o + 1 + reach
        px, py, qx, qy = ax + bx, ay + by, ax - bx, ay - by
        flats: list[tuple[float, ...]] = []
        for x, y in middles:
            u, v = o + c * x - s * y, o + s * x + c * y
            if least < u < most and least < v < most:
                flats.append((u - px, v - py, u + qx, v + qy, u + px, v + py, u - qx, v - qy))
        return flats

    def disc(self, x: float, y: float, radius: float, colour: Colour, material: str) -> None:
        """A filled circle."""
        self.used.add(material)
        r = radius * self._scale
        u, v = self._o + self._c * x - self._s * y, self._o + self._s * x + self._c * y
        self._draw_ellipse((u - r, v - r, u + r, v + r), self._ink(colour, material), 1)

    def strip(self, points: Sequence[Point], width: float, colour: Colour, material: str) -> None:
        """A band of constant width along a line of points."""
        points = self._in_sight(points, width)
        if points:
            self.band(*edges(points, width), colour, material)

    def band(self, left: Sequence[Point], right: Sequence[Point], colour: Colour, material: str) -> None:
        """The area between two lines of as many points that run the same way."""
        # In pieces: a polygon costs Pillow its corners times its rows.
        for start in range(0, max(len(left) - 1, 1), PIECE):
            piece = slice(start, start + PIECE + 1)
            self.polygon([*left[piece], *right[piece][::-1]], colour, material)

    def _in_sight(self, points: Sequence[Point], width: float) -> Sequence[Point]:
        """The line without its ends out of sight."""
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
        self._shade_polygon(self.fine(outline), 255, 1)

    def cast_outline(self, outline: Sequence[Point], height: float, strength: int = 255) -> None:
        """The shadow of a thin thing held `height` metres up, of any outline."""
        sx, sy = self.sun[0] * height, self.sun[1] * height
        self._shade_polygon(self.fine([(x + sx, y + sy) for x, y in outline]), strength, 1)

    def cast_quad(self, x: float, y: float, length: float, width: float, angle: float, height: float) -> None:
        """The shadow of a thin rectangle around (x, y) held `height` metres up, `length` along `angle`."""
        middle = (x + self.sun[0] * height, y + self.sun[1] * height)
        for flat in self._fine_rectangles((middle,), length, width, angle):
            self._shade_polygon(flat, 255, 1)

    def cast_disc(self, x: float, y: float, radius: float, height: float, strength: int = 255) -> None:
        """The shadow of a ball or crown `height` metres up."""
        x, y = x + self.sun[0] * height, y + self.sun[1] * height
        r = radius * self._scale
        u, v = self._o + self._c * x - self._s * y, self._o + self._s * x + self._c * y
        self._shade_ellipse((u - r, v - r, u + r, v + r), strength, 1)

    # -- labels and results ------------------------------------------------------------------------------------

    def box(self, name: str, x: float, y: float, length: float, width: float, angle: float, material: str) -> None:
        """Records an object that fills the rectangle around (x, y), under its DOTA name."""
        self._objects.append((name, material, x, y, length, width, angle))

    def frames(self) -> tuple[list[tuple[str, str]], np.ndarray]:
        """Name and material of the recorded objects, and where they are.

        Returns:
            N pairs, and `(2, N, 3)` float64: the x, and the y, of each middle, length and width, in pixels of the
            image, which spans 0 to its size.
        """
        names = [(name, material) for name, material, *_ in self._objects]
        x, y, length, width, angle = np.array([row[2:] for row in self._objects], np.float64).reshape(-1, 5).T
        scale, turn = 1 / self.gsd, self.turn_rad
        frames = np.empty((2, len(names), 3))
        frames[0, :, 0] = self.size / 2 + scale * (cos(turn) * x - sin(turn) * y)
        frames[1, :, 0] = self.size / 2 + scale * (sin(turn) * x + cos(turn) * y)
        along, up = scale * np.cos(angle + turn), scale * np.sin(angle + turn)
        frames[0, :, 1], frames[1, :, 1] = along * length, up * length
        frames[0, :, 2], frames[1, :, 2] = -up * width, along * width
        return names, frames

    def objects(self) -> tuple[list[tuple[str, str]], np.ndarray]:
        """Name and material of the recorded objects, and their corners.

        Returns:
            N pairs, and `(N, 4, 2)` float64 x, y in pixels of the image, which spans 0 to its size; clockwise on
            screen, the first side along the object's length.
        """
        names, frames = self.frames()
        return names, corners(frames)

    def mark_changed(self, changed: bool) -> None:
        """Whether what is drawn next exists at one date only."""
        self.flag = CHANGED if changed else 0

    def sees(self, x: float, y: float, radius: float) -> bool:
        """Whether anything within `radius` metres of (x, y) can be in the picture."""
        half = 0.5 * self.size * self.gsd + radius
        c, s = self._c * self.gsd / 2, self._s * self.gsd / 2
        return abs(c * x - s * y) < half and abs(s * x + c * y) < half

    def waves(self, length: float, across: bool) -> np.ndarray:
        """`(size, size)` int16 sine waves of `length` metres along the place's y axis (`across`) or its x axis.

        They swing between minus and plus `UNIT`.
        """
        axis = (np.arange(self.size) + 0.5 - self.size / 2) * (2 * np.pi * self.gsd / length)
        c, s = cos(self.turn_rad), sin(self.turn_rad)
        kx, ky = (-s, c) if across else (c, s)
        # sin(a + b), so that only two rows of sines are worked out.
        turns = np.array((ky, kx, ky, kx))[:, None] * axis
        turns[1:3] += np.pi / 2
        sin_b, cos_a, cos_b, sin_a = (127.5 * np.sin(turns)).astype(np.int16)
        waves: np.ndarray = sin_b[:, None] * cos_a
        waves += cos_b[:, None] * sin_a
        waves >>= 10  # 127 ** 2 to UNIT
        return waves

    def pixels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The canvas in pixels of the picture.

        Returns:
            colour `(H, W, 3)` uint8, each band in one piece; material `(H, W)` uint8; shadow `(H, W)` uint16, 0 to 255.
        """
        # Two of each four pixels, on the diagonal: an edge of any direction still falls in three steps.
        bands = np.empty((4, self.size, self.size), np.uint8)
        mean, other = np.empty((2, self.size, self.size), np.uint32)
        # Neighbours in a row as one number of 64 bits, of which the lower half is the left one.
        np.copyto(mean, self._paint.view("<u8")[0::2], casting="unsafe")
        np.right_shift(mean, 24, out=other)
        np.copyto(bands[3], other, casting="unsafe")
        np.copyto(other, self._paint.view(np.uint32)[1::2, 1::2])
        # The mean, rounded up, of each of the four bytes: a | b less half of what differs.
        other ^= mean
        mean |= other
        other &= np.uint32(0xFEFEFEFE)
        other >>= 1
        mean -= other
        for band in bands[:3]:
            np.copyto(band, mean, casting="unsafe")  # the lowest byte
            mean >>= 8
        # Pairs of neighbours as one number: the left of one row, the right of the other.
        pairs = self._shadow.view("<u2")
        shade = pairs[0::2] & 255
        shade += pairs[1::2] >> 8
        shade >>= 1
        return bands[:3].transpose(1, 2, 0), bands[3], shade


def corners(frames: np.ndarray) -> np.ndarray:
    """`(N, 4, 2)` corners of `(2, N, 3)` frames, clockwise on screen, the first side along the length."""
    return (frames @ _CORNERS).transpose(1, 2, 0)


def _brush(pixels: np.ndarray, mode: str) -> tuple[Any, Any]:
    """Draws polygons, and ellipses, into an array itself: `(H, W)` int32 with the bytes of RGBA, or uint8 of L.

    This is the core under `ImageDraw`, whose checks of every colour take a third of the time of a small polygon.
    """
    height, width = pixels.shape
    image = Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)
    image.readonly = 0  # or drawing would begin with a copy
    core = ImageDraw.Draw(image).draw
    return core.draw_polygon, core.draw_ellipse


def rectangle(x: float, y: float, length: float, width: float, angle: float) -> list[Point]:
    """Corners of a rectangle around (x, y), `length` along `angle`, clockwise on screen."""
    c, s = cos(angle), sin(angle)
    a, b, p, q = c * length / 2, s * length / 2, -s * width / 2, c * width / 2
    return [(x - a - p, y - b - q), (x + a - p, y + b - q), (x + a + p, y + b + q), (x - a + p, y - b + q)]


def placed(outline: Sequence[Point], x: float, y: float, angle: float) -> list[Point]:
    """An outline given around the origin, turned by `angle` and moved to (x, y)."""
    c, s = cos(angle), sin(angle)
    return [(x + c * u - s * v, y + s * u + c * v) for u, v in outline]


def edges(points: Sequence[Point], width: float) -> tuple[list[Point], list[Point]]:
    """Both edges of the band of `width` around a line of points."""
    left: list[Point] = []
    right: list[Point] = []
    n, half = len(points), width / 2
    for i, (x, y) in enumerate(points):
        (x0, y0), (x1, y1) = points[max(i - 1, 0)], points[min(i + 1, n - 1)]
        angle = atan2(y1 - y0, x1 - x0)
        dx, dy = -sin(angle) * half, cos(angle) * half
        left.append((x + dx, y + dy))
        right.append((x - dx, y - dy))
    return left, right
