"""ISPRS's 2D Semantic Labeling benchmarks as they are shipped: names of files, tiles for train and test, colours.

Facts: the benchmarks' own pages and zips; the division into train and test and the windows are those of
mmsegmentation's converters, by which CMID's figures were had. Those are called with windows of 512 px and a stride of
256, but move by the window: 12 x 12 windows of a tile of 6000 x 6000, the last of each row and column moved back. So
their 3,456 and 2,016 images of Potsdam, and 344 and 398 of Vaihingen, come from a step of 512.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from cmid.data.archives import Member
from cmid.data.palettes import Colour, Entry, Palette

Labels = Literal["eroded", "full"]
LABELS: tuple[Labels, ...] = ("eroded", "full")
WINDOW_PX = 512
STEP_PX = 512
COLOURS: tuple[Colour, ...] = ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0))
"""Impervious surface, building, low vegetation, tree, car, clutter."""
BORDER: Colour = (0, 0, 0)
"""Of pixels without a label: borders, where they are eroded."""


@dataclass(frozen=True)
class Benchmark:
    """One of the two data sets.

    Attributes:
        name: of it.
        train: tiles to train on.
        test: tiles to test on.
        bands: which images are shipped.
        zips: names of the zips that hold images or labels, as a pattern.
    """

    name: Literal["Potsdam", "Vaihingen"]
    train: tuple[str, ...]
    test: tuple[str, ...]
    bands: tuple[str, ...]
    zips: str

    @property
    def tiles(self) -> tuple[str, ...]:
        """All tiles, train first."""
        return self.train + self.test

    def split(self, tile: str) -> str:
        """Train or test."""
        return "train" if tile in self.train else "test"

    def opens(self, name: str, bands: str) -> bool:
        """Whether a zip of this name may hold something of use."""
        return re.fullmatch(self.zips.replace("BANDS", bands), name, re.IGNORECASE) is not None


def _tiles(rows: Mapping[int, Iterable[int]]) -> tuple[str, ...]:
    return tuple(f"{row}_{column}" for row, columns in rows.items() for column in columns)


POTSDAM = Benchmark(
    "Potsdam",
    _tiles({2: (10, 11, 12), 3: (10, 11, 12), 4: (10, 11, 12), 5: (10, 11, 12), 6: range(7, 13), 7: range(7, 13)}),
    _tiles({2: (13, 14), 3: (13, 14), 4: (13, 14, 15), 5: (13, 14, 15), 6: (13, 14, 15), 7: (13,)}),
    ("RGB", "IRRG"),
    r"potsdam.*\.zip|\d_Ortho_BANDS\.zip|\d_Labels_.*\.zip",
)
VAIHINGEN = Benchmark(
    "Vaihingen",
    tuple(f"area{n}" for n in (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)),
    tuple(f"area{n}" for n in (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38)),
    ("IRRG",),
    r"vaihingen.*\.zip|ISPRS_semantic_labe\w*_Vaihingen.*\.zip|top\.zip|gts_.*\.zip",
)
BENCHMARKS = {"potsdam": POTSDAM, "vaihingen": VAIHINGEN}
POTSDAM_FILE = re.compile(r"top_potsdam_(\d+)_(\d+)_(RGB|IRRG|label|label_noBoundary)\.tif", re.IGNORECASE)
VAIHINGEN_FILE = re.compile(r"top_mosaic_09cm_area(\d+)(_noBoundary)?\.tif", re.IGNORECASE)


def is_shipped(name: str) -> bool:
    """Whether a file is called as one of the benchmarks' tiles."""
    return any(pattern.fullmatch(name) for pattern in (POTSDAM_FILE, VAIHINGEN_FILE))


@dataclass
class Found:
    """What of a benchmark is there.

    Attributes:
        images: of each tile.
        labels: of each tile, by kind.
        strangers: tiles that no list of the benchmark has.
    """

    images: dict[str, Member] = field(default_factory=dict)
    labels: dict[Labels, dict[str, Member]] = field(default_factory=lambda: {"eroded": {}, "full": {}})
    strangers: set[str] = field(default_factory=set)


def find_tiles(members: Iterable[Member], benchmark: Benchmark, bands: str) -> Found:
    """Images and labels among files, by their names; of several of one tile the first, those for participants last."""
    found = Found()
    ordered = sorted(members, key=lambda each: "participants" in each.name.lower())
    for member in ordered:
        told = _tile_of(member, bands) if benchmark is POTSDAM else _area_of(member)
        if told is None:
            continue
        tile, what = told
        if tile not in benchmark.tiles:
            found.strangers.add(tile)
        elif what == "image":
            found.images.setdefault(tile, member)
        else:
            found.labels["eroded" if what == "eroded" else "full"].setdefault(tile, member)
    return found


def _tile_of(member: Member, bands: str) -> tuple[str, str] | None:
    match = POTSDAM_FILE.fullmatch(PurePosixPath(member.name).name)
    if match is None:
        return None
    what = match[3].lower()
    if what in ("rgb", "irrg"):
        if what != bands.lower():
            return None
        what = "image"
    return f"{int(match[1])}_{int(match[2])}", {"label": "full", "label_noboundary": "eroded"}.get(what, what)


def _area_of(member: Member) -> tuple[str, str] | None:
    path = PurePosixPath(member.name)
    match = VAIHINGEN_FILE.fullmatch(path.name)
    if match is None:
        return None
    what = "eroded" if match[2] else "image" if path.parent.name.lower() == "top" else "full"
    return f"area{int(match[1])}", what


def windows(width: int, height: int, window_px: int = WINDOW_PX, step_px: int = STEP_PX) -> list[tuple[int, int]]:
    """The first pixel, x and y, of each window, row by row; the last of a row or column ends with the tile."""
    return [(x, y) for y in _starts(height, window_px, step_px) for x in _starts(width, window_px, step_px)]


def _starts(length: int, window: int, step: int) -> list[int]:
    last = length - window
    return [*range(0, last, step), last]


def palette(names: Sequence[str], *, values: bool) -> Palette:
    """The classes of the benchmarks.

    Args:
        names: of the six classes, in the order of `COLOURS`.
        values: with numbers 0 to 5, for masks that are written so; without, for the labels as they are shipped.
    """
    classes = [Entry(n, c, i if values else None) for i, (n, c) in enumerate(zip(names, COLOURS, strict=True))]
    border = [] if values else [Entry("border", BORDER, None, ignore=True)]
    return Palette((*classes, *border))


def nearest_class(codes: np.ndarray) -> np.ndarray:
    """Labels `(N,)` uint8 of codes `(N,)` (`palettes.pack`) by the nearest of the colours and black, which is 255."""
    parts = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.int32)
    known = np.array([*COLOURS, BORDER], np.int32)
    place = ((parts[:, None] - known[None]) ** 2).sum(-1).argmin(1)
    return np.where(place == len(COLOURS), 255, place).astype(np.uint8)
