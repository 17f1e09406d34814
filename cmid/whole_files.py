"""Files that appear whole or not at all, whatever is written."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cmid.errors import CmidError, UsageError


def write_page_whole(folder: Path, page: str, *, learned: bool) -> Path:
    """Writes `report.html` of a training run (`learned`) or of an evaluation; raises `CmidError`."""
    return write_whole(
        folder / "report.html",
        lambda part: part.write_text(page, encoding="utf-8", errors="replace"),
        advice=f"Make room, {'and go on with --resume' if learned else 'or choose another --out'}.",
    )


def write_whole(path: Path, write: Callable[[Path], object], *, advice: str) -> Path:
    """As `replace_whole`, with an error for people; gives `path`.

    Raises:
        CmidError: it cannot be written, and what to do, which is `advice`; what was at `path` is as before.
    """
    try:
        replace_whole(path, write)
    except OSError as error:
        raise CmidError(f"{path} cannot be written: {error.strerror or error}. {advice}") from error
    return path


def require_utf8(path: Path) -> None:
    """Refuses a name that torch and safetensors could not open again.

    Raises:
        UsageError: it, or that of a folder above it, is no valid UTF-8.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"The name of {path.absolute()} is no valid UTF-8 (\\udc.. stands for a byte that is none), and weights in "
            "such files or folders cannot be read. Rename it, or choose another."
        ) from None


def replace_whole(path: Path, write: Callable[[Path], object], *, sync: bool = True) -> None:
    """Moves to `path` what `write` writes to the path it is given, once it is complete; folders are made.

    Args:
        path: what was there stays as it was until then, and where anything is raised; nothing is left beside it.
        write: makes the file; what it raises is passed on.
        sync: wait until it is on disk, so that a power cut leaves one of the two. Off for many small files that can be
            made again.

    Raises:
        OSError: the file cannot be moved or brought to disk.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        if sync:
            with part.open("rb+") as written:
                os.fsync(written.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):  # there is no folder, or it may not be written: what was raised says so
            part.unlink(missing_ok=True)
    if sync:
        sync_folder(path.parent)


def part_of(path: Path) -> Path:
    """Where this process writes `path` before it is complete."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def parts_beside(path: Path) -> list[Path]:
    """What killed processes left of their tries to write `path`."""
    return list(path.parent.glob(f".{path.name}.*.part"))


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to disk, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # not every system opens folders
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
