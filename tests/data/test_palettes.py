"""Palettes from files and from what masks hold."""

import copy
import json

import numpy as np
import pytest

from cmid.data.palettes import UNKNOWN, Entry, Palette, infer_palette, pack, palette_beside, read_palette
from cmid.errors import UsageError


def infer(counts, kind="value", lossy=0, colours=None, names=None):
    return infer_palette(counts, kind, lossy=lossy, colours=colours or {}, names=names or {}, data="data")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.json", json.dumps([{"name": "road", "colour": [1, 2, 3]}, {"name": "grey", "color": "#9B9B9B"}])),
        (
            "b.json",
            json.dumps({"classes": [{"name": "road", "colour": "1 2 3"}, {"name": "grey", "colour": "#9b9b9b"}]}),
        ),
        ("c.csv", "name,colour\nroad,#010203\ngrey,155 155 155\n"),
        ("e.csv", "name;colour\nroad;1 2 3\ngrey;#9B9B9B\n"),
        ("d.csv", "Name, R, G, B\nroad,1,2,3\ngrey,155,155,155\n"),
    ],
)
def test_one_palette_in_four_forms(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert read_palette(tmp_path / file).entries == (Entry("road", (1, 2, 3)), Entry("grey", (155, 155, 155)))


def test_colours_values_and_pixels_without_label():
    palette = Palette((Entry("a", (1, 0, 0), 7), Entry("none", (9, 9, 9), 0, ignore=True), Entry("b", (0, 0, 2), 3)))
    assert palette.classes == ("a", "b")
    assert palette.colours == ((1, 0, 0), (0, 0, 2))
    values = np.array([[7, 0, 3], [255, 8, 300]], np.uint16)
    for each in (palette, copy.copy(palette)):
        assert each.encode(values, "value").tolist() == [[0, 255, 1], [255, UNKNOWN, UNKNOWN]]
        codes = np.array([[pack((1, 0, 0)), pack((0, 0, 2)), pack((9, 9, 9)), pack((2, 0, 0))]])
        assert each.encode(codes, "colour").tolist() == [[0, 1, 255, UNKNOWN]]


def test_values_follow_from_grey_levels_or_the_order():
    grey = Palette((Entry("no", (0, 0, 0)), Entry("yes", (255, 255, 255))))
    assert grey.encode(np.array([[0, 255]], np.uint8), "value").tolist() == [[0, 1]]
    order = Palette((Entry("no data", (0, 0, 0), ignore=True), Entry("a", (1, 2, 3)), Entry("b", (4, 5, 6))))
    assert order.encode(np.array([[0, 1, 2, 3]], np.uint8), "value").tolist() == [[255, 0, 1, UNKNOWN]]


def test_a_class_can_be_left_without_label():
    palette = Palette((Entry("a", value=0), Entry("b", value=1), Entry("c", value=2)))
    assert palette.without(["b"]).classes == ("a", "c")
    assert palette.without(["b"]).encode(np.array([[0, 1, 2]], np.uint8), "value").tolist() == [[0, 255, 1]]
    with pytest.raises(UsageError, match=r"unlabelled names the class 'bb'.*Did you mean b"):
        palette.without(["bb"])
    with pytest.raises(UsageError, match="1 classes are left"):
        palette.without(["a", "b"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("road;1 2 3\n", "expected a first line with the columns"),
        (
            "name,colour\nroad,1 2\nb,3 4 5\n",
            "class 1: a colour is #RRGGBB or three numbers from 0 to 255, found '1 2'",
        ),
        ("name,colour\nroad,1 2 300\nb,3 4 5\n", "found '1 2 300'"),
        ("name,colour\nroad,1 2 3\nb,1 2 3\n", r"has the colour \(1, 2, 3\) for several classes"),
        ("name,value\nroad,1\nroad,2\n", "has the name road for several classes"),
        ("name,value\nroad,1.5\nb,2\n", "a value is a whole number from 0 to 65535, found '1.5'"),
        ("name,colour,value\nroad,1 2 3,1\nb,4 5 6,\n", "gives no value for b"),
        ("name,colour,ignore\nroad,1 2 3,perhaps\nb,4 5 6,\n", "ignore is true or false, found 'perhaps'"),
        ("name,colour,ignore\nroad,1 2 3,yes\nb,4 5 6,\n", "1 classes that count"),
    ],
)
def test_a_palette_that_is_none(tmp_path, text, says):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UsageError, match=says):
        read_palette(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("palette.json", "[" * 100_000, "expected a list of classes such as .* found lists in lists"),
        ("palette.json", '[{"name": "a", "colour": ' + "[" * 50_000 + "]" * 50_000 + "}]", "found lists in lists"),
        ("palette.json", '[{"name": "\\ud800"}, {"name": "b"}]', "class 1: the name .* has half of a letter in it"),
        ("classes.csv", "name,Name,value\na,b,1\nc,d,2\n", "has the column name twice"),
        ("classes.csv", 'name,value\nroad,1\n"wood,2\nlake,3\n', "cannot be read as CSV: unexpected end of data"),
        ("classes.csv", "name,value\nroad,1\n" + "x" * 200_000 + ",2\n", "cannot be read as CSV: field larger than"),
    ],
)
def test_an_odd_palette_is_named_and_passed_over_where_nobody_asked_for_it(tmp_path, file, text, says):
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=rf"{file}.*{says}"):
        read_palette(tmp_path / file)
    assert palette_beside(tmp_path) is None


def test_only_our_own_form_is_taken_from_the_folder(tmp_path):
    (tmp_path / "classes.csv").write_text("id,title\n1,road\n")
    assert palette_beside(tmp_path) is None
    (tmp_path / "palette.json").write_text('[{"name": "a", "value": 1}, {"name": "b", "value": 2}]')
    assert palette_beside(tmp_path) == tmp_path / "palette.json"


def test_a_list_of_classes_that_does_not_say_what_masks_hold_is_no_palette(tmp_path):
    file = tmp_path / "classes.json"
    file.write_text('[{"id": 1, "name": "road"}, {"id": 2, "name": "wood"}]')
    assert palette_beside(tmp_path) is None
    file.write_text('{"classes": [{"value": 1, "name": "road"}, {"value": 2, "name": "wood"}]}')
    assert palette_beside(tmp_path) == file


def test_values_are_classes():
    assert infer({3: 50, 1: 20, 255: 5}).entries == (Entry("class 1", value=1), Entry("class 3", value=3))
    assert infer({0: 50, 255: 5}).classes == ("class 0", "class 255")
    many = infer({0: 50, 2: 5}, names={i: f"category {i}" for i in range(300)})
    assert many.classes == ("category 0", "category 2")
    named = infer({0: 50, 2: 5}, names={0: "water", 1: "road", 2: "tree"}, colours={0: (0, 0, 255)})
    assert named.classes == ("water", "road", "tree")
    assert named.colours[0] == (0, 0, 255)


def test_colours_are_classes():
    palette = infer({pack((9, 0, 0)): 50, pack((0, 0, 7)): 50}, "colour")
    assert palette.entries == (Entry("class 0", (0, 0, 7)), Entry("class 1", (9, 0, 0)))


@pytest.mark.parametrize(
    ("counts", "kind", "lossy", "says"),
    [
        (dict.fromkeys(range(200), 10), "colour", 0, "200 different colours"),
        ({1: 10**6, 2: 10**6, 70: 1, 80: 1, 90: 1}, "colour", 0, "3 of them in less than 0.1% of the pixels"),
        ({i: 100 if i in (0, 255) else 1 for i in range(256)}, "value", 4, "4 of the masks are JPEGs, which blur"),
        (dict.fromkeys(range(300), 10), "value", 0, "--labels.unknown ignore"),
        ({4: 10}, "value", 0, "two classes at least"),
    ],
)
def test_smoothed_masks_are_not_taken_for_classes(counts, kind, lossy, says):
    with pytest.raises(UsageError, match=says):
        infer(counts, kind, lossy)
