"""Facts of the ISPRS benchmarks: windows by the published numbers, names, colours."""

import math

import numpy as np
import pytest

from cmid.data.archives import Member
from cmid.data.isprs import BENCHMARKS, COLOURS, POTSDAM, VAIHINGEN, find_tiles, nearest_class, palette, windows
from cmid.data.palettes import pack
from cmid.evaluation.segmentation import ISPRS_CLASSES

VAIHINGEN_SIZES = {
    1: (1919, 2569), 2: (2428, 2767), 3: (2006, 3007), 4: (1887, 2557), 5: (1887, 2557), 6: (1887, 2557),
    7: (1887, 2557), 8: (1887, 2557), 10: (1887, 2557), 11: (1893, 2566), 12: (1922, 2575), 13: (2818, 2558),
    14: (1919, 2565), 15: (1919, 2565), 16: (1919, 2565), 17: (2336, 1281), 20: (1866, 2315), 21: (1903, 2546),
    22: (1903, 2546), 23: (1903, 2546), 24: (1903, 2546), 26: (2995, 1783), 27: (1917, 3313), 28: (1917, 2567),
    29: (1917, 2563), 30: (1934, 2563), 31: (1980, 2555), 32: (1980, 2555), 33: (1581, 2555), 34: (1388, 2555),
    35: (2805, 1884), 37: (1996, 1995), 38: (3816, 2550),
}  # fmt: skip
"""Width and height of the tiles, as they are published."""


def test_potsdam_gives_the_published_numbers_of_windows():
    assert (len(POTSDAM.train), len(POTSDAM.test), len(set(POTSDAM.tiles))) == (24, 14, 38)
    each = len(windows(6000, 6000))
    assert (24 * each, 14 * each) == (3456, 2016)


def test_vaihingen_gives_the_published_numbers_of_windows():
    assert {f"area{n}" for n in VAIHINGEN_SIZES} == set(VAIHINGEN.tiles)
    assert (len(VAIHINGEN.train), len(VAIHINGEN.test)) == (16, 17)
    sums = [sum(len(windows(*VAIHINGEN_SIZES[int(t[4:])])) for t in side) for side in (VAIHINGEN.train, VAIHINGEN.test)]
    assert sums == [344, 398]


@pytest.mark.parametrize(
    ("width", "height", "step"), [(600, 512, 512), (1024, 700, 512), (1025, 6000, 256), (512, 512, 512)]
)
def test_windows_cover_the_tile_and_end_with_it(width, height, step):
    found = windows(width, height, 512, step)
    assert len(found) == len(set(found)) == math.prod(math.ceil((n - 512) / step) + 1 for n in (width, height))
    seen = np.zeros((height, width), bool)
    for x, y in found:
        assert x >= 0 <= y
        assert x + 512 <= width
        assert y + 512 <= height
        seen[y : y + 512, x : x + 512] = True
    assert seen.all()


def test_colours_are_in_the_order_of_the_classes():
    by_name = dict(zip(ISPRS_CLASSES, COLOURS, strict=True))
    assert by_name["building"] == (0, 0, 255)
    assert by_name["car"] == (255, 255, 0)
    assert by_name["clutter"] == (255, 0, 0)
    codes = np.array([[pack(colour) for colour in (*COLOURS, (0, 0, 0))]])
    assert palette(ISPRS_CLASSES, values=False).encode(codes, "colour").tolist() == [[0, 1, 2, 3, 4, 5, 255]]
    values = np.array([[0, 1, 2, 3, 4, 5, 255]], np.uint8)
    assert palette(ISPRS_CLASSES, values=True).encode(values, "value").tolist() == [[0, 1, 2, 3, 4, 5, 255]]


def test_the_nearest_class_of_other_colours():
    codes = np.array([pack(c) for c in ((252, 255, 0), (3, 1, 250), (0, 4, 2), (250, 250, 255))])
    assert nearest_class(codes).tolist() == [4, 1, 255, 0]


def members(*names):
    return [Member(name, name, None) for name in names]


def test_names_of_potsdam():
    found = find_tiles(
        members(
            "2_Ortho_RGB/top_potsdam_2_10_RGB.tif", "3_Ortho_IRRG/top_potsdam_2_10_IRRG.tif",
            "5_Labels_for_participants/top_potsdam_2_10_label.tif", "a/top_potsdam_02_10_label.tif",
            "x/top_potsdam_7_7_label_noBoundary.tif", "1_DSM/dsm_potsdam_02_10.tif", "top_potsdam_9_9_RGB.tif",
            "2_Ortho_RGB/top_potsdam_2_10_RGB.tfw",
        ),
        POTSDAM, "IRRG",
    )  # fmt: skip
    assert {tile: member.name for tile, member in found.images.items()} == {
        "2_10": "3_Ortho_IRRG/top_potsdam_2_10_IRRG.tif"
    }
    assert found.labels["full"]["2_10"].name == "a/top_potsdam_02_10_label.tif"
    assert set(found.labels["eroded"]) == {"7_7"}


def test_names_of_vaihingen():
    found = find_tiles(
        members(
            "v/top/top_mosaic_09cm_area1.tif", "v/gts_for_participants/top_mosaic_09cm_area1.tif",
            "c/top_mosaic_09cm_area1.tif", "e/top_mosaic_09cm_area1_noBoundary.tif",
            "e/top_mosaic_09cm_area9_noBoundary.tif",
        ),
        VAIHINGEN, "IRRG",
    )  # fmt: skip
    assert found.images["area1"].name == "v/top/top_mosaic_09cm_area1.tif"
    assert found.labels["full"]["area1"].name == "c/top_mosaic_09cm_area1.tif"
    assert set(found.labels["eroded"]) == {"area1"}
    assert found.strangers == {"area9"}


@pytest.mark.parametrize(
    ("kind", "name", "opens"),
    [
        ("potsdam", "Potsdam.zip", True),
        ("potsdam", "2_Ortho_RGB.zip", True),
        ("potsdam", "3_Ortho_IRRG.zip", False),
        ("potsdam", "5_Labels_all_noBoundary.zip", True),
        ("potsdam", "1_DSM_normalisation.zip", False),
        ("vaihingen", "ISPRS_semantic_labeling_Vaihingen.zip", True),
        ("vaihingen", "ISPRS_semantic_labeing_Vaihingen_ground_truth_eroded_for_participants.zip", True),
        ("vaihingen", "photos.zip", False),
    ],
)
def test_which_zips_are_opened(kind, name, opens):
    assert BENCHMARKS[kind].opens(name, "RGB") == opens
