"""What surfaces are made of: the code each pixel carries, its semantic class, its texture.

A pixel of the canvas is R, G, B and a material code; everything a label or the light needs to know about it is
looked up by that code. Bit 7 marks the pixels of a structure that exists at one date only.
"""

from dataclasses import dataclass

CHANGED = 128
"""Added to the material code of a structure that is new or removed."""

SEMANTIC_CLASSES: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("impervious_surface", (255, 255, 255)),
    ("building", (0, 0, 255)),
    ("low_vegetation", (0, 255, 255)),
    ("tree", (0, 255, 0)),
    ("car", (255, 255, 0)),
    ("clutter", (255, 0, 0)),
    ("water", (0, 70, 140)),
    ("bare_ground", (170, 120, 70)),
)
"""Name and colour of each class, in the order of its index; the first six are those of the ISPRS benchmark."""

IMPERVIOUS, BUILDING, LOW_VEGETATION, TREES, CARS, CLUTTER, WATERS, BARE = range(8)


@dataclass(frozen=True)
class Material:
    """How one kind of surface is labelled and how its brightness varies; strengths are shares of the brightness."""

    semantic: int
    grain: float = 0.03
    mottle: float = 0.04
    tint: float = 0.0
    canopy: float = 0.0
    ripple: float = 0.0
    rows: float = 0.0
    across: float = 0.0
    shaded: float = 1.0
    season: float = 0.0
    snow: float = 1.0


MATERIALS: dict[str, Material] = {
    "grass": Material(LOW_VEGETATION, grain=0.05, mottle=0.07, tint=0.022, season=0.7),
    "meadow": Material(LOW_VEGETATION, grain=0.08, mottle=0.11, tint=0.035, season=0.7),
    "crop": Material(LOW_VEGETATION, grain=0.035, mottle=0.045, tint=0.015, rows=0.07, season=0.6),
    "crop_across": Material(LOW_VEGETATION, grain=0.035, mottle=0.045, tint=0.015, across=0.07, season=0.6),
    "turf": Material(LOW_VEGETATION, grain=0.025, mottle=0.03, tint=0.02, season=0.3),
    "soil": Material(BARE, grain=0.05, mottle=0.07, tint=0.012),
    "ploughed": Material(BARE, grain=0.04, mottle=0.06, tint=0.012, rows=0.06),
    "ploughed_across": Material(BARE, grain=0.04, mottle=0.06, tint=0.012, across=0.06),
    "sand": Material(BARE, grain=0.025, mottle=0.03, tint=0.008, snow=0.3),
    "rock": Material(BARE, grain=0.12, mottle=0.16, canopy=0.25),
    "asphalt": Material(IMPERVIOUS, grain=0.04, mottle=0.04, snow=0.35),
    "concrete": Material(IMPERVIOUS, grain=0.03, mottle=0.035, snow=0.5),
    "marking": Material(IMPERVIOUS, grain=0.02, mottle=0.03, snow=0.3),
    "court": Material(IMPERVIOUS, grain=0.015, mottle=0.02, snow=0.8),
    "bridge": Material(IMPERVIOUS, grain=0.04, mottle=0.05, shaded=0.0, snow=0.35),
    "pier": Material(IMPERVIOUS, grain=0.05, mottle=0.05, rows=0.04, snow=0.6),
    "roof": Material(BUILDING, grain=0.05, mottle=0.04, shaded=0.0, snow=0.9),
    "tiled_roof": Material(BUILDING, grain=0.06, mottle=0.05, across=0.07, shaded=0.0, snow=0.9),
    "ribbed_roof": Material(BUILDING, grain=0.02, mottle=0.05, rows=0.07, shaded=0.0, snow=0.9),
    "tank": Material(BUILDING, grain=0.015, mottle=0.02, shaded=0.0, snow=0.6),
    "tree": Material(TREES, grain=0.06, mottle=0.06, tint=0.02, canopy=0.15, shaded=0.35, season=1.0, snow=0.25),
    "canopy": Material(TREES, grain=0.03, mottle=0.07, tint=0.03, canopy=0.26, shaded=0.35, season=0.8, snow=0.25),
    "car": Material(CARS, grain=0.01, mottle=0.0, shaded=0.5, snow=0.1),
    "plane": Material(CLUTTER, grain=0.01, mottle=0.0, shaded=0.3, snow=0.0),
    "ship": Material(CLUTTER, grain=0.03, mottle=0.0, shaded=0.3, snow=0.2),
    "clutter": Material(CLUTTER, grain=0.08, mottle=0.05, snow=0.6),
    "water": Material(WATERS, grain=0.012, mottle=0.05, ripple=0.05, shaded=0.45, snow=0.0),
    "sea": Material(WATERS, grain=0.015, mottle=0.045, ripple=0.07, shaded=0.3, snow=0.0),
    "surf": Material(WATERS, grain=0.06, mottle=0.12, ripple=0.10, shaded=0.3, snow=0.0),
    "pool": Material(WATERS, grain=0.01, mottle=0.01, ripple=0.04, shaded=0.6, snow=0.0),
}

CODE: dict[str, int] = {name: code for code, name in enumerate(MATERIALS)}


def table(field: str, unit: float = 1.0) -> bytes:
    """One field by material code in whole `unit`ths, the same with and without the changed bit, for `bytes.translate`.

    Raises:
        ValueError: if a material has more of it than a byte holds.
    """
    values = bytes(round(unit * getattr(m, field)) for m in MATERIALS.values())
    return values.ljust(CHANGED, b"\0") * 2
