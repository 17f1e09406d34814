"""Checkpoints: written whole or not at all, read without running anything they contain."""

import errno
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cmid.contracts import Progress
from cmid.errors import CmidError, UsageError
from cmid.whole_files import replace_whole, require_utf8

FORMAT = 1
ROOM_BYTES = 1 << 20
"""A disk with less free is full."""
LEFTOVER = ".*.ckpt.*.part"
"""What a process leaves that is killed while it writes a checkpoint (`whole_files.part_of`)."""
NEEDED = {"format", "settings", "learner", "progress"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read from disk.

    Attributes:
        path: the file.
        settings: the run's resolved settings, plain dicts, lists and numbers.
        learner_state: the learner's state dict, on the CPU.
        progress: what had been completed.
        state: everything in the file, with optimiser and loader.
    """

    path: Path
    settings: dict[str, Any]
    learner_state: dict[str, Tensor]
    progress: Progress
    state: dict[str, Any]


def read_checkpoint(path: str | Path, *, lazy: bool = True, checked: bool = False) -> Checkpoint:
    """Reads a checkpoint; a pickle in it is never executed.

    Args:
        path: a checkpoint file, or a run directory, which means its `last`.
        lazy: map the file, so that only the tensors that are used are read from disk and kept in memory.
        checked: hold all of the file against its check sums, which torch does not do; always, where it is read whole.

    Raises:
        UsageError: there is no such file.
        CmidError: the file is damaged, is something else, or carries code.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise UsageError(f"Expected a checkpoint at {path}, found none. Give a run directory or a .ckpt file in it.")
    require_utf8(path)
    if not zipfile.is_zipfile(path):
        raise CmidError(
            f"{path} is no checkpoint of cmid, or it is cut short; nothing in it was run. Use another checkpoint, "
            "such as best.ckpt of the same run."
        )
    try:
        if checked or not lazy:
            _check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=lazy)
    except pickle.UnpicklingError as error:
        raise CmidError(
            f"{path} contains more than tensors and plain values, so it could run code when loaded; it was refused "
            f"and nothing was run. Use a checkpoint written by cmid. ({_first_line(error)})"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CmidError(
            f"{path} is damaged and cannot be read ({_first_line(error)}). Use another checkpoint, such as best.ckpt "
            "of the same run."
        ) from error
    if not isinstance(state, dict) or not state.keys() >= NEEDED:
        raise CmidError(f"{path} is no checkpoint of a cmid run: it lacks {_missing(state)}.")
    if state["format"] != FORMAT:
        raise CmidError(
            f"{path} has checkpoint format {state['format']}, this version of cmid reads format {FORMAT}. Use the "
            "version of cmid that wrote it."
        )
    try:
        progress = Progress(**state["progress"])
    except TypeError as error:  # of another version, or of another hand
        raise CmidError(
            f"{path} says its progress in a way that this version of cmid does not know: {error}."
        ) from error
    return Checkpoint(path, state["settings"], state["learner"], progress, state)


def load_learner(learner: nn.Module, learner_state: Mapping[str, Tensor], source: str | Path) -> None:
    """Copies `learner_state` into `learner`, all of it or nothing.

    Raises:
        CmidError: names or shapes differ, naming the first of them; `source` is named as where they come from.
    """
    own = learner.state_dict()
    lacking = [k for k in own if k not in learner_state]
    foreign = [k for k in learner_state if k not in own]
    shapes = [
        f"{k} {tuple(learner_state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in learner_state and learner_state[k].shape != own[k].shape
    ]
    if lacking or foreign or shapes:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in (("missing", lacking), ("unknown", foreign), ("of another shape", shapes))
            if names
        ]
        raise CmidError(
            f"{source} is of another architecture than the model asked for. Of its tensors: {'; '.join(parts)}. "
            "Use the method, backbone and sizes that it was trained with."
        )
    learner.load_state_dict(dict(learner_state))


def require_plain(value: Any, where: str = "state") -> None:
    """Raises TypeError unless `value` is tensors in plain containers, which is what `read_checkpoint` accepts."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str | int):
                raise TypeError(f"{where} has the key {key!r}; only str and int can be read back safely")
            require_plain(entry, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, entry in enumerate(value):
            require_plain(entry, f"{where}[{i}]")
    elif type(value) not in {str, int, float, bool, type(None), bytes} and not isinstance(value, Tensor):
        raise TypeError(f"{where} is a {type(value).__name__}; only tensors and plain values can be read back safely")


def weights_are_finite(learner: nn.Module) -> bool:
    """Whether no parameter is infinite or NaN and no buffer NaN (a buffer may hold an infinity on purpose)."""
    with torch.no_grad():
        biggest = torch.stack(_greatest(p for p in learner.parameters() if p.is_floating_point()))
        sums = _greatest(b for b in learner.buffers() if b.is_floating_point())
        finite = biggest.isfinite().all()
        return bool(finite & ~torch.stack(sums).isnan().any() if sums else finite)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` beside `path` and moves it there once it is safely on disk.

    Raises:
        OSError: it could not be written; what was at `path` is as before and nothing is left beside it.
    """
    require_plain(state)

    def save(part: Path) -> None:
        try:
            with part.open("wb") as file:
                torch.save(state, file)
        except RuntimeError as error:  # torch's archive writer reports a full disk this way
            if shutil.disk_usage(part.parent).free < ROOM_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise OSError(_first_line(error)) from error

    replace_whole(path, save)


def keep_as(path: Path, other: Path) -> None:
    """Makes `other` the file that `path` is now, without a second copy of its bytes where links are possible."""

    def copy(part: Path) -> None:
        part.unlink(missing_ok=True)
        try:
            part.hardlink_to(path)
        except OSError:
            shutil.copyfile(path, part)

    replace_whole(other, copy)


def former_of(path: Path) -> Path:
    """Where the checkpoint stands that was at `path` before one that has yet to be measured."""
    return path.with_name(f".{path.name}.former.part")


def remove_leftovers(folder: Path, *, but: Path | None = None) -> None:
    """Deletes the temporary files of a process that was killed while writing, other than `but`."""
    for path in folder.glob(LEFTOVER):
        if path != but:
            path.unlink(missing_ok=True)


def _check_sums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if (broken := archive.testzip()) is not None:
            raise ValueError(f"the check sum of {broken} is wrong")


def _greatest(tensors: Iterable[Tensor]) -> list[Tensor]:
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.numel():
            groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return [norm.float() for group in groups.values() for norm in torch._foreach_norm(group, float("inf"))]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _missing(state: Any) -> str:
    return ", ".join(sorted(NEEDED - state.keys())) if isinstance(state, dict) else "everything expected"
