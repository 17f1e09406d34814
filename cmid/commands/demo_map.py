"""The demo's segmentation: a segmenter from labelled scenes, and the map of a larger one that nothing has seen."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cmid.commands.finetune_segmentation import finetune_segmentation
from cmid.commands.predict_segmentation import predict_segmentation
from cmid.commands.settings import resolve
from cmid.config import DemoConfig, FinetuneSegmentationConfig, PredictSegmentationConfig
from cmid.data.generated import SCENE_CLASSES, SEMANTIC_CLASSES, make_folders, write_scene
from cmid.data.generated.scene import class_of
from cmid.evaluation.segmentation import ConfusionMatrix, Protocol, SegmentationScores, score_segmentation
from cmid.report.markup import tag
from cmid.report.page import Header, Section, render
from cmid.report.pictures import picture
from cmid.report.segmentation import Tile, classes_section, tiles_section
from cmid.whole_files import write_whole

RECIPE = "segment-small"
MOST, TESTED = 40, 5
"""Labelled scenes of each kind that the segmenter learns from, and that it is scored on, at most."""
SIZE_PX, CROPS, BATCH = 128, 5760, 8
"""Side of its crops, how many it sees in all, and at once: the same work whatever the machine."""
MILD = {"scale": [0.8, 1.25], "max_share": 1.0, "brightness": 0.06, "contrast": 0.15, "saturation": 0.15}
"""How its crops are changed: so few steps learn more from scenes that look like those that are mapped."""
SCENE_PX = 1024
KIND = "sparse_residential"
"""Of the scene that is mapped: a road, roofs, meadows, trees and pools are in it."""
ADVICE = "Make room, or give the demo another folder with --out."


@dataclass(frozen=True)
class DemoMap:
    """What was made.

    Attributes:
        page: the map beside its scene, and what is right and wrong of it.
        map: the GeoTIFF.
        polygons: the same as areas.
        learned: how the segmenter did on scenes of the usual size, in words.
        mapped: how the map did, in words.
    """

    page: Path
    map: Path
    polygons: Path
    learned: str
    mapped: str


def learn_and_map(config: DemoConfig, backbone: Path, scenes: Path, run: Path, out: Path) -> DemoMap:
    """Fine-tunes in `run`, draws and maps a scene in `out`; what is there from before is not made again.

    Args:
        config: the demo's.
        backbone: file of the pre-trained backbone.
        scenes: what `generate` drew.
        run: directory of the segmenter's run.
        out: folder of lists, scene, map and page.

    Raises:
        CmidError: a failure while training or writing.
    """
    each, lists = _lists(config, scenes, out)
    if not all((run / name).is_file() for name in ("model.safetensors", "scores.json")):  # written in this order
        epochs = max(1, CROPS // (each * len(SCENE_CLASSES)))
        given = {
            "weights": str(backbone), "data": str(scenes), "out": str(run), "seed": config.seed, "epochs": epochs,
            "size": SIZE_PX, "batch_size": BATCH, "resume": run.is_dir(), "labels": lists, "crops": MILD,
            "optimizer": {"lr": 1e-3, "warmup_epochs": 1},
        }  # fmt: skip
        finetune_segmentation(resolve(FinetuneSegmentationConfig, given, recipe=RECIPE))
    protocol = json.loads((run / "scores.json").read_text(encoding="utf-8"))["protocols"][0]
    learned = (
        f"{each} scenes of each kind: {100 * protocol['overall_accuracy']:.1f} % of the pixels of others are right, "
        f"mIoU {100 * protocol['mean_iou']:.1f} %."
    )
    image, mask = _drawn(config, out / "scene")
    result = predict_segmentation(
        PredictSegmentationConfig(
            model=str(run), data=str(image), out=str(out / "maps"), polygons="gpkg", min_area_px=16, overwrite=True
        )
    )
    map_ = result.maps[0].map
    found, truth = _read(map_), np.asarray(Image.open(mask))
    matrix = ConfusionMatrix(len(SEMANTIC_CLASSES))
    matrix.add(torch.from_numpy(found), torch.from_numpy(truth.copy()))
    names = [name for name, _ in SEMANTIC_CLASSES]
    scores = score_segmentation(matrix.counts, Protocol("all classes of the scene, every pixel"), names)
    page = _page(out / "map.html", image, map_.with_suffix(".png"), found, truth, scores)
    most = matrix.counts.sum(1).max().item() / max(1, scores.pixels)
    mapped = (
        f"{100 * scores.overall_accuracy:.1f} % of its pixels are right, mIoU {100 * scores.mean_iou:.1f} % (its most "
        f"frequent class everywhere would be right at {100 * most:.1f} %)."
    )
    return DemoMap(page, map_, map_.with_suffix(".gpkg"), learned, mapped)


def _lists(config: DemoConfig, scenes: Path, out: Path) -> tuple[int, dict[str, str]]:
    """Lists of the scenes to learn from and to be scored on, as files; how many each."""
    drawn = config.count // len(SCENE_CLASSES)
    each = min(MOST, max(1, min(round(0.8 * drawn), drawn - 1)))
    tested = min(TESTED, drawn - each)
    of_kind: dict[str, list[str]] = {}
    with (scenes / "scenes.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            of_kind.setdefault(row["class"], []).append(row["file"])
    content = {
        "train_list": "\n".join(name for names in of_kind.values() for name in names[:each]),
        "test_list": "\n".join(name for names in of_kind.values() for name in names[each : each + tested]),
    }
    paths = {key: out / f"{key}.txt" for key in content}
    for key, path in paths.items():
        write_whole(path, lambda part, key=key: part.write_text(content[key] + "\n", encoding="utf-8"), advice=ADVICE)  # type: ignore[misc]
    return each, {key: str(path) for key, path in paths.items()}


def _drawn(config: DemoConfig, folder: Path) -> tuple[Path, Path]:
    """A scene beyond those of the demo, and its mask."""
    index = next(i for i in range(config.count, config.count + len(SCENE_CLASSES)) if class_of(i) == KIND)
    stem = f"{KIND}/{KIND}_{index:05d}"
    image, mask = folder / "images" / f"{stem}.tif", folder / "masks" / f"{stem}.png"
    done = folder / "drawn"
    if not done.is_file():
        make_folders(folder)
        write_scene(folder, config.seed, index, SCENE_PX, "tif")
        done.touch()
    return image, mask


def _read(path: Path) -> np.ndarray:
    import rasterio

    with rasterio.open(path) as raster:
        classes: np.ndarray = raster.read(1)
    return classes


def _page(
    out: Path, image: Path, quicklook: Path, found: np.ndarray, truth: np.ndarray, scores: SegmentationScores
) -> Path:
    """The map, some of it as large as the segmenter saw it, and each class."""
    import rasterio

    with rasterio.open(image) as raster:
        pixels = np.moveaxis(raster.read(), 0, -1)
    with Image.open(quicklook) as look:
        shown = picture(np.asarray(look.convert("RGB")), "the scene and its map", 1600, 92)
    side = SCENE_PX // 4
    tiles = []
    for x, y in ((0, 0), (3 * side // 2, 3 * side // 2), (3 * side, side)):
        here = slice(y, y + side), slice(x, x + side)
        part = ConfusionMatrix(len(SEMANTIC_CLASSES))
        part.add(torch.from_numpy(found[here].copy()), torch.from_numpy(truth[here].copy()))
        iou = score_segmentation(part.counts, Protocol("part")).mean_iou
        tiles.append(Tile(pixels[here], truth[here], found[here], f"column {x}, row {y}", iou))
    plain = {"protocols": [scores.to_plain()]}
    sections = [
        Section(
            "map", "The map", "Left the scene, right what the segmenter says of every pixel, with the share of each "
            "class. Follow the road from end to end: where windows meet there is no seam.", tag("div", shown),
        ),
        tiles_section(
            "parts", "From near", "Parts of the scene, what the segmenter says over them, what is really there, "
            "and what it says alone. Small things, and edges, are where it is wrong.", tiles, SEMANTIC_CLASSES,
        ),
        classes_section(plain),
    ]  # fmt: skip
    facts = [
        ("scene", f"{SCENE_PX} x {SCENE_PX} px, drawn for this page: nothing was trained on it"),
        ("pixels that are right", f"{100 * scores.overall_accuracy:.1f} %"),
        ("mIoU", f"{100 * scores.mean_iou:.1f} %"),
    ]
    text = render(Header("A map", facts, kicker="Demo: from a backbone to a map"), sections)
    return write_whole(out, lambda part: part.write_text(text, encoding="utf-8"), advice=ADVICE)
