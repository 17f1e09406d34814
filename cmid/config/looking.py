"""What is done with a trained run: `cmid extract`, `evaluate`, `report`; and with data before: `cmid doctor`."""

from dataclasses import dataclass, field
from typing import Literal

from cmid.config.pixel_labels import PixelLabelsConfig


@dataclass
class ExtractConfig:
    """Write a run's backbone to a file of its own."""

    run: str = ""
    """A run directory, one of its checkpoints, or a file of weights: the published code's, a timm model's, a
    torchvision ResNet's."""
    out: str = ""
    """The file to write, .safetensors or .pth; unset: backbone.safetensors in the run."""
    which: Literal["student", "teacher"] = "student"
    """Whose weights."""
    backbone: str | None = None
    """Which backbone a file of weights holds; needed where the file does not say."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint of the run."""
    overwrite: bool = False
    """Replace the file if it exists."""


@dataclass
class EvaluateConfig:
    """A backbone's frozen features, or a finished classifier, scored on a labelled folder."""

    weights: str = ""
    """A backbone file, a run directory, `random`, or timm:NAME for weights that timm downloads; for classification a
    run of `cmid finetune`, or its model.safetensors."""
    data: str = ""
    """A folder with one folder per class, or torchgeo:NAME?root=DIR for a data set of torchgeo."""
    train_list: str | None = None
    """Text file of paths under `data`; unset: a seeded 80 % of each class."""
    test_list: str | None = None
    """Text file of paths under `data`; unset: the rest (classification: all)."""
    backbone: str | None = None
    """Needed with `random` or for a file without metadata."""
    size: int | None = None
    """Side in pixels that images are resized to; unset: what the backbone was pre-trained at."""
    mean: tuple[float, ...] | None = None
    """Per-band mean, on the scale 0..1; unset: what the weights say, ImageNet's where they say nothing."""
    std: tuple[float, ...] | None = None
    """Per-band standard deviation, likewise."""
    batch_size: int = 64
    """Images at once."""
    workers: int = -1
    """Loader processes; -1 chooses from the cores."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """As for pre-training."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Which device; auto takes a GPU where there is one."""
    k: tuple[int, ...] = (1, 5, 20)
    """Neighbours that vote (kNN)."""
    temperature: float | None = None
    """Weight neighbours by exp(similarity / temperature); unset: plain majority (kNN)."""
    regularisation: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
    """Inverse strengths C tried on a validation part of train (linear)."""
    validation_share: float = 0.2
    """Part of train held out to choose C (linear)."""
    bootstrap: int = 1000
    """Resamples of the test images behind each interval."""
    seed: int = 0
    """Fixes splits and resamples."""
    out: str | None = None
    """Write the figures as JSON here; for classification the folder for scores, predictions and report."""
    ignore_unknown_classes: bool = False
    """Leave out images of classes that the model does not know, instead of refusing them (classification)."""
    report: bool = True
    """Write report.html, too (classification)."""
    overwrite: bool = False
    """Replace what an earlier evaluation wrote to `out`."""


@dataclass
class ReportConfig:
    """Draw a run's report again."""

    run: str = ""
    """A run directory."""
    images: int = 8
    """Example images shown."""
    map_images: int = 400
    """Images placed on the 2-D map of features."""
    projection: Literal["pca", "tsne", "umap"] = "tsne"
    """How the 2-D map is made."""
    data: str | None = None
    """Images to show instead of the run's own."""
    labelled: str | None = None
    """Labelled folder that colours the map; unset: the run's kNN folder."""
    out: str | None = None
    """Where to write; unset: report.html in the run."""


@dataclass
class DoctorConfig:
    """Say what is wrong with labelled pixels before anyone trains on them."""

    data: str = ""
    """A folder of images and masks, what `cmid prepare` wrote, or torchgeo:NAME?root=DIR."""
    out: str | None = None
    """Write what was found as JSON here, too; must not exist."""
    seed: int = 0
    """Fixes the draw of train and test where nothing else says which images are for test, as training's does."""
    labels: PixelLabelsConfig = field(default_factory=PixelLabelsConfig)
