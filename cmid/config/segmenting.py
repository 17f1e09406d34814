"""`cmid finetune segmentation` and `cmid evaluate segmentation`."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from cmid.config.pixel_labels import PixelLabelsConfig
from cmid.config.training import OptimizerConfig, TrainConfig


@dataclass
class PixelCropConfig:
    """How labelled scenes are augmented while a segmenter is trained."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor by which an image is enlarged before it is cropped."""
    max_share: float = 0.75
    """Draw a crop again, at most ten times, if one class has a larger share of it; 1 is off."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    turn: float = 0.0
    """Probability of turning by 0, 90, 180 or 270 degrees, each equally likely: images from above have no upside."""
    brightness: float = 0.1254902
    """Largest shift of all colours on the scale 0..1 (0.1254902 is 32 of 255); applied with probability 1/2, as are the
    next three."""
    contrast: float = 0.5
    """Multiply colours by a factor between 1 - this and 1 + this."""
    saturation: float = 0.5
    """The same for the saturation of three 8-bit colours."""
    hue: float = 0.1
    """Largest shift of the hue of three 8-bit colours, as a share of the full circle."""


@dataclass
class SegmenterConfig:
    """A segmenter's head and loss."""

    head: Literal["upernet", "lateral_sum"] = "upernet"
    """upernet: as published; lateral_sum: a light decoder for small machines, laterals summed at the finest stride."""
    width: int | None = None
    """Channels of the head; unset: 512 for upernet, 128 for lateral_sum."""
    dropout: float = 0.1
    """Share of channels to drop before the scores."""
    auxiliary_weight: float = 0.4
    """Weight of the auxiliary head's loss; 0: no auxiliary head."""
    cross_entropy: float = 1.0
    """Weight of cross-entropy."""
    dice: float = 0.0
    """Weight of the Dice loss."""
    focal: float = 0.0
    """Weight of the focal loss."""
    gamma: float = 2.0
    """Exponent of the focal loss."""
    average: Literal["counted", "all"] = "counted"
    """Cross-entropy and focal loss are divided by the labelled pixels (counted) or, as in mmsegmentation, by all."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: weight each pixel by the inverse of its class's share of the training pixels; the largest weight is at
    most ten times the smallest."""
    untrained: tuple[str, ...] = ()
    """Classes with an output that is not trained: their pixels count as unlabelled in training only."""


@dataclass
class FinetuneSegmentationConfig:
    """Train a backbone and a head on images with a class for every pixel."""

    task: ClassVar[str] = "segmentation"
    """What a run's settings.yaml says it was trained for."""
    weights: str = ""
    """File of a backbone or segmenter, a run directory, `random`, or timm:NAME (timm downloads the weights)."""
    data: str = ""
    """A folder of images and masks, of GeoTIFF pairs, or written by `cmid prepare`; or torchgeo:NAME?root=DIR."""
    out: str = "runs/segmentation"
    """The run's directory; must not exist, unless resuming."""
    new_head: bool = False
    """Start with a new head if `weights` are a segmenter's; needed if its classes differ."""
    backbone: str | None = None
    """Name of the backbone; needed with `random`, or for a file that does not name it."""
    train_share: float = 1.0
    """Train on this share of the training images, drawn by seed."""
    hold_out: float = 0.0
    """Share of the training images held out to choose the best epoch, in whole groups if there are several; 0: the last
    epoch is the result."""
    size: int = 512
    """Side of the crops in pixels."""
    window: int = 0
    """Side in pixels of the windows in which test images are read; 0: whole images if their sides are at most twice
    `size`, else windows of `size` that overlap by a quarter."""
    mean: tuple[float, ...] | None = None
    """Per-band mean on the scale 0..1; unset: the one stored with the weights, else ImageNet's."""
    std: tuple[float, ...] | None = None
    """Per-band standard deviation; unset: likewise."""
    frozen: bool = False
    """Train the heads only."""
    drop_path: float = 0.0
    """Stochastic depth of the backbone."""
    epochs: int = 50
    """Passes over the training images."""
    batch_size: int = 8
    """Images per process and per batch."""
    seed: int = 0
    """Fixes the head's weights, the order, the crops and the draws of images."""
    seeds: tuple[int, ...] = ()
    """Train once per seed, each in its own folder under `out`, and report mean and interval; unset: only `seed`."""
    max_bad_share: float = 0.05
    """Stop the run if more than this share of all images cannot be read."""
    read_timeout_s: float = 300.0
    """Count an image as unreadable if reading takes longer; 0 waits for ever."""
    resume: bool = False
    """Resume from the last checkpoint in `out`."""
    report: bool = True
    """Write report.html at the end."""
    labels: PixelLabelsConfig = field(default_factory=PixelLabelsConfig)
    crops: PixelCropConfig = field(default_factory=PixelCropConfig)
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=2e-3, lr_reference_batch=0, warmup_epochs=1, clip_norm=5.0)
    )
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class EvaluateSegmentationConfig:
    """Score a finished segmenter on labelled images other than those of its own run."""

    weights: str = ""
    """A run of `cmid finetune segmentation`, or its model.safetensors."""
    data: str = ""
    """Data, as for training; `part` says which of its images are scored."""
    out: str | None = None
    """Folder for scores.json, tiles.csv and report.html; must be empty or not exist."""
    part: Literal["auto", "test", "all"] = "auto"
    """auto: the test images if lists, groups, folders or the data set say which they are, else all. test: the test
    images, drawn by `seed` as in a training run if nothing says which they are."""
    over: Literal["patches", "tiles"] = "patches"
    """For a prepared ISPRS set: score its patches, as published, or whole test tiles."""
    window: int = 0
    """Side in pixels of the windows in which images are read; 0: as in the model's own run."""
    turns: Literal["none", "flips", "d4"] = "none"
    """Average over mirror images (flips), or over quarter turns too (d4)."""
    batch_size: int = 8
    """Windows per batch."""
    workers: int = -1
    """Loader processes; -1: chosen from the number of cores."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """auto: bf16 where the device computes it fast (GPU, CPU with bf16 matrix units), else 32."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Device; auto: a GPU if there is one."""
    bootstrap: int = 1000
    """Bootstrap resamples of the images for the interval."""
    seed: int = 0
    """Seed of the bootstrap, and of the draw of test images if `part` is test and nothing says which they are."""
    report: bool = True
    """Write report.html if `out` is given."""
    overwrite: bool = False
    """Replace what an earlier evaluation wrote in `out`."""
    labels: PixelLabelsConfig = field(default_factory=PixelLabelsConfig)
