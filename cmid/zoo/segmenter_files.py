"""A segmenter in a file of its own: backbone and decoder, names and colours of the classes, and what it was trained on.

The auxiliary head works in training alone, and is not in the file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cmid.backbones import create_backbone
from cmid.errors import UsageError
from cmid.tasks.segmentation import HEADS, Segmenter
from cmid.zoo.backbone_files import BackboneMetadata
from cmid.zoo.task_files import find_model, reading_model, write_model

TASK = "segmentation"
PARTS = ("levels", "decoder", "scores")
"""What of a segmenter lies over the backbone; `levels` has tensors for some backbones only."""


@dataclass(frozen=True)
class SegmenterMetadata:
    """What a file says of its segmenter.

    Attributes:
        backbone: name, bands, mean, std and stretch of the backbone, as the images were normalised in training.
        classes: names of all K, in the order of the scores.
        colours: of each class, red, green and blue in 0..255; empty where none were given.
        head: which decoder.
        width: channels of the decoder.
        align_corners: of every resizing.
        dtypes: numpy's names of the types of the files' values that it was trained on; empty admits any.
        window: side in pixels of the images it was trained at; the backbone is built for it.
        test_window: side of the windows in which its own run looked at test images; 0: whole where they are small.
        pictures: kinds of image files (`cmid.data.decode.Kind`) that training took for three 8-bit colours.
        cmid_version: of the package that wrote the file.

    Raises:
        UsageError: colours that are not one for each class.
    """

    backbone: BackboneMetadata
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...] = ()
    head: Literal["upernet", "lateral_sum"] = "upernet"
    width: int = 512
    align_corners: bool = False
    dtypes: tuple[str, ...] = ()
    window: int = 512
    test_window: int = 0
    pictures: tuple[str, ...] = ()
    cmid_version: str = ""

    def __post_init__(self) -> None:
        if self.colours and len(self.colours) != len(self.classes):
            raise UsageError(f"{len(self.colours)} colours for {len(self.classes)} classes: give one for each, or none")


def save_segmenter(path: Path, segmenter: Segmenter, metadata: SegmenterMetadata) -> Path:
    """Writes `path` (.safetensors) whole or not at all.

    Raises:
        CmidError: it cannot be written.
        ValueError: metadata of another segmenter.
    """
    backbone, decoder = segmenter.backbone, segmenter.decoder
    head = next(name for name, kind in HEADS.items() if type(decoder) is kind)
    there = (backbone.name, backbone.in_chans, segmenter.classes, head, decoder.width, segmenter.align_corners)
    b = metadata.backbone
    told = (b.backbone, b.in_chans, len(metadata.classes), metadata.head, metadata.width, metadata.align_corners)
    if there != told:
        raise ValueError(f"metadata of a segmenter {told} for one that is {there}")
    parts = {"backbone": backbone.weights()} | {part: getattr(segmenter, part).state_dict() for part in PARTS}
    return write_model(path, TASK, parts, metadata)


def segmenter_file(weights: str) -> Path | None:
    """The segmenter's file that `weights` names, itself or the run it is in; None where it is none."""
    return find_model(weights, TASK)


def load_segmenter(path: Path | str) -> tuple[Segmenter, SegmenterMetadata]:
    """The segmenter of a file, on the CPU, in evaluation mode, without auxiliary head.

    Raises:
        UsageError: no such file, not a segmenter's (another task's command is named), or damaged.
    """
    with reading_model(Path(path), TASK, SegmenterMetadata) as (metadata, tensors):
        b = metadata.backbone
        backbone = create_backbone(b.backbone, b.in_chans, mask_stage=None, img_size=metadata.window)
        segmenter = Segmenter(
            backbone, len(metadata.classes), head=metadata.head, width=metadata.width,
            align_corners=metadata.align_corners, auxiliary_weight=0.0,
        )  # fmt: skip
        backbone.load_weights(tensors("backbone"))
        for part in PARTS:
            getattr(segmenter, part).load_state_dict(tensors(part))
    return segmenter.eval(), metadata
