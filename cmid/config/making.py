"""Images and shards: `cmid generate`, `pack`, `prepare`; `demo` and `recipes`."""

from dataclasses import dataclass, field
from typing import Literal

from cmid.config.views import SceneConfig


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
class PrepareConfig:
    """Cut ISPRS Potsdam or Vaihingen, as they are shipped, into windows to train and test on."""

    source: str = ""
    """A folder of the zips as ISPRS ships them, or of what is in them; or one zip that holds them all."""
    out: str = ""
    """Folder to write; must not exist. What was begun goes on with the same command."""
    bands: Literal["auto", "RGB", "IRRG"] = "auto"
    """Which images; auto is RGB for Potsdam, and IRRG, which is all there is, for Vaihingen."""
    window_px: int = 512
    """Side of a window."""
    step_px: int = 512
    """From one window to the next; the last of a row ends with the tile. 512 gives the published 3456 and 2016 (344 and
    398) windows."""
    unknown: Literal["refuse", "nearest", "ignore"] = "refuse"
    """Colours of labels that are none of the benchmark's: refuse them, take the nearest, or leave their pixels out."""
    allow_missing: bool = False
    """Go on without official tiles that are not there; figures are then not comparable."""


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
