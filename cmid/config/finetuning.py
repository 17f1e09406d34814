"""`cmid finetune`."""

from dataclasses import dataclass, field
from typing import Literal

from cmid.config.training import OptimizerConfig, TrainConfig


@dataclass
class MixingConfig:
    """How labelled images are changed while a task learns from them."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest share of the image's area that a crop covers."""
    ratio: tuple[float, float] = (0.75, 1.3333333)
    """Least and greatest width to height ratio of a crop."""
    flip: float = 0.5
    """Probability of a left-right mirror."""
    turn: float = 0.0
    """Probability of a turn by 0, 90, 180 or 270 degrees, each alike: pictures from above have no upside."""
    randaugment: str = "rand-m9-mstd0.5-inc1"
    """RandAugment in timm's words; empty: off, as for all that is not three 8-bit colours."""
    erasing: float = 0.25
    """Probability that a rectangle is replaced by noise."""
    mixup: float = 0.8
    """Strength (alpha) of mixup; 0 is off."""
    cutmix: float = 1.0
    """Strength (alpha) of cutmix; 0 is off."""
    mix_p: float = 1.0
    """Probability that a batch is mixed."""
    switch_p: float = 0.5
    """Probability of cutmix where both are on."""


@dataclass
class ClassificationConfig:
    """What a classifier is."""

    smoothing: float = 0.1
    """Share of each label that is spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: a class counts by the inverse of its share of the training images."""


@dataclass
class FinetuneConfig:
    """Train a backbone and a head on labelled images."""

    weights: str = ""
    """A file of a backbone or of a classifier, a run directory, `random`, or timm:NAME, which timm downloads."""
    data: str = ""
    """A folder with one folder per class, or torchgeo:NAME?root=DIR."""
    out: str = "runs/finetune"
    """The run's directory; must not exist, unless resuming."""
    new_head: bool = False
    """Begin the head anew where `weights` are a classifier's; needed where its classes are others."""
    backbone: str | None = None
    """Needed with `random` or for a file without metadata."""
    train_list: str | None = None
    """Text file of paths under `data`; unset: a seeded 80 % of each class, written down in the run."""
    test_list: str | None = None
    """Text file of paths under `data`; unset: the rest."""
    per_class: int = 0
    """Train on so many images of each class, drawn by seed; 0 is all."""
    hold_out: float = 0.0
    """Part of train held out to choose the best epoch by; 0: the last epoch is the result."""
    size: int | None = None
    """Side of the crops in pixels; unset: what the backbone was pre-trained at, or 224."""
    test_crop: float = 0.875
    """Share of the shorter side of a test image that its centre crop covers: 224 of 256."""
    mean: tuple[float, ...] | None = None
    """Per-band mean on 0..1; unset: what the weights say, ImageNet's where they say nothing."""
    std: tuple[float, ...] | None = None
    """Per-band standard deviation, likewise."""
    duplicates: Literal["report", "drop", "off"] = "report"
    """Pictures that are in train and in test: named, left out of train, or not looked for."""
    published_protocol: bool = False
    """Also evaluate on test after every epoch, and tell the best without the last batch, as CMID's authors count."""
    frozen: bool = False
    """Train the head alone."""
    drop_path: float = 0.0
    """Stochastic depth of the backbone."""
    epochs: int = 200
    """Passes over the training images."""
    batch_size: int = 64
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
    mixing: MixingConfig = field(default_factory=MixingConfig)
    classification: ClassificationConfig = field(default_factory=ClassificationConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=3.125e-3, lr_reference_batch=0, warmup_epochs=5)
    )
    train: TrainConfig = field(default_factory=TrainConfig)
