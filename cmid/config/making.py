"""Images and shards: `cmid generate`, `pack`; `demo` and `recipes`."""

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
