"""What somebody asks to be written costs them no other file."""

import json

import pytest
from PIL import Image

from cmid.cli import main
from cmid.commands.out_folder import checked_file, held
from cmid.errors import UsageError


def test_a_file_to_write(tmp_path):
    assert checked_file(None, overwrite=False) is None
    new = tmp_path / "not" / "there" / "page.html"
    assert checked_file(str(new), overwrite=False) == new
    assert not any(tmp_path.iterdir())


def test_what_is_there_is_refused_unless_it_may_be_replaced(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("old")
    with pytest.raises(UsageError, match=r"page\.html exists.*--overwrite"):
        checked_file(str(page), overwrite=False)
    assert checked_file(str(page), overwrite=True) == page


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_and_places_in_files_are_refused(tmp_path, overwrite):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a folder"):
        checked_file(str(tmp_path), overwrite=overwrite)
    with pytest.raises(UsageError, match="file is no folder"):
        checked_file(str(tmp_path / "file" / "a" / "page.html"), overwrite=overwrite)


@pytest.mark.parametrize("verb", ["generate", "pack", "prepare"])
def test_two_of_a_kind_do_not_write_into_one_folder(tmp_path, capsys, verb):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 40), (i, 90, 90)).save(images / f"{i}.png")
    place = tmp_path / ".out.part" if verb == "prepare" else out
    words = {
        "generate": ["generate", str(out), "--count", "1", "--size", "64", "--workers", "1"],
        "pack": ["pack", str(images), "--out", str(out)],
        "prepare": ["prepare", "potsdam", str(images), "--out", str(out)],
    }[verb]
    if verb != "prepare":
        out.mkdir()
    else:
        place.mkdir()
        settings = {"kind": "potsdam", "bands": "RGB", "window_px": 512, "step_px": 512}
        (place / "begun.json").write_text(json.dumps(settings))
    there = {entry.name for entry in place.iterdir()}
    with held(place, "a test"):
        assert main(words) == 2
        assert f"another `cmid {verb}` is at work in {place}, by this process" in capsys.readouterr().err
        assert {entry.name for entry in place.iterdir()} == there | {".lock"}, "nothing of the other's is touched"
    if verb != "prepare":
        (place / ".lock").touch()  # as one leaves it that was killed
        assert main(words) == 0
        assert not (place / ".lock").exists()
