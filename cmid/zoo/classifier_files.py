"""A classifier in a file of its own: backbone and head, the names of the classes, and how images are prepared."""

from dataclasses import dataclass
from pathlib import Path

from cmid.backbones import create_backbone
from cmid.tasks.classification import Classifier
from cmid.zoo.backbone_files import BackboneMetadata
from cmid.zoo.task_files import find_model, reading_model, write_model

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
    parts = {"backbone": classifier.backbone.weights(), "head": classifier.head.state_dict()}
    return write_model(path, TASK, parts, metadata)


def classifier_file(weights: str) -> Path | None:
    """The classifier's file that `weights` names, itself or the run it is in; None where it is none."""
    return find_model(weights, TASK)


def load_classifier(path: Path | str) -> tuple[Classifier, ClassifierMetadata]:
    """The classifier of a file, on the CPU, in evaluation mode.

    Raises:
        UsageError: no such file, not a classifier's (another task's command is named), or damaged.
    """
    with reading_model(Path(path), TASK, ClassifierMetadata) as (metadata, tensors):
        b = metadata.backbone
        backbone = create_backbone(b.backbone, b.in_chans, mask_stage=None, img_size=b.size)
        classifier = Classifier(backbone, len(metadata.classes), multi_label=metadata.multi_label)
        backbone.load_weights(tensors("backbone"))
        classifier.head.load_state_dict(tensors("head"))
    return classifier.eval(), metadata
