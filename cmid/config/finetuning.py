"""`cmid finetune`."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from cmid.config.training import OptimizerConfig, TrainConfig


@dataclass
class MixingConfig:
    """How labelled images are augmented while a classifier is trained."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area that a crop covers."""
    ratio: tuple[float, float] = (0.75, 1.3333333)
    """Smallest and largest width-to-height ratio of a crop."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    turn: float = 0.0
    """Probability of turning by 0, 90, 180 or 270 degrees, each equally likely: images from above have no upside."""
    randaugment: str = "rand-m9-mstd0.5-inc1"
    """RandAugment policy as timm writes it; empty: off. Always off for images other than three 8-bit colours."""
    erasing: float = 0.25
    """Probability of replacing a rectangle by noise."""
    mixup: float = 0.8
    """Strength (alpha) of mixup; 0 is off."""
    cutmix: float = 1.0
    """Strength (alpha) of cutmix; 0 is off."""
    mix_p: float = 1.0
    """Probability of mixing a batch."""
    switch_p: float = 0.5
    """Probability of cutmix instead of mixup if both are on."""


@dataclass
class ClassificationConfig:
    """A classifier's loss."""

    smoothing: float = 0.1
    """Label smoothing: share of each label that is spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: weight each class by the inverse of its share of the training images."""


@dataclass
class FinetuneConfig:
    """Train a backbone and a head on labelled images."""

    task: ClassVar[str] = "classification"
    """What a run's settings.yaml says it was trained for."""
    weights: str = ""
    """File of a backbone or classifier, a run directory, `random`, or timm:NAME (timm downloads the weights)."""
    data: str = ""
    """A folder with one folder per class, or torchgeo:NAME?root=DIR."""
    out: str = "runs/finetune"
    """The run's directory; must not exist, unless resuming."""
    new_head: bool = False
    """Start with a new head if `weights` are a classifier's; needed if its classes differ."""
    backbone: str | None = None
    """Name of the backbone; needed with `random`, or for a file that does not name it."""
    train_list: str | None = None
    """Text file of training paths under `data`; unset: a seeded 80 % of each class, recorded in the run."""
    test_list: str | None = None
    """Text file of test paths under `data`; unset: the rest."""
    per_class: int = 0
    """Train on this many images of each class, drawn by seed; 0: all."""
    hold_out: float = 0.0
    """Share of the training images held out to choose the best epoch; 0: the last epoch is the result."""
    size: int | None = None
    """Side of the crops in pixels; unset: that of pre-training, or 224."""
    test_crop: float = 0.875
    """Share of a test image's shorter side that its centre crop covers; 0.875 is 224 of 256."""
    mean: tuple[float, ...] | None = None
    """Per-band mean on the scale 0..1; unset: the one stored with the weights, else ImageNet's."""
    std: tuple[float, ...] | None = None
    """Per-band standard deviation; unset: likewise."""
    duplicates: Literal["report", "drop", "off"] = "report"
    """Images that are in train and in test: name them, leave them out of train, or do not look for them."""
    published_protocol: bool = False
    """Also evaluate on test after every epoch, and report the best without the last batch, as CMID's authors do."""
    frozen: bool = False
    """Train the head only."""
    drop_path: float = 0.0
    """Stochastic depth of the backbone."""
    epochs: int = 200
    """Passes over the training images."""
    batch_size: int = 64
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
    mixing: MixingConfig = field(default_factory=MixingConfig)
    classification: ClassificationConfig = field(default_factory=ClassificationConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=3.125e-3, lr_reference_batch=0, warmup_epochs=5)
    )
    train: TrainConfig = field(default_factory=TrainConfig)
