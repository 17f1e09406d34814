import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cmid.report.dense import Correspondence, colour_section, correspondence_section
from cmid.report.feature_map import COLOURS, SHAPES, map_section
from cmid.report.heat import heat_over
from cmid.report.matches import MatchedPair, centres, match_section
from cmid.report.neighbours import Neighbours, Thumb, neighbour_section
from cmid.report.pictures import square
from cmid.report.reconstructions import Reconstruction, reconstruction_section

NASTY = '<img src=x onerror="alert(1)">&\'.png'


def flat(colour, side=32):
    return np.full((side, side, 3), colour, np.uint8)


def pictures(body):
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", body)
    return [np.asarray(Image.open(BytesIO(base64.b64decode(each)))).astype(int) for each in found]


def test_reconstructions_keep_their_colours_and_order():
    colours = (200, 40, 90), (128, 128, 128), (20, 180, 250)
    body = reconstruction_section([Reconstruction("a.png", "weak view", *map(flat, colours))]).body
    for shown, colour in zip(pictures(body), colours, strict=True):
        assert np.abs(shown - colour).max() <= 2


def test_positions_are_counted_row_by_row():
    np.testing.assert_allclose(centres(np.array([0, 5]), (2, 4)), [[0.125, 0.25], [0.375, 0.75]])


def test_a_line_joins_the_matched_cells():
    pair = MatchedPair(
        "a",
        (flat(9), flat(9)),
        (7, 7),
        np.array([[0, 48]]),
        flat(9),
        np.array([[0, 0, 16, 16], [8, 8, 32, 32.0]]),
        ("turned by 90°", "mirrored"),
    )
    body = match_section([pair]).body
    assert 'd="M16.0 16.0Q236.0 98.0 456.0 208.0"' in body  # 224 px crops with a gap of 24: the last cell of the second
    assert '<rect class="frame f1" x="8.0" y="8.0" width="24.0" height="24.0">' in body
    assert "1 match; first crop turned by 90°; second crop mirrored" in body


def test_a_pair_without_overlap_or_source_says_so():
    pair = MatchedPair("a", (flat(9), flat(9)), (7, 7), np.zeros((0, 2), int), None, np.zeros((2, 4)), ("", ""))
    body = match_section([pair]).body
    assert "no overlap" in body
    assert "frame f0" in body


def test_neighbours_show_distance_and_tick_the_same_class():
    row = Neighbours(
        Thumb(flat(1), "q", "port"), [Thumb(flat(2), "a", "port"), Thumb(flat(3), "b", "road")], [0.1234, 0.5]
    )
    body = neighbour_section([row], 400).body
    assert body.count('class="same"') == 1
    assert "0.123" in body
    assert "0.500" in body


def test_dense_colours_are_shown_beside_each_image():
    maps = np.random.default_rng(0).normal(size=(2, 5, 4, 4))
    body = colour_section([("a", flat(9)), ("b", flat(9))], maps, 16).body
    assert len(pictures(body)) == 4


def test_the_best_match_is_marked_where_it_is_and_the_truth_only_where_known():
    heat = np.zeros((2, 4, 4))
    heat[0, 1, 2] = heat[1, 3, 0] = 0.9
    truth = np.array([[0.5, 0.25], [np.nan, np.nan]])
    pair = Correspondence("a", flat(9), flat(9), (4, 4), np.array([0, 15]), heat, truth)
    body = correspondence_section([pair]).body
    assert 'class="cross" style="left:62.5%;top:37.5%"' in body
    assert 'class="cross" style="left:12.5%;top:87.5%"' in body
    assert body.count('class="ring"') == 1


def test_the_hottest_place_is_the_brightest():
    heat = np.full((4, 4), -0.2)
    heat[0, 3] = 0.8
    shown = heat_over(square(flat(128), 64), heat).sum(-1)
    y, x = np.unravel_index(shown.argmax(), shown.shape)
    assert y < 16
    assert x >= 48


@pytest.mark.parametrize("labels", [None, 3, len(SHAPES) * COLOURS])
def test_every_image_is_on_the_map_and_classes_differ_in_colour_or_shape(labels):
    count = 40
    thumbs = [Thumb(flat(i), f"{i}.png", None if labels is None else f"class {i % labels:02}") for i in range(count)]
    body = map_section(thumbs, np.random.default_rng(0).random((count, 2)), "tsne").body
    assert body.count("background-position") == count
    marks = re.findall(r'<button type="button" data-class="\d+"><i class="([^"]*)"', body)
    assert len(marks) == len(set(marks)) == (labels or 0)
    assert ("checked" in re.search(r'value="dots"[^>]*', body).group()) == (labels is not None)


def test_file_names_cannot_become_markup():
    image = flat(9)
    thumb = Thumb(image, NASTY, NASTY)
    pair = MatchedPair(NASTY, (image, image), (1, 1), np.array([[0, 0]]), image, np.ones((2, 4)), ("", ""))
    found = Correspondence(NASTY, image, image, (1, 1), np.array([0]), np.ones((1, 1, 1)), np.ones((1, 2)))
    sections = [
        reconstruction_section([Reconstruction(NASTY, "weak view", flat(1), flat(2), flat(3))]),
        match_section([pair]),
        neighbour_section([Neighbours(thumb, [thumb], [0.0])], 1),
        colour_section([(NASTY, flat(9))], np.ones((1, 3, 2, 2)), 16),
        correspondence_section([found]),
        map_section([thumb], np.ones((1, 2)), "pca"),
    ]
    for section in sections:
        assert "<img src=x" not in section.body
        assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;&amp;&#x27;.png" in section.body
