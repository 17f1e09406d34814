"""A folder that one process works in: a lock on a file in it, which ends with the process, however that ends."""

import os
import socket
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: folders there are not guarded against a second process
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""The file's name."""
_HELD: set[Path] = set()


class FolderTakenError(Exception):
    """Somebody works in the folder already; the text is who."""


class FolderLock:
    """Held from the call until `release`. Forked processes do not inherit it.

    Args:
        folder: it must be there.

    Raises:
        FolderTakenError: another process, or this one, holds it already.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._key = folder / LOCK, folder.resolve()
        if self._key in _HELD:  # not to be opened again: closing any handle of ours would end the lock
            raise FolderTakenError("this process")
        self._handle = _locked(self._path)
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        _HELD.add(self._key)

    def release(self) -> None:
        """Lets others in."""
        self._path.unlink(missing_ok=True)  # before the lock ends: later it might be another's
        os.close(self._handle)
        _HELD.discard(self._key)


def _locked(path: Path) -> int:
    """A handle of the file `path`, locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _lock(handle):
            owner = os.pread(handle, 200, 0).decode(errors="replace").strip()
            os.close(handle)
            raise FolderTakenError(f"another process ({owner})" if owner else "another process")
        # the owner before may have removed the file between our opening and our locking it
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)


def _lock(handle: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True  # a file system without locks
    return True
