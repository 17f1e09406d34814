"""`cmid pretrain`."""

from dataclasses import dataclass, field
from typing import Literal

from cmid.config.methods import (
    BarlowTwinsConfig,
    BYOLConfig,
    CMIDConfig,
    IndexNetConfig,
    MAEConfig,
    MoCoV2Config,
    SeCoConfig,
    SimMIMConfig,
    SupervisedConfig,
    SwAVConfig,
)
from cmid.config.training import KnnConfig, OptimizerConfig, TrainConfig
from cmid.config.views import SceneConfig, ViewConfig


@dataclass
class PretrainConfig:
    """Pre-train a backbone on unlabelled images, or on labelled ones (method supervised)."""

    data: str = ""
    """A folder of images (any depth) or of shards, a text file that lists images, or torchgeo:NAME?root=DIR."""
    source: Literal["images", "scenes"] = "images"
    """images: each file is an image; scenes: windows are drawn from large rasters."""
    out: str = "runs/pretrain"
    """The run's directory; must not exist, unless resuming."""
    method: Literal[
        "cmid", "byol", "moco_v2", "seco", "barlow_twins", "swav", "simmim", "indexnet", "mae", "supervised"
    ] = "cmid"
    """Pre-training method; its own settings are the group of the same name."""
    backbone: str = "resnet50"
    """Any timm model that gives feature maps."""
    drop_path: float = 0.0
    """Stochastic depth of the student."""
    in_chans: int = 3
    """Number of bands of the images; where the data say it (scenes, torchgeo, shards of pixels), that counts."""
    epochs: int = 200
    """Passes over the data."""
    batch_size: int = 64
    """Images per process and per batch."""
    seed: int = 0
    """Fixes the weights, order, crops, colours and masks."""
    limit: int = 0
    """Use only this many images, drawn by seed; 0: all."""
    max_bad_share: float = 0.05
    """Stop the run if more than this share of all images cannot be read."""
    read_timeout_s: float = 300.0
    """Count an image as unreadable if reading takes longer; 0 waits for ever."""
    resume: bool = False
    """Resume from the last checkpoint in `out`."""
    report: bool = True
    """Write report.html at the end."""
    scenes: SceneConfig = field(default_factory=SceneConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    cmid: CMIDConfig = field(default_factory=CMIDConfig)
    byol: BYOLConfig = field(default_factory=BYOLConfig)
    moco_v2: MoCoV2Config = field(default_factory=MoCoV2Config)
    seco: SeCoConfig = field(default_factory=SeCoConfig)
    barlow_twins: BarlowTwinsConfig = field(default_factory=BarlowTwinsConfig)
    swav: SwAVConfig = field(default_factory=SwAVConfig)
    simmim: SimMIMConfig = field(default_factory=SimMIMConfig)
    indexnet: IndexNetConfig = field(default_factory=IndexNetConfig)
    mae: MAEConfig = field(default_factory=MAEConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    knn: KnnConfig = field(default_factory=KnnConfig)
