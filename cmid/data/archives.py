"""Files of a folder and of the zips in it, also of zips within zips, without unpacking what nobody asked for.

A zip's own paths are only looked at, never written to: what is taken out goes to a name that we choose. What is taken
out may not be larger than it says, nor than the bounds below, nor than the disk's room.
"""

import errno
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from cmid.data.folder import find_files, kind_of, why
from cmid.errors import CmidError, UsageError

MOST_MEMBERS = 100_000
MOST_FILE_BYTES = 2 << 30
"""Of one file in a zip: the largest tile of the benchmarks has 144 MB."""
MOST_ZIP_BYTES = 64 << 30
DEEPEST = 3
CHUNK = 1 << 20
DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError,
)  # fmt: skip
"""What zipfile and the decoders raise on damaged bytes; bz2's OSError, which has no number, is another."""


@dataclass(frozen=True)
class Member:
    """A file, perhaps in a zip.

    Attributes:
        told: what it is called in messages: the path, and after a ! the path in the zip.
        name: its path from the source on, with slashes, zips counting as folders.
        path: of the file, or of the zip that holds it.
        inner: its path in the zip; empty where it is a file.
    """

    told: str
    name: str
    path: Path
    inner: str = ""


def find_members(source: Path, scratch: Path, opens: Callable[[str], bool]) -> tuple[Member, ...]:
    """All files under a folder, or in a zip, sorted; those that lie there openly before those in zips.

    Args:
        source: a folder, or a zip.
        scratch: folder for zips that lie in zips.
        opens: whether a zip of this name is to be looked into.

    Raises:
        UsageError: nothing there; a zip that is damaged, locked, or too large to be true.
        CmidError: the disk has no room.
    """
    kind = kind_of(source)
    if kind == "":
        raise UsageError(f"no such folder or zip: {source}")
    if kind == "file":
        if source.suffix.lower() != ".zip":
            raise UsageError(f"{source} is neither a folder nor a zip")
        return tuple(_in_zip(source, str(source), source.stem, scratch, opens, 1))
    files = find_files(source, (".tif", ".tiff", ".tfw"))
    members = [Member(str(source / name), name, source / name) for name in files]
    for name in find_files(source, (".zip",)):
        if opens(PurePosixPath(name).name):
            inside = str(PurePosixPath(name).with_suffix(""))
            members += _in_zip(source / name, str(source / name), inside, scratch, opens, 1)
    return tuple(members)


def take_out(member: Member, to: Path) -> Path:
    """The member as a file: itself where it is one, else written to `to`.

    Raises:
        UsageError: it is damaged, locked, or larger than a tile can be.
        CmidError: it cannot be written.
    """
    if not member.inner:
        return member.path
    with _opened(member.path, member.told) as archive:
        _copy(archive, archive.getinfo(member.inner), member.told, to, MOST_FILE_BYTES)
    return to


def _in_zip(
    path: Path, told: str, inside: str, scratch: Path, opens: Callable[[str], bool], depth: int
) -> Iterator[Member]:
    nested: list[tuple[Path, str, PurePosixPath]] = []
    with _opened(path, told) as archive:
        entries = sorted((each for each in archive.infolist() if not each.is_dir()), key=lambda each: each.filename)
        if len(entries) > MOST_MEMBERS:
            raise UsageError(f"{told} holds {len(entries):,} files, where at most {MOST_MEMBERS:,} are expected")
        for each in entries:
            name = PurePosixPath(each.filename.replace("\\", "/"))
            if name.suffix.lower() == ".zip" and opens(name.name) and depth < DEEPEST:
                to = scratch / f"{depth}-{len(list(scratch.glob('*.zip')))}.zip"  # others may have the same name
                _copy(archive, each, f"{told}!{each.filename}", to, MOST_ZIP_BYTES)
                nested.append((to, each.filename, name))
            else:
                yield Member(f"{told}!{each.filename}", f"{inside}/{name}", path, each.filename)
    for to, filename, name in nested:
        yield from _in_zip(to, f"{told}!{filename}", f"{inside}/{name.with_suffix('')}", scratch, opens, depth + 1)


class _opened:
    """A zip in a `with`; what is wrong with it is told in words."""

    def __init__(self, path: Path, told: str) -> None:
        self._told = told
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise UsageError(f"{told} is no zip, or damaged ({error}): fetch it again") from None
        except OSError as error:
            raise UsageError(f"cannot read {told}: {why(error)}") from None

    def __enter__(self) -> zipfile.ZipFile:
        return self._archive

    def __exit__(self, *error: object) -> None:
        self._archive.close()


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, told: str, to: Path, most: int) -> None:
    if entry.flag_bits & 1:
        raise UsageError(f"{told} is locked with a password: unpack it by hand and name the folder")
    if entry.file_size > most:
        raise UsageError(f"{told} says it holds {entry.file_size:,} bytes, where at most {most:,} are expected")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(to.parent).free
        if entry.file_size > free:
            raise CmidError(
                f"{told} needs {entry.file_size / 1e9:.1f} GB beside the output, where {free / 1e9:.1f} GB are free: "
                "make room, choose another disk with --out, or unpack it by hand and name the folder"
            )
        with archive.open(entry) as source, to.open("wb") as target:
            _pour(source, target, entry.file_size, told)
    except DAMAGED as error:
        to.unlink(missing_ok=True)
        raise UsageError(f"{told} is damaged ({error}): fetch its zip again") from None
    except ImportError as error:
        raise UsageError(f"{told} is packed in a way that this Python cannot read: {error}") from None
    except OSError as error:
        to.unlink(missing_ok=True)
        if error.errno in (None, errno.EINVAL):  # of bz2, or of a place that no file has; not of the disk
            raise UsageError(f"{told} is damaged ({error}): fetch its zip again") from None
        raise CmidError(f"taking {told} out to {to} failed: {why(error)}; make room or choose another --out") from error


def _pour(source: IO[bytes], target: IO[bytes], size: int, told: str) -> None:
    written = 0
    while chunk := source.read(CHUNK):
        written += len(chunk)
        if written > size:
            raise UsageError(f"{told} holds more than the {size:,} bytes it says: it is not to be trusted")
        target.write(chunk)
