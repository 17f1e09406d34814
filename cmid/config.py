"""Typed settings of every verb; imports nothing heavy, so that `cmid --help` is instant.

A recipe is a YAML file with these fields; the command line overrides it. Units are in the names or the text
below each field. The resolved settings of a run are written to its directory as `settings.yaml`.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass
class ViewConfig:
    """How the crops of an image are cut and recoloured."""

    size: int = 224
    """Side of each crop in pixels, after resizing."""
    scale: tuple[float, float] = (0.3, 1.0)
    """Least and greatest share of the image's area that a crop covers."""
    ratio: tuple[float, float] = (0.75, 1.3333333)
    """Least and greatest width to height ratio of a crop."""
    flip: float = 0.5
    """Probability of a left-right mirror."""
    squash: bool = False
    """First squash the whole image to size x size whatever its aspect, as the published code does (bicubic)."""
    colour_jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Strength of brightness, contrast, saturation and hue jitter on the strong view."""
    colour_jitter_p: float = 0.8
    """Probability of colour jitter."""
    blur_p: float = 1.0
    """Probability of Gaussian blur, kernel 3 to 7 px."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Least and greatest sigma of the blur in pixels."""
    noise_p: float = 0.6
    """Probability of Gaussian noise."""
    noise_var: tuple[float, float] = (10.0, 50.0)
    """Least and greatest variance of the noise, in squared grey levels of 0 to 255."""
    solarize_p: float = 0.2
    """Probability of solarisation at grey level 128."""
    grey_p: float = 0.2
    """Probability of dropping colour."""
    mean: tuple[float, ...] = (0.33797, 0.3605, 0.3348)
    """Per-band mean subtracted, for values scaled to 0..1."""
    std: tuple[float, ...] = (0.1359, 0.1352, 0.1407)
    """Per-band standard deviation divided by, for values scaled to 0..1."""
    low: tuple[float, ...] = ()
    """Value of each band that becomes 0, for data of more than 8 bits (measured); empty: 8-bit data, scaled by 255."""
    high: tuple[float, ...] = ()
    """Value of each band that becomes 1, likewise."""
    bands: tuple[str, ...] = ()
    """What the bands are called, as the data say; empty: red, green, blue."""
    colours: Literal["auto", "rgb", "bands"] = "auto"
    """rgb: the operations above; bands: gain, offset and band drop instead of all that takes bands for colours."""
    band_gain: float = 0.2
    """Greatest change of each band's gain, and of their common one, on the strong view (bands only)."""
    band_offset: float = 0.1
    """Greatest offset of each band, in standard deviations (bands only)."""
    band_drop_p: float = 0.1
    """Probability that one band of the strong view is replaced by its mean (bands only)."""


@dataclass
class CMIDConfig:
    """The method's own numbers (paper arXiv 2304.09670; published values are the defaults)."""

    mode: Literal["exact", "parity"] = "exact"
    """exact: what the paper asks for; parity: what the published code does, faults included."""
    mask_ratio: float = 0.6
    """Share of cells hidden, rounded up to whole cells."""
    mask_cell_px: int = 32
    """Side of a mask cell in pixels."""
    mask_stage: int = 0
    """Where the mask token enters: 0 after the stem or patch embedding, k after the k-th stage."""
    mask_token: Literal["add", "replace"] = "add"
    """Whether the token is added to hidden positions or put in their place."""
    reconstruction_weight: float = 1.0
    """Weight of the reconstruction branch; 0 switches it off."""
    frequency_weight: float = 1.0
    """Weight of the focal frequency loss inside the reconstruction branch."""
    global_weight: float = 1.0
    """Weight of the global branch; 0 switches it off."""
    global_form: Literal["moco", "byol"] = "moco"
    """moco: InfoNCE with a queue; byol: predictor, no negatives."""
    global_hidden: int = 2048
    """Width of the global projection's hidden layer."""
    global_dim: int = 256
    """Dimension of the global embedding."""
    predictor_hidden: int = 512
    """Width of the predictor (byol form only)."""
    temperature: float = 0.2
    """Temperature of InfoNCE."""
    queue_size: int = 65536
    """Negatives kept; any size."""
    momentum: float = 0.996
    """Teacher momentum at the start."""
    momentum_end: float = 1.0
    """Teacher momentum at the end, reached along a cosine."""
    local_weight: float = 1.0
    """Weight of the local branch; 0 switches it off."""
    local_stage: int = -1
    """Which map of the backbone feeds the local branch; -1 is the coarsest."""
    local_hidden: int = 2048
    """Width of the local head's hidden layers."""
    local_bottleneck: int = 256
    """Dimension before the weight-normed layer of the local head."""
    local_prototypes: int = 2048
    """Dimension of the local head's output."""
    local_matches: int = 20
    """Positions per image whose match in the other view is learned from."""
    local_temperature: float = 0.1
    """Student temperature of the local branch."""
    local_teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """Teacher temperature at the start and after its warm-up."""
    local_temperature_epochs: int = 50
    """Epochs over which the teacher temperature rises."""
    local_start_epoch: int = 0
    """First epoch with the local branch, from where its temperature rises; -1 as published for ResNet-50."""
    centre_momentum: float = 0.9
    """Momentum of the local teacher's centre."""


@dataclass
class OptimizerConfig:
    """Optimiser and schedule."""

    name: Literal["adan", "adamw", "sgd", "lars"] = "adan"
    """Which optimiser, from timm."""
    lr: float = 1e-3
    """Learning rate for `lr_reference_batch` images a step."""
    lr_reference_batch: int = 64
    """The rate used is lr * (images per optimiser step over all processes) / this; 0 takes lr as it is."""
    betas: tuple[float, ...] = (0.98, 0.92, 0.99)
    """Adan takes three, AdamW the first two; SGD and LARS read the first as momentum."""
    eps: float = 1e-8
    """Added to the denominator."""
    weight_decay: float = 0.02
    """Decoupled decay; none on biases and one-dimensional weights."""
    min_lr: float = 1e-6
    """The cosine's end."""
    warmup_epochs: float = 10
    """Epochs of linear warm-up."""
    warmup_ratio: float = 0.01
    """Share of the rate at the first step."""
    clip_norm: float = 0.0
    """Gradient norm above which it is scaled down; 0 is off."""


@dataclass
class TrainConfig:
    """How the loop runs on the machine at hand."""

    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """auto: bf16 where the device computes it fast (GPU, CPU with bf16 matrix units), else 32."""
    channels_last: bool | None = None
    """Memory format; unset: on for GPUs and for convolutional backbones."""
    compile: bool = False
    """torch.compile the backbone."""
    accumulate: int = 1
    """Batches whose gradients are added up before each optimiser step."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Which device; auto takes a GPU where there is one."""
    devices: int = 1
    """Processes on each node, one a GPU; under torchrun leave it out."""
    nodes: int = 1
    """Nodes that train together, started by SLURM or torchrun."""
    sync_batch_norm: bool = True
    """Batch-norm over the batch of all processes, as one process would have it."""
    workers: int = -1
    """Loader processes; -1 chooses from the cores."""
    max_steps: int = 0
    """Stop after so many optimiser steps, for trials; 0 runs all epochs."""
    checkpoint_minutes: float = 10.0
    """A checkpoint at least this often, besides one every epoch; 0: only at the ends of epochs and of the run."""
    log_every: int = 10
    """Steps between rows of steps.csv."""
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Loggers besides the CSV files that are always written."""


@dataclass
class KnnConfig:
    """Online kNN on a labelled folder while pre-training."""

    data: str | None = None
    """A folder with one folder per class, or torchgeo:NAME?root=DIR; unset: no online kNN."""
    train_list: str | None = None
    """Text file of paths under `data` used as neighbours; unset: a seeded 80 % of each class."""
    test_list: str | None = None
    """Text file of paths under `data` to classify; unset: the rest."""
    k: int = 5
    """Neighbours that vote."""
    every_epochs: int = 1
    """Epochs between evaluations."""


@dataclass
class SceneConfig:
    """Windows of large scenes, where `source` is scenes."""

    windows: int = 0
    """Windows that make an epoch; 0: as many as would cover the scenes' area once."""
    window_px: int = 0
    """Side of a window in the scene's pixels, out of which crops are cut; 0: one and a half times views.size."""
    bands: tuple[str, ...] = ()
    """Bands by number (from 1) or by name, in the order the backbone shall see them; empty: all."""
    max_nodata: float = 0.25
    """Share of a window that may be nodata; what is becomes the band's mean."""
    statistics: int = 256
    """Windows looked at to measure the bands before training."""
    remote: bool = False
    """Let GDAL read the addresses (https, s3 ...) that a list file names."""


@dataclass
class PretrainConfig:
    """Pre-train a backbone on unlabelled images."""

    data: str = ""
    """A folder of images (any depth) or of shards, a text file listing images, or torchgeo:NAME?root=DIR."""
    source: Literal["images", "scenes"] = "images"
    """images: each file is one; scenes: windows are drawn from large rasters."""
    out: str = "runs/pretrain"
    """The run's directory; must not exist, unless resuming."""
    method: Literal["cmid"] = "cmid"
    """Which method."""
    backbone: str = "resnet50"
    """Any timm model that gives feature maps."""
    drop_path: float = 0.0
    """Stochastic depth of the student."""
    in_chans: int = 3
    """Bands of the images."""
    epochs: int = 200
    """Passes over the data."""
    batch_size: int = 64
    """Images per process and step."""
    seed: int = 0
    """Fixes weights, order, crops, colours and masks."""
    limit: int = 0
    """Use only so many images, drawn by seed; 0 is all."""
    max_bad_share: float = 0.05
    """Unreadable images beyond this share of all stop the run."""
    read_timeout_s: float = 300.0
    """An image that takes longer to read counts as unreadable; 0 waits for ever."""
    resume: bool = False
    """Go on from the last checkpoint in `out`."""
    report: bool = True
    """Write report.html at the end."""
    scenes: SceneConfig = field(default_factory=SceneConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    cmid: CMIDConfig = field(default_factory=CMIDConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    knn: KnnConfig = field(default_factory=KnnConfig)


@dataclass
class ExtractConfig:
    """Write a run's backbone to a file of its own."""

    run: str = ""
    """A run directory, or one of its checkpoints."""
    out: str = ""
    """The file to write, .safetensors or .pth; unset: backbone.safetensors in the run."""
    which: Literal["student", "teacher"] = "student"
    """Whose weights."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint of the run."""
    overwrite: bool = False
    """Replace the file if it exists."""


@dataclass
class EvaluateConfig:
    """Frozen features of a backbone, scored on a labelled folder."""

    weights: str = ""
    """A backbone file, a run directory, or `random`."""
    data: str = ""
    """A folder with one folder per class, or torchgeo:NAME?root=DIR for a data set of torchgeo."""
    train_list: str | None = None
    """Text file of paths under `data`; unset: a seeded 80 % of each class."""
    test_list: str | None = None
    """Text file of paths under `data`; unset: the rest."""
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
    """Write the figures as JSON here."""


@dataclass
class GenerateConfig:
    """Draw overhead scenes with labels for every task."""

    out: str = "scenes"
    """Folder to write; must not hold files."""
    count: int = 200
    """Scenes to draw."""
    size: int = 256
    """Side of a scene in pixels."""
    seed: int = 0
    """Fixes every scene; scene i does not depend on count."""
    workers: int = -1
    """Processes; -1 is one per core."""
    image_format: Literal["jpg", "png", "tif"] = "jpg"
    """File format of the images; masks are always png."""


@dataclass
class PackConfig:
    """Pack many images into few large shards, or check shards."""

    data: str = ""
    """What pre-training would read: a folder of images, a list file, scenes, torchgeo:NAME; with `check`, shards."""
    out: str = ""
    """Folder to write; must not hold files."""
    source: Literal["images", "scenes"] = "images"
    """images: files keep their own bytes; scenes: windows are drawn and their pixels stored."""
    shard_mb: int = 256
    """A shard is closed before it would grow beyond so many megabytes."""
    max_bad_share: float = 0.05
    """Unreadable images beyond this share of all are a failure."""
    seed: int = 0
    """Fixes the windows of scenes."""
    check: bool = False
    """Read the shards in `data` again and compare sizes and check sums with the manifest."""
    scenes: SceneConfig = field(default_factory=SceneConfig)


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
class DemoConfig:
    """Generate scenes, pre-train on them, look at what was learned: minutes on two cores."""

    out: str = "demo"
    """Where everything goes."""
    minutes: float = 4.0
    """Aimed length of pre-training."""
    count: int = 600
    """Scenes to draw."""
    seed: int = 0
    """Fixes scenes and training."""


@dataclass
class RecipesConfig:
    """List the packaged recipes, or show one."""

    name: str | None = None
    """Recipe to show whole; unset: list all."""


def as_plain(config: Any) -> dict[str, Any]:
    """The settings as plain dicts, lists and numbers, ready for YAML."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))  # makes lists of tuples
    return plain
