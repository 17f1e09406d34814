"""What is finished of a map, kept beside the output so that work that was killed goes on.

A folder `NAME.partial` holds the journal and whatever is being written. The journal is one file that only grows: first
the settings, then a record for each finished block of rows, its arrays compressed, with a check sum. A record that was
cut short by the end of the process is dropped when the journal is opened again. Nothing in it is ever unpickled.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cmid.errors import CmidError, UsageError

try:
    import fcntl
except ImportError:  # Windows: a second process is not noticed there
    fcntl = None  # type: ignore[assignment]

MAGIC = b"cmid map journal 1\n"
RECORD = struct.Struct("<4sIQI")  # mark, bytes of the description, bytes of the arrays, check sum of both
MARK = b"part"
WRITING = "writing-"
"""How files begin that are written in the folder and moved, or removed: nothing else in it is touched."""


class Journal:
    """The folder and the file in it; `open` takes them, `close` lets go, `remove` takes them away.

    Attributes:
        folder: beside the output; temporary files belong in it.
        done: blocks that are finished.
        finishing: whether outputs have begun to be put in their places.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(out.name + ".partial")
        self.path = self.folder / "journal"
        self.done = 0
        self.finishing = False
        self._file: BinaryIO | None = None

    def open(self, settings: Mapping[str, Any], *, restart: bool = False) -> None:
        """Begins a journal, or takes up one of the same settings.

        Args:
            settings: plain values, by name; those of a journal that is there must be equal.
            restart: begin anew whatever is there.

        Raises:
            UsageError: the settings differ, it is no journal, another process writes it, or it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            self._file = os.fdopen(descriptor, "r+b")
        except OSError as error:
            raise UsageError(
                f"{self.folder} cannot be written ({error.strerror}): choose another place for the map"
            ) from error
        try:
            self._lock()
            if restart:
                self._file.truncate(0)
            self._take_up(json.loads(json.dumps(dict(settings))))
            for each in self.folder.iterdir():  # left by a process that was killed while it wrote them
                if each.name.startswith(WRITING):
                    each.unlink()
        except OSError as error:
            self.close()
            raise UsageError(
                f"{self.folder} cannot be used ({error.strerror}): make room and repeat the command, or choose another "
                "place. What is finished is kept."
            ) from error
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is writing this map ({self.folder}): wait for it") from None

    @property
    def _opened(self) -> BinaryIO:
        assert self._file is not None
        return self._file

    def _take_up(self, settings: dict[str, Any]) -> None:
        file = self._opened
        file.seek(0)
        head = file.read(len(MAGIC))
        if not MAGIC.startswith(head):
            raise UsageError(f"{self.path} is no journal of a map: remove it, or choose another place for the map")
        first = self._read_record() if head == MAGIC else None
        end = file.tell()
        while first is not None and (record := self._read_record()) is not None:
            self.finishing |= "finishing" in record[0]
            self.done += "block" in record[0]
            end = file.tell()
        if first is None or not self.done:  # killed before anything was finished
            file.seek(0)
            file.truncate()
            file.write(MAGIC)
            self._write({"settings": settings}, [])
            return
        before = first[0].get("settings", {})
        changed = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
        if changed:
            said = ", ".join(f"{n} was {_shown(before.get(n))} and is {_shown(settings.get(n))}" for n in changed)
            raise UsageError(
                f"{self.folder} holds an unfinished map made with other settings: {said}. Give the former ones to go "
                "on, or begin anew with restart."
            )
        file.seek(end)
        file.truncate()

    def _read_record(self) -> tuple[dict[str, Any], bytes] | None:
        """Description and arrays; None at the end, or where the record is cut short or damaged."""
        head = self._opened.read(RECORD.size)
        if len(head) < RECORD.size:
            return None
        mark, described, held, checksum = RECORD.unpack(head)
        rest = os.fstat(self._opened.fileno()).st_size - self._opened.tell()
        if mark != MARK or described + held > rest:
            return None
        body = self._opened.read(described + held)
        if len(body) < described + held or zlib.crc32(body) != checksum:
            return None
        return json.loads(body[:described]), body[described:]

    def _write(self, about: dict[str, Any], parts: list[bytes]) -> None:
        body = b"".join((json.dumps(about).encode(), *parts))
        described = len(body) - sum(map(len, parts))
        file = self._opened
        file.write(RECORD.pack(MARK, described, len(body) - described, zlib.crc32(body)))
        file.write(body)
        file.flush()
        os.fsync(file.fileno())

    def append(self, block: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the arrays of a finished block; on disk when this returns.

        Raises:
            CmidError: it cannot be written; what was kept before is kept.
        """
        parts = [zlib.compress(np.ascontiguousarray(each).data, 1) for each in arrays.values()]
        about = [
            {"name": name, "dtype": str(each.dtype), "shape": each.shape, "bytes": len(part)}
            for (name, each), part in zip(arrays.items(), parts, strict=True)
        ]
        try:
            self._write({"block": block, "arrays": about}, parts)
        except OSError as error:
            raise CmidError(
                f"{self.path} cannot be written ({error.strerror}). What is finished is kept: make room and repeat "
                "the command to go on."
            ) from error
        self.done += 1

    def note_finishing(self) -> None:
        """From now on outputs that exist may be this map's own."""
        if not self.finishing:
            self._write({"finishing": True}, [])
            self.finishing = True

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """The arrays of each finished block, by name, in the order they were kept."""
        self._opened.seek(len(MAGIC))
        while (record := self._read_record()) is not None:
            about, body = record
            if "block" not in about:
                continue
            arrays, at = {}, 0
            for each in about["arrays"]:
                values = zlib.decompress(body[at : at + each["bytes"]])
                arrays[each["name"]] = np.frombuffer(values, each["dtype"]).reshape(each["shape"])
                at += each["bytes"]
            yield arrays
        self._opened.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Lets go; the journal stays."""
        if self._file is not None:
            with suppress(OSError):  # what a full disk did not take, and was told of, is written once more
                self._file.close()
            self._file = None

    def remove(self) -> None:
        """Takes the folder away, when the outputs are in their places."""
        with suppress(OSError):
            for each in self.folder.iterdir():
                if each.name.startswith(WRITING):
                    each.unlink()
            self.path.unlink()
            self.folder.rmdir()
        self.close()

    def temporary(self, name: str) -> Path:
        """Where a file is written that will be moved, or removed."""
        return self.folder / (WRITING + name)


def forget(out: Path) -> None:
    """Removes what an interrupted call has left beside `out`; nothing where another process is at it.

    Raises:
        UsageError: it cannot be removed, or another process writes it.
    """
    journal = Journal(out)
    if journal.folder.exists():
        journal.open({}, restart=True)
        journal.remove()


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
