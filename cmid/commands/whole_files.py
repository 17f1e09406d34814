"""Files that appear whole or not at all, for everything that a verb writes for people."""

import os
from collections.abc import Callable
from pathlib import Path

from cmid.errors import CmidError


def write_page_whole(folder: Path, page: str, *, learned: bool) -> Path:
    """Writes `report.html` of a training run (`learned`) or of an evaluation; raises `CmidError`."""
    return write_whole(
        folder / "report.html",
        lambda part: part.write_text(page, encoding="utf-8", errors="replace"),
        advice=f"Make room, {'and go on with --resume' if learned else 'or choose another --out'}.",
    )


def write_whole(path: Path, write: Callable[[Path], object], *, advice: str) -> Path:
    """What `write` writes to the path it is given, moved to `path` when it is complete; folders are made.

    Raises:
        CmidError: it cannot be written, and what to do, which is `advice`; what was at `path` is as before.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except OSError as error:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)
        raise CmidError(f"{path} cannot be written: {error.strerror or error}. {advice}") from error
    return path
