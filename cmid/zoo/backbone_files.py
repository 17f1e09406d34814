"""A backbone in a file of its own, with what is needed to use it: bands, mean and std, and where it comes from.

Two formats, both under the names timm (and, for ResNets, torchvision) use, without a head:

- `.safetensors`: the tensors, and the metadata as strings in the header.
- `.pth`: `{"state_dict": tensors, "metadata": plain values}`, so that elsewhere
  `model.load_state_dict(torch.load(file, weights_only=True)["state_dict"], strict=False)` is all it takes.

Reading goes by content, not by suffix, and never runs code: a pickle that holds more than tensors and plain values
is refused. One kind is read all the same, a full checkpoint of the published code, which keeps an object of its own
class beside its weights: that object is passed over (`cmid/zoo/foreign_checkpoints.py`).
"""

import json
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cmid.backbones import TimmBackbone, create_backbone
from cmid.config import ViewConfig
from cmid.contracts import Backbone
from cmid.errors import CmidError, UsageError
from cmid.whole_files import replace_whole, require_utf8
from cmid.zoo.foreign_checkpoints import read_beside_objects
from cmid.zoo.published_layout import (
    backbone_of,
    is_extracted_swin,
    is_full_checkpoint,
    is_published_swin,
    name_of,
    to_timm,
)

SUFFIXES = (".safetensors", ".pth")


@dataclass(frozen=True)
class BackboneMetadata:
    """What a file says of its backbone.

    Attributes:
        backbone: name that `create_backbone` takes.
        in_chans: number of bands.
        method: what it was pre-trained with.
        mode: of the method, such as `exact`.
        which: `student` or `teacher`.
        bands: names of the bands, in order.
        mean: subtracted from each band, on the scale 0..1.
        std: divided by, on the scale 0..1.
        low: value of each band that is 0 on that scale; None for 8-bit data, whose 255 is 1.
        high: value of each band that is 1.
        size: side in pixels of the crops in pre-training.
        epochs: passes over the data that had been made, as a fraction.
        images_seen: images drawn until then, each time one was drawn.
        cmid_version: of the package that wrote the file.
        note: free text.

    Raises:
        UsageError: where bands, mean or std do not have one value a band.
    """

    backbone: str
    in_chans: int = 3
    method: str | None = None
    mode: str | None = None
    which: str = "student"
    bands: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    size: int | None = None
    epochs: float | None = None
    images_seen: int | None = None
    cmid_version: str = field(default_factory=lambda: version("cmid"))
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("bands", "mean", "std", "low", "high"):
            values = getattr(self, name)
            if values is not None and len(values) != self.in_chans:
                raise UsageError(f"A backbone of {self.in_chans} bands needs as many values of {name}, not {values}.")


def save_backbone(path: Path | str, backbone: Backbone, metadata: BackboneMetadata, *, overwrite: bool = False) -> Path:
    """Write `backbone.weights()` and the metadata; the file appears whole or not at all.

    Raises:
        UsageError: unknown suffix; the file exists and `overwrite` is False.
        CmidError: it cannot be written.
        ValueError: metadata of another backbone.
    """
    path = Path(path)
    require_utf8(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"A backbone is written to .safetensors or .pth, not to {path.name}.")
    if (metadata.backbone, metadata.in_chans) != (backbone.name, backbone.in_chans):
        raise ValueError(f"metadata of {metadata.backbone} for a {backbone.name}, or of other bands")
    if path.exists() and (path.is_dir() or not overwrite):
        raise UsageError(f"{path} exists. Give another file name, or --overwrite to replace it.")
    state = {key: value.detach().cpu().contiguous().clone() for key, value in backbone.weights().items()}
    if path.suffix == ".safetensors":
        return write_tensors(path, state, _to_header(metadata))
    try:
        replace_whole(path, lambda part: torch.save({"state_dict": state, "metadata": asdict(metadata)}, part))
    except (OSError, RuntimeError) as error:
        raise _unwritable(path, error) from error
    return path


def write_tensors(path: Path, state: Mapping[str, Tensor], header: Mapping[str, str]) -> Path:
    """As safetensors' `save_file`, whole or not at all, with the rights of any new file: that leaves out others.

    Raises:
        CmidError: it cannot be written.
    """
    owned = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}

    def save(part: Path) -> None:
        part.touch()
        mode = stat.S_IMODE(part.stat().st_mode)
        save_file(owned, part, metadata={"format": "pt", **header})
        _sort_header(part)
        part.chmod(mode)

    try:
        replace_whole(path, save)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _unwritable(path, error) from error
    return path


def _sort_header(path: Path) -> None:
    """The metadata in order, which safetensors leaves to chance: equal weights make equal bytes."""
    with path.open("rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(ordered) <= length:
            file.seek(8)
            file.write(ordered.ljust(length))


def _unwritable(path: Path, error: Exception) -> CmidError:
    reason = getattr(error, "strerror", None) or error
    return CmidError(f"{path} cannot be written: {reason}. Check the folder's rights and free space.")


def load_backbone(
    path: Path | str,
    *,
    name: str | None = None,
    in_chans: int | None = None,
    which: Literal["student", "teacher"] | None = None,
) -> tuple[TimmBackbone, BackboneMetadata]:
    """The backbone of a file, on the CPU, in evaluation mode, without mask token; and what the file says of it.

    Args:
        path: written by `save_backbone`, or the state dict of a timm model, of a torchvision ResNet or of the published
            CMID code (also under the key `state_dict` or `model`), or a full checkpoint of that code.
        name: which backbone; needed where the file has no metadata and is neither a full checkpoint nor a Swin of the
            published code, otherwise it must agree.
        in_chans: number of bands; unset: what the file says, 3 where it says nothing.
        which: of a full checkpoint, which has both, whose backbone; unset: the student's. Any other file must say
            that it holds this one.

    Raises:
        UsageError: no such file, not a weights file, code in it, damaged, another architecture, other bands, not the
            one of student and teacher, or no metadata and no name.
    """
    path = Path(path)
    require_utf8(path)
    state, metadata = _read(path, name, which or "student")
    published = is_published_swin(state)
    state = to_timm(state)
    if metadata is None:
        named = name or (name_of(state) if published else None)
        if named is None:
            near = name_of(state) or "resnet50"
            raise UsageError(
                f"{path} does not say which backbone it holds (no metadata). Name it, such as --backbone {near} of "
                f"cmid extract, evaluate and finetune, FILE?backbone={near} of cmid compare, or name={near!r} of "
                "load_backbone."
            )
        metadata = BackboneMetadata(named, 3 if in_chans is None else in_chans, which="unknown", cmid_version="")
    if name is not None and name != metadata.backbone:
        raise UsageError(f"{path} holds {metadata.backbone}, but {name} was asked for: leave backbone out.")
    if in_chans is not None and in_chans != metadata.in_chans:
        raise UsageError(f"{path} is for images of {metadata.in_chans} bands, but {in_chans} were asked for.")
    if which is not None and which != metadata.which:
        held = "does not say whose backbone it holds" if metadata.which == "unknown" else f"holds the {metadata.which}"
        raise UsageError(f"{path} {held}, but the {which} was asked for. Leave --which out to take what is there.")
    backbone = create_backbone(metadata.backbone, metadata.in_chans, mask_stage=None)
    if metadata.size and _reshaped(backbone, state):
        # Position embeddings of a model built for the size it was trained at, not for timm's
        sized = create_backbone(metadata.backbone, metadata.in_chans, mask_stage=None, img_size=metadata.size)
        backbone = backbone if _reshaped(sized, state) else sized
    try:
        backbone.load_weights(state)
    except CmidError as error:
        raise UsageError(f"{path}: {error}") from error
    return backbone.eval(), metadata


def read_metadata(path: Path | str) -> BackboneMetadata | None:
    """What a file says of its backbone, None where it says nothing; errors as for `load_backbone`."""
    path = Path(path)
    told = _header_of(path) if _is_safetensors(path) else None
    return told or _read(path)[1]


def _reshaped(backbone: TimmBackbone, state: dict[str, Tensor]) -> bool:
    return any(key in state and state[key].shape != own.shape for key, own in backbone.weights().items())


# --- reading ----------------------------------------------------------------------------------------------------


def _read(
    path: Path, name: str | None = None, which: Literal["student", "teacher"] = "student"
) -> tuple[dict[str, Tensor], BackboneMetadata | None]:
    """The state and what the file says of it; `name` and `which` are for full checkpoints of the published code."""
    if _is_safetensors(path):
        with _told_apart(path):
            state = load_file(path)
        return state, _header_of(path) or _of_extracted(state, name)
    with _told_apart(path):
        held = _unpickled(path)
        full = held.get("model") if isinstance(held, dict) else None
        if isinstance(full, Mapping) and is_full_checkpoint(full):
            state = backbone_of(full, which)
            if all(isinstance(value, Tensor) for value in state.values()):
                return state, _of_published(name or name_of(state), which, held.get("epoch"))
    plain = held.get("metadata") if isinstance(held, dict) else None
    for key in ("state_dict", "model"):
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not held or not all(isinstance(v, Tensor) for v in held.values()):
        raise UsageError(
            f"{path} holds no state dict: expected tensors by name, at the top or under `state_dict` or `model`. "
            "For a training run, give its directory."
        )
    if isinstance(plain, dict) and "backbone" in plain:
        return held, _from_plain(path, plain)
    return held, _of_extracted(held, name)


def _unpickled(path: Path) -> Any:
    """What torch.save wrote; objects of other code are passed over in a full checkpoint of the published code only.

    Raises:
        pickle.UnpicklingError: objects of other code in any other file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd pickle protocols: what cannot be read is reported by the caller
        try:
            # Mapped, because most of a full checkpoint is never looked at
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError:
            held = read_beside_objects(path)
            if held is None or not is_full_checkpoint(held["model"]):
                raise
            return held


def _is_safetensors(path: Path) -> bool:
    """Whether the content is safetensors; False is something for torch.load, anything else is a UsageError."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; a file of weights was expected.")
    if not path.is_file():
        raise UsageError(
            f"no such file of weights: {path}. Expected a file, a run directory, or, where a verb takes them, the word "
            "random or timm:NAME"
        )
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    # Its header's length comes first, and the least byte of that may be 0x80, with which pickles begin: look behind it
    if head[4:8] == bytes(4) and head[8:] == b"{":
        return True
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return False
    found = "it is empty" if not head else f"it begins with {head[:8]!r}"
    raise UsageError(
        f"{path} is not a file of weights: {found}. Expected .safetensors, or .pth as torch.save writes it."
    )


@contextmanager
def _told_apart(path: Path) -> Iterator[None]:
    """Turns what the readers raise into a refusal (code in it) or a complaint (damaged)."""
    try:
        yield
    except UsageError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise UsageError(
            f"{path} holds Python objects{what} besides tensors, and opening those can run code: refused, nothing "
            "was run. Expected a plain state dict; where you trust the file, write one from it with torch.save."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} is damaged or cut short ({reason}). Copy or write it again.") from error


# --- metadata ---------------------------------------------------------------------------------------------------


def _to_header(metadata: BackboneMetadata) -> dict[str, str]:
    """Strings, as safetensors wants: texts as they are, the rest as JSON, what is unknown left out."""
    known = {key: value for key, value in asdict(metadata).items() if value is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}


def _header_of(path: Path) -> BackboneMetadata | None:
    with _told_apart(path), safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    if "backbone" not in header:
        return None
    texts = {"backbone", "method", "mode", "which", "cmid_version", "note"}
    try:
        plain = {key: value if key in texts else json.loads(value) for key, value in header.items() if key != "format"}
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path} has metadata that cannot be read ({error}). Write it again with cmid extract."
        ) from error
    return _from_plain(path, plain)


def _of_extracted(state: dict[str, Tensor], name: str | None) -> BackboneMetadata | None:
    """What is known of a file without metadata: something where it is a Swin that the published code extracted."""
    return _of_published(name or name_of(to_timm(state)), "student") if is_extracted_swin(state) else None


def _of_published(name: str | None, which: str, epoch: Any = None) -> BackboneMetadata | None:
    """What is known of a backbone of the published code; `epoch` is the last done, from 0, and in full checkpoints."""
    if name is None:
        return None
    views = ViewConfig()  # the defaults are what the published code normalises by
    return BackboneMetadata(
        name,
        method="cmid",
        which=which,
        bands=("red", "green", "blue"),
        mean=views.mean,
        std=views.std,
        size=views.size,
        epochs=float(epoch + 1) if type(epoch) is int else None,
        cmid_version="",
        note="from a file of the published code, whose mean and std are taken to be those it was trained with",
    )


def _from_plain(path: Path, plain: dict[str, Any]) -> BackboneMetadata:
    known = {f.name for f in fields(BackboneMetadata)}  # later versions may write more
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items() if k in known}
    whole = {"in_chans": int, "size": int, "images_seen": int, "backbone": str}
    a_band = {"bands": str, "mean": float | int, "std": float | int, "low": float | int, "high": float | int}
    wrong = [k for k, kind in whole.items() if not isinstance(values.get(k), kind | None)]
    for name, kind in a_band.items():
        given = values.get(name)
        if given is not None and not (isinstance(given, tuple) and all(isinstance(v, kind) for v in given)):
            wrong.append(name)
    if wrong or values.get("backbone") is None:
        raise UsageError(f"{path} has metadata of wrong types: {values}. Write it again with cmid extract.")
    return BackboneMetadata(**values)
