"""Files of every kind as scenes, read as the rooms of data read them, and mapped."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

import cmid
from cmid.commands.scene_files import open_scene
from cmid.data.decode import BadImage, decode
from cmid.data.statistics import Stretch
from cmid.errors import UsageError
from cmid.predict.raster_output import Classes
from cmid.predict.scene_to_map import Outputs, scene_to_map
from cmid.predict.windows import Tiling
from cmid.zoo.segmenter_files import load_segmenter
from tests.commands.small_segmenters import near_sighted
from tests.commands.test_finetune_segmentation import draw, run
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


def test_nodata_that_a_file_does_not_declare_can_be_told(tmp_path):
    values = numbered(2, 60, 60) + 1
    values[0, :20] = values[1, 50:] = 0
    plain = open_scene(str(write_raster(tmp_path / "a.tif", values)), nodata=0)
    found, valid = plain.read((0, 0, 60, 60))
    assert np.array_equal(found, values) and np.array_equal(valid, (values > 0).all(0))
    own = values[0, 30, 30]
    declaring = open_scene(str(write_raster(tmp_path / "b.tif", values, nodata=own)), nodata=0)
    assert np.array_equal(declaring.read((0, 0, 60, 60))[1], (values != own).all(0)), "the file's own holds"
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"is an image, which has no nodata value but transparency: --nodata is for"):
        open_scene(str(tmp_path / "a.png"), nodata=0)


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


def pictures(folder):
    """The same colours with alpha, as a palette with transparency, and their grey in 1 and 2 bytes, as PNGs."""
    pixels = np.random.default_rng(1).integers(0, 255, (70, 90, 3), np.uint8) // 64 * 80
    pixels[:20, :30] = 7
    alpha = np.full((70, 90), 255, np.uint8)
    alpha[:20, :30], alpha[20:40] = 0, 1
    rgb, grey = Image.fromarray(pixels), Image.fromarray(pixels).convert("L")
    palette = rgb.quantize(colors=256, dither=Image.Dither.NONE)
    made = {
        "rgb": (rgb, {}), "rgba": (Image.merge("RGBA", (*rgb.split(), Image.fromarray(alpha))), {}),
        "palette": (palette, {"transparency": palette.getpixel((0, 0))}), "grey": (grey, {}),
        "grey_alpha": (Image.merge("LA", (grey, Image.fromarray(alpha))), {}), "bilevel": (grey.convert("1"), {}),
        "deep": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 100), {}),
    }  # fmt: skip
    for name, (image, more) in made.items():
        image.save(folder / f"{name}.png", **more)
    return np.moveaxis(pixels, -1, 0), np.asarray(grey), alpha > 0


def test_a_picture_has_its_own_bands_and_what_is_transparent_is_not_valid(tmp_path):
    rgb, grey, opaque = pictures(tmp_path)
    everywhere = np.ones_like(opaque)
    bilevel = np.asarray(Image.open(tmp_path / "bilevel.png")).astype(np.uint8) * 255
    for name, values, valid in (
        ("rgb", rgb, everywhere), ("rgba", rgb, opaque), ("palette", rgb, opaque), ("grey", grey[None], everywhere),
        ("grey_alpha", grey[None], opaque), ("bilevel", bilevel[None], everywhere),
    ):  # fmt: skip
        scene = open_scene(str(tmp_path / f"{name}.png"))
        assert (scene.bands, scene.dtype, scene.colours) == (len(values), "uint8", tuple(range(len(values)))), name
        found = scene.read((10, 5, 80, 60))
        assert np.array_equal(found[0], values[:, 5:60, 10:80]) and np.array_equal(found[1], valid[5:60, 10:80]), name
    with pytest.raises(UsageError, match=r"deep\.png is an image of more than 8 bits a band, .* expected 8 bits"):
        open_scene(str(tmp_path / "deep.png"))
    for name, kind in (("grey", "grey"), ("grey_alpha", "grey"), ("deep", "deep grey")):
        path = str(tmp_path / f"{name}.png")
        values = open_scene(path, pictures=("colours", kind)).read((0, 0, 90, 70))[0]
        assert np.array_equal(values, np.moveaxis(decode(path).pixels, -1, 0)), "as training reads it"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_pictures_unlike_those_of_training_are_refused_and_transparency_is_nodata(tmp_path, capsys):
    path = near_sighted(tmp_path / "model.safetensors")
    (tmp_path / "scenes").mkdir()
    opaque = pictures(tmp_path / "scenes")[2]
    result = cmid.predict("segmentation", path, tmp_path / "scenes", out=tmp_path / "maps")
    assert [each.map.stem for each in result.maps] == ["palette", "rgb", "rgba"]
    reasons = {Path(name).stem: reason for name, reason in result.skipped.items()}
    assert set(reasons) == {"grey", "grey_alpha", "bilevel", "deep"} and "more than 8 bits" in reasons["deep"]
    assert "gives 1 band, and the model was trained on 3 (red, green, blue)" in reasons["grey"]
    for name in ("palette", "rgba"):
        with rasterio.open(tmp_path / "maps" / f"{name}.tif") as raster:
            assert np.array_equal(raster.read(1) != 255, opaque), name


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_segmenter_of_grey_pictures_maps_grey_pictures(tmp_path):
    data = draw(tmp_path / "data")
    for i, path in enumerate(sorted(data.rglob("images/*.png"))):
        grey = Image.open(path).convert("L")
        (Image.fromarray(np.asarray(grey).astype(np.uint16) * 100) if i % 2 else grey).save(path)
    assert run(data, tmp_path / "run", "--epochs", 1) == 0
    assert load_segmenter(tmp_path / "run" / "model.safetensors")[1].pictures == ("deep grey", "grey")
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for i, path in enumerate(sorted(data.rglob("images/*.png"))[:2]):
        path.rename(scenes / f"{i}.png")
        Image.fromarray(decode(scenes / f"{i}.png").pixels).save(scenes / f"{i}_rgb.png")
    result = cmid.predict("segmentation", tmp_path / "run", scenes, out=tmp_path / "maps")
    assert not result.skipped and len(result.maps) == 4
    for i in range(2):
        maps = [(tmp_path / "maps" / f"{i}{end}.tif") for end in ("", "_rgb")]
        assert np.array_equal(*(rasterio.open(each).read(1) for each in maps))


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
    with pytest.raises(UsageError, match="whose bands are its colours"):
        open_scene(str(tmp_path / "c.png"), ("1",))


def test_a_scene_that_is_cut_short_ends_the_map_with_its_name(tmp_path):
    path = write_raster(tmp_path / "a.tif", numbered(1, 300, 300))
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(BadImage, match=r"a\.tif"):
        scene_to_map(open_scene(str(path)), brighter_than(9), TWO, Outputs(tmp_path / "map.tif"), tiling=SMALL)
