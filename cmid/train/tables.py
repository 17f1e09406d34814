"""A CSV file that grows by rows, may grow by columns, and can be cut back to a checkpoint."""

import csv
import io
import itertools
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Cell = str | int | float | None


def as_text(value: Cell) -> str:
    """Nine digits name a float32 exactly; None is empty."""
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


class Table:
    """Rows of named values at `path`, one write per row.

    A row with a new name adds a column at the right and rewrites the file. Where a write fails (a full disk), rows
    wait in memory and are written with a later one.

    Every cell is a number. Lines that are none of such a table, as a crash of the machine may leave, are left out and
    told of, and the file as it was is kept beside it.

    Args:
        path: the file; an existing one is continued, without a last line that is torn.
        warn: told once where writing fails, and of damaged lines.
        needs: columns without a gap.
    """

    def __init__(self, path: Path, warn: Callable[[str], object] = print, needs: Sequence[str] = ()) -> None:
        self.path = path
        self._warn = warn
        self._needs = needs
        self._waiting: list[list[str]] = []
        self._failed = False
        self._stale_header = False
        self.columns, rows, self._size, damaged = self._read()
        if damaged:
            names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in itertools.count())
            copy = next(name for name in names if not name.exists())
            shutil.copyfile(path, copy)
            warn(f"Warning: {damaged} damaged lines of {path} are left out; the file as it was is {copy}.")
        if path.exists() and (damaged or self._size != path.stat().st_size):
            self._rewrite(rows)

    def append(self, row: Mapping[str, Cell]) -> None:
        """Adds one row."""
        new = [name for name in row if name not in self.columns]
        self.columns += new
        self._stale_header |= bool(new)
        self._waiting.append([as_text(row.get(name)) for name in self.columns])
        try:
            if self._stale_header:
                self._rewrite(self._read()[1] + self._waiting)
            else:
                self._write(self._waiting)
        except OSError as error:
            if not self._failed:
                self._warn(f"Warning: cannot write {self.path} ({error.strerror or error}); its rows wait in memory.")
            self._failed = True
        else:
            self._waiting, self._failed = [], False

    def rows(self) -> list[dict[str, str]]:
        """All rows, as text by column; a cell that was never given is empty."""
        return [dict(zip(self.columns, row, strict=True)) for row in self._padded(self._read()[1] + self._waiting)]

    def keep(self, wanted: Callable[[dict[str, str]], bool]) -> None:
        """Drops the rows that are not `wanted`."""
        rows = self.rows()
        kept = [list(row.values()) for row in rows if wanted(row)]
        if len(kept) < len(rows):
            self._rewrite(kept)

    def sync(self) -> None:
        """Forces what is written onto the disk, before a checkpoint counts on it."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def _read(self) -> tuple[list[str], list[list[str]], int, int]:
        """Columns and rows on disk, the bytes of whole lines, and how many of those are damaged."""
        if not self.path.exists():
            return [], [], 0, 0
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        head, *rest = whole.splitlines() or [b""]
        columns, lines = _cells(head.decode(errors="replace").encode()), [_cells(line) for line in rest]
        if not set(self._needs) <= set(columns) or len(set(columns)) < len(columns):
            return [], [], len(whole), whole.count(b"\n")
        rows = [line for line in lines if self._is_row(columns, line)]
        return columns, rows, len(whole), len(lines) - len(rows)

    def _is_row(self, columns: list[str], cells: list[str]) -> bool:
        try:
            numbers = [float(cell or "nan") for cell in cells]
        except ValueError:
            return False
        row = dict(zip(columns, numbers, strict=False))
        # a new column is written into all rows, so that a shorter one is torn
        return len(cells) == len(columns) and all(math.isfinite(row.get(name, math.nan)) for name in self._needs)

    def _write(self, rows: list[list[str]]) -> None:
        data = _lines(rows)
        with self.path.open("r+b") as file:
            file.truncate(self._size)  # a write that failed may have left half a row
            file.seek(self._size)
            file.write(data)
        self._size += len(data)

    def _rewrite(self, rows: list[list[str]]) -> None:
        data = _lines([self.columns, *self._padded(rows)]) if self.columns else b""
        temporary = self.path.with_name(self.path.name + ".tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._size, self._stale_header = len(data), False

    def _padded(self, rows: list[list[str]]) -> list[list[str]]:
        return [row + [""] * (len(self.columns) - len(row)) for row in rows]


def _cells(line: bytes) -> list[str]:
    """Of one line; none where it is no text."""
    try:
        return next(csv.reader([line.decode()]), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def _lines(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
