import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cmid.config import ViewConfig
from cmid.data.decode import BadImage, decode
from cmid.data.folder import FolderSource
from cmid.data.order import epoch_order
from cmid.data.shards import ShardSource, verify, write_shards
from cmid.data.views import ViewLoader
from cmid.errors import CmidError, UsageError


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(30):
        path = tmp_path / "images" / f"{i % 3}" / f"{i:02d}.{('jpg', 'png', 'tif')[i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    deep = generator.integers(0, 4000, (40, 50)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "images" / "deep.png")
    return tmp_path / "images"


def packed(folder, out, shard_bytes=30_000):
    source = FolderSource(folder)

    def read(i):
        path = source.path_of(i)
        return path.suffix, path.read_bytes()

    out.mkdir()
    return write_shards(source, out, shard_bytes=shard_bytes, read=read)[0]


def test_images_are_those_of_the_folder_bit_by_bit(folder, tmp_path):
    manifest = packed(folder, tmp_path / "shards")
    files, shards = FolderSource(folder), ShardSource(tmp_path / "shards")
    assert len(shards) == manifest.images == 31 and len(manifest.shards) > 3
    assert all(shard.bytes <= 30_000 + 10_240 for shard in manifest.shards)
    for i in range(31):
        assert shards.original(i) == files.name(i)
        shard = manifest.shards[int(np.load(tmp_path / "shards" / "index.npy")[i, 0])].file
        assert shards.name(i) == f"{shard}: {files.name(i)}", "the file of that name may be as good as ever"
        assert shards.read(i) == files.path_of(i).read_bytes()
        ours, theirs = shards.decode(i, lambda w, h: 2), decode(files.path_of(i), lambda w, h: 2)
        assert np.array_equal(ours.pixels, theirs.pixels) and ours.factor == theirs.factor


def test_a_shard_is_a_tar_like_any_other(folder, tmp_path):
    manifest = packed(folder, tmp_path / "shards")
    members = []
    for shard in manifest.shards:
        with tarfile.open(tmp_path / "shards" / shard.file) as tar:
            members += [(m.name, tar.extractfile(m).read()) for m in tar]
        listed = subprocess.run(["tar", "tf", tmp_path / "shards" / shard.file], capture_output=True, check=True)
        assert len(listed.stdout.split()) == shard.images
    files = FolderSource(folder)
    assert [data for _, data in members] == [files.path_of(i).read_bytes() for i in range(31)]
    assert members[7][0] == f"000000007{files.path_of(7).suffix}"


@pytest.mark.parametrize("suffix", [f".{'x' * 95}", ".JPG", ".img", ""])
def test_a_listed_image_may_have_any_suffix(folder, tmp_path, suffix):
    names = [f"a{suffix}", "0/00.jpg"]
    (folder / names[0]).write_bytes((folder / "0/00.jpg").read_bytes())
    (folder / "list.txt").write_text("\n".join(names))
    manifest = packed(folder / "list.txt", tmp_path / "shards")
    shards = ShardSource(tmp_path / "shards")
    assert len(shards) == 2 and np.array_equal(shards.decode(0).pixels, shards.decode(1).pixels)
    assert shards.original(0) == str(folder / names[0])
    with tarfile.open(tmp_path / "shards" / manifest.shards[0].file) as tar:
        assert tar.getnames() == [f"000000000{suffix if suffix == '.JPG' else ''}", "000000001.jpg"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_sees_each_image_once_and_the_same_crops_as_from_files_of_that_order(folder, tmp_path, workers):
    packed(folder, tmp_path / "shards")
    views = ViewConfig(size=16)
    loaders = [
        ViewLoader(source, views, batch_size=4, seed=1, workers=workers, drop_last=False)
        for source in (ShardSource(tmp_path / "shards"), FolderSource(folder))
    ]
    for ours, theirs in zip(*loaders, strict=True):
        assert torch.equal(ours.indices, theirs.indices)
        assert all(torch.equal(a.images, b.images) for a, b in zip(ours, theirs, strict=True))
    for loader in loaders:
        ids = torch.cat([batch.indices for batch in loader]).tolist()
        assert sorted(ids) == list(range(31))
        loader.close()


def test_the_order_keeps_blocks_near_and_loses_nothing():
    for images, block in ((10_000, 100), (10_007, 64), (1601, 100), (1600, 100), (5, 3)):
        orders = [epoch_order(images, 3, epoch, block) for epoch in range(3)]
        assert all(sorted(order.tolist()) == list(range(images)) for order in orders)
        assert images < 100 or not np.array_equal(orders[0], orders[1])
        assert np.array_equal(orders[1], epoch_order(images, 3, 1, block))
    order = epoch_order(100_000, 0, 0, 100)
    for first in range(0, 90_000, 1600):
        part = order[first : first + 1600]
        # of a thousand blocks few are open at a time: those of two groups at most, each across two round hundreds
        assert len(np.unique(part // 100)) <= 2 * 2 * 16 + 2
    # neighbours in the file are no neighbours in the order: the mean jump is that of a mix, not of a run
    assert np.abs(np.diff(order)).mean() > 20_000


def test_a_torn_shard_is_named_and_left_out(folder, tmp_path):
    manifest = packed(folder, tmp_path / "shards")
    torn = tmp_path / "shards" / manifest.shards[1].file
    torn.write_bytes(torn.read_bytes()[:-512])
    source = ShardSource(tmp_path / "shards")
    assert list(source.torn) == [torn.name] and "of" in source.torn[torn.name]
    assert len(source) == 31 - manifest.shards[1].images
    lost = {source.name(i) for i in range(len(source))}
    assert len(lost) == len(source)
    torn.unlink()
    assert ShardSource(tmp_path / "shards").torn[torn.name] == "it is missing"


def test_a_shard_that_tears_later_gives_bad_images(folder, tmp_path):
    manifest = packed(folder, tmp_path / "shards")
    source = ShardSource(tmp_path / "shards")
    path = tmp_path / "shards" / manifest.shards[-1].file
    path.write_bytes(b"")
    with pytest.raises(BadImage, match="torn"):
        source.decode(len(source) - 1)


def test_changed_bytes_are_found(folder, tmp_path):
    manifest = packed(folder, tmp_path / "shards")
    assert verify(tmp_path / "shards") == {}
    path = tmp_path / "shards" / manifest.shards[2].file
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    assert "check sum" in verify(tmp_path / "shards")[path.name]


def test_what_is_no_set_of_shards_is_refused(folder, tmp_path):
    packed(folder, tmp_path / "shards")

    def changed(name, change):
        copy = tmp_path / name
        shutil.copytree(tmp_path / "shards", copy)
        change(copy)
        return copy

    def escape(copy):
        plain = json.loads((copy / "shards.json").read_text())
        plain["shards"][0]["file"] = "../outside.tar"
        (copy / "shards.json").write_text(json.dumps(plain))

    def beyond(copy):
        index = np.load(copy / "index.npy")
        index[3, 1] = 10**9
        np.save(copy / "index.npy", index)

    def pickled(copy):
        np.save(copy / "index.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)

    for name, change, answer in (
        ("a", escape, "outside its folder"),
        ("b", beyond, "points outside the shards"),
        ("c", pickled, "cannot be read"),
        ("d", lambda c: (c / "shards.json").write_text("{}"), "no manifest"),
        ("e", lambda c: (c / "shards.json").write_text('{"format": 99}'), "later version"),
        ("f", lambda c: (c / "names.txt").write_text("one\n"), "do not fit"),
    ):
        with pytest.raises(UsageError, match=answer):
            ShardSource(changed(name, change))


def test_a_source_crosses_to_a_worker_without_its_handles(folder, tmp_path):
    packed(folder, tmp_path / "shards")
    source = ShardSource(tmp_path / "shards")
    source.read(0)
    other = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert not other._files and other.read(3) == source.read(3)


@pytest.fixture
def many(folder, tmp_path):
    """Seventy shards of one image each, and that image."""
    (tmp_path / "list.txt").write_text("images/0/00.jpg\n" * 70)
    manifest = packed(tmp_path / "list.txt", tmp_path / "many", shard_bytes=1)
    assert len(manifest.shards) == 70
    return tmp_path / "many", (folder / "0" / "00.jpg").read_bytes()


def open_below(folder):
    handles = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return sum(str(each.readlink()).startswith(str(folder)) for each in handles)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere open files are listed in another way")
def test_few_of_many_shards_are_open_and_none_that_is_being_read_is_closed(many):
    shards, image = many
    source = ShardSource(shards)
    held = source._open(0)
    assert [source.read(i) for i in range(70)] == [image] * 70
    assert 0 not in source._files and open_below(shards) == 64 + 1
    assert os.pread(held.handle, 10, 0)
    del held
    assert open_below(shards) == 64
    used = source._open(6)  # the next to go, but for this
    assert [source.read(i) for i in range(3)] == [image] * 3 and source._open(6) is used
    if not (child := os.fork()):  # which has copies of the open files, and closes these
        os._exit(source.read(69) != image or open_below(shards) > 2)
    assert os.waitpid(child, 0)[1] == 0
    assert source._open(6) is used and source.read(69) == image
    del source, used
    assert open_below(shards) == 0


@pytest.mark.parametrize(("number", "workers"), [(errno.EMFILE, 0), (errno.ENFILE, 0), (errno.EMFILE, 1)])
def test_too_many_open_files_are_no_fault_of_an_image(many, monkeypatch, number, workers):
    opens = os.open

    def refused(path, *rest, **others):
        if str(path).endswith(".tar"):
            raise OSError(number, os.strerror(number), str(path))
        return opens(path, *rest, **others)

    monkeypatch.setattr(os, "open", refused)
    loader = ViewLoader(
        ShardSource(many[0]), ViewConfig(size=16), batch_size=4, seed=1, workers=workers, max_bad_share=1.0
    )
    with pytest.raises(CmidError, match=r"shard-000\d\d\.tar cannot be opened: .*`ulimit -n 4096`") as caught:
        next(iter(loader))
    assert not isinstance(caught.value, BadImage) and not loader.skipped


def test_unreadable_images_are_left_out_and_nothing_at_all_is_a_failure(folder, tmp_path):
    source = FolderSource(folder)

    def read(i):
        if i % 2 or everything:
            raise BadImage(source.name(i), "broken")
        return ".bin", bytes([i])

    everything = False
    (tmp_path / "a").mkdir()
    manifest, bad = write_shards(source, tmp_path / "a", shard_bytes=10**6, read=read)
    assert manifest.images == 16 and len(bad) == 15 and bad[source.name(1)] == "broken"
    everything = True
    (tmp_path / "b").mkdir()
    with pytest.raises(CmidError, match="none of 31 images"):
        write_shards(source, tmp_path / "b", shard_bytes=10**6, read=read)


SEPARATORS = ("\r", "\r\n", "\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\udc85")


def test_names_with_line_separators_stay_one_name_each(tmp_path):
    names = [f"a{each}b.png" for each in SEPARATORS]
    (tmp_path / "images").mkdir()
    for i, name in enumerate(names):
        Image.fromarray(np.full((9, 9, 3), 9 * i, np.uint8)).save(tmp_path / "images" / name)
    packed(tmp_path / "images", tmp_path / "shards")
    files, shards = FolderSource(tmp_path / "images"), ShardSource(tmp_path / "shards")
    assert len(shards) == len(files) == len(names)
    for i in range(len(names)):
        assert shards.original(i) == files.name(i).replace("\n", " ")
        assert np.array_equal(shards.decode(i).pixels, files.read(i))


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no advice")
def test_a_block_is_announced_once_and_whole_however_its_images_are_mixed(folder, tmp_path, monkeypatch):
    manifest = packed(folder, tmp_path / "shards", shard_bytes=60_000)
    source = ShardSource(tmp_path / "shards")
    source.block = 8
    told = []
    monkeypatch.setattr(os, "posix_fadvise", lambda handle, begin, length, advice: told.append((handle, begin, length)))
    monkeypatch.setattr("cmid.data.shards.PIECE_BYTES", 3000)
    order = np.random.default_rng(0).permutation(31).tolist()
    for i in order:
        source.read(i)
    assert len(told) == len(set(told)) and all(0 < length <= 3000 for *_, length in told)
    blocks = {(i // 8, int(source._index[i, 0])) for i in range(31)}
    assert set(source._announced) == blocks and len(manifest.shards) > 1
    assert len(blocks) > 4  # a block that reaches over two shards is announced in each
    covered = sum(length for *_, length in told)
    assert covered >= source._index[:, 2].sum()
    before = len(told)
    for i in order:
        source.read(i)
    assert len(told) == before


def test_too_few_whole_shards_are_told_in_words(folder, tmp_path):
    manifest = packed(folder, tmp_path / "shards", shard_bytes=10_000_000)
    (shard,) = manifest.shards
    torn = tmp_path / "shards" / shard.file
    torn.write_bytes(torn.read_bytes()[:20_000])
    with pytest.raises(UsageError) as caught:
        ShardSource(tmp_path / "shards")
    assert f"found 0; {shard.file} is left out: it has 20,000 of {shard.bytes:,} bytes. Copy" in str(caught.value)
    assert "{" not in str(caught.value)
