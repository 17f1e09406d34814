"""What is told of image files before they are read as 8-bit RGB."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from cmid.data.folder import FolderSource
from cmid.data.image_notes import LABELLED, LOOKED_AT, NEW, image_notes, list_notes, mask_notes
from cmid.data.labelled import LabelledFolder

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def photographs(folder: Path, count: int = 3) -> None:
    for i in range(count):
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / f"p{i}.jpg")


def raster(path: Path, bands: int, dtype: str = "uint8", side: int = 8, **more) -> None:
    with rasterio.open(path, "w", "GTiff", width=side, height=side, count=bands, dtype=dtype, **more) as file:
        file.write(np.full((bands, side, side), 7, dtype))


def test_of_photographs_there_is_nothing_to_say(tmp_path):
    photographs(tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.zeros((8, 8, 4), np.uint8), mode="CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.zeros((8, 8, 4), np.uint8), mode="CMYK").save(tmp_path / "cmyk.tif")
    raster(tmp_path / "rgb.tif", 3, photometric="RGB")
    assert image_notes(FolderSource(tmp_path)) == ()


def test_what_is_lost_or_changed_is_counted(tmp_path):
    photographs(tmp_path)
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(tmp_path / "clear.png")
    palette = Image.new("P", (8, 8))
    palette.info["transparency"] = 0
    palette.save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "deep.png")
    raster(tmp_path / "bands.tif", 4, "uint16")
    (tmp_path / "broken.png").write_bytes(b"no image")
    bands, deep, clear = image_notes(FolderSource(tmp_path))
    assert bands.startswith("1 of 7 images looked at have more than 3 bands") and "--source scenes" in bands
    assert deep.startswith("2 of 7 images looked at have more than 8 bits")
    assert clear.startswith("2 of 7 images looked at are transparent")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_would_never_open_is_passed_over(tmp_path):
    photographs(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.tif")
    assert image_notes(FolderSource(tmp_path)) == ()


def test_large_rasters_are_taken_for_scenes(tmp_path):
    for i in range(2):
        raster(tmp_path / f"{i}.tif", 3, side=2064, photometric="RGB")
    (said,) = image_notes(FolderSource(tmp_path))
    assert "--source scenes draws windows" in said


def test_a_few_headers_are_enough_of_many_files(tmp_path, monkeypatch):
    photographs(tmp_path, LOOKED_AT + 20)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path, **more: opened.append(path) or real(path, **more))
    image_notes(FolderSource(tmp_path))
    assert len(opened) == LOOKED_AT
    assert Path(opened[0]).name == "p0.jpg" and opened[-1] == FolderSource(tmp_path).name(LOOKED_AT + 19)


def test_advice_is_for_what_the_images_are_for(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(2):
            raster(tmp_path / label / f"{i}.tif", 4, "int16")
    bands, deep = image_notes(LabelledFolder(tmp_path).all(), LABELLED)
    assert bands.startswith("4 of 4 images looked at have more than 3 bands") and "torchgeo:NAME?root=DIR" in bands
    assert "more than 8 bits" in deep and "--source scenes" not in bands + deep
    assert image_notes(FolderSource(tmp_path), NEW)[1].endswith("98th percentile"), "nothing else can be done"


def test_images_that_a_list_names_twice_are_counted(tmp_path):
    photographs(tmp_path)
    (tmp_path / "list.txt").write_text("p0.jpg\np1.jpg\n./p0.jpg\np0.jpg\n")
    (said,) = list_notes(FolderSource(tmp_path / "list.txt"))
    assert said.startswith("2 of 4 entries of") and "counts each time" in said
    (tmp_path / "list.txt").write_text("p0.jpg\np1.jpg\n")
    assert list_notes(FolderSource(tmp_path / "list.txt")) == list_notes(FolderSource(tmp_path)) == ()


def test_masks_beside_images_are_told_of_where_the_whole_tree_is_named(tmp_path):
    for kind in ("images/town", "masks/town", "other"):
        (tmp_path / kind).mkdir(parents=True)
        photographs(tmp_path / kind)
    (said,) = mask_notes(FolderSource(tmp_path))
    assert said.startswith(
        "at least 3 of 9 images look like masks, as they lie in masks/town/ and the like beside images/town/"
    )
    assert mask_notes(FolderSource(tmp_path / "images")) == mask_notes(FolderSource(tmp_path / "masks")) == ()
    (tmp_path / "list.txt").write_text("images/town/p0.jpg\nmasks/town/p1.jpg\n")
    assert mask_notes(FolderSource(tmp_path / "list.txt")) == (), "a list says what is meant"
