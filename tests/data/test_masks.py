"""Masks on disk: codes, kinds, and what cannot be one."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from cmid.data.decode import BadImage
from cmid.data.masks import count_codes, mask_header, read_mask
from tests.data.masks_on_disk import draw
from tests.data.rasters_on_disk import write_raster


@pytest.mark.parametrize("colours", [3, 200])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_counts_are_those_of_sorting(colours, dtype):
    codes = np.random.default_rng(0).integers(colours, size=(40, 50)).astype(dtype) + dtype(7)
    values, counts = np.unique(codes, return_counts=True)
    assert count_codes(codes) == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert count_codes(codes[:0]) == {}


@pytest.mark.parametrize(
    ("mode", "kind", "code"),
    [("1", "value", 1), ("L", "value", 9), ("LA", "value", 9), ("I;16", "value", 900), ("I", "value", 900),
     ("P", "value", 9), ("RGB", "colour", 0x0A0B0C), ("RGBA", "colour", 0x0A0B0C)],
)  # fmt: skip
def test_modes(tmp_path, mode, kind, code):
    fill = {"1": 1, "L": 9, "P": 9, "LA": (9, 0), "RGB": (10, 11, 12), "RGBA": (10, 11, 12, 0)}.get(mode, 900)
    image = Image.new(mode, (6, 4), fill)
    if mode == "P":
        image.putpalette([0, 0, 0] * 9 + [50, 60, 70])
    image.save(tmp_path / "mask.png", "TIFF" if mode == "I" else "PNG")  # which it is, is read from the file
    header = mask_header(str(tmp_path / "mask.png"))
    assert (header.width, header.height, header.kind) == (6, 4, kind)
    codes, valid = read_mask(str(tmp_path / "mask.png"), kind, (1, 2, 5, 4))
    assert valid is None
    assert codes.tolist() == [[code] * 4] * 2
    assert dict(header.colours) == ({**dict.fromkeys(range(9), (0, 0, 0)), 9: (50, 60, 70)} if mode == "P" else {})


def test_what_is_no_mask(tmp_path):
    Image.new("F", (4, 4), 1.5).save(tmp_path / "real.png", "TIFF")
    draw(tmp_path / "cut.png", np.zeros((64, 64), np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    write_raster(tmp_path / "five.tif", np.zeros((5, 8, 8), np.uint8))
    write_raster(tmp_path / "below.tif", np.full((1, 8, 8), -1, np.int16))
    with pytest.raises(BadImage, match="mode F"):
        mask_header(str(tmp_path / "real.png"))
    with pytest.raises(BadImage, match=r"cut\.png"):
        read_mask(str(tmp_path / "cut.png"), "value")
    with pytest.raises(BadImage, match="5 bands of uint8; a mask has one band"):
        mask_header(str(tmp_path / "five.tif"))
    with pytest.raises(BadImage, match="labels are from -1 to -1; expected whole numbers"):
        read_mask(str(tmp_path / "below.tif"), "value")
    with pytest.raises(BadImage, match="no such file"):
        mask_header(str(tmp_path / "nowhere.png"))


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ('["a", "b"]', {0: "a", 1: "b"}),
        (r'["a\ud800", "b"]', {0: "a?", 1: "b"}),
        ("[" * 100_000, {}),
        ("{", {}),
        ("[1, 2]", {}),
    ],
)
def test_a_tag_that_holds_no_names_is_passed_over(tmp_path, told, names):
    path = write_raster(tmp_path / "mask.tif", np.zeros((1, 8, 8), np.uint8))
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(CLASSES=told)
    assert mask_header(str(path)).names == names


def test_of_a_colour_mask_only_what_is_nodata_in_all_bands_has_no_label(tmp_path):
    """Black as nodata takes neither red nor blue away, which are black in two bands."""
    colours = np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 0], [255, 255, 255]]] * 2, np.uint8)
    write_raster(tmp_path / "mask.tif", np.moveaxis(colours, -1, 0), nodata=0, photometric="RGB")
    codes, valid = read_mask(str(tmp_path / "mask.tif"), "colour")
    assert valid.tolist() == [[True, True, False, True]] * 2
    assert codes[valid].tolist() == [0xFF0000, 0x0000FF, 0xFFFFFF] * 2


def test_a_picture_cut_anywhere_is_a_bad_mask(tmp_path):
    """Whether its header is read, its palette or its pixels: decoders raise anything at all."""
    whole = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8), "L").convert("P")
    whole.putpalette([value % 256 for value in range(3, 771)])
    whole.save(tmp_path / "whole.png")
    data, path = (tmp_path / "whole.png").read_bytes(), tmp_path / "cut.png"
    assert len(mask_header(str(tmp_path / "whole.png")).colours) == 256
    for length in range(0, len(data) - 40, 7):  # what follows its last pixel is not needed
        path.write_bytes(data[:length])
        with pytest.raises(BadImage, match=r"cut\.png"):
            read_mask(str(path), mask_header(str(path)).kind)
