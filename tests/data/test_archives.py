"""Zips that are nested, damaged, or not to be trusted."""

import io
import zipfile

import pytest

import cmid.data.archives as archives
from cmid.data.archives import find_members, take_out
from cmid.errors import CmidError, UsageError


def zipped(contents, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return out.getvalue()


def always(name):
    return True


def test_files_and_zips_in_zips(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.tif").write_bytes(b"open")
    inner = zipped({"deep/c.tif": b"deep"})
    (tmp_path / "source" / "outer.zip").write_bytes(zipped({"b.tif": b"zipped", "in.zip": inner, "no.zip": b"none"}))
    found = find_members(tmp_path / "source", tmp_path / "scratch", lambda name: name != "no.zip")
    content = {each.name: take_out(each, tmp_path / f"out-{i}").read_bytes() for i, each in enumerate(found)}
    assert content == {
        "a.tif": b"open",
        "outer/b.tif": b"zipped",
        "outer/in/deep/c.tif": b"deep",
        "outer/no.zip": b"none",
    }
    assert found[-1].told.endswith("outer.zip!in.zip!deep/c.tif")


def test_zips_of_one_name_in_other_folders_are_not_mixed(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        inner = zipped({f"deep/{name}.tif": name.encode()})
        (tmp_path / "in" / name / "same.zip").write_bytes(zipped({"in.zip": zipped({"in.zip": inner})}))
    found = find_members(tmp_path / "in", tmp_path / "scratch", always)
    assert {each.name: take_out(each, tmp_path / "out").read_bytes() for each in found} == {
        "a/same/in/in/deep/a.tif": b"a",
        "b/same/in/in/deep/b.tif": b"b",
    }


def test_paths_in_a_zip_lead_nowhere(tmp_path):
    (tmp_path / "evil.zip").write_bytes(zipped({"../../escaped.tif": b"x", "/tmp/absolute.tif": b"y"}))
    (tmp_path / "in").mkdir()
    for i, each in enumerate(find_members(tmp_path / "evil.zip", tmp_path / "in" / "scratch", always)):
        take_out(each, tmp_path / "in" / f"{i}.tif")
    assert sorted(path.name for path in tmp_path.rglob("*.tif")) == ["0.tif", "1.tif"]
    assert not (tmp_path.parent / "escaped.tif").exists()


def test_bombs(tmp_path, monkeypatch):
    (tmp_path / "bomb.zip").write_bytes(zipped({"a.tif": bytes(100_000)}))
    (member,) = find_members(tmp_path / "bomb.zip", tmp_path, always)
    monkeypatch.setattr(archives, "MOST_FILE_BYTES", 99_999)
    with pytest.raises(UsageError, match=r"says it holds 100,000 bytes, where at most 99,999"):
        take_out(member, tmp_path / "a.tif")
    monkeypatch.setattr(archives, "MOST_MEMBERS", 0)
    with pytest.raises(UsageError, match="holds 1 files, where at most 0"):
        find_members(tmp_path / "bomb.zip", tmp_path, always)


def test_a_file_that_is_larger_than_it_says(tmp_path):
    data = bytearray(zipped({"a.tif": bytes(100_000)}))
    size = (100_000).to_bytes(4, "little")
    assert data.count(size) == 2
    (tmp_path / "liar.zip").write_bytes(bytes(data).replace(size, (10).to_bytes(4, "little")))
    (member,) = find_members(tmp_path / "liar.zip", tmp_path, always)
    with pytest.raises(UsageError, match=r"is damaged|more than the 10 bytes"):
        take_out(member, tmp_path / "a.tif")
    assert not (tmp_path / "a.tif").exists() or (tmp_path / "a.tif").stat().st_size <= 10


def test_no_room(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(zipped({"a.tif": bytes(1000)}))
    (member,) = find_members(tmp_path / "a.zip", tmp_path, always)
    monkeypatch.setattr(
        archives.shutil, "disk_usage", lambda path: zipfile.sys.modules["shutil"]._ntuple_diskusage(9, 9, 9)
    )
    with pytest.raises(CmidError, match="choose another disk"):
        take_out(member, tmp_path / "b.tif")


@pytest.mark.parametrize("damage", ["cut", "flipped", "none"])
def test_damaged_zips(tmp_path, damage):
    data = bytearray(zipped({"a.tif": bytes(range(256)) * 40}))
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[60] ^= 0xFF
    else:
        data = bytearray(b"no zip")
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UsageError, match="damaged"):
        for each in find_members(tmp_path / "a.zip", tmp_path, always):
            take_out(each, tmp_path / "b.tif")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_wherever_a_zip_is_damaged_it_is_told(tmp_path, method, monkeypatch):
    monkeypatch.setattr(archives, "MOST_FILE_BYTES", 1 << 20)
    whole = zipped({"a.tif": bytes(range(256)) * 40}, method)
    damaged = 0
    for at in range(0, len(whole), 3):
        (tmp_path / "a.zip").write_bytes(whole[:at] + b"\xff\xff\xff" + whole[at + 3 :])
        try:
            for each in find_members(tmp_path / "a.zip", tmp_path, always):
                take_out(each, tmp_path / "b.tif")
        except UsageError as error:
            damaged += "damaged" in str(error)
            assert "make room" not in str(error)
    assert damaged > 0.4 * len(whole) / 3


def test_nothing_there(tmp_path):
    with pytest.raises(UsageError, match="no such folder or zip"):
        find_members(tmp_path / "nowhere", tmp_path, always)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UsageError, match="neither a folder nor a zip"):
        find_members(tmp_path / "a.txt", tmp_path, always)
