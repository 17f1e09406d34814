"""The folder of a run: what is in it, and who may write there."""

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any

import yaml

from cmid.errors import CmidError, UsageError
from cmid.folder_lock import LOCK, FolderLock, FolderTakenError
from cmid.train.checkpoints import LEFTOVER, Checkpoint, former_of, read_checkpoint, remove_leftovers
from cmid.whole_files import parts_beside, replace_whole, require_utf8

FREE_TO_CHANGE = (
    "out", "resume", "report", "data", "max_bad_share", "read_timeout_s", "knn", "train", "scenes.remote",
    "optimizer.lr", "optimizer.min_lr", "optimizer.clip_norm",
)  # fmt: skip
"""Settings, with all below them, that a resumed run may have otherwise: also what the errors of a run advise."""
FIXED_IN_TRAIN = ("train.accumulate",)
LOGGED = {"tensorboard": ("tensorboard",), "wandb": ("wandb", ".wandb_id"), "mlflow": ("mlruns", ".mlflow_id")}
"""What each of `train.loggers` leaves in the folder."""
UNTOLD = ("out", "resume", "report", "data")
"""Those of them whose change nobody needs to be told of."""


class RunDirectory:
    """One run's folder and its files; `open` guards it and locks it, `close` lets go.

    Attributes:
        path: the folder.
        settings: `settings.yaml`, the resolved settings.
        steps: `steps.csv`, a row every few optimiser steps.
        metrics: `metrics.csv`, a row an epoch.
        last: the newest checkpoint.
        best: the checkpoint of the best epoch.
        skipped: `skipped.csv`, images that could not be read.
        nonfinite: `nonfinite.json`, the batch whose loss was not finite, where that stopped the last session; what
            stopped those before it is `nonfinite-1.json` and so on.
        account: `data.json`, what was measured of the data, where something was.
        goes_on: whether the run that was opened has a checkpoint to go on from.
        notes: what is to be told of how it was opened, a line each.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.settings = self.path / "settings.yaml"
        self.steps = self.path / "steps.csv"
        self.metrics = self.path / "metrics.csv"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"
        self.skipped = self.path / "skipped.csv"
        self.nonfinite = self.path / "nonfinite.json"
        self.account = self.path / "data.json"
        self.goes_on = False
        self.notes: list[str] = []
        self._lock: FolderLock | None = None
        self._created: list[Path] = []

    @property
    def is_open(self) -> bool:
        """Whether this object holds the folder."""
        return self._lock is not None

    @property
    def may_begin(self) -> bool:
        """Whether a run can be begun here: a folder that is new or empty, or whose run ended before its checkpoint."""
        if not self.path.is_dir():
            return not self.path.exists()
        found = self._found()
        return not found or self._was_never_saved(found)

    def open(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Takes the folder for a new run, whose `settings.yaml` it writes, or for going on with the one in it.

        A run that was killed before its first checkpoint has nothing to lose: it is begun anew either way.

        Args:
            settings: resolved settings, plain values only.
            resume: go on from `last`.

        Raises:
            UsageError: the folder holds files and `resume` is off; there is nothing to resume; the settings differ
                where the run would become another; the folder cannot be written; another process trains in it.
        """
        if self.is_open:
            return
        self.check(resume=resume)
        try:
            for folder in (*reversed(self.path.parents), self.path):
                if not folder.exists():
                    folder.mkdir(exist_ok=True)
                    self._created.append(folder)
            self._take_lock()
            self.goes_on = self._guard(resume)  # once more: another process may have come first
            anew = not self.goes_on and self.checkpoints.is_dir()
            self.checkpoints.mkdir(exist_ok=True)
            remove_leftovers(self.checkpoints, but=former_of(self.last) if self.goes_on else None)
            if self.goes_on:
                self._compare(settings)
            elif anew:
                self._clear()
            self._put_aside()
            if not self.goes_on:
                self.write_settings(settings)
        except CmidError as error:
            if not isinstance(error, UsageError):  # not refused: this session has failed, for another reason
                self._put_aside()
            self.close()
            raise
        except OSError as error:
            self.close()
            raise self._unwritable(error) from error

    def check(self, *, resume: bool) -> None:
        """Refuses, and leaves everything as it is, where `open` would whatever the settings are: what is cheap to know.

        Raises:
            UsageError: as `open`, of what is in the folder, and of a folder that cannot be written.
        """
        require_utf8(self.path)
        try:
            if self.path.exists() and not self.path.is_dir():
                raise UsageError(f"Expected a folder for the run, found a file: {self.path}. Choose another --out.")
            self._guard(resume)
            there = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
            if there != self.path and there.is_dir():  # by trying: permissions alone do not tell, of root least of all
                Path(mkdtemp(prefix=".cmid-", dir=there)).rmdir()
        except OSError as error:
            raise self._unwritable(error) from error
        if not there.is_dir():
            raise self._unwritable(NotADirectoryError(errno.ENOTDIR, f"{there} is a file"))
        if not os.access(there, os.W_OK | os.X_OK):
            raise self._unwritable(PermissionError(errno.EACCES, f"no permission to write in {there}"))

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Writes `settings.yaml`; on a resume, only when the checkpoint has been accepted.

        Raises:
            UsageError: it cannot be written.
        """
        again = dict(settings)
        if "resume" in again:
            again["resume"] = False  # with --config the file begins another run
        self._replace(self.settings, yaml.safe_dump(again, sort_keys=False, allow_unicode=True))

    def write_account(self, account: Mapping[str, Any]) -> None:
        """Writes `data.json`, what the data are; raises `UsageError` where it cannot be written."""
        self._replace(self.account, json.dumps(dict(account), indent=1) + "\n")  # ASCII: names may be no UTF-8

    def _replace(self, path: Path, text: str) -> None:
        """Whole or not at all: a run that goes on needs what was there."""
        try:
            replace_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise self._unwritable(error) from error

    def checkpoint(self, *, lazy: bool = True) -> Checkpoint:
        """The run's `last`, as `read_checkpoint` reads it; where it cannot, the error says what may be done."""
        try:
            return read_checkpoint(self.last, lazy=lazy)
        except CmidError as error:
            raise type(error)(
                f"{error} To go on from best.ckpt, copy it to last.ckpt; where that is damaged, too, remove both, and "
                "the same command begins anew."
            ) from error

    def close(self) -> None:
        """Lets go of the folder; one in which nothing has happened is removed again."""
        if self._lock is None:
            self._remove_empty()
            return
        if self._created_nothing():
            self.settings.unlink(missing_ok=True)
            self.account.unlink(missing_ok=True)
            if self.checkpoints.is_dir():
                self.checkpoints.rmdir()
        self._lock.release()
        self._lock = None
        self._remove_empty()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"The run's folder {self.path} cannot be written: {error.strerror or error}. Choose another --out, or "
            "change its permissions."
        )

    def _created_nothing(self) -> bool:
        if not self.path.is_dir():  # removed under the running job
            return False
        ours = {self.settings.name, self.account.name, self.checkpoints.name, LOCK}
        return {p.name for p in self.path.iterdir()} <= ours and not any(self.checkpoints.glob("*"))

    def _remove_empty(self) -> None:
        for folder in reversed(self._created):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self._created = []

    def _guard(self, resume: bool) -> bool:
        """Whether there is a run to go on with; refuses where `resume` and what is found do not go together."""
        if resume and self.last.is_file():
            return True
        found = self._found() if self.path.is_dir() else []
        if found and self._was_never_saved(found):
            return False
        if resume:
            what = "no checkpoint in it" if self.path.is_dir() else "no such folder"
            raise UsageError(
                f"Expected a checkpoint to resume from at {self.last}, found {what}. Start without --resume, in a "
                "folder that is new or empty."
            )
        if found:
            what = "a run" if self.settings.name in found else f"files ({', '.join(found[:3])})"
            instead = ", or go on with the run in it by --resume" if self.last.is_file() else ""
            raise UsageError(
                f"Expected a new or empty folder, but {self.path} already holds {what}. Choose another --out{instead}."
            )
        return False

    def _found(self) -> list[str]:
        return sorted(p.name for p in self.path.iterdir() if p.name != LOCK)

    def _was_never_saved(self, found: Sequence[str]) -> bool:
        """Whether `found` is what a run leaves that ended before its first checkpoint, and nothing besides."""
        books = [book.name for book in self._books()]
        kept = [path.name for at in (f"{self.nonfinite.stem}*.json", "*.csv.damaged*") for path in self.path.glob(at)]
        ours = {self.checkpoints.name, *kept, *books, *(path.name for path in self._logged())}
        return (
            self.checkpoints.name in found  # `open` makes it first
            and ours.issuperset(found)
            and all(p.match(LEFTOVER) for p in self.checkpoints.iterdir())
        )

    def _books(self) -> list[Path]:
        """What a run writes down as it goes, and what is left where it was killed while writing."""
        tables, replaced = [self.steps, self.metrics], [self.settings, self.account]
        torn = [part for path in replaced for part in parts_beside(path)]
        return [*replaced, self.skipped, *tables, *(table.with_name(f"{table.name}.tmp") for table in tables), *torn]

    def _logged(self) -> list[Path]:
        """What its loggers have written for a run whose settings name them, this one's and those put aside before."""
        try:
            loggers = yaml.safe_load(self.settings.read_text(encoding="utf-8"))["train"]["loggers"]
            names = [name for logger in loggers for name in LOGGED[logger]]
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):  # settings of somebody else
            return []
        return [path for name in names for path in (self.path / name, *sorted(self.path.glob(f"{name}-*")))]

    def _clear(self) -> None:
        for path in self._logged():
            if path.is_file():
                path.unlink()  # the service's word for a run that will not go on
            elif path.is_dir() and path.name in {name for names in LOGGED.values() for name in names}:
                _put_aside(path)
        for path in self._books():
            path.unlink(missing_ok=True)
        self.notes.append(f"The run in {self.path} ended before its first checkpoint; it is begun anew.")

    def _put_aside(self) -> None:
        """What stopped an earlier session is no news of this one; kept under another name."""
        if self.nonfinite.is_file():
            kept = _put_aside(self.nonfinite)
            self.notes.append(f"{self.nonfinite.name} of an earlier session is kept as {kept.name}.")

    def _compare(self, settings: Mapping[str, Any]) -> None:
        before = self.checkpoint().settings
        if differing := differing_settings(before, settings):
            raise UsageError(
                f"The run in {self.path} was started with other settings: {'; '.join(differing)}. Resume with its own "
                "settings, or start a new run in another --out."
            )
        if changed := changed_settings(before, settings):
            self.notes.append(f"The run goes on with other settings: {'; '.join(changed)}.")

    def _take_lock(self) -> None:
        try:
            self._lock = FolderLock(self.path)
        except FolderTakenError as error:
            raise UsageError(
                f"{self.path} is already being trained in by {error}. Wait for it to end, or choose another --out."
            ) from error


def _put_aside(path: Path) -> Path:
    """Gives a file or folder the next free name with a number, and says it."""
    others = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in count(1))
    return path.rename(next(other for other in others if not other.exists()))


def differing_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`name was a, is b` for each setting that may not change within a run.

    Settings that only one side knows are passed over: another version of cmid has added or dropped them.
    """
    return [words for name, words in _differences(before, now) if not _is_among(name, FREE_TO_CHANGE)]


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`name was a, is b` for each setting that may change and has, where it bears on the run."""
    differences = _differences(before, now)
    return [words for name, words in differences if _is_among(name, FREE_TO_CHANGE) and not _is_among(name, UNTOLD)]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    old, new = dict(_flat(before)), dict(_flat(now))
    if _together(old) == _together(new):  # as many images a step, on other processes
        old = {name: value for name, value in old.items() if name not in ("batch_size", "train.accumulate")}
    for name in old:
        if name in new and old[name] != new[name]:
            yield name, f"{name} was {old[name]!r}, is {new[name]!r}"


def _together(settings: Mapping[str, Any]) -> int | None:
    """Images of all processes in an optimiser step."""
    each, *times = (settings.get(n, 1) for n in ("batch_size", "train.devices", "train.nodes", "train.accumulate"))
    return each * math.prod(times) if isinstance(each, int) else None


def _is_among(name: str, names: tuple[str, ...]) -> bool:
    return name not in FIXED_IN_TRAIN and (name in names or name.split(".")[0] in names)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value
