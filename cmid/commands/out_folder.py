"""The folder or file that somebody asked to be written, and that must not cost them another."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cmid.errors import CmidError, UsageError
from cmid.folder_lock import FolderLock, FolderTakenError
from cmid.train import RunDirectory


def checked_folder(out: str | None, model: Path, written: Sequence[str], *, overwrite: bool) -> Path | None:
    """Where to write; None where nothing is to be written.

    Args:
        out: as it was asked for.
        model: the file that is scored.
        written: names of the files that are to be written.
        overwrite: replace those.

    Raises:
        UsageError: a file, the folder of the model's own run, or a folder that holds files.
    """
    if not out:
        return None
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"out is the folder to write into; {folder} is a file.")
    if folder.resolve() == model.parent.resolve():
        raise UsageError(f"{folder} is where the model lies, beside the scores of its own run. Give another --out.")
    if folder.is_dir() and not overwrite and next(folder.iterdir(), None) is not None:
        raise UsageError(
            f"the folder {folder} holds files. Give another --out, or --overwrite to replace {', '.join(written)} in "
            "it."
        )
    return folder


def checked_file(out: str | None, *, overwrite: bool) -> Path | None:
    """The file to write; None where none is to be written.

    Raises:
        UsageError: a folder, a place in what is no folder, or, without `overwrite`, a file that is there.
    """
    if not out:
        return None
    path = Path(out)
    if path.is_dir():
        raise UsageError(f"out is the file to write; {path} is a folder.")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists. Give another --out, or --overwrite to replace it.")
    above = next(parent for parent in (*path.parents, Path()) if parent.exists())
    if not above.is_dir():
        raise UsageError(f"{path} cannot be written: {above} is no folder. Give another --out.")
    return path


def make_folder(folder: Path, written: Sequence[str]) -> None:
    """The folder, without what an earlier evaluation wrote; raises `CmidError` where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in written:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise CmidError(f"{folder} cannot be written: {error.strerror}. Choose another --out.") from error


@contextmanager
def held(folder: Path, another: str) -> Iterator[None]:
    """While entered, no other process works in `folder`; the lock ends with this process, however that ends.

    Raises:
        UsageError: `another`, such as "another comparison", is at work in it.
        OSError: the folder cannot be written.
    """
    try:
        lock = FolderLock(folder)
    except FolderTakenError as error:
        raise UsageError(
            f"{another} is at work in {folder}, by {error}: wait for it to end, or choose another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def trained_on(model: Path) -> set[str]:
    """Which files the run that `model` lies in trained on, as far as its data.json tells: real paths."""
    try:
        content = json.loads(RunDirectory(model.parent).account.read_text(encoding="utf-8"))
        split, root = content["split"], content.get("root", "")
        names = (*split["train"], *split.get("validation", ()))
        return {os.path.realpath(os.path.join(root, name)) for name in names}  # noqa: PTH118 - names may be whole paths
    except (OSError, ValueError, KeyError, TypeError):
        return set()
