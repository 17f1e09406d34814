"""Files of every kind as scenes, read as the rooms of data read them, and mapped."""

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from cmid.commands.scene_files import open_scene
from cmid.data.decode import BadImage
from cmid.data.statistics import Stretch
from cmid.errors import UsageError
from cmid.predict.raster_output import Classes
from cmid.predict.scene_to_map import Outputs, scene_to_map
from cmid.predict.windows import Tiling
from tests.data.rasters_on_disk import numbered, write_raster

TWO = Classes(("dark", "bright"))
SMALL = Tiling(window=64, overlap=32, margin=8, batch=4)


def brighter_than(level):
    def predict(images):
        bright = (images[:, 0] > level).float()
        return torch.stack((1 - bright, bright), 1)

    return predict


def test_bands_by_name_with_nodata_and_the_mask_beside_the_scene(tmp_path):
    values = numbered(4, 90, 130)
    values[2, 20:30, 40:50] = 65535
    path = write_raster(tmp_path / "a.tif", values, names=("blue", "green", "red", "nir"), nodata=65535)
    scene = open_scene(str(path), ("nir", "red", "green", "blue"))
    assert (scene.width, scene.height, scene.bands, scene.dtype) == (130, 90, 4, "uint16")
    assert scene.colours == (1, 2, 3)
    found, valid = scene.read((35, 15, 60, 40))
    assert np.array_equal(found, values[::-1, 15:40, 35:60])
    assert np.array_equal(valid, values[2, 15:40, 35:60] != 65535)
    with rasterio.open(path) as raster:
        assert scene.place.transform == tuple(raster.transform)[:6] and scene.place.crs == raster.crs.to_wkt()
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
        rasterio.open(write_raster(tmp_path / "m.tif", values), "r+") as r,
    ):
        mask = np.full((90, 130), 255, np.uint8)
        mask[:50] = 0
        r.write_mask(mask)
    assert (tmp_path / "m.tif.msk").exists()
    assert np.array_equal(open_scene(str(tmp_path / "m.tif")).read((0, 0, 130, 90))[1], mask > 0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_stretch_is_that_of_training_with_the_mean_where_nothing_is_valid(tmp_path, dtype):
    values = numbered(3, 60, 60, "uint16").clip(1, 250).astype(dtype)
    values[:, :10, :10] = 0
    path = str(write_raster(tmp_path / "a.tif", values, nodata=0))
    low, high = ((), ()) if dtype == "uint8" else ((10.0,) * 3, (200.0,) * 3)
    found, valid = open_scene(path, (), Stretch(low, high, (0.2, 0.4, 0.6))).read((0, 0, 60, 60))
    expected = values if dtype == "uint8" else (values.astype(np.float32) - 10) / 190
    assert np.allclose(found[:, valid], expected[:, valid], atol=1e-6)
    stand_in = np.array((51, 102, 153)) if dtype == "uint8" else np.array((0.2, 0.4, 0.6), np.float32)
    assert (found[:, ~valid] == stand_in[:, None]).all()


def test_a_geotiff_becomes_a_map(tmp_path):
    values = numbered(2, 300, 260)
    path = write_raster(tmp_path / "a.tif", values)
    out = Outputs(tmp_path / "map.tif", quicklook=tmp_path / "map.png", polygons=tmp_path / "map.gpkg")
    scene_to_map(open_scene(str(path)), brighter_than(700), TWO, out, tiling=SMALL)
    with rasterio.open(out.map) as raster, rasterio.open(path) as source:
        assert np.array_equal(raster.read(1), values[0] > 700)
        assert raster.crs == source.crs and raster.transform == source.transform


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_becomes_a_map_without_a_place(tmp_path, suffix, recwarn):
    pixels = np.random.default_rng(0).integers(0, 255, (150, 170, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", quality=95)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        pixels = np.asarray(image)
    out = Outputs(tmp_path / "map.tif", quicklook=tmp_path / "map.png", polygons=tmp_path / "map.geojson")
    scene = open_scene(str(tmp_path / f"a.{suffix}"))
    result = scene_to_map(scene, brighter_than(127), TWO, out, tiling=SMALL)
    assert not recwarn.list and any("no coordinate reference system" in note for note in result.notes)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(out.map) as raster:
        expected = scene.read((0, 0, 170, 150))[0][0] > 127
        assert np.array_equal(raster.read(1), expected)
    assert np.abs(scene.read((0, 0, 170, 150))[0].astype(int) - np.moveaxis(pixels, -1, 0)).max() <= 3


def test_what_is_no_scene_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.tif").write_text("x")
    Image.new("RGB", (9, 9)).save(tmp_path / "c.png")
    with pytest.raises(UsageError, match=r"no scene; expected a file ending in \.tif"):
        open_scene(str(tmp_path / "a.txt"))
    with pytest.raises(BadImage):
        open_scene(str(tmp_path / "b.tif"))
    with pytest.raises(BadImage, match="no such file"):
        open_scene(str(tmp_path / "d.tif"))
    with pytest.raises(UsageError, match="three colours"):
        open_scene(str(tmp_path / "c.png"), ("1",))


def test_a_scene_that_is_cut_short_ends_the_map_with_its_name(tmp_path):
    path = write_raster(tmp_path / "a.tif", numbered(1, 300, 300))
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(BadImage, match=r"a\.tif"):
        scene_to_map(open_scene(str(path)), brighter_than(9), TWO, Outputs(tmp_path / "map.tif"), tiling=SMALL)
