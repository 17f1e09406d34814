"""What a folder of maps holds and how each was made, so that a call that was interrupted goes on where it was.

`maps.jsonl` only grows, a line when a map is begun and one when its files are in their places. What a process that was
killed left of a line is dropped. A map counts as finished where its line says the same settings (weights, scene,
windows ...) and its files are as they were written.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from cmid.errors import CmidError, UsageError

try:
    import fcntl
except ImportError:  # Windows: a second process is not noticed there
    fcntl = None  # type: ignore[assignment]

NAME = "maps.jsonl"
Seen = list[int] | None
"""Bytes and time of change of a file; None where there is none."""


class MapRecord:
    """The record of a folder; open from `with` to its end, by one process.

    Args:
        folder: of the maps; is made.

    Attributes:
        path: the file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: BinaryIO | None = None
        self._last: dict[str, dict[str, Any]] = {}
        self._held = False

    def __enter__(self) -> "MapRecord":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be written ({error.strerror}): choose another --out for the maps"
            ) from error
        self._file = os.fdopen(descriptor, "r+b")
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._held = True
            self._take_up(self._file)
        except BlockingIOError:
            self.__exit__()
            raise UsageError(f"another process writes maps into {self.path.parent}: wait for it") from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # what a full disk did not take, and was told of, is written once more
                if self._held and not os.fstat(self._file.fileno()).st_size:
                    self.path.unlink()  # nothing was begun
                self._file.close()
            self._file, self._held = None, False

    def _take_up(self, file: BinaryIO) -> None:
        end = 0
        for line in file:
            if not line.endswith(b"\n"):
                break  # killed, or no room, while it was written
            try:
                entry = json.loads(line)
                self._last[_checked(entry)["map"]] = entry
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{self.path} is no record of maps (line at byte {end}): remove it, or choose another --out"
                ) from error
            end += len(line)
        if end < os.fstat(file.fileno()).st_size:
            file.truncate(end)
        file.seek(end)

    def _write(self, entry: dict[str, Any]) -> None:
        assert self._file is not None
        try:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CmidError(
                f"{self.path} cannot be written ({error.strerror}). What is finished is kept: make room and repeat the "
                "command to go on."
            ) from error
        self._last[entry["map"]] = entry

    def begin(self, name: str, scene: str, settings: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Notes that the map `name` (its path in the folder) is begun, and what lay at its files' places before."""
        seen = {path.name: _seen(path) for path in files}
        entry = {"map": name, "state": "begun", "scene": scene, "settings": dict(settings), "files": seen}
        self._write(entry | {"former": self._former(name)})

    def end(
        self, name: str, scene: str, settings: Mapping[str, Any], files: Sequence[Path], result: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Notes that the files of a map are in their places, and what it came to; gives the entry."""
        seen = {path.name: _seen(path) for path in files}
        entry = {"map": name, "state": "mapped", "scene": scene, "settings": dict(settings), "files": seen}
        self._write(entry | {"result": dict(result)})
        return self._last[name]

    def finished(self, name: str, settings: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any] | None:
        """The entry of the map `name` where it is finished, with these settings, and its files are as written."""
        entry = self._last.get(name)
        if entry is None or entry["state"] != "mapped" or self.differences(name, settings):
            return None
        same = all(entry["files"].get(path.name) == (seen := _seen(path)) and seen is not None for path in files)
        return entry if same else None

    def made(self, name: str, map_: Path) -> bool:
        """Whether what lies at `map_` was put there by a run that this record tells of."""
        entry, now = self._last.get(name), _seen(map_)
        if entry is None or now is None:
            return False
        before = entry["files"].get(map_.name)
        # of a map that was begun, and killed between its last file and this record, another file lies there than before
        return bool(now == before) if entry["state"] == "mapped" else bool(now != before)

    def stale(self, name: str, files: Sequence[Path]) -> list[tuple[Path, bool]]:
        """What the finished map before wrote beside the one that now has `files` alone, and is still there.

        Each with whether it is as it was written. To be asked before `end`.
        """
        folder, asked = (self.path.parent / name).parent, {path.name for path in files}
        former = {folder / each: seen for each, seen in self._former(name).items() if each not in asked}
        found = [(path, now, seen) for path, seen in former.items() if (now := _seen(path)) is not None]
        return [(path, now == seen) for path, now, seen in found if path.parent == folder]

    def _former(self, name: str) -> dict[str, Seen]:
        """The files of the last map of this name that was finished; of ones begun since, nothing."""
        entry = self._last.get(name, {"state": "begun"})
        files: dict[str, Seen] = entry["files"] if entry["state"] == "mapped" else entry.get("former", {})
        return files

    def differences(self, name: str, settings: Mapping[str, Any]) -> list[str]:
        """In which settings the map `name` was made otherwise, each in words; empty where there is none."""
        before = self._last[name]["settings"] if name in self._last else {}
        plain = json.loads(json.dumps(dict(settings)))
        changed = [key for key in {**before, **plain} if before.get(key) != plain.get(key)]
        return [f"{key} was {json.dumps(before.get(key))} and is {json.dumps(plain.get(key))}" for key in changed]


def _checked(entry: Any) -> dict[str, Any]:
    """A line of the record; raises `ValueError`, `KeyError` or `TypeError` where it has another form."""
    mapped = {"begun": False, "mapped": True}[entry["state"]]
    parts = [entry["settings"], entry["files"], entry["result"] if mapped else entry.get("former", {})]
    if not isinstance(entry["map"], str) or not all(isinstance(part, dict) for part in parts):
        raise ValueError("a part of the line has another type")
    return dict(entry)


def _seen(path: Path) -> Seen:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
