"""What is done with a trained run: `cmid extract`, `evaluate`, `report`; and with data before: `cmid doctor`."""

from dataclasses import dataclass, field
from typing import Literal

from cmid.config.pixel_labels import PixelLabelsConfig


@dataclass
class ExtractConfig:
    """Write a run's backbone to a file of its own."""

    run: str = ""
    """A run directory, one of its checkpoints, or a file of weights from the published code, of a timm model, or of a
    torchvision ResNet."""
    out: str = ""
    """The file to write, .safetensors or .pth; unset: backbone.safetensors in the run, which `cmid pretrain` has
    already written."""
    which: Literal["student", "teacher"] = "student"
    """Whose weights to write."""
    backbone: str | None = None
    """Name of the backbone in a file of weights; needed if the file does not name it."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint of the run: the newest, or that of the best epoch (by online kNN, or else by training loss)."""
    overwrite: bool = False
    """Replace the file if it exists."""


@dataclass
class EvaluateConfig:
    """Score a backbone's frozen features, or a finished classifier, on labelled images."""

    weights: str = ""
    """A backbone file, a run directory, `random`, or timm:NAME (timm downloads the weights); for classification, a run
    of `cmid finetune`, or its model.safetensors."""
    data: str = ""
    """A folder with one folder per class, or torchgeo:NAME?root=DIR."""
    train_list: str | None = None
    """Text file of training paths under `data`; unset: a seeded 80 % of each class."""
    test_list: str | None = None
    """Text file of test paths under `data`; unset: the rest (classification: all)."""
    backbone: str | None = None
    """Name of the backbone; needed with `random`, or for a file that does not name it."""
    size: int | None = None
    """Side in pixels that images are resized to; unset: that of pre-training."""
    mean: tuple[float, ...] | None = None
    """Per-band mean on the scale 0..1; unset: the one stored with the weights, else ImageNet's."""
    std: tuple[float, ...] | None = None
    """Per-band standard deviation; unset: likewise."""
    batch_size: int = 64
    """Images per batch."""
    workers: int = -1
    """Loader processes; -1: chosen from the number of cores."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """auto: bf16 where the device computes it fast (GPU, CPU with bf16 matrix units), else 32."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Device; auto: a GPU if there is one."""
    k: tuple[int, ...] = (1, 5, 20)
    """Numbers of voting neighbours (kNN)."""
    temperature: float | None = None
    """Weight neighbours by exp(similarity / temperature); unset: plain majority (kNN)."""
    regularisation: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
    """Inverse strengths C to try on a validation part of train (linear)."""
    validation_share: float = 0.2
    """Share of train held out to choose C (linear)."""
    bootstrap: int = 1000
    """Bootstrap resamples of the test images for each interval."""
    seed: int = 0
    """Fixes the splits and the resamples."""
    out: str | None = None
    """JSON file for the figures; for classification, a folder for scores, predictions and report."""
    ignore_unknown_classes: bool = False
    """Leave out images of classes unknown to the model instead of refusing them (classification)."""
    report: bool = True
    """Also write report.html (classification)."""
    overwrite: bool = False
    """Replace what an earlier evaluation wrote to `out`."""


@dataclass
class ReportConfig:
    """Write a run's report again."""

    run: str = ""
    """A run directory."""
    images: int = 8
    """Number of example images."""
    map_images: int = 400
    """Number of images on the 2-D map of features."""
    projection: Literal["pca", "tsne", "umap"] = "tsne"
    """Projection of the 2-D map: pca, tsne, or umap (needs `cmid[umap]`)."""
    data: str | None = None
    """Images to show instead of the run's own."""
    labelled: str | None = None
    """Labelled folder whose classes colour the map; unset: the run's kNN folder."""
    out: str | None = None
    """Where to write; unset: report.html in the run, whose page is replaced."""
    overwrite: bool = False
    """Replace a file that is at `out`."""


@dataclass
class DoctorConfig:
    """Report what is wrong with labelled pixels before training on them."""

    data: str = ""
    """A folder of images and masks, what `cmid prepare` wrote, or torchgeo:NAME?root=DIR."""
    out: str | None = None
    """Also write the findings to this JSON file; must not exist."""
    seed: int = 0
    """Fixes the draw of train and test, as in training, if nothing else says which images are for test."""
    labels: PixelLabelsConfig = field(default_factory=PixelLabelsConfig)
