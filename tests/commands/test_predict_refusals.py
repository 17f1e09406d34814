"""`cmid predict segmentation`: what is refused, skipped or named otherwise, before anything is lost."""

import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cmid
from cmid.cli import main
from cmid.commands.scene_list import SceneFiles
from cmid.errors import UsageError
from tests.commands.small_segmenters import near_sighted
from tests.commands.test_predict_segmentation import kept
from tests.data.rasters_on_disk import write_raster
from tests.predict.small_scenes import patchy


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return near_sighted(tmp_path_factory.mktemp("run") / "model.safetensors")


def test_no_scene_is_written_over_by_its_own_map_or_another_ones(tmp_path, model):
    folder = tmp_path / "scenes"
    write_raster(folder / "a.tif", patchy(3, 64, 64))
    write_raster(folder / "b_probabilities.tif", patchy(3, 64, 64))
    (folder / "a.tif.aux.xml").write_text("<PAMDataset/>")
    Image.fromarray(np.moveaxis(patchy(3, 64, 64), 0, -1)).save(folder / "b.png")
    (folder / "all.txt").write_text("a.tif\nb.png\n")
    (folder / "others.txt").write_text("b.png\nb_probabilities.tif\n")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "c.tif").hardlink_to(folder / "a.tif")
    (tmp_path / "away").symlink_to(folder)
    before = kept(tmp_path)
    for flag, data, out, name in (
        ("quicklook", "scenes/a.tif", "scenes", "scenes/a.tif"),
        ("restart", "scenes/a.tif", "scenes", "scenes/a.tif"),
        ("overwrite", "away/a.tif", "scenes", "scenes/a.tif"),
        ("overwrite", "scenes/a.tif", "away", "away/a.tif"),
        ("overwrite", "linked/c.tif", "linked", "linked/c.tif"),
        ("overwrite", "scenes/b.png", "scenes", "scenes/b.png"),
        ("overwrite", "scenes/all.txt", "scenes", "scenes/a.tif"),
        ("overwrite", "scenes/others.txt", "scenes", "scenes/b_probabilities.tif"),
    ):
        with pytest.raises(UsageError, match=rf"{name} would be written over the scene .*choose another --out"):
            cmid.predict("segmentation", model, tmp_path / data, out=tmp_path / out, probabilities=True, **{flag: True})
    assert kept(tmp_path) == before
    files = SceneFiles([str(folder / "a.tif")])
    assert files.at(folder / "a.tif.aux.xml") and not files.at(folder / "b.png") and not files.at(folder / "none.tif")


def test_requests_that_cannot_be_carried_out(tmp_path, model):
    folder = tmp_path / "scenes"
    write_raster(folder / "a.tif", patchy(3, 64, 64))
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("https://example.org/a.tif\n")
    (tmp_path / "twice.txt").write_text("scenes/a.tif\nscenes/a.tif\n")
    (tmp_path / "other.txt").write_text("scenes/a.tif\nscenes/../scenes/a.tif\n")
    for data, settings, match in (
        (folder, {"out": folder / "maps"}, "lies among the scenes"),
        (folder, {"window": 100}, "multiples of 32 px: 96 would fit"),
        (folder, {"overlap": 60}, "from 0 to half the window"),
        (tmp_path / "empty", {}, "no scenes in"),
        (tmp_path / "no", {}, "no such scene, folder or list file"),
        (tmp_path / "list.txt", {}, "reading over the network is off"),
        (tmp_path / "twice.txt", {}, "more than once"),
        (folder, {"bands": ("9",)}, "bands asks for band 9, but"),
        (folder, {"window": 100_000}, "at most 16,384 px are computed at once"),
        (folder, {"out": ""}, "name the folder to write"),
        (tmp_path / "other.txt", {}, "scenes/a.tif more than once"),
    ):
        with pytest.raises(UsageError, match=match):
            cmid.predict("segmentation", model, data, **{"out": tmp_path / "maps"} | settings)
    with pytest.raises(UsageError, match="No such file"):
        cmid.predict("segmentation", tmp_path / "empty", folder, out=tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("pixel", [float("nan"), 0.0])
def test_a_scene_that_lies_nowhere_is_skipped(tmp_path, model, pixel):
    write_raster(tmp_path / "scenes" / "good.tif", patchy(3, 64, 64))
    write_raster(tmp_path / "scenes" / "nowhere.tif", patchy(3, 64, 64), pixel=pixel)
    made = cmid.predict("segmentation", model, tmp_path / "scenes", out=tmp_path / "maps", polygons="gpkg")
    assert [m.map.name for m in made.maps] == ["good.tif"]
    [reason] = made.skipped.values()
    assert "gives its pixels no place: put it right, or remove it (gdal_edit -unsetgt)" in reason


def test_a_line_feed_in_a_name_is_none_in_the_names_of_maps(tmp_path, model):
    for name in ("a\nb.png", "c.png"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(np.moveaxis(patchy(3, 64, 64), 0, -1).astype(np.uint8)).save(tmp_path / "images" / name)
    made = cmid.predict("segmentation", model, tmp_path / "images", out=tmp_path / "maps", polygons="gpkg")
    assert [m.map.name for m in made.maps] == ["a_b.tif", "c.tif"]
    assert (tmp_path / "maps" / "a_b.gpkg").is_file()


def test_windows_that_do_not_fit_the_memory_are_told(tmp_path, model, monkeypatch, capsys):
    write_raster(tmp_path / "a.tif", patchy(3, 64, 64))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    words = ["--out", str(tmp_path / "maps"), "--window", "16384", "--accelerator", "cpu"]
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), limits[1]))
    try:
        code = main(["predict", "segmentation", str(model), str(tmp_path / "a.tif"), *words])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert code == 1
    assert "windows of 16384 px at once do not fit the memory: lower batch or window" in capsys.readouterr().err
