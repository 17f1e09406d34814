import json
import os

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from cmid.errors import CmidError, UsageError
from cmid.predict.raster_output import Classes
from cmid.predict.scene import Trained
from cmid.predict.scene_to_map import Outputs, scene_to_map
from cmid.predict.windows import Layout, Tiling
from tests.predict.small_scenes import CRS, TRANSFORM, Exact, FileScene, Looking, patchy, whole, write_scene

FOUR = Classes(("water", "road & rail", "Bäume", "roof"))
SMALL = Tiling(window=64, overlap=32, margin=8, batch=4)


def read(path):
    with rasterio.open(path) as raster:
        return raster.read()


@pytest.mark.parametrize("blend", ["hann", "linear"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (200, 150), (65, 301), (129, 63), (20, 30)])
def test_the_map_is_that_of_the_whole_scene_at_once(tmp_path, height, width, blend):
    scene = write_scene(tmp_path / "a.tif", patchy(3, height, width))
    model = Looking(3, 4, radius=3)
    tiling = Tiling(window=64, overlap=32, margin=8, batch=4, blend=blend)
    out = Outputs(tmp_path / "map.tif", probabilities=tmp_path / "p.tif")
    result = scene_to_map(scene, model, FOUR, out, tiling=tiling)
    expected = whole(model, scene)
    if min(height, width) < 64:  # there a small scene is mirrored, and the model pads its edges otherwise
        inner = np.s_[:, : -3 if height < 64 else None, : -3 if width < 64 else None]
    else:
        inner = np.s_[:, :, :]
    assert np.array_equal(read(out.map)[inner][0], expected.argmax(0).numpy()[inner[1:]])
    levels = (expected * 254).numpy()
    assert np.abs(read(out.probabilities).astype(float) - levels)[inner].max() <= 0.5 + 1e-3
    assert sum(result.pixels.values()) == height * width and result.nodata == 0


@pytest.mark.parametrize(("scores_bytes", "panels"), [(1 << 28, 1), (1 << 20, 3)])
def test_exact_scores_give_exactly_the_whole_scenes_map(tmp_path, scores_bytes, panels):
    scene = write_scene(tmp_path / "a.tif", patchy(2, 700, 1300))
    tiling = Tiling(window=128, overlap=48, margin=8, batch=4, blend="linear")
    assert len({block.x0 for block in Layout(1300, 700, 4, tiling, scores_bytes).blocks}) == panels
    out = Outputs(tmp_path / "map.tif", quicklook=tmp_path / "q.png")
    scene_to_map(scene, Exact(4), FOUR, out, tiling=tiling, scores_bytes=scores_bytes)
    assert np.array_equal(read(out.map)[0], whole(Exact(4), scene).argmax(0).numpy())


@pytest.mark.parametrize("bands", range(1, 14))
def test_any_number_of_bands_of_16_bits(tmp_path, bands):
    values = patchy(bands, 90, 130, np.uint16, top=9000)
    scene = write_scene(tmp_path / "a.tif", values)
    out = Outputs(tmp_path / "map.tif", quicklook=tmp_path / "map.png")
    scene_to_map(scene, Exact(3), Classes(("a", "b", "c")), out, tiling=SMALL, trained=Trained(bands, ("uint16",)))
    assert np.array_equal(read(out.map)[0], whole(Exact(3), scene).argmax(0).numpy())


@pytest.mark.parametrize("dtype", ["int16", "uint32", "int32", "float32", "float64"])
def test_any_number_type(tmp_path, dtype):
    scene = write_scene(tmp_path / "a.tif", patchy(2, 90, 130, dtype))
    out = Outputs(tmp_path / "map.tif")
    scene_to_map(scene, Exact(3), Classes(("a", "b", "c")), out, tiling=SMALL)
    assert np.array_equal(read(out.map)[0], whole(Exact(3), scene).argmax(0).numpy())


@pytest.mark.parametrize(
    ("trained", "said"),
    [(Trained(4), "gives 3 bands, and the model was trained on 4"), (Trained(3, ("uint16",)), "holds uint8 values")],
)
def test_what_the_model_was_not_trained_on_is_refused(tmp_path, trained, said):
    scene = write_scene(tmp_path / "a.tif", patchy(3, 70, 70))
    with pytest.raises(UsageError, match=said):
        scene_to_map(scene, Exact(4), FOUR, Outputs(tmp_path / "map.tif"), trained=trained)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif"]


def test_nodata_comes_out_as_nodata_and_its_windows_are_not_computed(tmp_path):
    values = patchy(2, 400, 400)
    values[:, 130:, 100:] = 0
    scene = write_scene(tmp_path / "a.tif", values, nodata=0)
    given = []

    def model(images):
        given.append(len(images))
        return Exact(4)(images)

    out = Outputs(tmp_path / "map.tif", probabilities=tmp_path / "p.tif")
    result = scene_to_map(scene, model, FOUR, out, tiling=SMALL)
    found, expected = read(out.map)[0], whole(Exact(4), scene).argmax(0).numpy()
    expected[130:, 100:] = 255
    assert np.array_equal(found, expected)
    assert (read(out.probabilities)[:, 130:, 100:] == 255).all() and (read(out.probabilities)[:, :130] < 255).all()
    assert result.nodata == 270 * 300 and result.computed == sum(given) < 0.6 * result.windows
    with rasterio.open(out.map) as raster:
        assert raster.nodata == 255 and np.array_equal(raster.read_masks(1) == 0, expected == 255)


def test_a_scene_of_nodata_alone_is_never_computed(tmp_path):
    scene = write_scene(tmp_path / "a.tif", np.zeros((1, 100, 100), np.uint8), nodata=0)
    out = Outputs(tmp_path / "map.tif", polygons=tmp_path / "p.gpkg", quicklook=tmp_path / "q.png")
    result = scene_to_map(scene, None, FOUR, out, tiling=SMALL)
    assert (read(out.map) == 255).all() and result.computed == 0 and result.polygons == 0


def test_nan_is_kept_from_the_model(tmp_path):
    values = patchy(1, 100, 100, "float32")
    values[0, 40:60, 40:60] = np.nan
    scene = write_scene(tmp_path / "a.tif", values, nodata=np.nan)
    seen = []

    def model(images):
        seen.append((bool(torch.isfinite(images).all()), float((images == 17).sum())))
        return Exact(4)(images)

    scene_to_map(scene, model, FOUR, Outputs(tmp_path / "map.tif"), tiling=SMALL, fill=(17.0,))
    assert all(finite for finite, _ in seen) and any(filled for _, filled in seen)


def test_the_map_is_a_cog_with_names_colours_and_overviews(tmp_path):
    scene = write_scene(tmp_path / "a.tif", patchy(3, 1100, 1300))
    out = Outputs(tmp_path / "map.tif", probabilities=tmp_path / "p.tif")
    scene_to_map(scene, Exact(4), FOUR, out, tiling=Tiling(window=512))
    for path, bands in ((out.map, 1), (out.probabilities, 4)):
        with rasterio.open(path) as raster:
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert raster.block_shapes == [(512, 512)] * bands
            assert raster.overviews(1) == [2, 4]
            assert raster.crs == rasterio.CRS.from_string(CRS) and raster.transform == TRANSFORM
            assert raster.nodata == 255 and raster.dtypes == ("uint8",) * bands
            assert json.loads(raster.tags()["CLASSES"]) == list(FOUR.names)
    with rasterio.open(out.map) as raster:
        colours = raster.colormap(1)
        assert [colours[i][:3] for i in range(4)] == list(FOUR.table)
        assert raster.tags(1)["CLASS_1"] == "road & rail"
        assert set(np.unique(raster.read(1, out_shape=(550, 650)))) <= {0, 1, 2, 3}  # from an overview: no mean
    with rasterio.open(out.probabilities) as raster:
        assert raster.scales == pytest.approx((1 / 254,) * 4) and raster.descriptions == FOUR.names
        assert "254" in raster.tags()["SCALE"]


def test_gdal_finds_the_names_of_the_classes(tmp_path):
    import rasterio.shutil

    scene = write_scene(tmp_path / "a.tif", patchy(1, 70, 70))
    scene_to_map(scene, Exact(4), FOUR, Outputs(tmp_path / "map.tif"), tiling=SMALL)
    rasterio.shutil.copy(str(tmp_path / "map.tif"), str(tmp_path / "map.vrt"), driver="VRT")  # GDAL's own reading
    said = (tmp_path / "map.vrt").read_text(encoding="utf-8")
    assert all(f"<Category>{name}</Category>" in said for name in ("water", "road &amp; rail", "Bäume", "roof"))


def test_turns_average_over_the_square(tmp_path):
    scene = write_scene(tmp_path / "a.tif", patchy(2, 64, 64))
    model = Looking(2, 4)
    image = torch.from_numpy(scene.read((0, 0, 64, 64))[0].astype(np.float32))[None]
    ways = {"flips": [(k, m) for k in (0, 2) for m in (0, 1)], "d4": [(k, m) for k in range(4) for m in (0, 1)]}
    for turns, each in ways.items():
        expected = torch.zeros(4, 64, 64)
        for k, mirrored in each:  # with numpy, and the inverse in the other order
            turned = np.rot90(image.numpy(), k, (3, 2))
            turned = turned[..., ::-1, :] if mirrored else turned
            said = model(torch.from_numpy(turned.copy()))[0].numpy()
            said = said[..., ::-1, :] if mirrored else said
            expected += torch.from_numpy(np.rot90(said, -k, (2, 1)).copy())
        out = Outputs(tmp_path / f"{turns}.tif", probabilities=tmp_path / f"{turns}_p.tif")
        scene_to_map(scene, model, FOUR, out, tiling=Tiling(window=64, overlap=32, margin=8, turns=turns))
        levels = 254 * expected.numpy() / len(each)
        assert np.abs(read(out.probabilities) - levels).max() <= 0.5 + 1e-3
    assert not np.array_equal(read(tmp_path / "flips_p.tif"), read(tmp_path / "d4_p.tif"))


def test_progress_counts_all_windows(tmp_path):
    scene = write_scene(tmp_path / "a.tif", patchy(1, 200, 200))
    told = []
    result = scene_to_map(
        scene, Exact(4), FOUR, Outputs(tmp_path / "map.tif"), tiling=SMALL, tick=lambda *each: told.append(each)
    )
    assert told[-1] == (result.windows, result.windows) and [t[0] for t in told] == sorted({t[0] for t in told})


def test_the_quick_look_shows_scene_map_and_legend(tmp_path):
    scene = write_scene(tmp_path / "a.tif", patchy(3, 300, 4000))
    out = Outputs(tmp_path / "map.tif", quicklook=tmp_path / "map.png")
    scene_to_map(scene, Exact(4), FOUR, out, tiling=Tiling(window=128))
    with Image.open(out.quicklook) as picture:
        pixels = np.asarray(picture)
    assert max(pixels.shape) <= 1600
    step = -(-4000 // 760)
    across, down = -(-4000 // step), -(-300 // step)
    values, _ = scene.read((0, 0, 4000, 300))
    assert np.array_equal(pixels[16 : 16 + down, 16 : 16 + across], np.moveaxis(values, 0, -1)[::step, ::step])
    table = np.array(FOUR.table)
    assert np.array_equal(
        pixels[16 : 16 + down, 32 + across : 32 + 2 * across], table[read(out.map)[0]][::step, ::step]
    )
    legend = pixels[16 + down :].reshape(-1, 3)
    assert all((legend == colour).all(1).any() for colour in FOUR.table)


@pytest.mark.parametrize("which", ["map", "probabilities", "polygons", "quicklook"])
def test_what_exists_is_not_overwritten_unless_asked(tmp_path, which):
    scene = write_scene(tmp_path / "a.tif", patchy(3, 70, 70))
    names = {"map": "m.tif", "probabilities": "p.tif", "polygons": "g.gpkg", "quicklook": "q.png"}
    paths = {kind: tmp_path / name for kind, name in names.items()}
    paths[which].write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        scene_to_map(scene, Exact(4), FOUR, Outputs(**paths), tiling=SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.tif", names[which]])
    assert paths[which].read_text() == "mine"
    scene_to_map(scene, Exact(4), FOUR, Outputs(**paths, overwrite=True), tiling=SMALL)
    assert paths[which].read_bytes() != b"mine"
    assert {p.name for p in tmp_path.iterdir()} == {"a.tif", "m.tif.aux.xml", *names.values()}


@pytest.mark.parametrize("which", ["map", "probabilities", "polygons", "quicklook"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path, which):
    scene = write_scene(tmp_path / "a.tif", patchy(1, 70, 70))
    (tmp_path / "file").write_text("")
    names = {"map": "m.tif", "probabilities": "p.tif", "polygons": "g.gpkg", "quicklook": "q.png"}
    paths = {"map": tmp_path / "m.tif", which: tmp_path / "file" / "deeper" / names[which]}
    with pytest.raises(UsageError, match=r"cannot be written .*choose another place"):
        scene_to_map(scene, None, FOUR, Outputs(**paths), tiling=SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "file"]


def test_a_folder_that_is_closed_is_told_before_the_work(tmp_path):
    scene = write_scene(tmp_path / "a.tif", patchy(1, 70, 70))
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(UsageError, match=r"closed is no folder to write in"):
        scene_to_map(scene, None, FOUR, Outputs(closed / "map.tif"), tiling=SMALL)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ({"map": "m.png"}, "ending in .tif"),
        ({"map": "m.tif", "quicklook": "m.jpg"}, "ending in .png"),
        ({"map": "m.tif", "polygons": "m.shp"}, "ending in .gpkg"),
        ({"map": "m.tif", "probabilities": "m.tif"}, "same name"),
    ],
)
def test_outputs_of_other_kinds_are_refused(tmp_path, paths, said):
    scene = write_scene(tmp_path / "a.tif", patchy(1, 70, 70))
    with pytest.raises(UsageError, match=said):
        scene_to_map(scene, None, FOUR, Outputs(**{k: tmp_path / v for k, v in paths.items()}), tiling=SMALL)


def test_outputs_of_one_name_in_several_folders_are_not_mixed_up(tmp_path):
    scene = write_scene(tmp_path / "a.tif", patchy(1, 70, 70))
    out = Outputs(tmp_path / "classes" / "a.tif", probabilities=tmp_path / "shares" / "a.tif")
    scene_to_map(scene, Exact(4), FOUR, out, tiling=SMALL)
    assert read(out.map).shape == (1, 70, 70) and read(out.probabilities).shape == (4, 70, 70)


def test_scores_of_another_shape_or_that_are_no_numbers_are_told(tmp_path):
    scene = write_scene(tmp_path / "a.tif", patchy(1, 70, 70))
    for model, said in ((Exact(3), r"4 classes; expected \(4, 4, 64, 64\)"), (lambda x: Exact(4)(x) / 0, "not finite")):
        with pytest.raises(CmidError, match=said):
            scene_to_map(scene, model, FOUR, Outputs(tmp_path / "map.tif"), tiling=SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_a_damaged_scene_ends_the_map_with_its_error(tmp_path):
    write_scene(tmp_path / "a.tif", patchy(1, 300, 300))
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-4000])
    with pytest.raises(rasterio.errors.RasterioError):
        scene_to_map(FileScene(tmp_path / "a.tif"), Exact(4), FOUR, Outputs(tmp_path / "map.tif"), tiling=SMALL)


def test_gdals_options_of_the_caller_stay(tmp_path):
    from rasterio._env import get_gdal_config

    scene = write_scene(tmp_path / "a.tif", patchy(1, 70, 70))
    before = get_gdal_config("GDAL_CACHEMAX")
    scene_to_map(scene, Exact(4), FOUR, Outputs(tmp_path / "map.tif"), tiling=SMALL)
    assert get_gdal_config("GDAL_CACHEMAX") == before
