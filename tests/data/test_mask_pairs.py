"""Which image belongs to which mask."""

import pytest

from cmid.data.mask_pairs import find_pairs
from cmid.errors import UsageError


def pairs_of(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return find_pairs(root)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/x.jpg", "masks/x.png"),
        ("Tile 1/images/x.jpg", "Tile 1/masks/x.png"),
        ("img_dir/train/x.jpg", "ann_dir/train/x.png"),
        ("train/image/x.tif", "train/label/x_label.tif"),
        ("Train/Urban/images_png/x.png", "Train/Urban/masks_png/x.png"),
        ("a/b/IMG/c/x_sat.jpg", "a/b/gt/c/x_gt.bmp"),
        ("train/x_sat.jpg", "train/x_mask.png"),
        ("x.jpg", "x-labels.png"),
        ("images/x_mask.png", "masks/x_mask.png"),
    ],
)
def test_usual_layouts(tmp_path, image, mask):
    found = pairs_of(tmp_path, image, mask)
    assert [(pair.image, pair.mask) for pair in found.pairs] == [(image, mask)]
    assert found.notes == ()


def test_folders_around_are_groups(tmp_path):
    found = pairs_of(tmp_path, *(f"Tile {t}/{w}/{i}.png" for t in (1, 2) for w in ("images", "masks") for i in (1, 2)))
    assert [pair.group for pair in found.pairs] == ["Tile 1", "Tile 1", "Tile 2", "Tile 2"]
    assert {pair.split for pair in found.pairs} == {""}


def test_patches_are_of_their_tile(tmp_path):
    found = pairs_of(
        tmp_path, *(f"{w}/val/2_10_{x}_512_{x + 512}_1024.png" for w in ("img_dir", "ann_dir") for x in (0, 512))
    )
    assert {pair.group for pair in found.pairs} == {"2_10"}
    assert {pair.split for pair in found.pairs} == {"val"}
    assert sorted(pair.place for pair in found.pairs) == [(0, 512), (512, 512)]


def test_an_image_alone_is_a_group(tmp_path):
    found = pairs_of(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/b.png")
    assert len({pair.group for pair in found.pairs}) == 2


def test_those_without_partner_are_told(tmp_path):
    found = pairs_of(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/c.png", "masks/d.png")
    assert (found.lonely_images, found.lonely_masks) == (("images/b.png",), ("masks/c.png", "masks/d.png"))
    assert "1 images have no mask and are left out: images/b.png" in found.notes[0]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["images/a.png"], "no pairs of image and mask"),
        (["2_Ortho_RGB/top_potsdam_2_10_RGB.tif", "5_Labels_all/top_potsdam_2_10_label.tif"], "cmid prepare"),
        (["images/a.png", "masks/a.png", "labels/a.png"], "several masks, labels/a.png, masks/a.png"),
        (["images/a.png", "images/a.jpg", "masks/a.png"], "several images of one name"),
    ],
)
def test_what_cannot_be_paired(tmp_path, names, says):
    with pytest.raises(UsageError, match=says):
        pairs_of(tmp_path, *names)
    with pytest.raises(UsageError, match="no such folder"):
        find_pairs(tmp_path / "nowhere")


def test_numbers_that_are_no_box_leave_the_image_in_its_folders_group(tmp_path):
    for tile in ("Tile 1", "Tile 2"):
        for kind in ("images", "masks"):
            (tmp_path / tile / kind).mkdir(parents=True)
            for k in range(2):
                (tmp_path / tile / kind / f"p_{k}_0_{k + 1}_1.png").touch()
    pairs = [pair.of_size(64, 64) for pair in find_pairs(tmp_path).pairs]
    assert [pair.group for pair in pairs] == ["Tile 1", "Tile 1", "Tile 2", "Tile 2"]


def test_numbers_that_are_no_box_are_no_place(tmp_path):
    found = pairs_of(tmp_path, "images/site_2018_1_2019_5.png", "masks/site_2018_1_2019_5.png")
    (pair,) = found.pairs
    assert pair.of_size(1, 4) is pair
    assert (pair.group, pair.place) == ("site", (2018, 1))
    other = pair.of_size(256, 256)
    assert (other.group, other.place, other.patch) == ("images/site_2018_1_2019_5", (0, 0), None)
