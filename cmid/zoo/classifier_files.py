"""A classifier in a file of its own: backbone and head, the names of the classes, and how images are prepared."""

import json
import os
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from cmid.backbones import create_backbone
from cmid.errors import CmidError, UsageError
from cmid.tasks.classification import Classifier
from cmid.zoo.backbone_files import BackboneMetadata, save_tensors

TASK = "classification"


@dataclass(frozen=True)
class ClassifierMetadata:
    """What a file says of its classifier.

    Attributes:
        backbone: name, bands, mean and std of the backbone; its `size` is the side of the images in pixels.
        classes: their names, in the order of the head's rows.
        multi_label: an image may be of several.
        test_crop: share of an image's shorter side that the centre crop covers.
        cmid_version: of the package that wrote the file.
    """

    backbone: BackboneMetadata
    classes: tuple[str, ...]
    multi_label: bool = False
    test_crop: float = 1.0
    cmid_version: str = ""


def save_classifier(path: Path, classifier: Classifier, metadata: ClassifierMetadata) -> Path:
    """Writes `path` (.safetensors) whole or not at all.

    Raises:
        CmidError: it cannot be written.
    """
    state = {f"backbone.{k}": v for k, v in classifier.backbone.weights().items()}
    state |= {f"head.{k}": v for k, v in classifier.head.state_dict().items()}
    state = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    about = json.dumps(asdict(metadata) | {"cmid_version": version("cmid")})
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_tensors(state, part, {"format": "pt", "task": TASK, "about": about})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise CmidError(f"{path} cannot be written: {reason}. Check the folder's rights and free space.") from error
    return path


def classifier_file(weights: str) -> Path | None:
    """The classifier's file that `weights` names, itself or the run it is in; None where it is none."""
    path = Path(weights)
    if path.is_dir() and not (path / "backbone.safetensors").is_file():
        path = path / "model.safetensors"
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return path if (file.metadata() or {}).get("task") == TASK else None
    except (SafetensorError, OSError):
        return None


def load_classifier(path: Path | str) -> tuple[Classifier, ClassifierMetadata]:
    """The classifier of a file, on the CPU, in evaluation mode.

    Raises:
        UsageError: no such file, not a classifier's, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"No such file: {path}. Expected the model.safetensors of a run of `cmid finetune`.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        if header.get("task") != TASK:
            raise UsageError(
                f"{path} is not a classifier's file: expected task {TASK}, found {header.get('task', 'none')}. A "
                "backbone becomes a classifier by `cmid finetune classification`."
            )
        metadata = _metadata(json.loads(header["about"]))
        state = load_file(path)
        classifier = _built(metadata)
        classifier.backbone.load_weights(_under("backbone.", state))  # type: ignore[operator]
        classifier.head.load_state_dict(_under("head.", state))
    except UsageError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, CmidError) as error:
        raise UsageError(f"{path} is damaged, or no classifier's file ({str(error).splitlines()[0]}).") from error
    return classifier.eval(), metadata


def _built(metadata: ClassifierMetadata) -> Classifier:
    b = metadata.backbone
    backbone = create_backbone(b.backbone, b.in_chans, mask_stage=None, img_size=b.size)
    return Classifier(backbone, len(metadata.classes), multi_label=metadata.multi_label)


def _under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _metadata(plain: dict[str, Any]) -> ClassifierMetadata:
    def made(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
        known = {each.name for each in fields(kind)}  # later versions may write more
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}

    values = made(ClassifierMetadata, plain)
    return ClassifierMetadata(**values | {"backbone": BackboneMetadata(**made(BackboneMetadata, plain["backbone"]))})
