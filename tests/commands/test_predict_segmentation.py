"""`cmid predict segmentation`: maps of real files by a real segmenter, through the command line and from Python."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

import cmid
from cmid.cli import main
from cmid.errors import CmidError, NotFinite, UsageError
from tests.commands.small_segmenters import CLASSES, COLOURS, DEEP, near_sighted, whole
from tests.commands.test_bad_scenes import damage
from tests.data.rasters_on_disk import write_raster
from tests.predict.small_scenes import patchy
from tests.predict.test_full_disk import disk, fill  # noqa: F401 - a fixture
from tests.processes import begin

SEE = {"window": 256, "overlap": 128, "precision": "32"}
"""Windows whose margin, a quarter of the overlap and more, is as far as the small segmenters look."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return near_sighted(tmp_path_factory.mktemp("run") / "model.safetensors")


def read(path):
    with rasterio.open(path) as raster:
        return raster.read()


def rows(path):
    with path.open(newline="") as file:
        return {Path(row["scene"]).name: row["reason"] for row in csv.DictReader(file)}


def kept(folder):
    """Name to bytes and date of every file."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_deep_bands_in_another_order_with_nodata_give_the_map_of_the_whole_scene(tmp_path):
    path = near_sighted(tmp_path / "run" / "model.safetensors", DEEP, ("uint16",))
    values = patchy(4, 384, 512, np.uint16, top=1200)
    values[:, :96, 160:352] = 0
    write_raster(tmp_path / "s" / "a.tif", values[::-1], nodata=0, names=("nir", "Blue", "Green", "Red"))
    out = tmp_path / "maps"
    result = cmid.predict(
        "segmentation", path.parent, tmp_path / "s", out=out, probabilities=True, polygons="gpkg", batch_size=3, **SEE
    )
    valid = (values != 0).all(0)
    expected = whole(path, values, valid)
    shares = read(out / "a_probabilities.tif")
    assert (shares[:, ~valid] == 255).all()
    assert np.abs(shares[:, valid] / 254 - expected[:, valid]).max() < 0.5 / 254 + 1e-4
    found = read(out / "a.tif")[0]
    first, second = np.sort(expected, 0)[[-1, -2]]
    sure = valid & (first - second > 1e-4)
    assert np.array_equal(found[sure], expected.argmax(0)[sure]) and sure.sum() > 0.99 * valid.sum()
    assert (found[~valid] == 255).all()
    counts = np.bincount(found[valid], minlength=3)
    assert (counts > 0.05 * valid.sum()).all()  # a map of one class would prove little
    (said,) = result.maps
    assert said.pixels == dict(zip(CLASSES, counts.tolist(), strict=True)) and said.nodata == (~valid).sum()
    with rasterio.open(out / "a.tif") as raster, rasterio.open(tmp_path / "s" / "a.tif") as source:
        assert raster.crs == source.crs and raster.transform == source.transform and raster.nodata == 255
        assert [raster.colormap(1)[i][:3] for i in range(3)] == list(COLOURS)
        assert json.loads(raster.tags()["CLASSES"]) == list(CLASSES)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert (out / "a.gpkg").exists() and (out / "a.png").exists() and not (out / "scenes_skipped.csv").exists()


@pytest.mark.parametrize("turns", ["none", "flips"])
def test_bytes_are_normalised_as_in_training(tmp_path, model, turns):
    values = patchy(3, 256, 320)
    path = write_raster(tmp_path / "a.tif", values, crs=None)
    out = tmp_path / "maps"
    result = cmid.predict("segmentation", model, path, out=out, probabilities=True, quicklook=False, turns=turns, **SEE)
    expected = whole(model, values)
    if turns == "flips":
        ways = [((1,), (1,)), ((2,), (2,)), ((1, 2), (1, 2))]
        expected = (expected + sum(np.flip(whole(model, np.flip(values, a).copy()), b) for a, b in ways)) / 4
    assert np.abs(read(out / "a_probabilities.tif") / 254 - expected).max() < 0.5 / 254 + 1e-4
    assert any("no coordinate reference system" in note for note in result.maps[0].notes)
    assert not (out / "a.png").exists()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_images_in_folders_of_any_size_each_with_its_own_map(tmp_path, model, capsys):
    sizes = {"a/x.jpg": (70, 33), "b/x.jpg": (64, 64), "b/x.png": (1, 1), "y.tif": (200, 130)}
    generator = np.random.default_rng(0)
    for name, (width, height) in sizes.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (height, width, 3), np.uint8)).save(tmp_path / "images" / name)
    assert main(["predict", "segmentation", str(model), str(tmp_path / "images"), "--out", str(tmp_path / "maps")]) == 0
    names = ["a/x.tif", "b/x.jpg.tif", "b/x.png.tif", "y.tif"]
    assert sorted(str(p.relative_to(tmp_path / "maps")) for p in (tmp_path / "maps").rglob("*.tif")) == names
    for name, (width, height) in zip(names, sizes.values(), strict=True):
        found = read(tmp_path / "maps" / name)
        assert found.shape == (1, height, width) and found.max() < 3
        assert (tmp_path / "maps" / name).with_suffix(".png").exists()
    said = capsys.readouterr().err
    assert "no coordinate reference system" in said and "4 maps, 0 scenes skipped" in said


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_map_lies_on_the_pixels_that_gdal_reads_whatever_the_exif_orientation(tmp_path, model, capsys):
    pixels = np.moveaxis(patchy(3, 60, 90), 0, -1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    assert np.array_equal(read(tmp_path / "turned.png"), np.moveaxis(pixels, -1, 0))
    for name in ("turned", "plain"):
        cmid.predict("segmentation", model, tmp_path / f"{name}.png", out=tmp_path / name)
        assert ("EXIF orientation 6 is not applied" in capsys.readouterr().err) == (name == "turned")
    maps = [read(tmp_path / name / f"{name}.tif") for name in ("turned", "plain")]
    assert maps[0].shape == (1, 60, 90) and len(np.unique(maps[0])) > 1
    assert np.array_equal(*maps)


def test_a_list_a_wrong_kind_of_scene_and_the_bands_that_are_chosen(tmp_path, model, capsys):
    values = patchy(5, 96, 96)
    write_raster(tmp_path / "x" / "five.tif", values)
    write_raster(tmp_path / "y" / "named.tif", values, names=("a", "b", "c", "d", "e"))
    listed = tmp_path / "list.txt"
    listed.write_text("x/five.tif\n# a comment\ny/named.tif\n")
    by_number = cmid.predict("segmentation", model, listed, out=tmp_path / "n", bands=("5", "1", "2"))
    assert [m.map for m in by_number.maps] == [tmp_path / "n/x/five.tif", tmp_path / "n/y/named.tif"]
    by_name = cmid.predict("segmentation", model, listed, out=tmp_path / "m", bands=("e", "a", "b"))
    assert [m.map for m in by_name.maps] == [tmp_path / "m/y/named.tif"]
    assert "none of that name" in by_name.skipped[str(tmp_path / "x/five.tif")]
    assert np.array_equal(read(tmp_path / "m/y/named.tif"), read(tmp_path / "n/x/five.tif"))
    with pytest.raises(UsageError, match=r"gives 5 bands, and the model was trained on 3 \(red, green, blue\)"):
        cmid.predict("segmentation", model, tmp_path / "x", out=tmp_path / "o")
    write_raster(tmp_path / "z.tif", patchy(3, 96, 96), names=("nir", "red", "green"))
    cmid.predict("segmentation", model, tmp_path / "z.tif", out=tmp_path / "z")
    assert "named nir, red, green, and are taken in this order" in capsys.readouterr().err


def test_what_does_not_fit_is_skipped_in_words_and_the_rest_is_mapped(tmp_path, model, capsys):
    folder = tmp_path / "scenes"
    write_raster(folder / "good.tif", patchy(3, 128, 128))
    write_raster(folder / "deep.tif", patchy(3, 128, 128, np.uint16))
    write_raster(folder / "four.tif", patchy(4, 128, 128), photometric="minisblack")
    damage(write_raster(folder / "torn.tif", patchy(3, 128, 128)))
    (folder / "text.tif").write_text("no raster")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    argv = ["predict", "segmentation", str(model), str(folder), "--out", str(tmp_path / "maps"), "--max-bad-share", "0"]
    assert main(argv) == 0
    reasons = rows(tmp_path / "maps" / "scenes_skipped.csv")
    assert reasons.keys() == {"deep.tif", "four.tif", "torn.tif", "text.tif", "cut.jpg"}
    assert "holds uint16 values, and the model was trained on uint8" in reasons["deep.tif"]
    assert "4 bands" in reasons["four.tif"]
    said = capsys.readouterr().err
    assert "1 maps, 5 scenes skipped" in said and str(tmp_path / "maps" / "scenes_skipped.csv") in said
    assert sorted(p.name for p in (tmp_path / "maps").glob("*.tif*")) == ["good.tif", "good.tif.aux.xml"]
    (folder / "good.tif").unlink()
    with pytest.raises(CmidError, match="none of 5 scenes could be mapped"):
        cmid.predict("segmentation", model, folder, out=tmp_path / "none", max_bad_share=0.0)
    for name, match in (("torn.tif", "torn.tif"), ("text.tif", "text.tif"), ("deep.tif", "uint16")):
        with pytest.raises(CmidError, match=match):
            cmid.predict("segmentation", model, folder / name, out=tmp_path / "one", max_bad_share=0.0)


def test_the_list_of_skipped_scenes_keeps_off_what_others_wrote(tmp_path, model):
    folder = tmp_path / "scenes"
    write_raster(folder / "a.tif", patchy(3, 64, 64))
    (folder / "b.tif").write_text("no raster")
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(model.read_bytes())
    (run / "skipped.csv").write_text("path,reason\ntrained.png,damaged\n")  # as training lists its images
    cmid.predict("segmentation", run, folder, out=run)
    assert rows(run / "scenes_skipped.csv").keys() == {"b.tif"}
    (folder / "b.tif").unlink()
    cmid.predict("segmentation", run, folder, out=run)
    assert not (run / "scenes_skipped.csv").exists()
    assert (run / "skipped.csv").read_text() == "path,reason\ntrained.png,damaged\n"
    out = tmp_path / "out"
    out.mkdir()
    for theirs in ("path,reason\nmine,mine\n", "scene,reason,more\n", ""):
        (out / "scenes_skipped.csv").write_text(theirs)
        with pytest.raises(UsageError, match=r"is no list of scenes that could not be mapped.*another --out"):
            cmid.predict("segmentation", run, folder, out=out, overwrite=True)
        assert [p.read_text() for p in out.iterdir()] == [theirs]


def test_a_scene_whose_scores_are_not_finite_is_skipped_and_the_rest_is_mapped(tmp_path):
    about = DEEP | {"low": (0.0,) * 4, "high": (1e-3,) * 4}
    path = near_sighted(tmp_path / "run" / "model.safetensors", about, ("float32",))
    values = patchy(4, 64, 64).astype(np.float32)
    for name, scale in (("a", 4e-6), ("b", 1e36), ("c", 4e-6)):  # those of b overflow when they are normalised
        write_raster(tmp_path / "s" / f"{name}.tif", values * np.float32(scale), photometric="minisblack")
    for _ in range(2):
        result = cmid.predict("segmentation", path, tmp_path / "s", out=tmp_path / "maps")
        assert [each.map.name for each in result.maps] == ["a.tif", "c.tif"]
        (reason,) = result.skipped.values()
        assert "not finite" in reason and "try precision 32" in reason
        assert not list((tmp_path / "maps").glob("b*"))
    assert all(each.kept for each in result.maps)
    with pytest.raises(NotFinite, match="not finite in rows 0 to 64 of"):
        cmid.predict("segmentation", path, tmp_path / "s" / "b.tif", out=tmp_path / "one")
    assert not list((tmp_path / "one").glob("b*"))


def test_a_corrupt_block_is_nodata_and_told(tmp_path, model, capsys):
    values = patchy(3, 320, 384)
    path = write_raster(tmp_path / "a.tif", values)
    cmid.predict("segmentation", model, path, out=tmp_path / "before", **SEE)
    with path.open("r+b") as file:  # of the 30 blocks of 64 x 64 in each band, one in the middle
        file.seek(_offset(path, 3, 2))
        file.write(b"\xff" * 200)
    result = cmid.predict("segmentation", model, path, out=tmp_path / "after", **SEE)
    found, before = read(tmp_path / "after" / "a.tif")[0], read(tmp_path / "before" / "a.tif")[0]
    lost = np.zeros(found.shape, bool)
    lost[128:192, 192:256] = True
    assert np.array_equal(found == 255, lost)
    far = np.ones(found.shape, bool)
    far[64:256, 128:320] = False
    assert np.array_equal(found[far], before[far])
    assert result.maps[0].unreadable == result.maps[0].nodata == 64 * 64
    assert "4,096 px (3.3%) of the scene cannot be read" in capsys.readouterr().err
    with pytest.raises(CmidError, match="over max_bad_share"):
        cmid.predict("segmentation", model, path, out=tmp_path / "strict", max_bad_share=0.03)
    assert not list((tmp_path / "strict").glob("a*"))


def _offset(path, column, row):
    """Where a block of the second band, or of all bands together, lies in the file."""
    with rasterio.open(path) as raster:
        tags = raster.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=2)
    return int(tags)


def test_what_is_finished_is_kept_and_other_settings_do_not_mix(tmp_path, model, capsys):
    folder, out = tmp_path / "scenes", tmp_path / "maps"
    for i in range(3):
        write_raster(folder / f"{i}.tif", patchy(3, 128, 128, seed=i))
    cmid.predict("segmentation", model, folder, out=out)
    before = kept(out)
    again = cmid.predict("segmentation", model, folder, out=out)
    assert kept(out) == before and all(each.kept for each in again.maps) and again.windows_per_s == 0
    assert "3 of 3 maps are finished and kept" in capsys.readouterr().err
    write_raster(folder / "3.tif", patchy(3, 128, 128, seed=3))
    (out / "1.png").unlink()
    third = cmid.predict("segmentation", model, folder, out=out)
    assert [each.kept for each in third.maps] == [True, False, True, False]
    assert {n: v for n, v in kept(out).items() if n.startswith(("0", "2"))} == {
        n: v for n, v in before.items() if n.startswith(("0", "2"))
    }
    with pytest.raises(UsageError, match='made with other settings: turns was "none" and is "flips"'):
        cmid.predict("segmentation", model, folder, out=out, turns="flips")
    other = near_sighted(tmp_path / "other" / "model.safetensors", window=128)
    with pytest.raises(UsageError, match="other settings: model was"):
        cmid.predict("segmentation", other, folder, out=out, window=64)
    write_raster(folder / "0.tif", patchy(3, 128, 128, seed=9))
    with pytest.raises(UsageError, match="other settings: pixels was"):
        cmid.predict("segmentation", model, folder, out=out)
    fifth = cmid.predict("segmentation", model, folder, out=out, overwrite=True)
    assert [each.kept for each in fifth.maps] == [False, True, True, True]
    anew = cmid.predict("segmentation", model, folder, out=out, restart=True)
    assert not any(each.kept for each in anew.maps)
    (out / "2.tif").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"2\.tif exists"):
        cmid.predict("segmentation", model, folder, out=out)
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "1.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"1\.png exists"):
        cmid.predict("segmentation", model, folder, out=tmp_path / "fresh")
    assert sorted(p.name for p in (tmp_path / "fresh").iterdir()) == ["1.png"]


def test_nothing_of_the_map_before_stays_beside_one_made_otherwise(tmp_path, model, capsys):
    folder, out = tmp_path / "scenes", tmp_path / "maps"
    for name in ("a", "b"):
        write_raster(folder / f"{name}.tif", patchy(3, 64, 64))
    cmid.predict("segmentation", model, folder, out=out, probabilities=True, polygons="gpkg")
    (out / "a.geojson").write_text("mine")
    (out / "b.gpkg").write_bytes(b"mine by now")
    capsys.readouterr()
    cmid.predict("segmentation", model, folder, out=out, turns="flips", overwrite=True)
    maps = ["a.png", "a.tif", "a.tif.aux.xml", "b.png", "b.tif", "b.tif.aux.xml", "maps.jsonl"]
    assert sorted(p.name for p in out.iterdir()) == sorted([*maps, "a.geojson", "b.gpkg"])
    said = capsys.readouterr().err
    assert "a.tif (and 1 others): NAME_probabilities.tif of the map before was removed" in said
    assert "a.tif: NAME.gpkg of the map before was removed" in said
    assert "b.tif: NAME.gpkg of the map before is left there: it was changed since" in said


def test_a_call_that_was_killed_goes_on_and_gives_the_same_files(tmp_path, model):
    folder, out = tmp_path / "scenes", tmp_path / "maps"
    write_raster(folder / "a.tif", patchy(3, 64, 64))
    write_raster(folder / "b.tif", patchy(3, 480, 160, seed=1))
    options = ["--window", "64", "--overlap", "32", "--batch-size", "1", "--polygons", "gpkg", "--probabilities"]
    argv = ["predict", "segmentation", str(model), str(folder), "--precision", "32", *options, "--out"]
    journal = out / "b.tif.partial" / "journal"
    size = 0
    for how in (signal.SIGINT, signal.SIGKILL):
        process = begin("cmid", [*argv, str(out)], dict(os.environ), tmp_path / how.name)
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not (journal.exists() and journal.stat().st_size > size + 5000):
            time.sleep(0.002)
        os.kill(process.pid, how)
        process.join(100)
        said = (tmp_path / f"{how.name}.err").read_text()
        assert process.exitcode == (-9 if how == signal.SIGKILL else 130), said
        assert ("the same command goes on" in said) == (how == signal.SIGINT)
        assert ("1 of 2 maps are finished and kept" in said) == (size > 0)
        assert (out / "a.tif").exists() and not (out / "b.tif").exists()
        size, begun = journal.stat().st_size, kept(out)["a.tif"]
    with (out / "maps.jsonl").open("ab") as file:
        file.write(b'{"map": "c.ti')  # as of a process that was killed while it wrote
    settings = {
        "window": 64, "overlap": 32, "batch_size": 1, "polygons": "gpkg", "probabilities": True, "precision": "32",
    }  # fmt: skip
    with pytest.raises(UsageError, match="unfinished map made with other settings: turns was"):
        cmid.predict("segmentation", model, folder / "b.tif", out=out, turns="flips", **settings)
    assert main([*argv, str(out)]) == 0
    assert kept(out)["a.tif"] == begun
    cmid.predict("segmentation", model, folder, out=tmp_path / "whole", **settings)
    for name in ("a.tif", "b.tif", "b_probabilities.tif", "b.png", "b.tif.aux.xml"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not journal.parent.exists()


def test_a_full_disk_is_told_and_what_is_finished_is_kept(disk, tmp_path, model):  # noqa: F811
    folder, out = tmp_path / "scenes", disk / "maps"
    write_raster(folder / "a.tif", patchy(3, 128, 128))
    cmid.predict("segmentation", model, folder, out=out)
    before = kept(out)
    write_raster(folder / "b.tif", patchy(3, 300, 300))
    fill(disk)
    with pytest.raises(CmidError, match=r"No space left on device.*make room and repeat"):
        cmid.predict("segmentation", model, folder, out=out)
    (disk / "filler").unlink()
    assert {name: before[name] for name in before if name != "maps.jsonl"}.items() <= kept(out).items()
    result = cmid.predict("segmentation", model, folder, out=out)
    assert [each.kept for each in result.maps] == [True, False]
