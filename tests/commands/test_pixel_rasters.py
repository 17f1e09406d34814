"""GeoTIFFs with label rasters, read by window."""

import numpy as np
import pytest
import rasterio

from cmid.commands.pixel_scale import bring_to_scale, read_by_name
from cmid.commands.pixel_sources import open_pixel_labelled, open_pixel_labelled_whole
from cmid.config import PixelLabelsConfig
from cmid.data.decode import BadImage
from cmid.data.statistics import Stretch
from cmid.errors import UsageError
from cmid.predict.raster_output import Classes, describe_map, write_category_names
from cmid.zoo.backbone_files import BackboneMetadata
from tests.data.rasters_on_disk import numbered, write_raster

SIZE = (150, 230)


def labels_of(seed, height=SIZE[0], width=SIZE[1]):
    return np.random.default_rng(seed).integers(4, size=(1, height, width)).astype(np.uint8)


def write_pairs(root, scenes=("a", "b", "c"), bands=4, dtype=np.uint16, **label_options):
    written = {}
    for seed, name in enumerate(scenes):
        image, labels = numbered(bands, *SIZE, dtype) + seed, labels_of(seed)
        write_raster(root / f"images/{name}.tif", image.astype(dtype))
        write_raster(root / f"labels/{name}.tif", labels, **label_options)
        written[name] = image.astype(dtype), labels
    return written


def test_windows_tile_every_scene(tmp_path):
    written = write_pairs(tmp_path)
    source, _ = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig(tile_px=64))
    assert (source.bands, source.stored_dtype, len(source)) == (4, "uint16", 3 * 3 * 4)
    seen = {name: np.zeros(SIZE, int) for name in written}
    for i in range(len(source)):
        pixels, labels = source.read(i)
        name, (x, y) = source.group(i).rpartition("/")[2], source.place(i)
        height, width = labels.shape
        assert max(height, width) <= 64
        assert pixels.dtype == np.float32
        image, truth = written[name]
        assert np.array_equal(pixels, np.moveaxis(image[:, y : y + height, x : x + width], 0, -1))
        assert np.array_equal(labels, truth[0, y : y + height, x : x + width])
        seen[name][y : y + height, x : x + width] += 1
    assert all((each == 1).all() for each in seen.values())


def test_deep_values_are_stretched_by_the_callers_numbers(tmp_path):
    write_pairs(tmp_path, bands=2)
    sides = open_pixel_labelled(str(tmp_path), PixelLabelsConfig(bands=("2",)), 0)
    values, valid = sides.train.sample(0)
    assert valid.all()
    assert values.dtype == np.uint16
    raw = sides.train.read(0).pixels
    sides.train.stretch = Stretch((10.0,), (30.0,), (0.5,))
    assert np.allclose(sides.train.read(0).pixels, (raw - 10) / 20)


def write_named(root, *orders):
    """A scene for each order of the bands 1 to 4, which are of the same values wherever they lie."""
    image = numbered(4, *SIZE)
    for i, order in enumerate(orders):
        write_raster(root / f"images/{i}.tif", image[[b - 1 for b in order]], names=[f"Band{b}" for b in order])
        write_raster(root / f"labels/{i}.tif", labels_of(i))
    return np.moveaxis(image, 0, -1)


def test_bands_of_one_name_are_one_band_in_whatever_order(tmp_path):
    image = write_named(tmp_path, (1, 2, 3, 4), (4, 3, 2, 1))
    source, notes = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig())
    assert all(np.array_equal(source.read(i).pixels, image) for i in range(2)) and not notes[1:]
    chosen, notes = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig(bands=("1", "2", "3", "4")))
    assert np.array_equal(chosen.read(1).pixels, image[..., ::-1])
    assert any("1 of 2 scenes call their bands otherwise" in note and "--labels.bands" in note for note in notes)


def test_bands_are_read_by_the_names_that_a_model_knows(tmp_path):
    image = write_named(tmp_path, (1, 2, 3, 4), (4, 3, 2, 1))
    source, _ = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig())
    one, two = source.take([0]), source.take([1])
    assert not read_by_name((one, two), ("band3", "band5")) and not read_by_name((one, two), ())
    assert one.names == source.names
    assert read_by_name((one, two), ("band3", "BAND1"))
    assert (one.bands, two.names) == (2, ("band3", "BAND1"))
    for side in (one, two):
        assert np.array_equal(side.read(0).pixels, image[..., [2, 0]])
    assert source.bands == 4 and np.array_equal(source.read(1).pixels, image), "others are left alone"
    write_pairs(tmp_path / "unnamed")
    unnamed, _ = open_pixel_labelled_whole(str(tmp_path / "unnamed"), PixelLabelsConfig())
    assert not read_by_name((unnamed,), ("band3", "band1"))


def test_nodata_has_no_label(tmp_path):
    image, labels = numbered(3, *SIZE, np.uint8) % 100 + 1, labels_of(0)
    image[:, 5:9, 7:20] = 0
    write_raster(tmp_path / "images/a.tif", image, nodata=0, photometric="RGB")
    truth = labels[0].copy()
    labels[0, 40:, 50:] = truth[40:, 50:] = 99
    write_raster(tmp_path / "labels/a.tif", labels, nodata=99)
    truth[40:, 50:] = truth[5:9, 7:20] = 255
    source, _ = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig())
    pixels, found = source.read(0)
    assert np.array_equal(found, truth)
    assert pixels.dtype == np.uint8
    about = BackboneMetadata("resnet18", 3, mean=(0.2, 0.4, 0.6), std=(0.1,) * 3)
    bring_to_scale((source,), about, str(tmp_path))
    assert np.array_equal(source.read(0).pixels[5:9, 7:20], np.full((4, 13, 3), (51, 102, 153))), "the mean, as in maps"
    assert source.classes == ("class 0", "class 1", "class 2", "class 3")


def test_windows_are_of_their_folders_group_where_folders_are_groups(tmp_path):
    for tile in ("Tile 1", "Tile 2"):
        write_pairs(tmp_path / tile, scenes=("a", "b"))
    source, _ = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig(tile_px=120))
    assert {source.group(i) for i in range(len(source))} == {"Tile 1", "Tile 2"}


def test_windows_without_a_label_are_left_out(tmp_path):
    labels = labels_of(0)
    labels[0, :, :115] = 255
    write_raster(tmp_path / "images/a.tif", numbered(1, *SIZE))
    write_raster(tmp_path / "labels/a.tif", labels)
    source, notes = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig(tile_px=120))
    assert [source.place(i) for i in range(len(source))] == [(115, 0), (115, 75)]
    assert any("2 windows of rasters have no labelled pixel" in note for note in notes)


def test_our_own_maps_tell_names_and_colours(tmp_path):
    write_pairs(tmp_path, scenes=("a",), nodata=255)
    classes = Classes(("roof", "road", "tree", "water", "sand"), tuple((10 * i, i, 3) for i in range(5)))
    with rasterio.open(tmp_path / "labels/a.tif", "r+") as raster:
        describe_map(raster, classes)
    source, _ = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig())
    assert (source.classes, source.colours) == (classes.names, classes.colours)


def test_category_names_beside_a_raster(tmp_path):
    write_pairs(tmp_path, scenes=("a",))
    write_category_names(tmp_path / "labels/a.tif.aux.xml", Classes(("roof & wall", "road", "tree", "water")))
    source, _ = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig())
    assert source.classes == ("roof & wall", "road", "tree", "water")


def test_scenes_are_split_whole(tmp_path):
    write_pairs(tmp_path)
    sides = open_pixel_labelled(str(tmp_path), PixelLabelsConfig(tile_px=64, test_groups=("images/b",)), 0)
    assert {sides.test.group(i) for i in range(len(sides.test))} == {"images/b"}
    assert (len(sides.train), len(sides.test)) == (24, 12)


def test_another_place_or_size_is_refused(tmp_path):
    write_pairs(tmp_path)
    write_raster(tmp_path / "labels/b.tif", labels_of(1), pixel=20.0)
    with pytest.raises(UsageError, match=r"images/b.tif lies at .* pixels of 10 x -10 .*labels/b.tif .* 20 x -20"):
        open_pixel_labelled(str(tmp_path), PixelLabelsConfig(), 0)
    write_raster(tmp_path / "labels/b.tif", labels_of(1), crs="EPSG:32633")
    with pytest.raises(UsageError, match=r"EPSG:32632.*EPSG:32633"):
        open_pixel_labelled(str(tmp_path), PixelLabelsConfig(), 0)
    write_raster(tmp_path / "labels/b.tif", labels_of(1, 150, 229))
    with pytest.raises(UsageError, match=r"images/b.tif is 230 x 150, its mask labels/b.tif 229 x 150"):
        open_pixel_labelled(str(tmp_path), PixelLabelsConfig(), 0)


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        (numbered(4, *SIZE, np.uint8), "of several number types .2 uint16, 1 uint8"),
        (numbered(3, *SIZE, np.uint16), "differ in their number of bands .2 with 4, 1 with 3.*--labels.bands"),
    ],
)
def test_images_of_other_kinds_are_refused(tmp_path, odd, says):
    write_pairs(tmp_path)
    write_raster(tmp_path / "images/c.tif", odd)
    with pytest.raises(UsageError, match=says):
        open_pixel_labelled(str(tmp_path), PixelLabelsConfig(), 0)


def test_pictures_beside_deep_rasters_are_refused(tmp_path):
    from tests.data.masks_on_disk import draw, image_of

    write_pairs(tmp_path)
    labels = labels_of(3)[0]
    draw(tmp_path / "images/d.png", image_of(labels))
    draw(tmp_path / "labels/d.png", labels)
    with pytest.raises(UsageError, match=r"1 images .* are pictures .* 3 are rasters of 4 bands of uint16"):
        open_pixel_labelled(str(tmp_path), PixelLabelsConfig(), 0)


def test_png_masks_of_rasters_are_cut_as_the_raster_is(tmp_path):
    from tests.data.masks_on_disk import draw

    labels = labels_of(0)[0]
    write_raster(tmp_path / "images/a.tif", numbered(4, *SIZE))
    draw(tmp_path / "labels/a.png", labels)
    source, _ = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig(tile_px=120))
    assert len(source) == 4
    for i in range(4):
        x, y = source.place(i)
        found = source.read(i).labels
        assert np.array_equal(found, labels[y : y + found.shape[0], x : x + found.shape[1]])


def test_labels_that_are_no_whole_numbers(tmp_path):
    write_pairs(tmp_path)
    write_raster(tmp_path / "labels/b.tif", labels_of(1).astype(np.float32) + 0.5)
    source, notes = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig())
    assert len(source) == 2
    assert "labels are from 0.5 to 3.5, not whole" in notes[0]


def test_a_damaged_block_is_a_bad_image(tmp_path):
    write_pairs(tmp_path)
    source, _ = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig())
    path = tmp_path / "images/b.tif"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(BadImage, match=r"b\.tif"):
        source.read(1)


def test_a_colour_table_and_a_palette_of_colours_alone(tmp_path):
    write_pairs(tmp_path, scenes=("a",), nodata=255)
    with rasterio.open(tmp_path / "labels/a.tif", "r+") as raster:
        describe_map(raster, Classes(("a", "b", "c", "d")))
    (tmp_path / "palette.csv").write_text("name,colour\na,1 2 3\nb,4 5 6\nc,7 8 9\nd,1 1 1\n")
    with pytest.raises(
        UsageError, match=r"hold numbers with a colour table, as labels/a.tif, .*give each class its value"
    ):
        open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig())
