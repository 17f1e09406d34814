"""Heat over images: placed where it belongs, on any shape; panels with words."""

import numpy as np
import pytest
from matplotlib import colormaps
from scipy.ndimage import map_coordinates

from cmid.report.heat import LEAST, MOST, Panel, heat_over, panel_sized, side_by_side, spread


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (5, 0, 35, 30), (8.5, 3.25, 31.5, 26.25)])
def test_numbers_between_cells_are_those_of_scipy_and_outside_there_are_none(box):
    heat = np.random.default_rng(0).normal(size=(3, 4))
    found = spread(heat, box, 30, 40)
    y, x = np.mgrid[:30, :40] + 0.5
    rows, columns = (y - box[1]) / (box[3] - box[1]) * 3, (x - box[0]) / (box[2] - box[0]) * 4
    expected = map_coordinates(heat, [rows - 0.5, columns - 0.5], order=1, mode="nearest")
    inside = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-6)
    assert np.isnan(found[~inside]).all() and inside.any()


def test_the_hottest_place_is_where_it_was_cut_and_what_was_not_seen_is_dark():
    image = np.full((100, 200, 3), 100, np.uint8)
    heat = np.zeros((4, 4))
    heat[0, 3] = 1.0
    drawn = heat_over(image, heat, (60, 10, 140, 90))  # the cell's centre is at x = 130, y = 20
    bright = drawn.astype(int).sum(-1)
    y, x = np.argwhere(bright == bright.max()).mean(0)
    assert abs(x + 0.5 - 135) <= 6 and abs(y + 0.5 - 15) <= 6
    assert (drawn[:, :60] == 45).all() and (drawn[:10] == 45).all() and (drawn[90:] == 45).all()
    cold = np.rint(255 * (0.7 * np.array(colormaps["inferno"](0.0)[:3]) + 0.3 * 100 / 255))
    assert (drawn[80, 70] == cold).all()


def test_a_map_without_differences_is_drawn_all_the_same():
    assert len(np.unique(heat_over(np.full((8, 8, 3), 9, np.uint8), np.full((2, 2), 7.0)).reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((64, 64), (256, 256)), ((300, 400), (300, 400)), ((1000, 500), (512, 256)), ((2, 900), (1, 512))],
)
def test_panels_are_neither_tiny_nor_huge(shape, expected):
    assert panel_sized(np.zeros((*shape, 3), np.uint8)).shape[:2] == expected and LEAST < MOST


def test_panels_stand_side_by_side_unchanged_with_words_and_a_scale():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 255, (2, 100, 60, 3), np.uint8)
    words = "a/very/long/path/" * 9 + "\udcff\u202eend.png"  # neither half a letter nor one that turns the line
    sheet = np.asarray(side_by_side([Panel(one, words), Panel(two, "harbour 93 %", ("-1.50", "+4.25"))]))
    assert (sheet[8:108, 8:68] == one).all() and (sheet[8:108, 8 + LEAST + 8 :][:, :60] == two).all()
    below = sheet[108:]
    left, right = below[:, : LEAST + 8], below[:, LEAST + 16 :]
    assert (left < 128).any() and (right < 128).any(), "there are words"
    assert (left[:, :8] == 255).all() and (sheet[:, LEAST + 8 : LEAST + 16] == 255).all(), (
        "and they stay in their panel"
    )
    colourful = np.ptp(right.astype(int), axis=-1) > 60
    assert colourful.any() and not (np.ptp(left.astype(int), axis=-1) > 60).any(), "only heat has a scale"
