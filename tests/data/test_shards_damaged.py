"""Manifests, indices and pixels that are damaged or meant to harm: each is told in words, and ends no run alone."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from cmid.data.decode import BadImage
from cmid.data.shard_manifest import Manifest, checksum
from cmid.data.shards import MOST_IMAGE_BYTES, ShardSource, verify, write_shards
from cmid.errors import UsageError
from tests.data.test_shards import packed


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(9):
        Image.fromarray(np.full((20, 20, 3), 20 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
    packed(tmp_path / "images", tmp_path / "shards", shard_bytes=4000)
    return tmp_path / "shards"


def rewrite(shards, change, *, sums=True):
    """The manifest after `change`; without `sums`, as an earlier version wrote it."""
    plain = json.loads((shards / "shards.json").read_text())
    change(plain)
    if not sums:
        del plain["sums"]
    (shards / "shards.json").write_text(json.dumps(plain))


def reindex(shards, change):
    index = np.load(shards / "index.npy")
    change(index)
    np.save(shards / "index.npy", index)


def test_the_index_and_the_names_are_checked_as_the_shards_are(shards):
    assert Manifest.read(shards).sums == {name: checksum(shards / name) for name in ("index.npy", "names.txt")}
    heard = []
    assert verify(shards, lambda done, total: heard.append((done, total))) == {}
    files = len(Manifest.read(shards).shards) + 2
    assert heard == [(i + 1, files) for i in range(files)]
    names = (shards / "names.txt").read_bytes()
    (shards / "names.txt").write_bytes(names.replace(b"3.png", b"7.png"))
    reindex(shards, lambda index: index.__setitem__((2, 1), index[2, 1] - 512))
    ShardSource(shards)  # both are possible
    assert set(verify(shards)) == {"index.npy", "names.txt"}
    assert all("check sum" in reason for reason in verify(shards).values())
    (shards / "names.txt").write_bytes(names)
    (shards / "index.npy").unlink()
    assert verify(shards) == {"index.npy": "it is missing"}


def test_without_sums_it_is_told_where_the_index_cannot_be(shards):
    rewrite(shards, lambda plain: None, sums=False)
    assert Manifest.read(shards).sums == {} and verify(shards) == {} and len(ShardSource(shards)) == 9
    reindex(shards, lambda index: index.__setitem__((4, 1), 10**6))
    assert verify(shards)["index.npy"].startswith("index.npy points outside the shards; copy it again")
    (shards / "index.npy").unlink()
    assert verify(shards) == {"index.npy": "it is missing"}


@pytest.mark.parametrize(
    "row", [(0, 2**62, 2**62), (0, 2**63 - 1, 2**63 - 1), (0, 512, -1), (0, -512, 10), (-1, 0, 10)]
)
def test_an_index_that_no_shard_can_hold_is_refused(shards, row):
    reindex(shards, lambda index: index.__setitem__(3, row))
    with pytest.raises(UsageError, match=r"index\.npy points outside the shards; copy it again"):
        ShardSource(shards)


def npy(header):
    """A npy file that says `header`, whatever it holds."""
    text = header.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 1200


UNTRUE = {
    "cut off": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (20, 20, "),
    "huge": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1152921504606846976, 1, 3), }"),
    "beyond int64": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999999, 1, 3), }"),
    "zip": b"PK\x03\x04" + b"\0" * 1300,
    "no array": b"",
    "nothing in it": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 20, 3), }"),
}


@pytest.mark.parametrize("data", UNTRUE.values(), ids=UNTRUE)
def test_an_index_of_damaged_bytes_is_told_in_words(shards, data):
    (shards / "index.npy").write_bytes(data)
    with pytest.raises(UsageError, match=r"cannot be read \(.+\): copy them again|do not fit the manifest; copy"):
        ShardSource(shards)


class Pixels:
    """A source of pixels, as windows of scenes are."""

    bands, dtype, fresh = 3, torch.uint8, False

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def name(self, i):
        return f"window {i}"


def pixels(folder, data):
    """A set of three images of stored pixels, the second of them being `data`."""
    good = io.BytesIO()
    np.save(good, np.ones((20, 20, 3), np.uint8))
    folder.mkdir()
    write_shards(Pixels(3), folder, shard_bytes=10**6, read=lambda i: (".npy", data if i == 1 else good.getvalue()))
    rewrite(folder, lambda plain: plain.update(stored="pixels", dtype="uint8", numbers={"mean": [0.5, 0.5, 0.5]}))
    return ShardSource(folder)


@pytest.mark.parametrize("data", UNTRUE.values(), ids=UNTRUE)
def test_pixels_that_are_none_are_one_bad_image(tmp_path, data):
    source = pixels(tmp_path / "shards", data)
    with pytest.raises(BadImage, match=r"shard-00000.tar: window 1: (its pixels cannot be read: .|pixels of )"):
        source.decode(1)
    assert source.decode(0).pixels.shape == source.decode(2).pixels.shape == (20, 20, 3)


def test_an_image_larger_than_is_read_in_one_go_is_not_packed_and_not_asked_for(shards, tmp_path, monkeypatch):
    assert MOST_IMAGE_BYTES < 2**31
    monkeypatch.setattr("cmid.data.shards.MOST_IMAGE_BYTES", 1000)
    (tmp_path / "more").mkdir()
    _, bad = write_shards(Pixels(3), tmp_path / "more", shard_bytes=10**6, read=lambda i: (".x", bytes(999 + i)))
    assert bad == {"window 2": "1,001 bytes, where a shard gives back 1,000; cut it into tiles first"}
    source = ShardSource(shards)
    source._index[1, 2] = 1001
    with pytest.raises(BadImage, match="where a shard gives back 1,000"):
        source.read(1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m["shards"][0].update(bytes="100"), r"shards\[0\]\.bytes should be a whole number, found '100'"),
        (lambda m: m["shards"][1].update(bytes=2**63), r"shards\[1\]\.bytes should be a whole number, found 9223"),
        (lambda m: m["shards"][0].update(bytes=True), r"shards\[0\]\.bytes should be a whole number, found True"),
        (lambda m: m["shards"][0].update(images=-1), r"shards\[0\]\.images should be a whole number, found -1"),
        (lambda m: m["shards"][0].update(sha256=None), r"shards\[0\]\.sha256 should be a check sum, found None"),
        (lambda m: m["shards"][0].update(file=7), r"shards\[0\]\.file should be a file's name, found 7"),
        (lambda m: m["shards"][0].update(file=".."), r"shards\[0\]\.file should be a file's name"),
        (lambda m: m.update(shards=[]), "images should be 0, as the shards have, found 9"),
        (lambda m: m.update(shards={"a": 1}), ""),
        (lambda m: m.update(images="9"), "images should be 9, as the shards have, found '9'"),
        (lambda m: m.update(images=8), "images should be 9, as the shards have, found 8"),
        (lambda m: m.update(stored="tiles"), "stored should be files or pixels, found 'tiles'"),
        (lambda m: m.update(dtype="float32"), "dtype should be uint8, found 'float32'"),
        (lambda m: m.update(stored="pixels", dtype=["u1"]), r"dtype should be uint8 or float32, found \['u1'\]"),
        (lambda m: m.update(numbers=[]), r"numbers should be names with their values, found \[\]"),
        (lambda m: m.update(numbers={"mean": None}), r"numbers\.mean should be a list of numbers, found None"),
        (lambda m: m.update(numbers={"low": [1, "2"]}), r"numbers\.low should be a list of numbers"),
        (lambda m: m.update(numbers={"mean": []}), r"numbers\.mean should be a number for each band, found \[\]"),
        (lambda m: m.update(numbers={"bands": "red"}), r"numbers\.bands should be a list of names, found 'red'"),
        (lambda m: m.update(numbers={"colours": 3}), r"numbers\.colours should be a word, found 3"),
        (lambda m: m.update(sums=["index.npy"]), "sums should be files with their check sums"),
        (lambda m: m.update(sums={"index.npy": 5}), "sums should be files with their check sums"),
        (lambda m: m.update(format="1"), "format should be a whole number, found '1'"),
        (lambda m: m.update(more=1), ""),
    ],
)
def test_fields_of_a_manifest_that_are_of_another_type_are_named(shards, change, says):
    rewrite(shards, change)
    end = "; copy it from where it was written, or pack the images anew$"
    with pytest.raises(UsageError, match=f"shards.json is no manifest of shards: {says}.*{end}"):
        ShardSource(shards)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "", "\0", '{"format": ' + "9" * 5000 + "}"])
def test_what_is_no_manifest_at_all_is_told_in_words(shards, text):
    (shards / "shards.json").write_text(text)
    with pytest.raises(UsageError, match=r"shards.json is no manifest of shards: .*copy it from where it was written"):
        Manifest.read(shards)
