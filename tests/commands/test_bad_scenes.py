"""Scenes and shards that are damaged or do not fit: one clear line, or a recorded skip, never a traceback."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from cmid.cli import main
from tests.commands.test_pack import images  # noqa: F401 - a fixture
from tests.commands.test_pretrain import draw, one_line
from tests.commands.test_sources import run, textured
from tests.data.rasters_on_disk import write_raster

ONE_STEP = ("--no-report", "--train.max-steps", 1)


def draw_scenes(folder, count=2, bands=3, dtype="uint16", first=0, **profile):
    for i in range(first, first + count):
        write_raster(folder / f"{i}.tif", textured(bands, 160, dtype, i), photometric="minisblack", **profile)
    return folder


def damage(path):
    """Overwrites a block in the middle; the header stays whole."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = b"\xff" * 4000
    path.write_bytes(data)


def skipped(out):
    with (out / "skipped.csv").open() as lines:
        return [(row["path"], row["reason"]) for row in csv.DictReader(lines)]


def test_scenes_without_coordinate_system_are_read(tmp_path, capsys):
    draw_scenes(tmp_path / "scenes", 1, crs=None)
    assert run(tmp_path / "scenes", tmp_path / "a", *ONE_STEP) == 0
    draw_scenes(tmp_path / "scenes", 1, first=1)
    capsys.readouterr()
    assert run(tmp_path / "scenes", tmp_path / "b", *ONE_STEP) == 0
    assert "in 2 coordinate systems" in capsys.readouterr().err
    account = json.loads((tmp_path / "b" / "data.json").read_text())
    assert [scene["crs"] for scene in account["scenes"]] == ["", "EPSG:32632"]


@pytest.mark.parametrize(
    ("scenes", "words", "answer"),
    [
        ([(1, "uint16")], ("--scenes.bands", "1,2,3"), "asks for band 2, but"),
        ([(3, "uint16"), (4, "uint16")], (), "of bands (1 with 3, 1 with 4: "),
        ([(3, "uint16"), (3, "uint8")], (), "several number types"),
        (
            [(4, "uint16")],
            ("--scenes.bands", "1,2,3,4", "--views.low", "1,2", "--views.high", "3,4"),
            "low has 2 values for 4",
        ),
        ([(3, "uint16")], ("--views.low", "1,2,3", "--views.high", "1,2,3"), "views.high must be above views.low"),
        ([(3, "uint8")], ("--views.low", "1,2,3", "--views.high", "4,5,6"), "these are bytes: leave them out"),
    ],
)
def test_scenes_that_do_not_fit_one_another_or_the_request(tmp_path, capsys, scenes, words, answer):
    for i, (bands, dtype) in enumerate(scenes):
        draw_scenes(tmp_path / "scenes", 1, bands, dtype, first=i)
    assert run(tmp_path / "scenes", tmp_path / "run", *ONE_STEP, *words) == 2
    assert answer in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_scenes_of_nodata_alone_are_an_error_and_one_among_others_is_none(tmp_path, capsys):
    write_raster(tmp_path / "scenes" / "0.tif", np.zeros((3, 160, 160), np.uint16), nodata=0)
    assert run(tmp_path / "scenes", tmp_path / "a", *ONE_STEP) == 1
    assert "no valid pixel was found" in one_line(capsys)
    assert not (tmp_path / "a").exists()
    draw_scenes(tmp_path / "scenes", 1, nodata=0, first=1)
    assert run(tmp_path / "scenes", tmp_path / "b", *ONE_STEP) == 0
    assert not (tmp_path / "b" / "skipped.csv").exists(), "its windows are drawn elsewhere"


def test_a_corrupt_block_is_a_recorded_skip_until_there_are_too_many(tmp_path, capsys):
    draw_scenes(tmp_path / "scenes")
    damage(tmp_path / "scenes" / "0.tif")
    assert run(tmp_path / "scenes", tmp_path / "a", "--no-report") == 1
    error = one_line(capsys)
    assert "too many unreadable images" in error and "0.tif" in error
    assert run(tmp_path / "scenes", tmp_path / "b", "--no-report", "--max-bad-share", 0.9) == 0
    found = skipped(tmp_path / "b")
    assert found and all(path.endswith("0.tif") and "failed" in reason for path, reason in found)


def test_a_file_of_zero_size_is_left_out_and_named(tmp_path, capsys):
    draw_scenes(tmp_path / "scenes")
    (tmp_path / "scenes" / "9.tif").write_bytes(b"")
    assert run(tmp_path / "scenes", tmp_path / "a", *ONE_STEP) == 2
    assert "1 of 3 scenes" in (error := one_line(capsys)) and "9.tif (it is empty)" in error
    assert run(tmp_path / "scenes", tmp_path / "b", *ONE_STEP, "--max-bad-share", 0.5) == 0
    assert "1 scenes cannot be read and are left out" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "b" / "data.json").read_text())["unreadable"].values()) == ["it is empty"]


def test_an_address_in_place_of_a_list_is_told_where_to_put_it(tmp_path, capsys):
    assert run("https://127.0.0.1:1/a.tif", tmp_path / "run", "--scenes.remote", "true") == 2
    assert "from a list file, one a line: write https://127.0.0.1:1/a.tif into one" in one_line(capsys)


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [
        ((3, "uint16"), (5, "uint16"), "known for the bands 1, 2, 3, but those of"),
        ((3, "uint16"), (3, "uint8"), "of deeper values, but those of"),
        ((3, "uint8"), (3, "uint16"), "of 8 bits, but those of"),
    ],
)
def test_a_run_is_not_resumed_on_other_bands_than_were_measured(tmp_path, capsys, before, after, answer):
    draw_scenes(tmp_path / "scenes", 1, *before)
    assert run(tmp_path / "scenes", tmp_path / "run", *ONE_STEP) == 0
    shutil.rmtree(tmp_path / "scenes")
    draw_scenes(tmp_path / "scenes", 1, *after)
    capsys.readouterr()
    assert run(tmp_path / "scenes", tmp_path / "run", "--no-report", "--resume") == 2
    assert answer in one_line(capsys)


def test_a_run_is_not_resumed_on_bands_of_another_order(tmp_path, capsys):
    names = ("red", "green", "nir")
    draw_scenes(tmp_path / "scenes", 1, names=names)
    assert run(tmp_path / "scenes", tmp_path / "run", *ONE_STEP) == 0
    draw_scenes(tmp_path / "scenes", 1, names=names[::-1])
    capsys.readouterr()
    assert run(tmp_path / "scenes", tmp_path / "run", "--no-report", "--resume") == 2
    assert "known for the bands red, green, nir, but those of" in one_line(capsys)
    assert run(tmp_path / "scenes", tmp_path / "run", "--no-report", "--resume", "--scenes.bands", ",".join(names)) == 2
    assert "scenes.bands" in one_line(capsys), "the same bands, but the run was begun without naming them"


def pretrain(data, out, *words):
    return main(["pretrain", str(data), "--recipe", "cmid-tiny", "--out", str(out), *map(str, (*ONE_STEP, *words))])


@pytest.mark.parametrize(
    ("spoil", "answer"),
    [
        (lambda f: np.save(f / "index.npy", np.load(f / "index.npy")[:-1]), "do not fit the manifest"),
        (lambda f: np.save(f / "index.npy", np.load(f / "index.npy") + 10**7), "points outside the shards"),
        (lambda f: (f / "index.npy").write_bytes(b"\x93NUMPY no more"), "cannot be read"),
        (lambda f: (f / "index.npy").unlink(), "cannot be read"),
        (lambda f: (f / "names.txt").write_text("one\n"), "do not fit the manifest"),
        (lambda f: (f / "shards.json").write_text("{"), "no manifest"),
    ],
)
def test_an_index_that_does_not_match_its_shards(images, tmp_path, capsys, spoil, answer):  # noqa: F811
    assert main(["pack", str(images), "--out", str(tmp_path / "shards")]) == 0
    spoil(tmp_path / "shards")
    capsys.readouterr()
    assert pretrain(tmp_path / "shards", tmp_path / "run") == 2
    assert answer in one_line(capsys) and not (tmp_path / "run").exists()


def test_an_index_that_points_beside_its_images_is_bad_images(images, tmp_path, capsys):  # noqa: F811
    assert main(["pack", str(images), "--out", str(tmp_path / "shards")]) == 0
    index = np.load(tmp_path / "shards" / "index.npy")
    index[:, 1] -= 100
    np.save(tmp_path / "shards" / "index.npy", index)
    assert pretrain(tmp_path / "shards", tmp_path / "run") == 1
    assert "unreadable images" in one_line(capsys)


@pytest.mark.parametrize(
    ("change", "code", "answer"),
    [
        ({"low": [0.0, 0.0], "high": [1.0, 1.0]}, 2, "known for 3 bands, but"),
        ({"low": [], "high": []}, 2, "of 8 bits, but those of"),
        ({"mean": [0.5] * 4, "std": [0.2] * 4, "low": [0.0] * 4, "high": [1.0] * 4}, 1, "where 4 bands were meant"),
    ],
)
def test_shards_with_the_numbers_of_other_bands(tmp_path, capsys, change, code, answer):
    draw_scenes(tmp_path / "scenes")
    words = ["--source", "scenes", "--scenes.windows", "9", "--scenes.window-px", "80", "--scenes.statistics", "4"]
    assert main(["pack", str(tmp_path / "scenes"), "--out", str(tmp_path / "shards"), *words]) == 0
    manifest = json.loads((tmp_path / "shards" / "shards.json").read_text())
    manifest["numbers"] |= {**change, "bands": []}
    (tmp_path / "shards" / "shards.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    assert pretrain(tmp_path / "shards", tmp_path / "run") == code
    assert answer in one_line(capsys)


@pytest.mark.parametrize(
    ("pixels", "words", "answer"),
    [
        (False, ("--views.mean", "0.1,0.2"), "views.mean has 2 values for 3 bands"),
        (False, ("--views.std", "0.1,0.2"), "views.std has 2 values for 3 bands"),
        (False, ("--views.low", "0,0,0", "--views.high", "1,1,1"), "these are bytes: leave them out"),
        (False, ("--in-chans", "4"), "in_chans is 4, but the images have 3 bands"),
        (True, ("--views.mean", "0.1,0.2"), "views.mean has 2 values for 3 bands"),
        (True, ("--views.low", "0,0,0", "--views.high", "1,1,1"), "on their scale: leave views.low and views.high out"),
        (True, ("--in-chans", "4"), "in_chans is 4, but the images have 3 bands"),
    ],
)
def test_what_does_not_fit_shards_is_answered_in_a_line(images, tmp_path, capsys, pixels, words, answer):  # noqa: F811
    data = draw_scenes(tmp_path / "scenes", 1) if pixels else images
    more = ["--source", "scenes", "--scenes.windows", "9", "--scenes.window-px", "80", "--scenes.statistics", "4"]
    assert main(["pack", str(data), "--out", str(tmp_path / "shards"), *(more if pixels else ())]) == 0
    capsys.readouterr()
    assert pretrain(tmp_path / "shards", tmp_path / "run", *words) == 2
    assert answer in one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("pixels", [False, True])
def test_a_torn_shard_that_is_let_pass_is_kept_in_the_run(images, tmp_path, capsys, pixels):  # noqa: F811
    data, words = images, ["--shard-mb", "1"]
    if pixels:
        data = draw_scenes(tmp_path / "scenes", 1)
        words += ["--source", "scenes", "--scenes.windows", "12", "--scenes.window-px", "160"]
        words += ["--scenes.statistics", "4"]
    else:
        for i in range(12, 24):  # noise, so that it takes more than a shard
            noise = np.random.default_rng(i).integers(0, 255, (240, 240, 3), np.uint8)
            Image.fromarray(noise).save(images / f"{i}.png")
    assert main(["pack", str(data), "--out", str(tmp_path / "shards"), *words]) == 0
    shards = sorted((tmp_path / "shards").glob("*.tar"))
    assert len(shards) > 1
    shards[-1].unlink()
    assert pretrain(tmp_path / "shards", tmp_path / "run", "--max-bad-share", 0.9) == 0
    assert "is left out with all its images" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "data.json").read_text())["torn"] == {shards[-1].name: "it is missing"}


def test_processes_with_unequal_data_stop_before_the_training(tmp_path, two_processes):
    for rank, count in (("0", 16), ("1", 24)):
        draw(tmp_path / rank / "images", count)
    two_processes("tests.commands.unequal_data_in_two_processes", str(tmp_path))


def test_a_run_keeps_the_numbers_it_began_with(tmp_path):
    """What the checks above must let through: the same scenes in another place; but not with others among them."""
    draw_scenes(tmp_path / "scenes", 1)
    assert run(tmp_path / "scenes", tmp_path / "run", *ONE_STEP) == 0
    before = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["views"]
    moved = (tmp_path / "scenes").rename(tmp_path / "moved")
    assert run(moved, tmp_path / "run", "--no-report", "--resume") == 0
    after = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["views"]
    assert before == after and len(after["low"]) == 3
    draw_scenes(moved, 1, first=1)
    assert run(moved, tmp_path / "run", "--no-report", "--resume") == 2


def test_numbers_that_are_not_those_of_the_run_are_refused(tmp_path, capsys):
    draw_scenes(tmp_path / "scenes", 1)
    assert run(tmp_path / "scenes", tmp_path / "run", *ONE_STEP) == 0
    resume = (tmp_path / "scenes", tmp_path / "run", "--no-report", "--resume")
    capsys.readouterr()
    for words in (("views.mean", "0.1,0.2,0.3"), ("views.high", "1,2,3"), ("views.bands", "a,b,c"), ("in-chans", "4")):
        assert run(*resume, f"--{words[0]}", words[1]) == 2
        assert f"other settings: {words[0].replace('-', '_')} was " in one_line(capsys)
    own = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["views"]["mean"]
    assert run(*resume, "--views.mean", ",".join(map(str, own))) == 0


def test_nodata_that_nothing_declares_is_pointed_out(tmp_path, capsys):
    values = textured(2, 160, "uint16", 0)
    values[1, :, :50] = 0
    write_raster(tmp_path / "scenes" / "0.tif", values, photometric="minisblack")
    assert run(tmp_path / "scenes", tmp_path / "a", *ONE_STEP) == 0
    assert "are 0 in band 2: it looks like nodata that the files do not declare; if it is: --scenes.nodata 0\n" in (
        capsys.readouterr().err
    )
    bands = json.loads((tmp_path / "a" / "data.json").read_text())["bands"]
    assert bands["suspect"] == [None, 0] and bands["suspect_share"][1] > 0.1
    assert run(tmp_path / "scenes", tmp_path / "b", *ONE_STEP, "--scenes.nodata", 0) == 0
    assert "looks like nodata" not in capsys.readouterr().err
    bands = json.loads((tmp_path / "b" / "data.json").read_text())["bands"]
    assert bands["minimum"][1] > 0 and bands["nodata"] > 0
    given = ("--views.low", "0,0", "--views.high", "9,9", "--views.mean", "0.1,0.2", "--views.std", "1,1")
    for name, words in (("c", ()), ("d", given)):  # also where nothing is measured
        assert run(tmp_path / "scenes", tmp_path / name, *ONE_STEP, *words, "--scenes.nodata", "-1") == 0
        assert "the scenes hold uint16, never -1: --scenes.nodata hides nothing" in capsys.readouterr().err


def test_shards_are_not_scenes(images, tmp_path, capsys):  # noqa: F811
    assert main(["pack", str(images), "--out", str(tmp_path / "shards")]) == 0
    capsys.readouterr()
    assert run(tmp_path / "shards", tmp_path / "run", *ONE_STEP) == 2
    assert "holds shards, which are recognised by themselves: leave --source out" in one_line(capsys)
    (tmp_path / "shards" / "shards.json").unlink()
    assert run(tmp_path / "shards", tmp_path / "run", *ONE_STEP) == 2
    assert "but not their manifest shards.json" in one_line(capsys)
