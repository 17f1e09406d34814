"""What the maps of listed scenes are called, and what in a list is no scene."""

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from cmid.commands.scene_list import find_scenes, look_at
from tests.data.rasters_on_disk import numbered, write_raster


def stems(tmp_path, *lines):
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return [str(stem) for _, stem in find_scenes(str(tmp_path / "list.txt"), tmp_path / "maps", remote=True)]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("https://h/S2A_1/TCI.tif", "https://h/S2A_2/TCI.tif"), ["S2A_1/TCI", "S2A_2/TCI"]),
        (("https://h/S2A_1/TCI.tif", "https://h/S2A_2/B02.tif"), ["TCI", "B02"]),
        (("https://h/x/a/i/T.tif?k=1", "https://h/x/b/i/t.TIF?k=2", "https://h/c.tif"), ["a/i/T", "b/i/t", "c"]),
        (("https://h/a/T.tif", "https://g/a/T.tif"), ["h/a/T", "g/a/T"]),
        (("s3://bucket/T.tif", "s3://bucket/a/T.tif"), ["T", "a/T"]),
        (("https://h/a/T.tif", "https://h/b/T.jp2"), ["T.tif", "T.jp2"]),
        (("https://me:word@h/a/T.tif", "d/T.tif"), ["h/a/T", "T"]),
        (("https://h/../../a/../T.tif", "https://h/b/..//./T.tif", "https://h/c/T.tif"), ["a/T", "b/T", "c/T"]),
        (("https://h/.", "https://g/..", "https://"), ["h", "g", "scene"]),
        (("https://h//etc/T.tif", "https://h//usr/T.tif"), ["etc/T", "usr/T"]),
    ],
)
def test_addresses_whose_last_part_is_the_same_are_told_apart(tmp_path, lines, expected):
    found = stems(tmp_path, *lines)
    assert found == expected
    for stem in map(PurePosixPath, found):
        assert not stem.is_absolute() and ".." not in stem.parts and "word" not in str(stem)


def test_a_line_that_ends_in_no_name_is_skipped(tmp_path):
    write_raster(tmp_path / "a.tif", numbered(1, 32, 32))
    (tmp_path / "list.txt").write_text("a.tif\n.\n/\n")
    found, skipped = look_at(find_scenes(str(tmp_path / "list.txt"), tmp_path / "maps"), (), ())
    assert [Path(each.path).name for each in found] == ["a.tif"]
    assert list(skipped.values()) == ["expected a file, found a folder"] * 2


LOOK = """
import sys
from pathlib import Path
from cmid.commands.scene_list import find_scenes, look_at
found, skipped = look_at(find_scenes(sys.argv[1], Path(sys.argv[1] + "_maps")), (), ())
print(len(found), *(f"{Path(name).name}: {reason}" for name, reason in sorted(skipped.items())), sep="\\n")
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_skipped_and_does_not_hang(tmp_path):
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    for name in ("b.png", "c.tif"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "list.txt").write_text("a.png\nb.png\nc.tif\n")
    # in a process of its own: a read that waits for ever ends there
    said = subprocess.run(
        [sys.executable, "-c", LOOK, tmp_path / "list.txt"], capture_output=True, text=True, timeout=120, check=True
    )
    told = "expected a file, found a pipe or a device"
    assert said.stdout.splitlines() == ["1", f"b.png: {told}", f"c.tif: {told}"]


def test_a_nodata_value_that_a_raster_cannot_hold_is_told(tmp_path):
    write_raster(tmp_path / "scenes" / "a.tif", numbered(1, 32, 32).astype(np.uint8))
    write_raster(tmp_path / "scenes" / "b.tif", numbered(1, 32, 32).astype(np.uint16))
    scenes = find_scenes(str(tmp_path / "scenes"), tmp_path / "maps")

    def notes(nodata, bands=()):
        return [each.note for each in look_at(scenes, bands, (), nodata=nodata)[0]]

    assert notes(None) == notes(0) == ["", ""]
    assert notes(300) == ["its values are uint8, which is never 300: --nodata hides nothing", ""]
    assert notes(300, ("1",)) == notes(300)
    assert notes(float("nan"))[1] == "its values are uint16, which is never nan: --nodata hides nothing"


def test_a_picture_of_a_kind_that_is_not_read_is_skipped(tmp_path):
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png", "PPM")
    found, skipped = look_at(find_scenes(str(tmp_path / "a.png"), tmp_path / "maps"), (), ())
    assert not found and "cannot identify image file" in skipped[str(tmp_path / "a.png")]
