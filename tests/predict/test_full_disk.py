"""A disk that is really full, at each stage of a map: it is told, finished rows are kept, no output is half a file."""

import os
import shutil
import subprocess

import pytest
import rasterio

from cmid.errors import CmidError
from cmid.predict import scene_to_map as module
from cmid.predict.raster_output import Classes
from cmid.predict.scene_to_map import Outputs, scene_to_map
from cmid.predict.windows import Tiling
from tests.predict.small_scenes import Looking, patchy, write_scene

FOUR = Classes(("a", "b", "c", "d"))
MODEL = Looking(3, 4)
SMALL = Tiling(window=64, overlap=32, margin=8, batch=4)


@pytest.fixture
def disk(tmp_path):
    """A folder with a disk of its own, of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder, leave=0):
    """Takes all room but `leave` bytes."""
    with pytest.raises(OSError, match="No space left"), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(folder / "filler", max(0, (folder / "filler").stat().st_size - leave))


def test_rows_that_cannot_be_kept(disk, tmp_path):
    scene = write_scene(tmp_path / "a.tif", patchy(3, 300, 300))

    def tick(done, total):
        if done >= 40 and not (disk / "filler").exists():
            fill(disk)

    out = Outputs(disk / "map.tif")
    with pytest.raises(CmidError, match=r"No space left on device.*make room and repeat"):
        scene_to_map(scene, MODEL, FOUR, out, tiling=SMALL, tick=tick)
    (disk / "filler").unlink()
    result = scene_to_map(scene, MODEL, FOUR, out, tiling=SMALL)
    assert result.computed < result.windows
    compare(scene, out, tmp_path)


@pytest.mark.parametrize("leave", [0, 100_000])
@pytest.mark.parametrize("stage", ["TiledFile", "as_cog", "write_category_names", "write_polygons", "write_quicklook"])
def test_outputs_that_cannot_be_written(disk, tmp_path, monkeypatch, stage, leave):
    scene = write_scene(tmp_path / "a.tif", patchy(3, 500, 600))
    out = Outputs(
        disk / "map.tif", probabilities=disk / "p.tif", polygons=disk / "p.gpkg", quicklook=disk / "map.png",
        min_area_px=16,
    )  # fmt: skip
    real = getattr(module, stage)

    def when_the_disk_is_full(*arguments, **more):
        if not (disk / "filler").exists():
            fill(disk, leave)
        return real(*arguments, **more)

    monkeypatch.setattr(module, stage, when_the_disk_is_full)
    try:
        scene_to_map(scene, MODEL, FOUR, out, tiling=Tiling(window=256))
        finished = True  # what was left was enough for the rest
    except CmidError as error:
        assert "cannot be written" in str(error) and "make room and repeat" in str(error)
        finished = False
        assert not any(path.exists() for path in out.paths)
    assert leave or not finished
    monkeypatch.undo()
    (disk / "filler").unlink()
    if not finished:
        result = scene_to_map(scene, MODEL, FOUR, out, tiling=Tiling(window=256))
        assert result.computed == 0
    compare(scene, out, tmp_path, Tiling(window=256))


def compare(scene, out, tmp_path, tiling=SMALL):
    """With the map made on another disk, in one go."""
    folder = tmp_path / "whole"
    paths = {name: folder / getattr(out, name).name for name in ("map", "probabilities", "polygons", "quicklook")
             if getattr(out, name) is not None}  # fmt: skip
    scene_to_map(scene, MODEL, FOUR, Outputs(**paths, min_area_px=out.min_area_px), tiling=tiling)
    for name, path in paths.items():
        if name != "polygons":
            assert getattr(out, name).read_bytes() == path.read_bytes(), name
    with rasterio.open(out.map) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    if out.polygons is not None:
        import pyogrio

        assert pyogrio.read_info(out.polygons)["features"] == pyogrio.read_info(paths["polygons"])["features"]
