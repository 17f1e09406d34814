"""Settings of scenes that were given where no scenes are read."""

from dataclasses import fields

from cmid.config import PretrainConfig, SceneConfig
from cmid.data.shards import is_sharded
from cmid.data.torchgeo_datasets import is_named
from cmid.errors import UsageError

READ_OF_NAMED = ("statistics",)
"""What torchgeo's data sets go by, too: how many of their samples are measured."""


def refuse_idle_scenes(config: PretrainConfig) -> None:
    """Raises `UsageError` where settings of scenes differ from their defaults and nothing would go by them."""
    if config.source == "scenes":
        return
    read = READ_OF_NAMED if is_named(config.data) else ()
    default = SceneConfig()
    given = [
        f"scenes.{each.name}"
        for each in fields(SceneConfig)
        if each.name not in read and getattr(config.scenes, each.name) != getattr(default, each.name)
    ]
    if not given:
        return
    said = f"settings of scenes are given ({', '.join(given)})"
    if is_named(config.data):
        raise UsageError(f"{said}, but {config.data} names a data set: leave them out, its own arguments choose bands")
    if is_sharded(config.data):
        raise UsageError(
            f"{said}, but {config.data} holds shards, whose bands and windows were chosen when they were packed: leave "
            "them out, or pack the scenes anew"
        )
    raise UsageError(f"{said}, but source is {config.source}: leave them out, or --source scenes")
