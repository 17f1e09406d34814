"""The backbone that a word means: a run, a file, `random`, or `timm:NAME`; for all verbs that begin with weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.models import get_pretrained_cfg

from cmid.backbones import create_backbone
from cmid.commands.extract import backbone_of_checkpoint, checkpoint_of
from cmid.commands.image_scale import other_bands
from cmid.config import EvaluateConfig, ViewConfig
from cmid.contracts import Backbone
from cmid.errors import UsageError
from cmid.zoo.backbone_files import BackboneMetadata, load_backbone

TIMM = "timm:"
"""Before the name of a model of timm, whose weights timm downloads."""


def _numbers_of_timm(name: str, bands: int) -> dict[str, Any]:
    """The mean and std that timm's weights were trained with."""
    about = get_pretrained_cfg(name)
    if about is None or bands != 3:
        return {}
    return {"mean": tuple(about.mean), "std": tuple(about.std), "size": int(about.input_size[-1])}


def resolve_weights(
    config: EvaluateConfig,
    bands: int = 3,
    bands_for: Callable[[BackboneMetadata], int] | None = None,
    *,
    files: bool = False,
) -> tuple[Backbone, BackboneMetadata, str]:
    """The backbone that `config.weights` means, what is known of it, and where it is from; random ones for `bands`.

    A run directory means its last checkpoint, or its backbone.safetensors where the checkpoints are gone.

    Args:
        config: names the weights, and the data they are for.
        bands: of the images.
        bands_for: how many they are for these weights, where that may be chosen.
        files: they are image files that are read as RGB, whatever they hold.

    Raises:
        UsageError: nothing there, not weights, another backbone than asked for, or bands that are not read.
    """
    path = Path(config.weights)
    if config.weights == "random":
        if config.backbone is None:
            raise UsageError("Random weights need to know of what: give --backbone, such as --backbone resnet18.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            backbone: Backbone = create_backbone(config.backbone, bands, mask_stage=None, img_size=config.size)
        views = ViewConfig()
        mean, std = (views.mean, views.std) if bands == 3 else (None, None)
        metadata = BackboneMetadata(config.backbone, bands, which="random", mean=mean, std=std)
        return backbone, metadata, f"random, seed {config.seed}"
    if config.weights.startswith(TIMM):
        name = config.weights.removeprefix(TIMM)
        backbone = create_backbone(name, bands, mask_stage=None, pretrained=True, img_size=config.size)
        return backbone, BackboneMetadata(name, bands, which="timm's", **_numbers_of_timm(name, bands)), config.weights
    if path.is_dir() and not (path / "checkpoints" / "last.ckpt").is_file():
        if not (path / "backbone.safetensors").is_file():
            raise UsageError(
                f"{path} has neither checkpoints/last.ckpt nor backbone.safetensors. Expected a run directory, a file "
                "of weights, or the word random."
            )
        path = path / "backbone.safetensors"
    if path.is_dir() or path.suffix == ".ckpt":
        checkpoint = checkpoint_of(path)
        path = checkpoint.path
        backbone, metadata = backbone_of_checkpoint(checkpoint)
    else:
        backbone, metadata = load_backbone(path, name=config.backbone)
    if config.backbone not in (None, metadata.backbone):
        raise UsageError(f"{path} holds {metadata.backbone}, but {config.backbone} was asked for: leave backbone out.")
    if bands_for is not None:
        bands = bands_for(metadata)
    if metadata.in_chans != bands:
        raise other_bands(str(path), metadata.in_chans, bands, config.data, files=files)
    return backbone, metadata, str(path)
