"""Files appear whole or not at all."""

import os

import pytest

from cmid.errors import CmidError, UsageError
from cmid.whole_files import part_of, parts_beside, replace_whole, require_utf8, write_whole


def test_what_was_there_stays_until_the_new_file_is_complete(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    replace_whole(path, lambda part: part.write_text("first"))

    def half(part):
        part.write_text("sec")
        assert path.read_text() == "first" and parts_beside(path) == [part] == [part_of(path)]
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        replace_whole(path, half)
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]
    replace_whole(path, lambda part: part.write_text("second"), sync=False)
    assert path.read_text() == "second" and list(path.parent.iterdir()) == [path]


def test_the_error_is_the_one_of_writing_also_where_nothing_can_be_removed(tmp_path, monkeypatch):
    """On a disk mounted read-only removing fails as writing does, even of what is not there."""

    def read_only(path, missing_ok=False):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.unlink", read_only)
    monkeypatch.setattr("pathlib.Path.replace", read_only)
    with pytest.raises(CmidError, match=r"a\.txt cannot be written: Read-only file system\. Take another"):
        write_whole(tmp_path / "a.txt", lambda part: part.write_text("x"), advice="Take another.")


def test_names_that_torch_cannot_open_are_refused(tmp_path):
    require_utf8(tmp_path / "räume")
    with pytest.raises(UsageError, match="no valid UTF-8"):
        require_utf8(tmp_path / os.fsdecode(b"r\xe4ume") / "last.ckpt")
