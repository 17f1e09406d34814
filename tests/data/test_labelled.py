import errno
import os
from pathlib import Path

import numpy as np
import pytest

from cmid.data.labelled import LabelledFolder, draw_share
from cmid.errors import UsageError

COUNTS = {"field": 10, "port": 5, "river": 2}


def test_every_image_with_its_label(make_classes):
    folder = LabelledFolder(make_classes(COUNTS))
    images = folder.all()
    assert folder.classes == images.classes == ("field", "port", "river") and len(folder) == len(images) == 17
    assert images.labels.tolist() == [0] * 10 + [1] * 5 + [2] * 2 and images.labels.dtype == np.int64
    assert all(
        path.parent.name == images.classes[label] for path, label in zip(images.paths, images.labels, strict=True)
    )
    assert images.read(16).shape == (16, 20, 3) and images.name(16).endswith("river01.png")


def test_seeded_split_takes_its_share_of_each_class(make_classes):
    path = make_classes(COUNTS)
    train, test = LabelledFolder(path).split(seed=3)
    assert np.bincount(train.labels).tolist() == [8, 4, 1] and np.bincount(test.labels).tolist() == [2, 1, 1]
    assert set(train.paths).isdisjoint(test.paths) and len({*train.paths, *test.paths}) == 17
    again, other = LabelledFolder(path).split(seed=3)[0], LabelledFolder(path).split(seed=4)[0]
    assert again.paths == train.paths != other.paths


def test_a_class_is_drawn_alike_whatever_the_others_are(make_classes):
    first, left = LabelledFolder(make_classes({"field": 10, "port": 5})).split(seed=3)
    more, _ = LabelledFolder(make_classes({"airport": 7, "field": 10, "lake": 3, "port": 5}, "more")).split(seed=3)
    drawn = [[f"{p.parent.name}/{p.name}" for p in side.paths] for side in (first, more)]
    assert set(drawn[0]) == {name for name in drawn[1] if name.startswith(("field", "port"))}
    assert [p.stem for p in left.paths] == ["field00", "field09", "port01"], "those of before the draw was shared"


def test_a_class_whose_name_is_no_text_is_drawn_as_well(make_classes):
    path = make_classes(COUNTS)
    (path / "port").rename(path / os.fsdecode(b"\xff\xfe"))
    train, test = LabelledFolder(path).split(seed=3)
    assert (len(train), len(test)) == (13, 4) and "\udcff\udcfe" in train.classes


def test_a_share_is_drawn_class_by_class():
    labels = np.array([2, 0, 2, 2, 0, 2, 2])
    chosen = draw_share(labels, ("a", "none", "b"), share=0.8, seed=0)
    assert np.bincount(labels[chosen], minlength=3).tolist() == [1, 0, 4] and len(np.unique(chosen)) == 5
    assert draw_share(labels[labels == 2], ("x", "y", "b"), share=0.99, seed=0).size == 4, "one is left for the test"
    with pytest.raises(UsageError, match="class y has one image"):
        draw_share(np.array([0, 0, 1]), ("x", "y"), share=0.5, seed=0)


def test_lists(make_classes, tmp_path):
    folder = LabelledFolder(make_classes(COUNTS))
    (tmp_path / "train.txt").write_text(
        "# ours\nriver/river01.tif\nfield/field03.png\n\nport\\port02.png\nfield/field03.png"
    )
    (tmp_path / "test.txt").write_text("port/port00.png\nport/port01.png\n")
    train, test = folder.split(tmp_path / "train.txt", tmp_path / "test.txt")
    assert [p.name for p in train.paths] == ["river01.png", "field03.png", "port02.png"]
    assert train.labels.tolist() == [2, 0, 1] and test.labels.tolist() == [1, 1]
    train, rest = folder.split(tmp_path / "train.txt")
    assert len(rest) == 14 and set(rest.paths).isdisjoint(train.paths)
    rest, test = folder.split(test_list=tmp_path / "test.txt")
    assert len(rest) == 15 and set(rest.paths).isdisjoint(test.paths)


def test_a_single_folder_around_the_classes_is_entered(make_classes, tmp_path):
    make_classes(COUNTS, "set/Images")
    folder = LabelledFolder(tmp_path / "set")
    assert folder.classes == ("field", "port", "river")
    (tmp_path / "train.txt").write_text("Images/field/field00.png\nport/port00.png\n")
    assert folder.split(tmp_path / "train.txt")[0].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({}, "no folders in"),
        ({"field": 3}, "only one class, field"),
        ({"field": 3, "port": 0}, "class port has no images"),
        ({"field": 3, "port": 1}, "class port has one image"),
    ],
)
def test_folders_that_cannot_be_split(make_classes, tmp_path, counts, says):
    (tmp_path / "labelled").mkdir()
    with pytest.raises(UsageError, match=says):
        LabelledFolder(make_classes(counts)).split()


def test_lists_that_cannot_be_used(make_classes, tmp_path):
    folder = LabelledFolder(make_classes(COUNTS))
    for name, lines in {
        "gone": "field/field00.png\nfield/field99.png\nlake/lake00.png",
        "empty": "# nothing",
        "a": "field/field00.png",
        "every": "\n".join(f"{p.parent.name}/{p.name}" for p in folder.all().paths),
    }.items():
        (tmp_path / f"{name}.txt").write_text(lines)
    with pytest.raises(
        UsageError, match=r"not in .*: field/field99.png, lake/lake00.png; expected paths such as field/"
    ):
        folder.split(tmp_path / "gone.txt")
    with pytest.raises(UsageError, match="lists no files"):
        folder.split(tmp_path / "empty.txt")
    with pytest.raises(UsageError, match="1 images are in both"):
        folder.split(tmp_path / "a.txt", tmp_path / "a.txt")
    with pytest.raises(UsageError, match="no images left for test"):
        folder.split(tmp_path / "every.txt")
    with pytest.raises(UsageError, match="cannot read the list"):
        folder.split(tmp_path / "nowhere.txt")
    with pytest.raises(UsageError, match="no such folder"):
        LabelledFolder(tmp_path / "nowhere")


def test_folders_that_cannot_be_listed(make_classes, monkeypatch):
    path = make_classes(COUNTS)
    with pytest.raises(UsageError, match=r"cannot look up .*: file name too long"):
        LabelledFolder(path / ("n" * 300))
    for of, where in ((Path, "iterdir"), (os, "scandir")):
        with monkeypatch.context() as patch, pytest.raises(UsageError, match=r"cannot list the folder .*: input"):
            patch.setattr(of, where, fails)
            LabelledFolder(path)


def fails(path):
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))


def test_uc_merced(real_images):
    root = real_images / "UCMerced_LandUse"
    train, test = LabelledFolder(root).split(root / "split_80_20_train.txt", root / "split_80_20_test.txt")
    assert len(train.classes) == 21 and len(train) == 1680 and len(test) == 420
    assert set(np.bincount(test.labels)) == {20}
