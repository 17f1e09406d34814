"""Generated scenes as ordinary files, laid out so that the readers of every task take them as they are.

    images/<class>/<class>_00001.jpg    the pictures: a pile of unlabelled images, and a folder per scene class
    masks/<class>/<class>_00001.png     palette PNG of class indices, for semantic segmentation
    labelTxt/<class>_00001.txt          oriented boxes in DOTA text, flat as in DOTA
    date2/<class>/<class>_00001.jpg     the same place later, for change detection
    change/<class>/<class>_00001.png    0 or 255: the visible pixels of structures that are new or gone
    classes.json                        the mask's palette (`cmid.data.palettes`), the scene and the object classes
    scenes.csv                          file, class, index, seed, size, gsd; written last, so it marks completion

A scene has the same stem in every folder. Pre-training and scene classification read `images/`, not the folder
above it. For a reader of CDD's `{A,B,OUT}` the folders `images`, `date2` and `change` play those parts, and rows
of `scenes.csv` make the parts of a split; the same rows give the lists that class-folder readers take. Cars, ships
and aircraft come and go between the dates without counting as change, as do season, light and shadows. With
`tif` the pictures are GeoTIFF in a plausible UTM zone, masks and changes stay PNG.
"""

import csv
import json
import struct
import zlib
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
from PIL import Image

from cmid.data.generated.materials import SEMANTIC_CLASSES
from cmid.data.generated.scene import SCENE_CLASSES, Scene, class_of, draw_scene

ImageFormat = Literal["jpg", "png", "tif"]
OBJECT_CLASSES: tuple[str, ...] = (
    "baseball-diamond", "basketball-court", "bridge", "ground-track-field", "harbor", "large-vehicle", "plane",
    "roundabout", "ship", "small-vehicle", "soccer-ball-field", "storage-tank", "swimming-pool", "tennis-court",
)  # fmt: skip
"""The classes of DOTA 1.0 that scenes contain; all but its helicopter."""
JPEG_QUALITY = 92
FIELDS = ("file", "class", "index", "seed", "size", "gsd")
PALETTE = bytes(value for _, colour in SEMANTIC_CLASSES for value in colour)
"""Colours of a mask's indices, red, green and blue of one after the other."""


def make_folders(out: Path) -> None:
    """The empty folders of the layout."""
    for kind in ("images", "masks", "date2", "change"):
        for name in SCENE_CLASSES:
            (out / kind / name).mkdir(parents=True, exist_ok=True)
    (out / "labelTxt").mkdir(exist_ok=True)


def write_scene(out: Path, seed: int, index: int, size: int, image_format: ImageFormat) -> dict[str, Any]:
    """Draws one scene and writes its five files; returns its row of `scenes.csv`."""
    scene = draw_scene(seed, index, size)
    stem = f"{class_of(index)}_{index:05d}"
    picture = f"{scene.name}/{stem}.{image_format}"
    assert scene.later is not None and scene.change is not None
    place = Random(f"cmid place {seed}/{index}")
    where = (place.randrange(60), place.uniform(200_000, 800_000), place.uniform(500_000, 7_500_000))
    for folder, pixels in (("images", scene.image), ("date2", scene.later)):
        _write_picture(out / folder / picture, pixels, image_format, scene.gsd, where)
    write_map(out / "masks" / scene.name / f"{stem}.png", scene.mask, PALETTE)
    write_map(out / "change" / scene.name / f"{stem}.png", scene.change)
    (out / "labelTxt" / f"{stem}.txt").write_text(dota_text(scene), encoding="ascii")
    values = (f"images/{picture}", scene.name, index, seed, size, f"{scene.gsd:.4f}")
    return dict(zip(FIELDS, values, strict=True))


def dota_text(scene: Scene) -> str:
    """The scene's boxes in DOTA's text: two header lines, then x1 y1 ... x4 y4 class difficult."""
    lines = ["imagesource:generated", f"gsd:{scene.gsd:.4f}"]
    for box in scene.boxes:
        (a, b), (c, d), (e, f), (g, h) = box.corners
        lines.append(f"{a:.1f} {b:.1f} {c:.1f} {d:.1f} {e:.1f} {f:.1f} {g:.1f} {h:.1f} {box.name} {int(box.difficult)}")
    return "\n".join(lines) + "\n"


def write_classes(out: Path) -> None:
    """`classes.json`, which readers of the masks find and take as their palette."""
    semantic = [{"value": i, "name": name, "colour": list(colour)} for i, (name, colour) in enumerate(SEMANTIC_CLASSES)]
    content = {
        "classes": semantic,
        "scene": list(SCENE_CLASSES),
        "object": list(OBJECT_CLASSES),
        "change": {"0": "unchanged", "255": "structure new or gone"},
    }
    (out / "classes.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_index(out: Path, rows: list[dict[str, Any]]) -> None:
    """`scenes.csv`, in the order of the scenes' indices."""
    with (out / "scenes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["index"]))


def _write_picture(
    path: Path, pixels: np.ndarray, image_format: ImageFormat, gsd: float, where: tuple[int, float, float]
) -> None:
    if image_format != "tif":
        write_picture(path, Image.fromarray(pixels))
    else:
        import rasterio
        from rasterio import Affine

        zone, east, north = where
        profile = {
            "driver": "GTiff", "width": pixels.shape[1], "height": pixels.shape[0], "count": 3, "dtype": "uint8",
            "crs": f"EPSG:{32601 + zone}", "transform": Affine(gsd, 0, east, 0, -gsd, north), "compress": "deflate",
            "photometric": "RGB",
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def write_picture(path: Path, image: Image.Image) -> None:
    """Encodes as JPEG or PNG, as the name says."""
    # In one piece: Pillow writes to a file in many small ones, which takes twice as long.
    encoded = BytesIO()
    if path.suffix == ".jpg":
        image.save(encoded, "JPEG", quality=JPEG_QUALITY)
    else:
        image.save(encoded, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    path.write_bytes(encoded.getbuffer())


def write_map(path: Path, values: np.ndarray, palette: bytes | None = None) -> None:
    """Writes `(H, W)` uint8 as a grey PNG, or one of the colours of `palette`.

    Not through Pillow, which takes two and a half to four times as long: it hands zlib one row after another, and
    tries five filters on every row that is grey.
    """
    height, width = values.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = values
    # Runs suit label maps: a third smaller than the default strategy, and faster.
    runs = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if palette is None else 3, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", runs.compress(rows.tobytes()) + runs.flush()), (b"IEND", b"")]
    if palette is not None:
        parts.insert(1, (b"PLTE", palette))
    chunks = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
