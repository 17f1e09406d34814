"""Images and shards: `cmid generate`, `pack`, `prepare`; `demo` and `recipes`."""

from dataclasses import dataclass, field
from typing import Literal

from cmid.config.views import SceneConfig


@dataclass
class GenerateConfig:
    """Draw overhead scenes with labels for every task."""

    out: str = "scenes"
    """Folder to write; must be empty or not exist."""
    count: int = 200
    """Number of scenes to draw."""
    size: int = 256
    """Side of a scene in pixels."""
    seed: int = 0
    """Fixes every scene; scene i does not depend on `count`."""
    workers: int = -1
    """Processes; -1: one per core."""
    image_format: Literal["jpg", "png", "tif"] = "jpg"
    """File format of the images; masks are always png."""


@dataclass
class PackConfig:
    """Pack many images into a few large shards, or check shards."""

    data: str = ""
    """What pre-training would read: a folder of images, a list file, scenes or torchgeo:NAME; with `check`, shards."""
    out: str = ""
    """Folder to write; must be empty or not exist."""
    source: Literal["images", "scenes"] = "images"
    """images: store each file's bytes unchanged; scenes: draw windows and store their pixels."""
    shard_mb: int = 256
    """Largest size of a shard in megabytes."""
    max_bad_share: float = 0.05
    """Fail if more than this share of all images cannot be read."""
    seed: int = 0
    """Fixes the windows that are drawn from scenes."""
    check: bool = False
    """Read the shards in `data` again and compare their sizes and check sums with the manifest."""
    scenes: SceneConfig = field(default_factory=SceneConfig)


@dataclass
class PrepareConfig:
    """Cut ISPRS Potsdam or Vaihingen, as shipped, into windows to train and test on."""

    source: str = ""
    """A folder with the zips as ISPRS ships them or with their contents, or one zip that holds them all."""
    out: str = ""
    """Folder to write; must not exist. The same command resumes what was begun."""
    bands: Literal["auto", "RGB", "IRRG"] = "auto"
    """Which images; auto: RGB for Potsdam, IRRG for Vaihingen, which has no other."""
    window_px: int = 512
    """Side of a window in pixels."""
    step_px: int = 512
    """Step between windows in pixels; the last of a row ends with the tile. 512 gives the published 3456 and 2016 (344
    and 398) windows."""
    unknown: Literal["refuse", "nearest", "ignore"] = "refuse"
    """Label colours that the benchmark does not have: refuse them, take the nearest, or leave their pixels out."""
    allow_missing: bool = False
    """Continue if official tiles are missing; the figures are then not comparable."""


@dataclass
class DemoConfig:
    """Generate scenes, pre-train on them, and show what was learned: minutes on two cores."""

    out: str = "demo"
    """Folder for everything."""
    minutes: float = 4.0
    """Intended length of pre-training."""
    count: int = 600
    """Number of scenes to draw."""
    seed: int = 0
    """Fixes the scenes and the training."""


@dataclass
class RecipesConfig:
    """List the packaged recipes, or show one."""

    name: str | None = None
    """Recipe to show in full; unset: list all."""
