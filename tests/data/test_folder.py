import errno
import inspect
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from cmid.data.decode import BadImage
from cmid.data.folder import LOOKED_AT, FolderSource, find_files, listed_positions, read_list
from cmid.errors import UsageError
from tests.data.conftest import picture

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere paths may be of another length")


def test_a_tree_of_any_depth_and_case(tmp_path):
    for name in ("b/x.JPG", "a/deep/er/y.TiF", "z.png", "a/w.jpeg", "c.webp", "ä ö.gif", "b.jp2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(0).convert("P" if name.endswith("gif") else "RGB").save(tmp_path / name)
    for name in (".hidden.png", ".cache/d.png", "notes.txt", "a/._w.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    source = FolderSource(tmp_path)
    names = ["a/deep/er/y.TiF", "a/w.jpeg", "b.jp2", "b/x.JPG", "c.webp", "z.png", "ä ö.gif"]
    assert source.paths == [tmp_path / name for name in names] and len(source) == 7
    assert source.name(3) == str(tmp_path / "b/x.JPG")
    for i in range(7):
        assert source.read(i).shape == (40, 48, 3)
    np.testing.assert_array_equal(source.read(5), np.asarray(picture(0)))


def test_links_are_followed_once_and_loops_end(make_folder, tmp_path):
    folder = make_folder(2)
    (folder / "loop").symlink_to(folder)
    outside = make_folder(1, "outside")
    (folder / "one").symlink_to(outside)
    (folder / "two").symlink_to(outside)
    (folder / "nowhere.png").symlink_to(tmp_path / "gone.png")
    assert find_files(folder) == ["000.jpg", "001.jpg", "nowhere.png", "one/000.jpg"]
    with pytest.raises(BadImage, match="no such file"):
        FolderSource(folder).read(2)


def test_a_list_file(make_folder, tmp_path):
    folder = make_folder(3)
    lines = f"\ufeff# a comment\nimages/002.jpg\n\n  {folder}/000.jpg  \r\nimages/gone.jpg\n"
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    source = FolderSource(tmp_path / "list.txt")
    assert source.paths == [folder / "002.jpg", folder / "000.jpg", folder / "gone.jpg"]
    np.testing.assert_array_equal(source.read(1), np.asarray(Image.open(folder / "000.jpg")))
    with pytest.raises(BadImage, match="no such file"):
        source.read(2)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_names_its_images_whatever_else_it_says(make_folder, delimiter):
    folder = make_folder(3)
    rows = [("split", "Image", "labels"), ("train", "001.jpg", "a|b"), ("test", "000.jpg", "")]
    (folder / "labels.csv").write_text("\n".join(delimiter.join(row) for row in rows))
    assert FolderSource(folder / "labels.csv").paths == [folder / "001.jpg", folder / "000.jpg"]
    (folder / "list.csv").write_text("000.jpg\n002.jpg\n")
    assert FolderSource(folder / "list.csv").paths == [folder / "000.jpg", folder / "002.jpg"]
    (folder / "other.csv").write_text(delimiter.join(("file", "label")) + "\n000.jpg,a\n")
    with pytest.raises(UsageError, match="has the columns file, label and none called image"):
        FolderSource(folder / "other.csv")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ('000.jpg,a\n"001.jpg,b\n002.jpg,c\n', """unexpected end of data, in what begins with '"001.jpg,b'"""),
        ("000.jpg,a\n001.jpg," + "b" * 200_000 + "\n002.jpg,c\n", "field larger than field limit .* '001.jpg,bbb"),
    ],
)
def test_no_image_of_a_table_is_lost_to_a_quote(make_folder, rows, says):
    path = make_folder(3) / "labels.csv"
    path.write_text(f"image,labels\n{rows}")
    with pytest.raises(UsageError, match=rf"labels\.csv cannot be read as CSV: {says}"):
        FolderSource(path)


def test_in_a_list_of_paths_a_quote_is_a_letter(make_folder):
    folder = make_folder(2)
    (folder / "000.jpg").rename(folder / '"odd.jpg')
    (folder / "list.csv").write_text('001.jpg\n"odd.jpg\n')
    assert FolderSource(folder / "list.csv").paths == [folder / "001.jpg", folder / '"odd.jpg']
    (folder / "long.csv").write_text("a" * 200_000 + "\n001.jpg\n")
    with pytest.raises(UsageError, match=r"long\.csv cannot be read as CSV: field larger"):
        FolderSource(folder / "long.csv")


@pytest.mark.parametrize("line", [".", "/", "./", "a/"])
def test_a_line_that_ends_in_no_name_is_no_file(tmp_path, line):
    (tmp_path / "train.txt").write_text(f"a/0.png\n{line}\n")
    with pytest.raises(UsageError, match=r"train\.txt names files that are not in here"):
        listed_positions(tmp_path / "train.txt", ["a/0.png", "a/1.png"], "here", "a/")
    (tmp_path / "train.txt").write_text("a/1\na/0.tif\n")
    assert listed_positions(tmp_path / "train.txt", ["a/0.png", "a/1.png"], "here") == [1, 0]


def test_names_that_are_not_text(tmp_path):
    for name in (b"a\xff.png", b"b.png"):
        picture(0).save(tmp_path / os.fsdecode(name))
    assert FolderSource(tmp_path).read(0).shape == (40, 48, 3)


def test_a_list_is_split_where_a_line_ends_and_nowhere_else(tmp_path):
    names = [f"a{each}b.png" for each in ("\x0b", "\x0c", "\x1c", "\x85", "\u2028")]
    (tmp_path / "list.txt").write_bytes("\r\n".join(names).encode() + b"\rlast.png\n")
    assert FolderSource(tmp_path / "list.txt").paths == [tmp_path / name for name in (*names, "last.png")]


@linux
@pytest.mark.parametrize(
    "begins", [b"PK\x03\x04\x14\0\0\0", b"images/a.jpg\n" + b"\0" * 499, b"a.png\n" * 9 + b"\xff\xd8"]
)
def test_what_is_no_list_is_told_by_its_beginning_however_long_it_is(tmp_path, begins):
    path = tmp_path / "images.tar"
    path.write_bytes(begins + b"a.png\n")
    os.truncate(path, 1 << 40)  # a hole, that nobody could read into memory
    with pytest.raises(UsageError, match=r"images\.tar is not a text file: expected a folder of images, or one path a"):
        FolderSource(path)


def test_a_list_longer_than_lists_are_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.png\n" * 20_000)
    monkeypatch.setattr("cmid.data.folder.MOST_LIST_BYTES", 119_999)
    with pytest.raises(
        UsageError, match=r"list\.txt is longer than 119,999 bytes.*: give the folder of the images, or a"
    ):
        read_list(path)
    monkeypatch.setattr("cmid.data.folder.MOST_LIST_BYTES", 120_000)
    assert read_list(path) == ["a.png"] * 20_000


def test_a_character_may_lie_across_the_end_of_what_is_looked_at_first(tmp_path):
    name = "a" * (LOOKED_AT - 1) + "ä.png"
    (tmp_path / "list.txt").write_text(f"{name}\nb.png\n", encoding="utf-8")
    assert read_list(tmp_path / "list.txt") == [name, "b.png"]


def test_a_list_may_come_through_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("a.png\n" * 30_000,))
    writer.start()
    assert read_list(tmp_path / "pipe") == ["a.png"] * 30_000
    writer.join()


def deep(top, depth, name="d"):
    """A folder `name/name/...` of that depth below `top`, made from inside: its path may be too long for the system."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        here, above = os.open(name, os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


@linux
def test_a_tree_deeper_than_python_recurses(tmp_path):
    limit, frames = sys.getrecursionlimit(), len(inspect.stack(0))
    deep(tmp_path, 300)
    (tmp_path / "d" / "d" / "loop").symlink_to(tmp_path)
    (tmp_path / "a").symlink_to(tmp_path / "d" / "d")
    sys.setrecursionlimit(frames + 100)  # the usual 1,000 would make the test slow
    try:
        found = find_files(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    # The link comes first by name, so the tree is known by it, and the two folders above have nothing left.
    assert found == ["a/" + "d/" * 298 + "x.png"]


@linux
def test_a_tree_deeper_than_paths_may_be_long_is_told_in_one_line(tmp_path):
    deep(tmp_path, 18, "d" * 250)
    try:
        with pytest.raises(UsageError, match=r"cannot list the folder .*ddd\.\.\.: file name too long: move") as told:
            find_files(tmp_path)
        assert len(str(told.value)) < 500
    finally:
        subprocess.run(["rm", "-r", str(tmp_path / ("d" * 250))], check=True)


def test_a_link_to_itself_leads_nowhere(make_folder):
    folder = make_folder(2)
    (folder / "self").symlink_to("self")
    (folder / "self.png").symlink_to("self.png")
    assert find_files(folder) == ["000.jpg", "001.jpg", "self.png"]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_folder_that_cannot_be_listed_is_told_with_the_reason(make_folder, monkeypatch, number):
    folder = make_folder(2)
    (folder / "deep").mkdir()
    listed = os.scandir

    def fails(path):
        if str(path).endswith("deep"):
            raise OSError(number, os.strerror(number), str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(UsageError, match=f"(?i)cannot list the folder .*deep: {os.strerror(number)}"):
        FolderSource(folder)


def test_limit_is_drawn_by_seed(make_folder):
    folder = make_folder(12)
    names = [tuple(p.name for p in FolderSource(folder, limit=5, seed=seed).paths) for seed in (0, 0, 1, -3)]
    assert names[0] == names[1] != names[2] and all(len(n) == 5 and list(n) == sorted(n) for n in names)
    assert len(FolderSource(folder, limit=50)) == 12


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "gone", "no such folder or list file"),
        (lambda p: p / "empty", r"no images in .*empty; looked for files ending in .jpg .jpeg .png"),
        (lambda p: p / "one", "only one image, a.png.*at least 2"),
        (lambda p: p / "one" / "a.png", "is one image"),
        (lambda p: p / "empty.txt", "no images.*one path a line"),
        (lambda p: p / "binary.txt", "not a text file"),
        (lambda p: p / "x.vrt", "x.vrt is no list of files, by its suffix .vrt: .*give the files that it is of"),
        (lambda p: p / "x.yaml", "x.yaml is no list of files, by its suffix .yaml: expected a folder, or a text file"),
        (lambda p: p / "one" / "shards.json", "is a manifest of shards.*: give the folder, .*one$"),
        (lambda p: p / "lone", "holds 1 shards, first shard-00000.tar, but not their manifest shards.json: copy it"),
        (lambda p: p / "wrong.txt", "wrong.txt lists gone.png alone, and there is no such file: expected a path"),
        (lambda p: p / "tree.txt", "tree.txt lists one alone, which is a folder: name the folder itself"),
        (lambda p: p / "alone.txt", "only one image, one/a.png.*at least 2"),
        (lambda p: p / ("n" * 300), "cannot look up .*: file name too long"),
        (lambda p: f"{p}/a\0b", "cannot look up .*null"),
        (lambda p: p / "far.txt", "lists 1 addresses, first s3://b/a.tif: .*--source scenes --scenes.remote true"),
        (lambda _: "HTTPS://x/a.tif", "HTTPS://x/a.tif is an address: .*from a list file with --source scenes"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, make, says):
    for name in ("empty", "one", "lone"):
        (tmp_path / name).mkdir()
    for name in ("x.vrt", "x.yaml", "lone/shard-00000.tar", "one/shards.json"):
        (tmp_path / name).write_text("a.png\nb.png\n")
    picture(0).save(tmp_path / "one/a.png")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "far.txt").write_text("one/a.png\ns3://b/a.tif\n")
    for name, entry in (("wrong", "gone.png"), ("tree", "one"), ("alone", "one/a.png")):
        (tmp_path / f"{name}.txt").write_text(f"{entry}\n")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    with pytest.raises(UsageError, match=says) as error:
        FolderSource(make(tmp_path))
    assert "\n" not in str(error.value)


def test_limits_that_cannot_be_used(make_folder):
    folder = make_folder(3)
    with pytest.raises(UsageError, match="limit 1"):
        FolderSource(folder, limit=1)
    with pytest.raises(UsageError, match="found -1"):
        FolderSource(folder, limit=-1)
