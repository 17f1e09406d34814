"""Torchgeo's segmentation data sets by name, on tiny copies of their layouts."""

import numpy as np
import pytest
import torch
from PIL import Image

from cmid.commands.pixel_sources import open_pixel_labelled, open_pixel_labelled_whole
from cmid.config import PixelLabelsConfig
from cmid.data.decode import BadImage
from cmid.data.torchgeo_datasets import TorchgeoSource
from cmid.data.torchgeo_pixels import palette_of
from cmid.errors import UsageError
from tests.data.masks_on_disk import coloured, draw, image_of, labels_of


def write_landcover(root):
    """Three images a split, as the data set's own tool cuts them."""
    written = {}
    for seed, split in enumerate(("train", "val", "test")):
        names = [f"M-{seed}_{i}" for i in range(3)]
        (root / f"{split}.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            labels = labels_of(10 * seed + i, classes=5)
            draw(root / f"output/{name}.jpg", image_of(labels))
            draw(root / f"output/{name}_m.png", labels)
            written[split, i] = labels
    return written


def write_loveda(root):
    for split in ("Train", "Val", "Test"):
        for scene in ("Urban", "Rural"):
            for i in range(2):
                labels = labels_of(i, classes=8)
                draw(root / split / scene / f"images_png/{i}.png", image_of(labels))
                if split != "Test":
                    draw(root / split / scene / f"masks_png/{i}.png", labels)


def test_own_splits_classes_and_colours(tmp_path):
    written = write_landcover(tmp_path)
    sides = open_pixel_labelled(f"torchgeo:LandCoverAI?root={tmp_path}", PixelLabelsConfig(), 0)
    assert sides.train.classes == ("Background", "Building", "Woodland", "Water", "Road")
    assert sides.train.colours[1] == (97, 74, 74)
    assert (len(sides.train), len(sides.test)) == (3, 3)
    assert "own splits train and test" in sides.notes[-1]
    for split, side in (("train", sides.train), ("test", sides.test)):
        for i in range(3):
            pixels, labels = side.read(i)
            assert np.array_equal(labels, written[split, i])
            assert (pixels.dtype, pixels.shape) == (np.uint8, (*labels.shape, 3))


def test_loveda_begins_at_one_and_has_no_masks_for_test(tmp_path):
    write_loveda(tmp_path)
    sides = open_pixel_labelled(f"torchgeo:LoveDA?root={tmp_path}", PixelLabelsConfig(), 0)
    assert sides.test.classes == ("background", "building", "road", "water", "barren", "forest", "agriculture")
    assert "train and val" in sides.notes[-1]
    truth = labels_of(0, classes=8)
    assert np.array_equal(sides.test.read(0).labels, np.where(truth == 0, 255, truth - 1))
    whole, _ = open_pixel_labelled_whole(f"torchgeo:LoveDA?root={tmp_path}&split=train", PixelLabelsConfig())
    assert len(whole) == 4


def test_potsdam_of_torchgeo_is_not_the_protocols(tmp_path):
    import rasterio

    colours = ((255, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0))
    (tmp_path / "4_Ortho_RGBIR").mkdir()
    for tile in ("2_10", "2_11", "2_13", "2_14"):
        labels = labels_of(3, classes=6)
        with rasterio.open(
            tmp_path / f"4_Ortho_RGBIR/top_potsdam_{tile}_RGBIR.tif", "w", driver="GTiff", width=16, height=12, count=4,
            dtype="uint8", transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
        ) as raster:  # fmt: skip
            raster.write(np.random.default_rng(0).integers(256, size=(4, 12, 16)).astype(np.uint8))
        Image.fromarray(coloured(labels, colours)).save(tmp_path / f"top_potsdam_{tile}_label.tif")
    sides = open_pixel_labelled(f"torchgeo:Potsdam2D?root={tmp_path}", PixelLabelsConfig(), 0)
    assert "clutter as class 0" in sides.notes[0]
    assert sides.train.bands == 4
    assert sides.train.classes[0] == "Clutter/background"
    assert sides.train.colours == colours
    assert np.array_equal(sides.train.read(0).labels, labels_of(3, classes=6))


def test_numbers_beyond_the_classes(tmp_path):
    write_landcover(tmp_path)
    labels = labels_of(0, classes=5)
    labels[1, :3] = 9
    draw(tmp_path / "output/M-0_0_m.png", labels)
    data = f"torchgeo:LandCoverAI?root={tmp_path}"
    with pytest.raises(BadImage, match="3 pixels of its mask are of no class: 9"):
        open_pixel_labelled(data, PixelLabelsConfig(), 0).train.read(0)
    found = open_pixel_labelled(data, PixelLabelsConfig(unknown="ignore", unlabelled=("Water",)), 0).train
    assert found.classes == ("Background", "Building", "Woodland", "Road")
    assert (found.read(0).labels[1, :3] == 255).all()


def test_one_damaged_mask_stops_nothing_and_is_named(tmp_path):
    written = write_landcover(tmp_path)
    whole = (tmp_path / "output/M-0_0_m.png").read_bytes()
    (tmp_path / "output/M-0_0_m.png").write_bytes(whole[: len(whole) // 2])
    train = open_pixel_labelled(f"torchgeo:LandCoverAI?root={tmp_path}", PixelLabelsConfig(), 0).train
    with pytest.raises(BadImage, match=r"LandCoverAI\[0\]"):
        train.read(0)
    assert np.array_equal(train.read(1).labels, written["train", 1])


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (None, "gives nothing as 'mask'"),
        (torch.zeros(0, 4), "its mask is empty"),
        (torch.full((12, 16), torch.inf), "numbers that are not whole"),
        (torch.full((12, 16), torch.nan), "numbers that are not whole"),
        (torch.full((12, 16), -1), "numbers from -1 to -1"),
    ],
)
def test_one_sample_without_a_sound_mask_is_bad_by_itself(tmp_path, monkeypatch, mask, says):
    write_landcover(tmp_path)
    train = open_pixel_labelled(f"torchgeo:LandCoverAI?root={tmp_path}", PixelLabelsConfig(), 0).train
    item = train.source.item
    monkeypatch.setattr(train.source, "item", lambda i: {**item(i), "mask": item(i)["mask"] if i else mask})
    with pytest.raises(BadImage, match=says):
        train.read(0)
    assert len(palette_of(train.source, "mask").entries) == 5


@pytest.mark.parametrize(
    ("data", "config", "says"),
    [
        ("torchgeo:LandCoverAI?root={}&split=train", {}, "leave split out"),
        ("torchgeo:LandCoverAI?root={}&mask=msk", {}, "gives nothing as 'msk'.*samples hold image, mask"),
        ("torchgeo:LandCoverAi?root={}", {}, "Did you mean LandCoverAI"),
        ("torchgeo:LandCoverAI?root={}", {"test_groups": ("a",)}, "labels.test_groups is for folders"),
        ("torchgeo:LandCoverAI?root={}", {"unlabelled": ("water",)}, "Did you mean Water"),
    ],
)
def test_what_does_not_fit(tmp_path, data, config, says):
    write_landcover(tmp_path)
    with pytest.raises(UsageError, match=says):
        sides = open_pixel_labelled(data.format(tmp_path), PixelLabelsConfig(**config), 0)
        sides.train.read(0)


def test_what_is_measured_are_the_training_images_alone(tmp_path, monkeypatch):
    write_landcover(tmp_path)
    train = open_pixel_labelled(f"torchgeo:LandCoverAI?root={tmp_path}", PixelLabelsConfig(), 0).train
    looked = []
    monkeypatch.setattr(TorchgeoSource, "sample_at", lambda source, place: looked.append(place))
    train.places = (4, 9, 2)
    for i in range(3):
        train.sample(i)
    assert sorted(looked) == [2, 4, 9]
