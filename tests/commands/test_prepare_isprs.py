"""`cmid prepare`: from the benchmarks' zips and folders to windows with a manifest."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image

import cmid
import cmid.commands.prepare_isprs as prepare_isprs
from cmid.cli import main
from cmid.commands.pixel_sources import open_pixel_labelled, open_prepared_tiles, open_to_score
from cmid.config import PixelLabelsConfig
from cmid.data.isprs import BENCHMARKS, POTSDAM, windows
from cmid.data.prepared import Manifest
from cmid.errors import CmidError, UsageError
from tests.commands.isprs_on_disk import (
    SIDE,
    coloured,
    potsdam_files,
    tif,
    tile_image,
    tile_labels,
    vaihingen_files,
    write_folders,
    write_potsdam_zip,
    zipped,
)

FEW = ("2_10", "2_11", "2_13")
SMALL = {"window_px": 64, "step_px": 64, "allow_missing": True}
SMALL_WORDS = ("--window-px", "64", "--step-px", "64")


@pytest.fixture(scope="module")
def potsdam(tmp_path_factory):
    """All 38 tiles from one zip of zips, prepared."""
    root = tmp_path_factory.mktemp("potsdam")
    source = write_potsdam_zip(root / "Potsdam.zip", potsdam_files())
    result = cmid.prepare("potsdam", source, out=root / "out", window_px=64, step_px=64)
    assert not list(root.glob(".out*"))
    return result


@pytest.fixture
def few(tmp_path):
    return write_folders(tmp_path / "few", potsdam_files(FEW))


def spoil_colours(few):
    """Gives seven pixels of 2_10 a colour beside that of cars."""
    odd = coloured(tile_labels(0))
    odd[5, 3:10] = (252, 255, 0)
    (few / "5_Labels_all/top_potsdam_2_10_label.tif").write_bytes(tif(odd))


def stop_at(monkeypatch, count):
    """Names of the tiles that are made from now on; the one of that count ends the run."""
    made, make = [], prepare_isprs._Work.make

    def stop(self, found):
        made.append(self.name)
        if len(made) == count:
            raise KeyboardInterrupt
        return make(self, found)

    monkeypatch.setattr(prepare_isprs._Work, "make", stop)
    return made


def test_every_window_of_every_tile_is_there(potsdam):
    each = len(windows(SIDE, SIDE, 64, 64))
    assert (potsdam.train, potsdam.test, potsdam.labels) == (24 * each, 14 * each, ("eroded", "full"))
    for split, tiles in (("train", POTSDAM.train), ("test", POTSDAM.test)):
        for side in ("images", "masks", "masks_full"):
            assert len(list((potsdam.folder / split / side).iterdir())) == each * len(tiles)
    assert sorted(path.stem for path in (potsdam.folder / "tiles" / "masks").iterdir()) == sorted(POTSDAM.test)


@pytest.mark.parametrize("borders", ["eroded", "full"])
def test_windows_hold_what_the_tiles_do(potsdam, borders):
    sides = open_pixel_labelled(str(potsdam.folder), PixelLabelsConfig(borders=borders), 0)
    facts = {"dataset": "Potsdam", "bands": "RGB", "labels": borders, "departures": ["windows of 64 px every 64 px"]}
    assert sides.account["isprs"] == facts
    assert sides.train.classes[5] == "clutter"
    for side in (sides.train, sides.test):
        for i in range(0, len(side), 7):
            seed, (x, y) = POTSDAM.tiles.index(side.group(i)), side.place(i)
            pixels, labels = side.read(i)
            assert np.array_equal(pixels, tile_image(seed)[y : y + 64, x : x + 64])
            truth = tile_labels(seed)
            if borders == "eroded":
                truth[::12] = truth[:, ::12] = 255
            assert np.array_equal(labels, truth[y : y + 64, x : x + 64])
    assert {sides.test.group(i) for i in range(len(sides.test))} == set(POTSDAM.test)


def test_whole_tiles_are_kept_for_test(potsdam):
    tiles, facts = open_prepared_tiles(str(potsdam.folder), PixelLabelsConfig(tile_px=64))
    assert facts["labels"] == "eroded"
    seen = {tile: np.zeros((SIDE, SIDE), int) for tile in POTSDAM.test}
    for i in range(len(tiles)):
        (x, y), (pixels, labels) = tiles.place(i), tiles.read(i)
        height, width = labels.shape
        seen[tiles.group(i)][y : y + height, x : x + width] += 1
        truth = tile_image(POTSDAM.tiles.index(tiles.group(i)))
        assert np.array_equal(pixels, truth[y : y + height, x : x + width])
    assert all((each == 1).all() for each in seen.values())
    with rasterio.open(potsdam.folder / "tiles/masks_full/2_13.tif") as raster:
        assert (raster.crs.to_epsg(), raster.transform.c, raster.nodata) == (32633, 370_000, 255)
        assert raster.colormap(1)[4][:3] == (255, 255, 0)
        assert json.loads(raster.tags()["CLASSES"])[4] == "car"


def test_clutter_can_be_left_out(potsdam):
    source, _, notes = open_to_score(str(potsdam.folder), PixelLabelsConfig(unlabelled=("clutter",)), "auto", 0)
    assert source.classes == ("impervious surface", "building", "low vegetation", "tree", "car")
    assert np.unique(source.read(0).labels).max() == 255
    assert "eroded" in " ".join(notes)
    assert len(source) == potsdam.test


def test_settings_that_are_not_for_a_prepared_set(potsdam):
    with pytest.raises(UsageError, match=r"labels.test_groups .* split of the benchmark"):
        open_pixel_labelled(str(potsdam.folder), PixelLabelsConfig(test_groups=("2_13",)), 0)


def test_windows_of_512_by_default(tmp_path):
    source = write_folders(tmp_path / "in", potsdam_files(FEW[1:], 600))
    result = cmid.prepare("potsdam", source, out=tmp_path / "out", allow_missing=True)
    assert (result.train, result.test) == (4, 4)
    names = sorted(path.name for path in (result.folder / "test/masks").iterdir())
    assert names == [f"2_13_{x}_{y}_{x + 512}_{y + 512}.png" for x in (0, 88) for y in (0, 88)]


def test_vaihingen_from_its_zips(tmp_path):
    for name, contents in vaihingen_files().items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(zipped(contents))
    result = cmid.prepare("vaihingen", tmp_path / "in", out=tmp_path / "out", window_px=64, step_px=32)
    each = len(windows(SIDE, SIDE, 64, 32))
    assert (result.train, result.test, result.labels) == (16 * each, 17 * each, ("eroded", "full"))
    assert any("area9" in note for note in result.notes)
    manifest = Manifest.read(result.folder)
    assert (manifest.dataset, manifest.bands) == ("Vaihingen", "IRRG")
    seed = BENCHMARKS["vaihingen"].tiles.index("area3")
    with Image.open(result.folder / "train/masks_full/area3_0_32_64_96.png") as mask:
        assert np.array_equal(np.asarray(mask), tile_labels(seed)[32:, :64])
        assert mask.getpalette()[3:6] == [0, 0, 255]


def test_missing_tiles_are_named(few, tmp_path, capsys):
    with pytest.raises(UsageError, match=r"35 of the 38 tiles of Potsdam .*no RGB image of 35: 2_12.*--allow-missing"):
        cmid.prepare("potsdam", few, out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["few"]
    assert main(["prepare", "potsdam", str(few), "--out", str(tmp_path / "out"), "--allow-missing", *SMALL_WORDS]) == 0
    err = capsys.readouterr().err
    assert "8 windows to train on and 4 to test on, with eroded and full labels" in err
    assert "not comparable" in err


def test_infrared_of_potsdam(few, tmp_path):
    for image in (few / "2_Ortho_RGB").rglob("*.tif"):
        image.rename(few / image.name.replace("RGB", "IRRG"))
    with pytest.raises(UsageError, match="no RGB image of 38"):
        cmid.prepare("potsdam", few, out=tmp_path / "out", **SMALL)
    result = cmid.prepare("potsdam", few, out=tmp_path / "out", bands="IRRG", **SMALL)
    sides = open_pixel_labelled(str(result.folder), PixelLabelsConfig(), 0)
    assert sides.train.names == ("nir", "red", "green")
    assert sides.account["isprs"]["bands"] == "IRRG"


def test_labels_of_one_kind(few, tmp_path):
    (few / "5_Labels_all_noBoundary/top_potsdam_2_11_label_noBoundary.tif").unlink()
    result = cmid.prepare("potsdam", few, out=tmp_path / "out", **SMALL)
    assert result.labels == ("full",)
    assert any("eroded labels are there for 2 of 3 tiles" in note for note in result.notes)
    assert not (result.folder / "train/masks").exists()
    with pytest.raises(UsageError, match=r"has no eroded labels.*--labels.borders full"):
        open_pixel_labelled(str(result.folder), PixelLabelsConfig(), 0)


@pytest.mark.parametrize(("unknown", "label"), [("nearest", 4), ("ignore", 255)])
def test_colours_that_are_none_of_the_benchmarks(few, tmp_path, unknown, label):
    spoil_colours(few)
    settings = {"out": tmp_path / "out", **SMALL}
    with pytest.raises(UsageError, match=r"2_10_label.tif holds 1 colours .*#FCFF00 .* in 7 pixels.*--unknown"):
        cmid.prepare("potsdam", few, **settings)
    result = cmid.prepare("potsdam", few, **settings, unknown=unknown)
    with Image.open(result.folder / "train/masks_full/2_10_0_0_64_64.png") as mask:
        assert (np.asarray(mask)[5, 3:10] == label).all()
    assert any("7 pixels of full labels had other colours" in note for note in result.notes)


@pytest.mark.parametrize(("first", "then", "label"), [("nearest", "ignore", 255), ("ignore", "nearest", 4)])
def test_a_stopped_run_does_not_mix_what_is_done_with_unknown_colours(few, tmp_path, monkeypatch, first, then, label):
    spoil_colours(few)
    made = stop_at(monkeypatch, 3)
    settings = {"out": tmp_path / "out", **SMALL}
    with pytest.raises(KeyboardInterrupt):
        cmid.prepare("potsdam", few, **settings, unknown=first)
    with pytest.raises(UsageError, match=r"2_10_label.tif holds 1 colours .*#FCFF00"):
        cmid.prepare("potsdam", few, **settings)
    result = cmid.prepare("potsdam", few, **settings, unknown=then)
    assert made == [*FEW, "2_10", "2_10", "2_13"]  # 2_11 has no such colours, and is kept
    assert Manifest.read(result.folder).unknown == then
    with Image.open(result.folder / "train/masks_full/2_10_0_0_64_64.png") as mask:
        assert (np.asarray(mask)[5, 3:10] == label).all()


def test_a_stopped_run_keeps_unknown_colours_that_were_treated_the_same(few, tmp_path, monkeypatch):
    spoil_colours(few)
    made = stop_at(monkeypatch, 2)
    settings = {"out": tmp_path / "out", "unknown": "nearest", **SMALL}
    with pytest.raises(KeyboardInterrupt):
        cmid.prepare("potsdam", few, **settings)
    cmid.prepare("potsdam", few, **settings)
    assert made == ["2_10", "2_11", "2_11", "2_13"]


def test_a_stopped_run_goes_on(few, tmp_path, monkeypatch):
    made = stop_at(monkeypatch, 3)
    settings = {"out": tmp_path / "out", **SMALL}
    with pytest.raises(KeyboardInterrupt):
        cmid.prepare("potsdam", few, **settings)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="begun with other settings"):
        cmid.prepare("potsdam", few, **(settings | {"step_px": 32}))
    part = tmp_path / ".out.part"
    begun = (part / "begun.json").read_text()
    (part / "begun.json").write_text("[]")
    with pytest.raises(UsageError, match="was not written here: delete"):
        cmid.prepare("potsdam", few, **settings)
    (part / "begun.json").write_text(begun)
    note = json.loads((part / "done" / "2_10.json").read_text())
    (part / "done" / "2_11.json").write_text(json.dumps(note | {"files": {}}))  # of another tile, and without files
    cmid.prepare("potsdam", few, **settings)
    assert made == [*FEW, "2_11", "2_13"]
    again = cmid.prepare("potsdam", few, out=tmp_path / "again", **SMALL)
    assert Manifest.read(tmp_path / "out") == Manifest.read(again.folder)
    with pytest.raises(UsageError, match="exists"):
        cmid.prepare("potsdam", few, **settings)


def test_a_full_disk(few, tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(CmidError, match=r"No space left on device.*Make room"):
        cmid.prepare("potsdam", few, out=tmp_path / "out", **SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: f.write_bytes(tif(coloured(tile_labels(0, 108)))), "is 108 x 108, its image 96 x 96"),
        (lambda f: f.write_bytes(tif(tile_labels(0))), "holds numbers; expected labels in colours"),
        (lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]), "label.tif cannot be read"),
    ],
)
def test_labels_that_do_not_fit(few, tmp_path, spoil, says):
    spoil(few / "5_Labels_all/top_potsdam_2_10_label.tif")
    with pytest.raises(UsageError, match=says):
        cmid.prepare("potsdam", few, out=tmp_path / "out", **SMALL)


def test_requests_that_cannot_be_carried_out(few, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no tile of Vaihingen in .*expected files such as top/top_mosaic"):
        cmid.prepare("vaihingen", few, out=tmp_path / "out")
    with pytest.raises(UsageError, match="Vaihingen is shipped as IRRG, not as RGB"):
        cmid.prepare("vaihingen", few, out=tmp_path / "out", bands="RGB")
    with pytest.raises(UsageError, match="96 x 96, smaller than a window of 512"):
        cmid.prepare("potsdam", few, out=tmp_path / "empty", allow_missing=True)
    with pytest.raises(UsageError, match="name the folder to write"):
        cmid.prepare("potsdam", few)


def test_a_set_that_lost_files_is_refused(few, tmp_path):
    out = cmid.prepare("potsdam", few, out=tmp_path / "out", **SMALL).folder
    (out / "train/masks/2_10_0_0_64_64.png").unlink()
    with pytest.raises(UsageError, match=r"1 of \d+ files .*2_10_0_0_64_64.png is missing.*cmid doctor"):
        open_pixel_labelled(str(out), PixelLabelsConfig(), 0)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["tiles"][0]["files"]["../../secret"] = [1, "x"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="leads out of the folder"):
        open_pixel_labelled(str(out), PixelLabelsConfig(), 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "../../2_10"}, r"a tile is called '../../2_10'"),
        ({"split": "../.."}, "of '../..'"),
        ({"places": [[0]]}, "ValueError"),
        ({"files": {}, "pixels": None}, "AttributeError"),
    ],
)
def test_a_manifest_that_is_not_ours(few, tmp_path, change, says):
    out = cmid.prepare("potsdam", few, out=tmp_path / "out", **SMALL).folder
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["tiles"][0] |= change
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=says):
        open_pixel_labelled(str(out), PixelLabelsConfig(), 0)


def test_the_folder_may_be_named_by_the_way_back_from_another(few, tmp_path):
    made = cmid.prepare("potsdam", few, out=tmp_path / "new" / "a" / "..", **SMALL)
    assert made.folder == tmp_path / "new" and (tmp_path / "new" / "train").is_dir()
    assert not list(tmp_path.glob(".*.part"))
