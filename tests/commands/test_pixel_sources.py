"""Images with masks by name: palettes, splits, and data that do not fit together."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from cmid.commands.pixel_sources import open_pixel_labelled, open_pixel_labelled_whole
from cmid.config import PixelLabelsConfig
from cmid.data.decode import BadImage
from cmid.errors import UsageError
from tests.data.masks_on_disk import COLOURS, PALETTE_CSV, coloured, draw, image_of, labels_of, write_tiles


@pytest.fixture
def palette(tmp_path):
    (tmp_path / "palette").mkdir()
    path = tmp_path / "palette" / "mine.csv"
    path.write_text(PALETTE_CSV)
    return str(path)


def test_colour_masks_by_a_palette(tmp_path, palette):
    written = write_tiles(tmp_path / "data")
    sides = open_pixel_labelled(str(tmp_path / "data"), PixelLabelsConfig(palette=palette, test_groups=("Tile 3",)), 0)
    assert sides.train.classes == tuple(COLOURS)
    assert sides.train.colours == tuple(COLOURS.values())
    assert {sides.train.group(i) for i in range(len(sides.train))} == {"Tile 1", "Tile 2"}
    assert [sides.test.name(i) for i in range(2)] == ["Tile 3/images/part_0.png", "Tile 3/images/part_1.png"]
    for side in (sides.train, sides.test):
        for i in range(len(side)):
            pixels, labels = side.read(i)
            assert np.array_equal(labels, written[side.name(i)])
            assert np.array_equal(pixels, image_of(labels, int(side.group(i)[-1])))
    assert sum(sides.account["pixels"].values()) == sum(labels.size for labels in written.values())
    assert sides.account["split"]["test"] == ["Tile 3/images/part_0.png", "Tile 3/images/part_1.png"]


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_index_masks_without_palette(tmp_path, mode):
    def encode(labels):
        return labels.astype(np.uint16) + 3 if mode == "I;16" else labels + np.uint8(3)

    written = write_tiles(tmp_path, encode=encode)
    if mode == "P":
        for mask in tmp_path.rglob("masks/*.png"):
            indexed = Image.fromarray(np.asarray(Image.open(mask)), "L").convert("P")
            indexed.putpalette([0, 0, 0] * 3 + [10, 20, 30, 40, 50, 60, 70, 80, 90])
            indexed.save(mask)
    source, notes = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig())
    assert source.classes == ("class 3", "class 4", "class 5")
    assert (source.colours[1] == (40, 50, 60)) == (mode == "P")
    assert any("no palette was given: 3 classes are taken from the masks" in note for note in notes)
    for i in range(len(source)):
        assert np.array_equal(source.read(i).labels, written[source.name(i)])


def test_a_palette_in_the_folder_is_taken(tmp_path):
    write_tiles(tmp_path)
    (tmp_path / "palette.csv").write_text(PALETTE_CSV)
    source, notes = open_pixel_labelled_whole(str(tmp_path), PixelLabelsConfig(unlabelled=("building",)))
    assert source.classes == ("road", "water")
    assert 255 in source.read(0).labels
    assert str(tmp_path / "palette.csv") in notes[0]


def test_colours_that_the_palette_lacks(tmp_path, palette):
    write_tiles(tmp_path / "data")
    labels = labels_of(5)
    mask = coloured(labels)
    mask[2, 3:5] = (1, 2, 3)
    draw(tmp_path / "data/Tile 1/masks/part_0.png", mask)
    config = PixelLabelsConfig(palette=palette)
    with pytest.raises(UsageError, match=r"colour #010203 \(1 2 3\) in 2 pixels of 1 mask, as in Tile 1/masks/part_0"):
        open_pixel_labelled(str(tmp_path / "data"), config, 0)
    config.unknown = "ignore"
    source, notes = open_pixel_labelled_whole(str(tmp_path / "data"), config)
    labels[2, 3:5] = 255
    assert np.array_equal(source.read(0).labels, labels)
    assert any("#010203" in note for note in notes)


def test_swapped_colours_are_unknown(tmp_path, palette):
    write_tiles(tmp_path / "data", encode=lambda labels: np.ascontiguousarray(coloured(labels)[..., ::-1]))
    with pytest.raises(UsageError, match="#98103C"):
        open_pixel_labelled(str(tmp_path / "data"), PixelLabelsConfig(palette=palette), 0)


def test_sizes_that_differ(tmp_path, palette):
    write_tiles(tmp_path / "data")
    draw(tmp_path / "data/Tile 2/masks/part_1.png", coloured(labels_of(1, 10, 16)))
    with pytest.raises(
        UsageError, match=r"1 masks.*Tile 2/images/part_1.png is 16 x 12, its mask .*part_1.png 16 x 10"
    ):
        open_pixel_labelled(str(tmp_path / "data"), PixelLabelsConfig(palette=palette), 0)


def marked(path, array, turn):
    """`array` as a picture that says it is turned."""
    exif = Image.Exif()
    exif[0x0112] = turn
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, exif=exif)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mask_is", ["as stored", "as shown", "marked alike"])
def test_an_image_lies_on_its_mask_whatever_its_exif_orientation(tmp_path, palette, turn, mask_is):
    labels = labels_of(turn)
    pixels = coloured(labels)  # each pixel shows which class it is of
    marked(tmp_path / "data/images/x.png", pixels, turn)
    with Image.open(tmp_path / "data/images/x.png") as image:
        shown = np.array(ImageOps.exif_transpose(image))
    if mask_is == "marked alike":
        marked(tmp_path / "data/masks/x.png", pixels, turn)
    else:
        draw(tmp_path / "data/masks/x.png", shown if mask_is == "as shown" else pixels)
    config = PixelLabelsConfig(palette=palette)
    if turn in (2, 3, 4) and mask_is != "marked alike":
        says = rf"images/x.png has EXIF orientation {turn}, its mask masks/x.png 1 \(1 is none\).*write the image anew"
        with pytest.raises(UsageError, match=says):
            open_pixel_labelled_whole(str(tmp_path / "data"), config)
        return
    source, _ = open_pixel_labelled_whole(str(tmp_path / "data"), config)
    found, read = source.read(0)
    assert np.array_equal(found, coloured(read)) and np.array_equal(source.image(0), found)
    assert np.array_equal(found, shown if mask_is == "as shown" else pixels)
    item = source.items[0]
    assert (item.height, item.width) == read.shape
    values, valid = source.sample(0)
    assert values.shape[1:] == valid.shape == read.shape


@pytest.mark.parametrize(
    ("size", "turn", "of_mask", "says"),
    [
        ((12, 12), 6, 1, "has EXIF orientation 6, its mask masks/x.png 1 "),
        ((12, 16), 1, 6, "has EXIF orientation 1, its mask masks/x.png 6 "),
        ((12, 16), 8, 6, "has EXIF orientation 8, its mask masks/x.png 6 "),
    ],
)
def test_orientations_that_no_size_tells_apart_are_refused(tmp_path, palette, size, turn, of_mask, says):
    labels = labels_of(0, *size)
    marked(tmp_path / "data/images/x.png", image_of(labels), turn)
    marked(tmp_path / "data/masks/x.png", coloured(labels), of_mask)
    with pytest.raises(UsageError, match=says):
        open_pixel_labelled(str(tmp_path / "data"), PixelLabelsConfig(palette=palette), 0)


def test_what_cannot_be_read_is_left_out_or_bad(tmp_path, palette):
    write_tiles(tmp_path / "data")
    (tmp_path / "data/Tile 1/masks/part_0.png").write_bytes(b"no picture")
    config = PixelLabelsConfig(palette=palette)
    source, notes = open_pixel_labelled_whole(str(tmp_path / "data"), config)
    assert len(source) == 5
    assert "1 pairs cannot be read" in notes[0]
    (tmp_path / "data/Tile 1/images/part_1.png").write_bytes(b"gone bad")
    with pytest.raises(BadImage, match="part_1"):
        source.read(0)


def test_train_and_val_folders_are_the_split(tmp_path, palette):
    for split in ("train", "val"):
        for i in range(3):
            labels = labels_of(i)
            draw(tmp_path / f"data/images/{split}/{i}.png", image_of(labels))
            draw(tmp_path / f"data/masks/{split}/{i}.png", coloured(labels))
    sides = open_pixel_labelled(str(tmp_path / "data"), PixelLabelsConfig(palette=palette), 0)
    assert [sides.test.name(i) for i in range(3)] == [f"images/val/{i}.png" for i in range(3)]
    assert len(sides.train) == 3


def test_lists_win(tmp_path, palette):
    write_tiles(tmp_path / "data")
    (tmp_path / "test.txt").write_text("# mine\nTile 1/images/part_1.jpg\n")
    config = PixelLabelsConfig(palette=palette, test_list=str(tmp_path / "test.txt"))
    sides = open_pixel_labelled(str(tmp_path / "data"), config, 0)
    assert (len(sides.train), len(sides.test)) == (5, 1)
    assert sides.test.name(0) == "Tile 1/images/part_1.png"
    (tmp_path / "train.txt").write_text("Tile 1/images/part_1.png\n")
    config.train_list = str(tmp_path / "train.txt")
    with pytest.raises(UsageError, match="1 images are in both"):
        open_pixel_labelled(str(tmp_path / "data"), config, 0)
    (tmp_path / "train.txt").write_text("Tile 9/images/part_1.png\n")
    with pytest.raises(UsageError, match=r"names files that are not in .*, or have no mask"):
        open_pixel_labelled(str(tmp_path / "data"), config, 0)


def test_a_seed_draws_whole_groups(tmp_path, palette):
    write_tiles(tmp_path / "data", tiles=5)
    config = PixelLabelsConfig(palette=palette)
    first, again, other = (open_pixel_labelled(str(tmp_path / "data"), config, seed) for seed in (0, 0, 3))
    groups = [{s.test.group(i) for i in range(len(s.test))} for s in (first, again, other)]
    assert groups[0] == groups[1]
    assert {len(each) for each in groups} == {1}
    train = {first.train.group(i) for i in range(len(first.train))}
    assert len(train) == 4
    assert not train & groups[0]
    with pytest.raises(UsageError, match=r"test_groups names 'tile 1'.*Did you mean Tile"):
        open_pixel_labelled(str(tmp_path / "data"), PixelLabelsConfig(palette=palette, test_groups=("tile 1",)), 0)


def test_jpeg_masks_do_not_become_classes(tmp_path):
    for i in range(3):
        labels = np.kron(labels_of(i), np.ones((8, 8), np.uint8))
        draw(tmp_path / f"images/{i}.png", image_of(labels))
        draw(tmp_path / f"masks/{i}.jpg", coloured(labels))
    with pytest.raises(UsageError, match="3 of the masks are JPEGs"):
        open_pixel_labelled(str(tmp_path), PixelLabelsConfig(), 0)


def test_dubai(real_images, tmp_path):
    colours = "building,60 16 152,\nland,132 41 246,\nroad,110 193 228,\nvegetation,254 221 58,\nwater,226 169 41,\n"
    ignored = "unlabelled,155 155 155,true\nstray,0 0 0,true\n"
    (tmp_path / "dubai.csv").write_text(f"name,colour,ignore\n{colours}{ignored}")
    (tmp_path / "test.txt").write_text("images/image_part_002.jpg\n")
    config = PixelLabelsConfig(palette=str(tmp_path / "dubai.csv"), test_list=str(tmp_path / "test.txt"))
    sides = open_pixel_labelled(str(real_images / "Dubai_MBRSC" / "Tile 2"), config, 0)
    assert sides.test.classes == ("building", "land", "road", "vegetation", "water")
    pixels, labels = sides.test.read(0)
    assert pixels.shape[:2] == labels.shape
    assert set(np.unique(labels)) <= {0, 1, 2, 3, 4, 255}


def test_numbers_and_a_palette_of_colours_alone(tmp_path, palette):
    written = write_tiles(tmp_path / "data", encode=lambda labels: labels)
    source, notes = open_pixel_labelled_whole(str(tmp_path / "data"), PixelLabelsConfig(palette=palette))
    assert any("0 road, 1 building, 2 water" in note for note in notes)
    assert np.array_equal(source.read(0).labels, written[source.name(0)])


def test_palettes_of_the_masks_own_are_read_by_their_colours(tmp_path, palette):
    written = write_tiles(tmp_path / "data", encode=lambda labels: labels)
    order = [2, 0, 1]  # the masks' own numbers are not the palette's order
    for name, labels in written.items():
        mask = Image.fromarray(np.argsort(order)[labels].astype(np.uint8), "L").convert("P")
        mask.putpalette([part for i in order for part in tuple(COLOURS.values())[i]])
        mask.save(tmp_path / "data" / name.replace("images", "masks"))
    source, _ = open_pixel_labelled_whole(str(tmp_path / "data"), PixelLabelsConfig(palette=palette))
    for i in range(len(source)):
        assert np.array_equal(source.read(i).labels, written[source.name(i)])
