"""`cmid doctor`: each thing that may be wrong is found, and sound data are called sound."""

import json
import shutil

import numpy as np
import pytest

import cmid
from cmid.cli import main
from cmid.commands.diagnosis import Unsound
from cmid.data.isprs import COLOURS
from cmid.errors import UsageError
from tests.commands.isprs_on_disk import coloured as isprs_coloured
from tests.commands.isprs_on_disk import potsdam_files, tif, tile_labels, write_folders
from tests.commands.test_pixel_torchgeo import write_landcover
from tests.data.masks_on_disk import PALETTE_CSV, coloured, draw, image_of, labels_of, write_tiles
from tests.data.rasters_on_disk import numbered, write_raster

SMALL = {"window_px": 64, "step_px": 64, "allow_missing": True}


@pytest.fixture
def data(tmp_path):
    """Three tiles of two parts, images that all differ, with a palette beside them."""
    root = tmp_path / "data"
    for seed, name in enumerate(write_tiles(root)):
        draw(root / name, image_of(labels_of(0), seed))
    (root / "palette.csv").write_text(PALETTE_CSV)
    return root


def levels(diagnosis):
    return {(each.level, each.what) for each in diagnosis.findings}


def wrong(data, **settings):
    """What is wrong by what it is about; fails where nothing is."""
    with pytest.raises(Unsound) as caught:
        cmid.doctor(data, **settings)
    return {each.what: each for each in caught.value.diagnosis.wrong}


def test_sound_data(data, capsys):
    found = cmid.doctor(data)
    assert {level for level, _ in levels(found)} == {"fine"}
    assert found.images == {"train": 4, "test": 2}
    truth = sum(np.bincount(labels_of(10 * t + p).reshape(-1), minlength=3) for t in (1, 2, 3) for p in (0, 1))
    both = [found.pixels["train"][name] + found.pixels["test"][name] for name in found.classes]
    assert both == truth.tolist()
    assert main(["doctor", str(data)]) == 0
    out = capsys.readouterr().out
    assert "share of train" in out
    assert "BGR swap" in out


def test_swapped_colours(data):
    for mask in data.rglob("masks/*.png"):
        labels = labels_of(1)
        draw(mask, np.ascontiguousarray(coloured(labels)[..., ::-1]))
    found = wrong(data)
    assert (
        "0.0% of the pixels match the palette as they are, 100.0% with red and blue exchanged" in found["BGR swap"].told
    )
    assert "#98103C" in found["colours"].told


def test_colours_that_swap_into_each_other_are_not_judged(tmp_path):
    names = ("impervious", "building", "low", "tree", "car", "clutter")
    for i in range(4):
        labels = labels_of(i, classes=6)
        draw(tmp_path / f"images/{i}.png", image_of(labels, i))
        draw(tmp_path / f"masks/{i}.png", coloured(labels, COLOURS))
    rows = [f"{name},{' '.join(map(str, colour))}" for name, colour in zip(names, COLOURS, strict=True)]
    (tmp_path / "palette.csv").write_text("\n".join(["name,colour", *rows]))
    found = cmid.doctor(tmp_path)
    assert ("look", "BGR swap") in levels(found)
    told = next(each.told for each in found.findings if each.what == "BGR swap")
    assert "building and clutter" in told
    assert "low and car" in told


def test_wrong_colours_sizes_pairs_and_files(data, capsys, tmp_path):
    mask = coloured(labels_of(3))
    mask[0, 0] = (7, 7, 7)
    draw(data / "Tile 1/masks/part_0.png", mask)
    draw(data / "Tile 2/masks/part_0.png", coloured(labels_of(3, 10, 16)))
    (data / "Tile 2/masks/part_1.png").unlink()
    image = data / "Tile 3/images/part_0.png"
    image.write_bytes(image.read_bytes()[:60])
    out = tmp_path / "found.json"
    assert main(["doctor", str(data), "--out", str(out)]) == 1
    assert "things are wrong with" in capsys.readouterr().err
    found = {each["what"]: each for each in json.loads(out.read_text())["findings"] if each["level"] == "wrong"}
    assert found.keys() == {"colours", "sizes", "pairs", "unreadable"}
    assert "colour #070707 (7 7 7) in 1 pixels of 1 mask, as in Tile 1/masks/part_0.png" in found["colours"]["told"]
    assert "Tile 2/images/part_0.png is 16 x 12, its mask Tile 2/masks/part_0.png 16 x 10" in found["sizes"]["examples"]
    assert found["pairs"]["examples"] == ["Tile 2/images/part_1.png"]
    assert found["unreadable"]["examples"][0].startswith("Tile 3/images/part_0.png")
    with pytest.raises(UsageError, match="exists"):
        cmid.doctor(data, out=out)


def test_values_out_of_range(tmp_path):
    for i in range(3):
        labels = labels_of(i)
        labels[2, 2] = 77
        draw(tmp_path / f"images/{i}.png", image_of(labels, i))
        draw(tmp_path / f"masks/{i}.png", labels)
    (tmp_path / "palette.csv").write_text("name,value\na,0\nb,1\nc,2\n")
    assert "value 77 in 3 pixels of 3 masks" in wrong(tmp_path)["values"].told
    assert ("look", "values") in levels(cmid.doctor(tmp_path, labels={"unknown": "ignore"}))


def test_classes_that_are_missing(data):
    (data / "palette.csv").write_text(PALETTE_CSV + "swamp,9 9 9\n")
    found = wrong(data, labels={"test_groups": ("Tile 3",)})
    assert found.keys() == {"classes"}
    assert found["classes"].told == "1 class is never seen: swamp"
    (data / "palette.csv").write_text(PALETTE_CSV)
    for mask in data.rglob("Tile [12]/masks/*.png"):
        draw(mask, coloured(labels_of(4) % 2))
    found = wrong(data, labels={"test_groups": ("Tile 3",)})
    assert found["classes"].told == "in test, but never in train: water"


def test_identical_files_and_parts_of_one_tile_on_both_sides(data, tmp_path):
    shutil.copy(data / "Tile 1/images/part_0.png", data / "Tile 3/images/part_1.png")
    found = wrong(data, labels={"test_groups": ("Tile 3",)})
    assert found["overlap"].examples == ("Tile 1/images/part_0.png = Tile 3/images/part_1.png",)
    patches = tmp_path / "patches"
    for i, split in enumerate(("train", "train", "val")):
        labels = labels_of(i)
        name = f"{split}/2_10_{16 * i}_0_{16 * i + 16}_12.png"
        draw(patches / "img_dir" / name, image_of(labels, i))
        draw(patches / "ann_dir" / name, labels)
    found = wrong(patches)
    assert found["overlap"].told == "parts of 1 of 1 groups are in train and in test"
    assert found["overlap"].examples == ("2_10",)


def test_parts_of_a_folder_on_both_sides_are_worth_a_look(data, tmp_path):
    (tmp_path / "test.txt").write_text("Tile 1/images/part_1.png\nTile 2/images/part_1.png\n")
    found = cmid.doctor(data, labels={"test_list": str(tmp_path / "test.txt")})
    (overlap,) = (each for each in found.findings if each.what == "overlap" and each.level == "look")
    assert overlap.examples == ("Tile 1", "Tile 2")


def test_mostly_unlabelled(tmp_path):
    for i in range(4):
        labels = labels_of(i)
        draw(tmp_path / f"images/{i}.png", image_of(labels, i))
        labels[1:] = 255
        draw(tmp_path / f"masks/{i}.png", labels)
    found = cmid.doctor(tmp_path)
    assert ("look", "unlabelled") in levels(found)
    assert ("look", "palette") in levels(found)


def test_smoothed_masks(tmp_path):
    for i in range(3):
        labels = np.kron(labels_of(i), np.ones((8, 8), np.uint8))
        draw(tmp_path / f"images/{i}.png", image_of(labels, i))
        draw(tmp_path / f"masks/{i}.jpg", coloured(labels))
    assert "3 of the masks are JPEGs" in wrong(tmp_path)["colours"].told


def test_rasters_of_several_kinds_and_places(tmp_path):
    for i in range(3):
        write_raster(tmp_path / f"images/{i}.tif", numbered(4, 40, 50) + np.uint16(i))
        write_raster(tmp_path / f"labels/{i}.tif", labels_of(i, 40, 50)[None])
    assert cmid.doctor(tmp_path).images == {"train": 2, "test": 1}
    write_raster(tmp_path / "images/3.tif", numbered(3, 40, 50))
    write_raster(tmp_path / "labels/3.tif", labels_of(3, 40, 50)[None])
    write_raster(tmp_path / "images/4.tif", numbered(4, 40, 50) + np.uint16(9))
    write_raster(tmp_path / "labels/4.tif", labels_of(4, 40, 50)[None], pixel=5.0)
    found = wrong(tmp_path)
    assert "differ in their number of bands" in found["images"].told
    assert "images/4.tif lies at" in found["sizes"].examples[0]


def test_torchgeo(tmp_path):
    write_landcover(tmp_path)
    data = f"torchgeo:LandCoverAI?root={tmp_path}"
    assert cmid.doctor(data).images == {"train": 3, "test": 3}
    labels = labels_of(0, classes=5)
    labels[3, 3] = 200
    draw(tmp_path / "output/M-0_1_m.png", labels)
    assert "1 pixels of its mask are of no class: 200" in wrong(data)["unreadable"].examples[0]


@pytest.fixture
def prepared(tmp_path):
    source = write_folders(tmp_path / "in", potsdam_files(("2_10", "2_13"), 108))
    return cmid.prepare("potsdam", source, out=tmp_path / "out", **SMALL).folder


def test_a_prepared_set(prepared):
    found = wrong(prepared)
    assert found.keys() == {"tiles"}
    assert found["tiles"].told == "36 of 38 are missing"
    mask = prepared / "train/masks/2_10_0_0_64_64.png"
    data = bytearray(mask.read_bytes())
    data[-20] ^= 1
    mask.write_bytes(data)
    (prepared / "test/images/2_13_0_0_64_64.png").unlink()
    assert wrong(prepared)["files"].examples == (
        "train/masks/2_10_0_0_64_64.png is not as it was written", "test/images/2_13_0_0_64_64.png is missing",
    )  # fmt: skip


def test_swapped_labels_of_the_benchmark_are_told_by_their_shares(tmp_path):
    labels = tile_labels(0, 108)
    labels[:] = np.where(np.arange(108) < 50, 1, 2)  # mostly building and low vegetation
    labels[0, :6] = range(6)
    files = potsdam_files(("2_10", "2_13"), 108)
    for swapped in (False, True):
        for contents, eroded in (("5_Labels_all.zip", False), ("5_Labels_all_noBoundary.zip", True)):
            for name in files[contents]:
                colours = isprs_coloured(labels, eroded)
                files[contents][name] = tif(np.ascontiguousarray(colours[..., ::-1]) if swapped else colours)
        source = write_folders(tmp_path / f"in-{swapped}", files)
        out = cmid.prepare("potsdam", source, out=tmp_path / f"out-{swapped}", **SMALL).folder
        assert ("BGR swap" in wrong(out)) == swapped


def test_nothing_to_look_at(tmp_path):
    with pytest.raises(UsageError, match="no pairs of image and mask"):
        cmid.doctor(tmp_path)
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2
