"""`cmid pack`, and pre-training on what it wrote."""

import csv
import json
import os
import resource
import signal
import sys

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image

from cmid.cli import main
from cmid.commands.pack import pack
from cmid.config import PackConfig
from tests.commands.test_sources import textured
from tests.data.rasters_on_disk import write_raster

TINY = ["--recipe", "cmid-tiny", "--no-report"]


@pytest.fixture
def images(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(12):
        Image.fromarray(generator.integers(0, 255, (70, 80, 3), np.uint8)).save(tmp_path / "images" / f"{i:02d}.jpg")
    return tmp_path / "images"


def losses(run):
    with (run / "metrics.csv").open() as lines:
        return [row["total"] for row in csv.DictReader(lines)]


def test_a_run_on_shards_is_the_run_on_the_files(images, tmp_path, capsys):
    assert main(["pack", str(images), "--out", str(tmp_path / "shards"), "--shard-mb", "1"]) == 0
    assert "12 images in 1 shards" in capsys.readouterr().err
    assert main(["pack", str(tmp_path / "shards"), "--check"]) == 0
    for data, out in ((images, "a"), (tmp_path / "shards", "b")):
        assert main(["pretrain", str(data), *TINY, "--out", str(tmp_path / out)]) == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_what_files_lose_as_images_is_told_when_they_are_packed(tmp_path, capsys):
    for i in range(2):
        write_raster(tmp_path / "s" / f"{i}.tif", textured(4, 160, "uint16", i), photometric="minisblack")
    assert main(["pack", str(tmp_path / "s"), "--out", str(tmp_path / "shards")]) == 0
    said = capsys.readouterr().err.replace("\n", " ")
    assert "2 of 2 images looked at have more than 3 bands" in said and "have more than 8 bits" in said


def test_windows_of_scenes_are_packed_with_their_numbers(tmp_path):
    write_raster(tmp_path / "s" / "0.tif", textured(4, 160, "uint16", 0), photometric="minisblack")
    words = ["--source", "scenes", "--scenes.windows", "9", "--scenes.window-px", "80", "--scenes.statistics", "4"]
    words += ["--scenes.bands", "1,2,3,4"]
    assert main(["pack", str(tmp_path / "s"), "--out", str(tmp_path / "shards"), *words]) == 0
    assert main(["pretrain", str(tmp_path / "shards"), *TINY, "--out", str(tmp_path / "run")]) == 0
    settings = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert settings["in_chans"] == 4 and len(settings["views"]["low"]) == 4
    assert settings["views"]["colours"] == "bands"


def test_a_torn_shard_is_told_and_too_many_stop_the_run(images, tmp_path, capsys):
    assert main(["pack", str(images), "--out", str(tmp_path / "shards")]) == 0
    path = tmp_path / "shards" / "shard-00000.tar"
    path.write_bytes(path.read_bytes()[:-1000])
    capsys.readouterr()
    assert main(["pack", str(tmp_path / "shards"), "--check"]) == 1
    assert "shard-00000.tar: it has" in capsys.readouterr().err
    assert main(["pretrain", str(tmp_path / "shards"), *TINY, "--out", str(tmp_path / "run")]) == 2
    assert "shard-00000.tar" in capsys.readouterr().err


def test_a_check_opens_the_index_and_the_names(images, tmp_path, capsys):
    shards = tmp_path / "shards"
    assert main(["pack", str(images), "--out", str(shards)]) == 0
    index = np.load(shards / "index.npy")
    index[:, 1] += 512  # which reaches into the tar's end
    np.save(shards / "index.npy", index)
    capsys.readouterr()
    assert main(["pack", str(shards), "--check"]) == 1
    said = capsys.readouterr().err
    assert "1 of 3 files in" in said and "index.npy: its bytes have changed" in said
    assert "Copy them again, or pack the images anew" in said
    plain = json.loads((shards / "shards.json").read_text())
    del plain["sums"]
    (shards / "shards.json").write_text(json.dumps(plain))
    assert main(["pack", str(shards), "--check"]) == 0
    assert "note: of index.npy and names.txt an earlier version of cmid kept no" in capsys.readouterr().err
    (shards / "index.npy").unlink()
    assert main(["pack", str(shards), "--check"]) == 1
    assert "index.npy: it is missing" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="files with holes are not to be had everywhere")
def test_what_is_refused_by_its_header_is_not_read(images, tmp_path):
    usual = {
        "driver": "GTiff",
        "width": 20_000,
        "height": 20_000,
        "tiled": True,
        "sparse_ok": True,
        "transform": rasterio.Affine.scale(2),
    }
    for name, bands, dtype in (("pillow.tif", 3, "uint8"), ("gdal.tif", 4, "uint16")):
        with rasterio.open(images / name, "w", count=bands, dtype=dtype, **usual):
            pass
        os.truncate(images / name, 1 << 40)  # a hole, that nobody could read into memory
    (images / "long.jpg").write_bytes((images / "00.jpg").read_bytes())
    os.truncate(images / "long.jpg", 1 << 40)
    (images / "zeros.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    names = sorted(str(path) for path in (*images.iterdir(), tmp_path / "pipe"))
    (tmp_path / "list.txt").write_text("\n".join([*names, str(images / "gone.png")]))
    bad = pack(PackConfig(data=str(tmp_path / "list.txt"), out=str(tmp_path / "shards"), max_bad_share=0.6)).skipped
    reasons = {name.rpartition("/")[2]: reason for name, reason in bad.items()}
    pixels = "more than 178,956,970 pixels; cut it into tiles first"
    assert reasons.pop("pillow.tif") == reasons.pop("gdal.tif") == pixels
    assert reasons.pop("long.jpg").startswith("1,099,511,627,776 bytes, where a shard gives back 2,147,479,552; cut")
    assert reasons.pop("pipe") == reasons.pop("zeros.png") == "it is no file"
    assert reasons == {"gone.png": "no such file or directory"}


@pytest.mark.parametrize(
    ("words", "code", "answer"),
    [
        (["{images}"], 2, "name the folder to write"),
        (["{images}", "--out", "{images}"], 2, "holds something"),
        (["{images}/none", "--out", "{out}"], 2, "no such folder"),
        (["{images}", "--check"], 2, "was not written by `cmid pack`"),
        (["{images}", "--check", "--out", "{out}"], 2, "nothing is written: leave out out"),
    ],
)
def test_what_cannot_be_packed_is_said(images, tmp_path, capsys, words, code, answer):
    assert main(["pack", *(w.format(images=images, out=tmp_path / "out") for w in words)]) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cmid: error:")]
    assert len(errors) == 1 and answer in errors[0]


def test_bad_images_are_left_out_or_too_many(images, tmp_path, capsys):
    (images / "00.jpg").write_bytes((images / "00.jpg").read_bytes()[:300])
    assert main(["pack", str(images), "--out", str(tmp_path / "a")]) == 1
    assert "1 of 12 images cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "a" / "shards.json").exists()
    assert main(["pack", str(images), "--out", str(tmp_path / "b"), "--max-bad-share", "0.1"]) == 0
    assert "1 images cannot be read and are left out" in capsys.readouterr().err


def test_a_full_disk_leaves_no_manifest(images, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        code = main(["pack", str(images), "--out", str(tmp_path / "shards")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert code == 1 and "free the disk" in capsys.readouterr().err
    assert not (tmp_path / "shards" / "shards.json").exists()


def test_an_image_that_changed_in_its_shard_is_named_with_it_and_not_taken_for_the_file(images, tmp_path, capsys):
    assert main(["pack", str(images), "--out", str(tmp_path / "shards")]) == 0
    index = np.load(tmp_path / "shards" / "index.npy")
    path = tmp_path / "shards" / "shard-00000.tar"
    data = bytearray(path.read_bytes())
    for row in (3, 5):
        data[index[row, 1] : index[row, 1] + 50] = b"\0" * 50
    path.write_bytes(data)
    capsys.readouterr()
    assert main(["pretrain", str(tmp_path / "shards"), *TINY, "--out", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"shard-00000.tar: {images}/0" in said and "Repair or remove" not in said
    assert f"`cmid pack {tmp_path / 'shards'} --check` tells which shards have changed: copy those again" in said
    words = [*TINY, "--out", str(tmp_path / "more"), "--max-bad-share", "0.5"]
    assert main(["pretrain", str(tmp_path / "shards"), *words]) == 0
    with (tmp_path / "more" / "skipped.csv").open() as lines:
        named = {row["path"] for row in csv.DictReader(lines)}
    assert named == {f"shard-00000.tar: {images}/{i:02d}.jpg" for i in (3, 5)}
