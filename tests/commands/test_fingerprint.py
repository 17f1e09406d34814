import hashlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from cmid.commands.fingerprint import fingerprint, label_fingerprint
from cmid.config import SceneConfig
from cmid.data.few_labels import few_of_each
from cmid.data.folder import FolderSource
from cmid.data.labelled import LabelledFolder
from cmid.data.listed import open_lists, open_table
from cmid.data.scenes import SceneSource, open_scenes
from cmid.data.shards import ShardSource, write_shards
from cmid.data.statistics import Stretch
from cmid.data.torchgeo_datasets import TorchgeoSource, labelled_whole, parse_name
from tests.data.rasters_on_disk import numbered, write_raster
from tests.data.test_torchgeo_datasets import draw_millionaid, draw_resisc


def test_names_and_their_order_count_and_the_folder_does_not(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "images" / name)
    first = fingerprint(FolderSource(tmp_path / "images"))
    shutil.copytree(tmp_path / "images", tmp_path / "elsewhere" / "deep")
    assert fingerprint(FolderSource(tmp_path / "elsewhere" / "deep")) == first
    (tmp_path / "elsewhere" / "deep" / "b" / "1.png").rename(tmp_path / "elsewhere" / "deep" / "b" / "3.png")
    assert fingerprint(FolderSource(tmp_path / "elsewhere" / "deep")) != first
    for order, same in ((("a/1.png", "a/2.png", "b/1.png"), True), (("a/2.png", "a/1.png", "b/1.png"), False)):
        (tmp_path / "images" / "list.txt").write_text("\n".join(order))
        assert (fingerprint(FolderSource(tmp_path / "images" / "list.txt")) == first) == same


def labelled_folder(root):
    return LabelledFolder(root).all()


def part_of_a_labelled_folder(root):
    return few_of_each(LabelledFolder(root).all(), 2, seed=0)


def published_lists(root):
    for side, numbers in (("train", (0, 1)), ("test", (2,))):
        lines = [f"{name}/{i}.png {label}" for label, name in enumerate(("a", "b")) for i in numbers]
        (root / f"{side}.txt").write_text("\n".join(lines))
    (root / "img").mkdir()
    for name in ("a", "b"):
        (root / name).rename(root / "img" / name)
    return lambda root: open_lists(root)[0]


def table(root):
    lines = ["image,labels", *(f"{name}/{i}.png,{name}" for name in ("a", "b") for i in range(3))]
    (root / "labels.csv").write_text("\n".join(lines))
    return lambda root: open_table(root, seed=0)[0]


@pytest.mark.parametrize(
    ("lay_out", "opened"),
    [
        (None, labelled_folder),
        (None, part_of_a_labelled_folder),
        (published_lists, None),
        (table, None),
    ],
)
def test_labelled_images_may_be_moved_and_not_renamed(tmp_path, lay_out, opened):
    root = tmp_path / "images"
    for name in ("a/0", "a/1", "a/2", "b/0", "b/1", "b/2"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / f"{name}.png")
    opened = opened or lay_out(root)
    first = fingerprint(opened(root))
    (tmp_path / "else").mkdir()
    moved = root.rename(tmp_path / "else" / "where")
    assert fingerprint(opened(moved)) == first
    again = moved.rename(tmp_path / "again")
    assert fingerprint(opened(again)) == first
    for path in [*again.rglob("*.png"), *again.glob("*.txt"), *again.glob("*.csv")]:
        if path.suffix == ".png":
            path.rename(path.with_name(f"x{path.name}"))
        else:
            path.write_text(re.sub(r"([ab])/", r"\1/x", path.read_text()))
    assert fingerprint(opened(again)) != first


def test_labels_count_and_the_names_of_their_classes(tmp_path):
    root = tmp_path / "images"
    names = ("a/0", "a/1", "b/0", "b/1")
    for name in (*names, "test"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / f"{name}.png")

    def of(labels):
        lines = ["image,labels,split", *(f"{n}.png,{label},train" for n, label in zip(names, labels, strict=True))]
        (root / "labels.csv").write_text("\n".join([*lines, "test.png,k,test", ""]))
        train = open_table(root, seed=0)[0]
        assert fingerprint(train) == first, "the images are the same"
        return label_fingerprint(train)

    first = fingerprint(LabelledFolder(root).all())
    found = [of("kkmm"), of("kkmm"), of("kmkm"), of("kkmn"), of("kkon"), of(["k", "k;m", "m", "m"])]
    assert found[0] == found[1]
    assert found[-1] == label_fingerprint(open_table(root.rename(tmp_path / "moved"), seed=0)[0])
    assert len(set(found)) == 5, "another label, a third class, another name of a class, several classes an image"
    one = LabelledFolder(tmp_path / "moved").all()
    assert label_fingerprint(one) != label_fingerprint(one, one), "a side more"
    part = few_of_each(one, 1, seed=0)
    assert label_fingerprint(part) != label_fingerprint(one)


def test_a_data_set_of_torchgeo_may_be_moved(tmp_path):
    draw_resisc(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (TorchgeoSource(parse_name(f"torchgeo:UCMerced?root={tmp_path / n}")) for n in ("one", "two"))
    assert str(tmp_path) in one.name(0)
    assert fingerprint(one) == fingerprint(two) == fingerprint(labelled_whole(two))


def test_files_that_torchgeo_lists_are_told_apart_and_may_be_moved(tmp_path, monkeypatch):
    draw_millionaid(tmp_path / "one", {"train": ("beach", "dam")})
    shutil.copytree(tmp_path / "one", tmp_path / "two")

    def of(root):
        return fingerprint(TorchgeoSource(parse_name(f"torchgeo:MillionAID?root={root}")))

    first = of(tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    assert first == of(tmp_path / "two") == of("./two")
    file = next((tmp_path / "two").rglob("dam0.jpg"))
    file.rename(file.with_name("dam7.jpg"))
    assert first != of(tmp_path / "two")


def test_a_scene_that_is_missing_or_of_another_size_is_noticed(tmp_path):
    def of(folder):
        scenes = open_scenes(folder, SceneConfig())
        stretch = Stretch((), (), (0.0,))
        return fingerprint(SceneSource(scenes, window=16, windows=8, seed=0, stretch=stretch))

    for name in ("a.tif", "b.tif"):
        write_raster(tmp_path / "one" / name, numbered(1, 32, 48))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert of(tmp_path / "one") == of(tmp_path / "two")
    write_raster(tmp_path / "two" / "b.tif", numbered(1, 32, 64))
    assert of(tmp_path / "one") != of(tmp_path / "two")
    (tmp_path / "two" / "b.tif").unlink()
    assert of(tmp_path / "one") != of(tmp_path / "two")


def test_shards_are_known_by_what_was_packed(tmp_path):
    for i in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
    found = set()
    for number, shard_bytes in enumerate((1_000, 1_000_000)):
        (out := tmp_path / f"shards{number}").mkdir()
        source = FolderSource(tmp_path / "images")
        read = lambda i: (".png", source.path_of(i).read_bytes())  # noqa: B023, E731 - called in this round
        write_shards(source, out, shard_bytes=shard_bytes, read=read)
        digest = hashlib.blake2b(digest_size=8)  # as runs on shards have it in their checkpoints
        for words in ("3 of 3", *(str(tmp_path / "images" / f"{i}.png") for i in range(3))):
            digest.update(words.encode() + b"\0")
        assert fingerprint(ShardSource(out)) == digest.hexdigest()
        found.add(fingerprint(ShardSource(out)))
    assert len(found) == 1, "the size of the shards is no matter"
