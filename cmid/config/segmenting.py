"""`cmid finetune segmentation` and `cmid evaluate segmentation`."""

from dataclasses import dataclass, field
from typing import Literal

from cmid.config.pixel_labels import PixelLabelsConfig
from cmid.config.training import OptimizerConfig, TrainConfig


@dataclass
class PixelCropConfig:
    """How labelled scenes are changed while a segmenter learns from them."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Least and greatest factor by which an image is enlarged before a crop is taken of it."""
    max_share: float = 0.75
    """A crop in which one class has more than this is drawn again, ten times at most; 1 is off."""
    flip: float = 0.5
    """Probability of a left-right mirror."""
    turn: float = 0.0
    """Probability of a turn by 0, 90, 180 or 270 degrees, each alike: pictures from above have no upside."""
    brightness: float = 0.1254902
    """Greatest shift of all colours, on the scale 0..1 (32 of 255); this and the next three each have even odds."""
    contrast: float = 0.5
    """Colours are multiplied by 1 - this to 1 + this."""
    saturation: float = 0.5
    """Likewise the saturation, of three 8-bit colours."""
    hue: float = 0.1
    """Greatest turn of the hue, of a full circle, of three 8-bit colours."""


@dataclass
class SegmenterConfig:
    """What a segmenter is."""

    head: Literal["upernet", "lateral_sum"] = "upernet"
    """UPerNet as published, or a light decoder for small machines: laterals added up at the finest stride."""
    width: int | None = None
    """Channels of the head; unset: 512 of upernet, 128 of lateral_sum."""
    dropout: float = 0.1
    """Share of the channels that are dropped before the scores."""
    auxiliary_weight: float = 0.4
    """How much the auxiliary head's loss counts; 0 builds none."""
    cross_entropy: float = 1.0
    """How much it counts."""
    dice: float = 0.0
    """How much the Dice loss counts."""
    focal: float = 0.0
    """How much the focal loss counts."""
    gamma: float = 2.0
    """Of the focal loss."""
    average: Literal["counted", "all"] = "counted"
    """all: cross-entropy is divided by all pixels, those without label too, as mmsegmentation does."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: a pixel counts by the inverse of its class's share of the training pixels, the greatest ten times the
    least."""
    untrained: tuple[str, ...] = ()
    """Classes that have an output and are not learned: their pixels count as unlabelled in training alone."""


@dataclass
class FinetuneSegmentationConfig:
    """Train a backbone and a head on images with a class for every pixel."""

    weights: str = ""
    """A file of a backbone or of a segmenter, a run directory, `random`, or timm:NAME, which timm downloads."""
    data: str = ""
    """A folder of images and masks, of GeoTIFF pairs, or of `cmid prepare`; or torchgeo:NAME?root=DIR."""
    out: str = "runs/segmentation"
    """The run's directory; must not exist, unless resuming."""
    new_head: bool = False
    """Begin the head anew where `weights` are a segmenter's; needed where its classes are others."""
    backbone: str | None = None
    """Needed with `random` or for a file without metadata."""
    train_share: float = 1.0
    """Train on this share of the training images, drawn by seed."""
    hold_out: float = 0.0
    """Part of train held out, whole groups of it where there are several, to choose the best epoch by; 0: the last
    epoch is the result."""
    size: int = 512
    """Side of the crops in pixels."""
    window: int = 0
    """Side of the windows in which test images are looked at; 0: whole images where their sides are at most twice
    `size`, else windows of `size` that overlap by a quarter."""
    mean: tuple[float, ...] | None = None
    """Per-band mean on 0..1; unset: what the weights say, ImageNet's where they say nothing."""
    std: tuple[float, ...] | None = None
    """Per-band standard deviation, likewise."""
    frozen: bool = False
    """Train the heads alone."""
    drop_path: float = 0.0
    """Stochastic depth of the backbone."""
    epochs: int = 50
    """Passes over the training images."""
    batch_size: int = 8
    """Images per process and step."""
    seed: int = 0
    """Fixes head, order, crops, draws of images."""
    seeds: tuple[int, ...] = ()
    """Train once with each of these, in folders of their own under `out`, and tell mean and interval; unset: `seed`."""
    max_bad_share: float = 0.05
    """Unreadable images beyond this share of all stop the run."""
    read_timeout_s: float = 300.0
    """An image that takes longer to read counts as unreadable; 0 waits for ever."""
    resume: bool = False
    """Go on from the last checkpoint in `out`."""
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
    """Score a finished segmenter on images with labels, other than those of its own run."""

    weights: str = ""
    """A run of `cmid finetune segmentation`, or its model.safetensors."""
    data: str = ""
    """As for training; `part` says which of its images are scored."""
    out: str | None = None
    """A folder for scores.json, tiles.csv and report.html; must not hold files."""
    part: Literal["auto", "test", "all"] = "auto"
    """auto: those for test where lists, groups, folders or the data set itself say which, else all. test: also where
    they have to be drawn by `seed`, as a training run draws them."""
    over: Literal["patches", "tiles"] = "patches"
    """Of a prepared ISPRS set: its patches, as published, or the test tiles as a whole."""
    window: int = 0
    """Side of the windows in which images are looked at; 0: as the model's own run did."""
    turns: Literal["none", "flips", "d4"] = "none"
    """Average over mirror images, or over quarter turns too."""
    batch_size: int = 8
    """Windows at once."""
    workers: int = -1
    """Loader processes; -1 chooses from the cores."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """As for training."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Which device; auto takes a GPU where there is one."""
    bootstrap: int = 1000
    """Resamples of the images for the interval."""
    seed: int = 0
    """Of the bootstrap, and of the draw of test images where `part` is test and nothing says which they are."""
    report: bool = True
    """Write report.html where `out` is given."""
    overwrite: bool = False
    """Replace what an earlier evaluation wrote in `out`."""
    labels: PixelLabelsConfig = field(default_factory=PixelLabelsConfig)
