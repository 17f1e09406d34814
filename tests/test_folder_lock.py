"""One process works in a folder at a time; how a killed process lets go is in tests/train/test_run_directory.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cmid.folder_lock import LOCK, FolderLock, FolderTakenError

TAKE = "import sys, pathlib; from cmid.folder_lock import FolderLock; FolderLock(pathlib.Path(sys.argv[1]))"


def test_a_folder_is_taken_once_and_let_go(tmp_path):
    lock = FolderLock(tmp_path)
    with pytest.raises(FolderTakenError, match=r"^this process$"):
        FolderLock(tmp_path / ".." / tmp_path.name)
    other = subprocess.run([sys.executable, "-c", TAKE, str(tmp_path)], capture_output=True, text=True)
    assert f"another process (process {os.getpid()} on " in other.stderr
    lock.release()
    assert not (tmp_path / LOCK).exists()
    FolderLock(tmp_path).release()


def test_a_lock_that_the_owner_removes_meanwhile_is_made_anew(tmp_path, monkeypatch):
    stat, gone = Path.stat, []

    def removed(path, **how):
        if path.name == LOCK and not gone:
            gone.append(path)
            path.unlink()
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", removed)
    lock = FolderLock(tmp_path)
    assert gone and (tmp_path / LOCK).exists()
    lock.release()
