"""Images on disk, unlabelled: a folder tree of any depth, or a text file that lists paths."""

import codecs
import csv
import errno
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISREG

import numpy as np
import torch

from cmid.data.decode import SUFFIXES, Decoded, Reduction, decode
from cmid.data.shard_manifest import MANIFEST
from cmid.data.shards import refuse_lone_shards
from cmid.errors import UsageError

LONGEST_TOLD = 300
"""Characters of a path that an error shows."""
LOOKED_AT = 64 << 10
"""Bytes of a list that are looked at before all of it is read: an archive of 40 GB is none."""
MOST_LIST_BYTES = 1 << 30
"""Of a list: ten million paths of a hundred characters."""
SCHEMES = ("http://", "https://", "s3://", "gs://", "az://")

_A_LIST = "expected a folder, or a text file with one path a line"
NO_LISTS = {
    ".vrt": "what a VRT names is not followed; give the files that it is of, their folder, or a list of them",
    **dict.fromkeys((".json", ".geojson", ".xml", ".yaml", ".yml"), _A_LIST),
}
"""Text files by suffix that are never lists of paths, and what to give instead."""


def is_remote(path: str) -> bool:
    """Whether `path` is an address rather than a file."""
    return path.lower().startswith(SCHEMES)


def kind_of(path: Path) -> str:
    """What lies at `path`: "folder", "file", or "" where there is neither.

    Raises:
        UsageError: the system does not say, as for a name that is too long or a disk that does not answer.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot look up {str(path)!r}: {why(error)}") from None
    return "folder" if S_ISDIR(mode) else "file" if S_ISREG(mode) else ""


def why(error: Exception) -> str:
    """The system's reason, without the path and number around it."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return reason[:1].lower() + reason[1:]


def find_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Paths of all images under `folder`, relative to it, sorted; hidden files and folders are left out.

    Links are followed, but each real folder is entered once, under the name that comes first, so that loops end. A
    link to nowhere with an image's suffix is kept: reading it reports it. A tree may be as deep as paths may be long.

    Raises:
        UsageError: a folder cannot be listed, as where its path is longer than the system allows.
    """
    found: list[str] = []
    entered: set[tuple[int, int]] = set()
    ahead = [(str(folder), "")]  # paths, and what names in them begin with; the next one is the last
    try:
        while ahead:
            path, prefix = ahead.pop()
            status = os.stat(path)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
            folders = []
            for entry in listed:
                if entry.name.startswith("."):
                    continue
                if _leads_to_folder(entry):
                    folders.append((entry.path, f"{prefix}{entry.name}/"))
                elif entry.name.lower().endswith(suffixes) and (entry.is_symlink() or entry.is_file()):
                    found.append(prefix + entry.name)
            ahead += reversed(folders)
    except OSError as error:
        name = str(error.filename or folder)
        advice = ": move what is in it further up" if error.errno == errno.ENAMETOOLONG else ""
        name = name if len(name) <= LONGEST_TOLD else f"{name[:LONGEST_TOLD]}..."
        raise UsageError(f"cannot list the folder {name}: {why(error)}{advice}") from None
    return sorted(found)


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself leads nowhere
            return False
        raise


def listed_positions(path: Path | str, names: Sequence[str], where: str, prefix: str = "") -> list[int]:
    """Which of `names` a list file names, in its order, each once; a name may stand there with another suffix.

    Args:
        path: of the list, one path a line.
        names: with slashes.
        where: they are, in words.
        prefix: that paths in the list may begin with.

    Raises:
        UsageError: it names others, or nothing.
    """
    by_name = {name: i for i, name in enumerate(names)}
    by_stem = {str(without_suffix(PurePosixPath(name))): i for i, name in enumerate(names)}
    found: dict[int, None] = {}
    missing = []
    for entry in read_list(Path(path)):
        name = str(PurePosixPath(entry.replace("\\", "/"))).removeprefix(prefix)
        position = by_name.get(name, by_stem.get(str(without_suffix(PurePosixPath(name)))))
        if position is None:
            missing.append(name)
        else:
            found[position] = None
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UsageError(
            f"{path} names files that are not in {where}: {', '.join(missing[:3])}{more}; expected paths such as "
            f"{names[0]}"
        )
    if not found:
        raise UsageError(f"{path} lists no files: expected one path a line, such as {names[0]}")
    return list(found)


def without_suffix(name: PurePosixPath) -> PurePosixPath:
    """`name` without its suffix; as it is where it ends in no name, as `.` and `/`, which `with_suffix` refuses."""
    return name.with_suffix("") if name.name else name


def read_rows(lines: Sequence[str], path: Path, delimiter: str, *, strict: bool = True) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file: number of the last of its `lines` from 1, and its cells.

    Args:
        lines: of the file.
        path: of it, for errors.
        delimiter: between cells.
        strict: a quote that is not closed is an error; else all that follows is one cell, and its rows are lost.

    Raises:
        UsageError: it is no CSV, or a cell is longer than cells are.
    """
    rows = list[tuple[int, list[str]]]()
    reader = csv.reader(lines, delimiter=delimiter, strict=strict)
    try:
        for row in reader:
            rows.append((reader.line_num, row))  # one by one: the last says where an error begins
    except csv.Error as error:
        begins = lines[rows[-1][0] if rows else 0]
        raise UsageError(
            f"{path} cannot be read as CSV: {error}, in what begins with {begins[:60]!r}; close its quotes, and write "
            "a quote within quotes twice"
        ) from None
    return rows


def read_list(path: Path) -> list[str]:
    """The entries of a list file, one path a line; blank lines and lines starting with # are left out.

    Raises:
        UsageError: where it cannot be read as text, is too long, or is a file of another kind by its name.
    """
    kind = path.suffix.lower()
    if path.name == MANIFEST:
        raise UsageError(f"{path} is a manifest of shards, no list of files: give the folder, {path.parent}")
    if kind in NO_LISTS:
        raise UsageError(f"{path} is no list of files, by its suffix {kind}: {NO_LISTS[kind]}")
    try:
        text = _text_of(path)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text file: expected a folder of images, or one path a line") from None
    except OSError as error:
        raise UsageError(f"cannot read the list {path}: {why(error)}") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # other separators may stand in names
    entries = (line.strip() for line in lines)
    return [entry for entry in entries if entry and not entry.startswith("#")]


def _text_of(path: Path) -> str:
    """What a list file says; raises `UnicodeDecodeError` by its beginning where it can, and `UsageError`."""
    with path.open("rb") as file:
        begins = file.read(LOOKED_AT)
        codecs.getincrementaldecoder("utf-8-sig")().decode(begins)  # a character may be cut at its end
        if (at := begins.find(b"\0")) >= 0:
            raise UnicodeDecodeError("utf-8", begins, at, at + 1, "no text has a NUL")
        rest = b"" if os.fstat(file.fileno()).st_size > MOST_LIST_BYTES else file.read(MOST_LIST_BYTES)
        if file.read(1):
            raise UsageError(
                f"{path} is longer than {MOST_LIST_BYTES:,} bytes, which no list is expected to be: give the folder of "
                "the images, or a shorter list"
            )
    return (begins + rest).decode("utf-8-sig")


def _named_in(path: Path) -> list[str]:
    """The paths in a list file, or in the column `image` of a CSV file that has one."""
    entries = read_list(path)
    if path.suffix.lower() != ".csv" or not entries:
        return entries
    delimiter = max(",;\t", key=entries[0].count)
    # of a list of paths the other lines are no CSV: a name may begin with a quote
    columns = read_rows(entries[:1], path, delimiter, strict=False)[0][1]
    places = [i for i, name in enumerate(columns) if name.strip().lower() == "image"]
    if places:
        _, *rows = read_rows(entries, path, delimiter)
        return [row[places[0]].strip() for _, row in rows if len(row) > places[0]]
    if len(columns) > 1 and not (path.parent / entries[0]).is_file():
        raise UsageError(
            f"{path} has the columns {', '.join(columns)} and none called image: call that of the paths so, or give a "
            "file with one path a line"
        )
    return entries


_FOR_ADDRESSES = "addresses, of scenes, are read from a list file with --source scenes --scenes.remote true"


class FolderSource:
    """Images of a folder tree, or of a list file, by position.

    Args:
        path: a folder of any depth (jpg, jpeg, png, tif, tiff, webp, bmp, gif, jp2 in any case; hidden files are
            skipped; order is that of the sorted relative paths), or a text file of paths relative to its own folder
            (blank lines and # comments allowed; order is the file's), or a CSV file with them in a column `image`.
        limit: use only so many images, drawn by `seed`; 0 is all.
        seed: fixes the draw of `limit`.

    Raises:
        UsageError: where the path is missing, or fewer than two images are found, or addresses among them.
    """

    bands, dtype, fresh = 3, torch.uint8, False

    def __init__(self, path: Path | str, *, limit: int = 0, seed: int = 0) -> None:
        self.path = Path(path)
        if limit < 0:
            raise UsageError(f"limit must be 0 (all images) or above, found {limit}")
        if is_remote(str(path)):
            raise UsageError(f"{path} is an address: {_FOR_ADDRESSES}")
        kind = kind_of(self.path)
        if kind == "folder":
            names = find_files(self.path)
            folder, looked_for = self.path, f"files ending in {' '.join(SUFFIXES)}, at any depth"
        elif kind == "file":
            if self.path.suffix.lower() in SUFFIXES:
                raise UsageError(f"{path} is one image: expected a folder of images, or a text file listing paths")
            names = _named_in(self.path)
            if addresses := [name for name in names if is_remote(name)]:
                raise UsageError(f"{path} lists {len(addresses)} addresses, first {addresses[0]}: {_FOR_ADDRESSES}")
            folder, looked_for = self.path.parent, "one path a line"
        else:
            raise UsageError(
                f"no such folder or list file: {path}; expected a folder of images, or a text file of paths"
            )
        if kind == "file" and len(names) == 1:
            alone = kind_of(folder / names[0])
            if alone == "folder":
                raise UsageError(
                    f"{path} lists {names[0]} alone, which is a folder: name the folder itself, or list its images"
                )
            if not alone:
                raise UsageError(
                    f"{path} lists {names[0]} alone, and there is no such file: expected a path of an image a line, "
                    f"relative to {folder}"
                )
        if 0 < limit < len(names):
            chosen = np.random.default_rng([seed & (1 << 64) - 1, limit]).permutation(len(names))[:limit]
            names = [names[i] for i in sorted(chosen.tolist())]
        if not names:
            refuse_lone_shards(self.path)
        if len(names) < 2:
            found = "no images" if not names else f"only one image, {names[0]}"
            why = "; pre-training needs at least 2" if names else f"; looked for {looked_for}"
            raise UsageError(f"{found} in {path}{f' with limit {limit}' if names and limit else ''}{why}")
        self._folder = str(folder)
        # one block of bytes, not a million objects: forked workers then share its memory
        self._names = np.array([os.fsencode(name) for name in names])

    def __len__(self) -> int:
        return len(self._names)

    @property
    def paths(self) -> list[Path]:
        """Every path, in order."""
        return [self.path_of(i) for i in range(len(self))]

    def path_of(self, i: int) -> Path:
        """The path of image i."""
        return Path(self.name(i))

    def name(self, i: int) -> str:
        """What image i is called in messages: its path."""
        return os.path.join(self._folder, os.fsdecode(bytes(self._names[i])))  # noqa: PTH118 - a tenth of the time

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Image i, shrunk as `reduction` allows; raises `BadImage`."""
        return decode(self.name(i), reduction)

    def read(self, i: int) -> np.ndarray:
        """Image i as `(H, W, 3)` uint8 RGB; raises `BadImage`."""
        return self.decode(i).pixels
