"""`cmid generate` writes whole, readable, reproducible files, or says what to do."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

import cmid
from cmid.commands.generate import CHUNK, generate
from cmid.config import GenerateConfig
from cmid.data.generated import SCENE_CLASSES, SEMANTIC_CLASSES, draw_scene
from cmid.data.generated.files import write_map
from cmid.data.palettes import palette_beside, read_palette
from cmid.errors import UsageError


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    out = tmp_path_factory.mktemp("generated") / "scenes"
    result = generate(GenerateConfig(out=str(out), count=15, size=64, seed=3, workers=1))
    assert result.count == 15 and result.images == out / "images"
    assert result.classes == Counter(SCENE_CLASSES[i % 12] for i in range(15))
    return out


def rows_of(out):
    with (out / "scenes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_scene_has_its_five_files(scenes):
    rows = rows_of(scenes)
    assert [int(row["index"]) for row in rows] == list(range(15))
    assert len(contents(scenes)) == 15 * 5 + 2
    for row in rows:
        picture = scenes / row["file"]
        within = Path(row["class"]) / picture.stem
        assert picture == scenes / "images" / within.with_suffix(".jpg") and picture.is_file()
        assert (scenes / "date2" / within).with_suffix(".jpg").is_file()
        assert (scenes / "labelTxt" / f"{picture.stem}.txt").is_file()
        scene = draw_scene(3, int(row["index"]), 64)
        assert (row["class"], row["seed"], row["size"]) == (scene.name, "3", "64")
        assert float(row["gsd"]) == pytest.approx(scene.gsd, abs=1e-4)
        with Image.open((scenes / "masks" / within).with_suffix(".png")) as mask:
            assert mask.mode == "P"
            assert np.array_equal(np.asarray(mask), scene.mask)
            palette = np.reshape(mask.getpalette()[: 3 * len(SEMANTIC_CLASSES)], (-1, 3))
            assert [tuple(c) for c in palette.tolist()] == [colour for _, colour in SEMANTIC_CLASSES]
        with Image.open((scenes / "change" / within).with_suffix(".png")) as change:
            assert change.mode == "L"
            assert np.array_equal(np.asarray(change), scene.change)
        with Image.open(picture) as image:
            assert np.abs(np.asarray(image).astype(int) - scene.image).mean() < 12, "JPEG of something else"


def test_boxes_are_dota_text(scenes):
    found = 0
    for row in rows_of(scenes):
        lines = (scenes / "labelTxt" / f"{Path(row['file']).stem}.txt").read_text().splitlines()
        assert lines[0].startswith("imagesource:") and lines[1] == f"gsd:{row['gsd']}"
        boxes = draw_scene(3, int(row["index"]), 64).boxes
        assert len(lines) == 2 + len(boxes)
        for line, box in zip(lines[2:], boxes, strict=True):
            *numbers, name, difficult = line.split(" ")
            assert len(numbers) == 8 and name == box.name and difficult == str(int(box.difficult))
            assert np.allclose(np.array(numbers, float).reshape(4, 2), box.corners, atol=0.051)
            found += 1
    assert found > 20


def test_classes_are_named(scenes):
    classes = json.loads((scenes / "classes.json").read_text())
    palette = read_palette(palette_beside(scenes))
    assert tuple(zip(palette.classes, palette.colours, strict=True)) == tuple(SEMANTIC_CLASSES)
    assert palette.codes("value") == {i: i for i in range(len(SEMANTIC_CLASSES))}
    assert classes["scene"] == list(SCENE_CLASSES)


def test_workers_and_count_change_nothing(tmp_path, scenes):
    generate(GenerateConfig(out=str(tmp_path / "two"), count=CHUNK + 2, size=64, seed=3, workers=2))
    one, two = contents(scenes), contents(tmp_path / "two")
    assert len(two) == 5 * (CHUNK + 2) + 2
    for name in one.keys() - {"scenes.csv"}:
        assert one[name] == two[name], name
    assert one["scenes.csv"].splitlines() == two["scenes.csv"].splitlines()[:16]


def test_geotiff_lies_somewhere(tmp_path):
    out = tmp_path / "tif"
    cmid.generate(out, count=2, size=64, workers=1, image_format="tif")
    for row in rows_of(out):
        with (
            rasterio.open(out / row["file"]) as one,
            rasterio.open(out / row["file"].replace("images", "date2")) as two,
        ):
            assert one.crs == two.crs and one.crs.is_projected and 32601 <= one.crs.to_epsg() <= 32660
            assert one.transform == two.transform
            assert one.res == pytest.approx((float(row["gsd"]),) * 2, abs=1e-4)
            scene = draw_scene(0, int(row["index"]), 64)
            assert np.array_equal(one.read().transpose(1, 2, 0), scene.image)
            assert np.array_equal(two.read().transpose(1, 2, 0), scene.later)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("palette", [None, bytes(range(24))])
def test_a_map_is_a_png_that_others_read(tmp_path, palette):
    values = np.random.default_rng(0).integers(0, 8, (7, 33), np.uint8)
    write_map(tmp_path / "map.png", values, palette)
    with Image.open(tmp_path / "map.png") as image:
        image.verify()
    with Image.open(tmp_path / "map.png") as image:
        assert image.mode == ("L" if palette is None else "P")
        assert palette is None or bytes(image.getpalette()[:24]) == palette
        assert np.array_equal(np.asarray(image), values)
    with rasterio.open(tmp_path / "map.png") as image:
        assert np.array_equal(image.read(1), values)


def test_png_is_lossless(tmp_path):
    generate(GenerateConfig(out=str(tmp_path / "png"), count=1, size=64, seed=1, workers=1, image_format="png"))
    with Image.open(tmp_path / "png" / "images" / "airport" / "airport_00000.png") as image:
        assert np.array_equal(np.asarray(image), draw_scene(1, 0, 64).image)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"size": 100_000}, "size is 100000; .* 16,384 px a side"),
        ({"size": 63}, "size is 63; scenes need at least 64 px"),
        ({"count": 0}, "count is 0; ask for at least one scene"),
        ({"workers": 0}, "workers is 0; give a number from 1"),
        ({"workers": -2}, "workers is -2"),
        ({"image_format": "gif"}, "expected jpg, png or tif"),
    ],
)
def test_refuses_wrong_settings(tmp_path, settings, says):
    with pytest.raises(UsageError, match=says):
        generate(GenerateConfig(**({"out": str(tmp_path / "x"), "count": 1, "size": 64, "workers": 1} | settings)))
    assert not (tmp_path / "x").exists()


def test_refuses_a_folder_with_files(tmp_path, scenes):
    with pytest.raises(
        UsageError, match=r"holds a complete set of scenes; delete it or give another folder with --out"
    ):
        generate(GenerateConfig(out=str(scenes), count=1, size=64))
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"holds files \(photo.jpg ...\); delete it or give another"):
        generate(GenerateConfig(out=str(tmp_path), count=1, size=64))
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]


def test_an_empty_folder_will_do(tmp_path):
    assert generate(GenerateConfig(out=str(tmp_path), count=1, size=64, workers=1)).count == 1


def test_refuses_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"cannot write to .*file.*give another folder with --out"):
            generate(GenerateConfig(out=str(out), count=1, size=64))


def test_killed_on_the_way_is_not_taken_for_complete(tmp_path):
    out = tmp_path / "scenes"
    command = [
        sys.executable,
        "-m",
        "cmid",
        "generate",
        str(out),
        "--count",
        "100000",
        "--size",
        "64",
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (out / "images" / "forest" / "forest_00004.jpg").is_file():
            assert process.poll() is None and time.monotonic() < deadline, "no scene was written"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "scenes.csv").exists()
    with pytest.raises(UsageError, match=r"holds an interrupted generate \(no scenes.csv\); delete it"):
        generate(GenerateConfig(out=str(out), count=1, size=64))
