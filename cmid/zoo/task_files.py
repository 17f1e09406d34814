"""Models of tasks in files of their own: tensors in safetensors; in the header the task, and an account of the model.

The account is JSON: the model's metadata, a dataclass whose `backbone` is a `BackboneMetadata`. Nothing is unpickled.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from cmid.errors import CmidError, UsageError
from cmid.zoo.backbone_files import BackboneMetadata, write_tensors

M = TypeVar("M")
State = dict[str, Tensor]
NOUNS = {"classification": "classifier", "segmentation": "segmenter"}
"""Each task that has files, and what a model of it is called; `cmid finetune TASK` makes it, `cmid predict TASK` uses
it."""


def write_model(path: Path, task: str, parts: Mapping[str, Mapping[str, Tensor]], metadata: Any) -> Path:
    """Writes `path` (.safetensors) whole or not at all.

    Args:
        path: the file; replaced where it is there.
        task: a key of `NOUNS`.
        parts: tensors of each part of the model; `part.name` in the file.
        metadata: a dataclass with a field `cmid_version`, which becomes this package's.

    Raises:
        CmidError: it cannot be written.
    """
    state = {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
    about = json.dumps(asdict(metadata) | {"cmid_version": version("cmid")})
    return write_tensors(path, state, {"task": task, "about": about})


def find_model(weights: str, task: str) -> Path | None:
    """The file of a model of `task` that `weights` names, itself or the run it is in; None where it is none."""
    path = Path(weights)
    if path.is_dir() and not (path / "backbone.safetensors").is_file():
        path = path / "model.safetensors"
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return path if (file.metadata() or {}).get("task") == task else None
    except (SafetensorError, OSError):
        return None


@contextmanager
def reading_model(path: Path, task: str, kind: Callable[..., M]) -> Iterator[tuple[M, Callable[[str], State]]]:
    """The metadata of a file, and what gives the tensors of one of its parts, for building the model in a `with`.

    Args:
        path: the file.
        task: which it must be of.
        kind: the dataclass of the metadata.

    Raises:
        UsageError: no such file, of another task, damaged; or what is done in the `with` does not fit the file.
    """
    noun = NOUNS[task]
    if not path.is_file():
        raise UsageError(f"No such file: {path}. Expected the model.safetensors of a run of `cmid finetune {task}`.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        if header.get("task") != task:
            raise UsageError(_of_another(path, task, header.get("task", "none")))
        metadata = _metadata(kind, json.loads(header["about"]))
        state = load_file(path)
        yield metadata, lambda part: _under(f"{part}.", state)
    except UsageError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, CmidError) as error:
        raise UsageError(f"{path} is damaged, or no {noun}'s file ({str(error).splitlines()[0]}).") from error


def _of_another(path: Path, task: str, found: str) -> str:
    noun = NOUNS[task]
    advice = (
        f"It holds a {NOUNS[found]}: `cmid predict {found}` takes it."
        if found in NOUNS
        else f"A backbone becomes a {noun} by `cmid finetune {task}`."
    )
    return f"{path} is not a {noun}'s file: expected task {task}, found {found}. {advice}"


def _under(prefix: str, state: State) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _metadata(kind: Any, plain: dict[str, Any]) -> Any:
    def made(of: Any, values: dict[str, Any]) -> dict[str, Any]:
        known = {each.name for each in fields(of)}  # later versions may write more
        return {key: _tuples(value) for key, value in values.items() if key in known}

    return kind(**made(kind, plain) | {"backbone": BackboneMetadata(**made(BackboneMetadata, plain["backbone"]))})


def _tuples(value: Any) -> Any:
    """Lists as tuples, at any depth."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
