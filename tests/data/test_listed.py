"""Labels that stand in files: every form that is unambiguous is read alike, everything else names its line."""

import numpy as np
import pytest
from PIL import Image

from cmid.data.listed import has_lists, is_table, open_lists, open_table
from cmid.errors import UsageError


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)


@pytest.fixture
def published(tmp_path):
    for name in ("a 1.png", "a2.png", "b1.png", "b2.png", "c1.png"):
        draw(tmp_path / "img" / name)
    (tmp_path / "train.txt").write_text("a 1.png 0\nb1.png 1\n")
    (tmp_path / "test.txt").write_text("a2.png 0\nb2.png 1\n")
    return tmp_path


def names(side):
    return [path.name for path in side.paths]


def test_the_published_layout(published):
    assert has_lists(published)
    train, test = open_lists(published)
    assert (names(train), train.labels.tolist()) == (["a 1.png", "b1.png"], [0, 1])
    assert (names(test), test.labels.tolist(), test.classes) == (["a2.png", "b2.png"], [0, 1], ("0", "1"))
    (published / "classes.txt").write_text("beach\nforest\n")
    assert open_lists(published)[0].classes == ("beach", "forest")
    (published / "test.txt").rename(published / "val.txt")
    assert names(open_lists(published)[1]) == ["a2.png", "b2.png"]


@pytest.mark.parametrize(
    "text",
    [
        "a 1.png\t0\nb1.png\t1\n",
        "a 1.png,0\nb1.png, 1\n",
        "a 1.png;0\r\nb1.png;1\r\n",
        "a 1.png    0\n\n# a comment\nb1.png 1",
        "\ufeffa 1.png 0\nb1.png 1\n",
        "\"a 1.png\" 0\n'b1.png' 1\n",
        "a 1.png 0.0\nb1.png 1.0\n",
        "a 1.png 0\nb1.png 1\nb1.png 1\n",
    ],
)
def test_separators_that_leave_no_doubt(published, text):
    (published / "train.txt").write_bytes(text.encode())
    train, _ = open_lists(published)
    assert (names(train), train.labels.tolist()) == (["a 1.png", "b1.png"], [0, 1])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a 1.png 0\nb1.png\n", "line 2: expected `name number`, such as `beach01.jpg 3`, found 'b1.png'"),
        (b"a 1.png 0\nb1.png forest\n", "line 2: expected `name number`"),
        (b"a 1.png 0\nb1.png 1.5\n", "line 2: expected `name number`"),
        (b"a 1.png 0\nb1.png -1\n", "line 2: a class is a number from 0, found -1 of b1.png"),
        (b"a 1.png 0\nb1.png 9999999999999999999999\n", "line 2: 9999999999999999999999 cannot be a class's number"),
        (b"a 1.png 0\na 1.png 1\n", "line 2: a 1.png has class 1 here and 0 above"),
        (b"a 1.png 0\nzzz.png 1\n", "the train list names images that are not there: "),
        (b"# nothing\n", "train.txt lists no images"),
        (b"\xff\xfe\x00a", "is not text in UTF-8"),
        (b"a2.png 0\nb1.png 1\n", "1 images are in both train.txt and test.txt"),
    ],
)
def test_lists_that_cannot_be_meant(published, text, says):
    (published / "train.txt").write_bytes(text)
    with pytest.raises(UsageError) as caught:
        open_lists(published)
    assert says in str(caught.value)


@pytest.mark.parametrize("same", ["./a2.png", "a2.png", ".//./a2.png", '"./a2.png"'])
def test_an_image_on_both_sides_is_found_however_it_is_written(published, same):
    (published / "train.txt").write_text(f"{same} 0\nb1.png 1\n")
    with pytest.raises(UsageError, match=r"1 images are in both train\.txt and test\.txt of .*, first a2\.png"):
        open_lists(published)


def test_an_image_that_stands_there_twice_is_one(published):
    (published / "train.txt").write_text("a 1.png 0\n./a 1.png 0\n.//b1.png 1\n")
    assert names(open_lists(published)[0]) == ["a 1.png", "b1.png"]
    (published / "train.txt").write_text("b1.png 0\n./b1.png 1\n")
    with pytest.raises(UsageError, match=r"line 2: b1\.png has class 1 here and 0 above"):
        open_lists(published)


def test_a_missing_side_one_class_and_too_few_names(published):
    (published / "classes.txt").write_text("beach\n")
    with pytest.raises(UsageError, match=r"names 1 classes, but the lists go up to class 1"):
        open_lists(published)
    (published / "classes.txt").unlink()
    (published / "train.txt").write_text("a 1.png 0\n")
    (published / "test.txt").write_text("a2.png 0\n")
    with pytest.raises(UsageError, match="one class only"):
        open_lists(published)
    (published / "test.txt").unlink()
    with pytest.raises(UsageError, match=r"neither test\.txt nor val\.txt"):
        open_lists(published)


@pytest.fixture
def table(tmp_path):
    for i in range(6):
        draw(tmp_path / "images" / f"{i}.png")
    path = tmp_path / "labels.csv"
    rows = ["", "water", "water;forest", "forest | urban", "urban", "urban;water"]
    path.write_text("image,labels\n" + "".join(f"images/{i}.png,{row}\n" for i, row in enumerate(rows)))
    return path


def test_a_table_of_joined_labels(table):
    assert is_table(table)
    train, test = open_table(table, seed=0)
    assert train.classes == ("forest", "urban", "water") and len(train) + len(test) == 6 and len(test)
    assert not set(train.paths) & set(test.paths)
    assert open_table(table.parent, seed=0)[0].paths == train.paths, "the folder stands for its labels.csv"
    by_name = {
        path.name: row.tolist() for side in (train, test) for path, row in zip(side.paths, side.labels, strict=True)
    }
    assert by_name["0.png"] == [0, 0, 0] and by_name["2.png"] == [1, 0, 1] and by_name["3.png"] == [1, 1, 0]
    assert train.labels.dtype == np.float32
    assert open_table(table, seed=0)[0].paths == train.paths


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_one_column_a_class_with_its_own_split(table, separator):
    lines = ["image,split,forest,water", "images/0.png,train,1,0", "", "images/1.png,val,0,1", "images/2.png,Train,1,1"]
    table.write_bytes(("\ufeff" + "\r\n".join(lines)).replace(",", separator).encode())
    train, test = open_table(table, seed=0)
    assert (names(train), names(test)) == (["0.png", "2.png"], ["1.png"])
    assert train.labels.tolist() == [[1, 0], [1, 1]] and train.classes == ("forest", "water")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('image,labels\n\nimages/0.png,a\nimages/1.png,"b,c"\n', "line 4: classes stand between ; or |, found 'b,c'"),
        ("image,a,a\nimages/0.png,1,1\nimages/1.png,1,0\n", "has the column 'a' more than once"),
        ("name,labels\nimages/0.png,a\n", "expected a first line with a column `image`"),
        ("image,a,b\nimages/0.png,1\nimages/1.png,1,0\n", "line 2: expected 3 columns as in the first line, found 2"),
        ("image,a,b\nimages/0.png,1,2\nimages/1.png,1,0\n", "line 2: a column of a class holds 0 or 1, found '2'"),
        ("image,labels,split\nimages/0.png,a,dev\nimages/1.png,b,test\n", "line 2: split is train, test or val"),
        ("image,labels\nimages/0.png,a\nimages/0.png,b\n", "lists images/0.png more than once"),
        ("image,labels\nimages/0.png,a\nimages//./0.png,b\n", "lists images/0.png more than once"),
        ('image,labels\nimages/0.png,a\n"images/1.png,b\nimages/2.png,b\n', """begins with '"images/1.png,b'"""),
        ('image,labels\nimages/0.png,a\nimages/1.png,"' + "b" * 200_000 + '"\n', "field larger than field limit"),
        ("image,labels\nimages/0.png,a\nimages/9.png,b\n", "names images that are not there"),
        ("image,labels\nimages/0.png,a\nimages/1.png,a\n", "has 1 class (a)"),
        ("image,labels,split\nimages/0.png,a,train\nimages/1.png,b,train\n", "has no images for test"),
        ("image,labels\nimages/0.png,a\n", "lists 1 images"),
    ],
)
def test_tables_that_cannot_be_meant(table, text, says):
    table.write_text(text)
    with pytest.raises(UsageError) as caught:
        open_table(table, seed=0)
    assert says in str(caught.value)


def test_an_empty_last_cell_is_a_cell(table):
    table.write_text("image\tlabels\nimages/0.png\ta;b\nimages/1.png\t\nimages/2.png\tb\n")
    train, test = open_table(table, seed=0)
    rows = {p.name: r.tolist() for side in (train, test) for p, r in zip(side.paths, side.labels, strict=True)}
    assert rows == {"0.png": [1, 1], "1.png": [0, 0], "2.png": [0, 1]}
