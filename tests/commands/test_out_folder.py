"""What somebody asks to be written costs them no other file."""

import pytest

from cmid.commands.out_folder import checked_file
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
