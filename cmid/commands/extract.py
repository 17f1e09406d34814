"""`cmid extract`: a run's backbone in a file of its own, without heads, teacher, queue or optimiser.

The run may also be a full checkpoint of the published code, or a file of a backbone, to be written in another format.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cmid.commands.learners import build_learner
from cmid.commands.settings import stored
from cmid.commands.terminal import terminal
from cmid.config import ExtractConfig, PretrainConfig
from cmid.contracts import Backbone, Progress
from cmid.errors import UsageError, did_you_mean
from cmid.train import Checkpoint, load_learner, read_checkpoint
from cmid.zoo.backbone_files import BackboneMetadata, load_backbone, save_backbone


def extract(config: ExtractConfig) -> Path:
    """Write the backbone that `config` asks for and return the file.

    Raises:
        UsageError: no such run or checkpoint, a learner without that backbone, an existing file, a file of weights
            that cannot be read or does not say which backbone it holds, or another backbone than asked for.
        CmidError: a damaged checkpoint, or the file cannot be written.
    """
    source = Path(config.run)
    backbone: Backbone
    if source.is_file() and source.suffix != ".ckpt":
        # The student is what is taken by default, so asking for it refuses no file that holds only a teacher
        which = None if config.which == "student" else config.which
        backbone, metadata = load_backbone(source, name=config.backbone, which=which)
        metadata = replace(metadata, cmid_version=version("cmid"))
    else:
        checkpoint = checkpoint_of(source, config.checkpoint)
        source = checkpoint.path
        backbone, metadata = backbone_of_checkpoint(checkpoint, config.which)
        if config.backbone not in (None, metadata.backbone):
            raise UsageError(
                f"{source} holds {metadata.backbone}, but {config.backbone} was asked for: leave backbone out."
            )
    folder = source.parent
    beside = folder.parent if folder.name == "checkpoints" else folder
    out = Path(config.out) if config.out else beside / "backbone.safetensors"
    save_backbone(out, backbone, metadata, overwrite=config.overwrite)
    megabytes = out.stat().st_size / 1e6
    said = f"{summary(metadata)}, from {source}\n-> {out} ({megabytes:.1f} MB)"
    terminal(results=True).print(said)
    return out


def checkpoint_of(run: Path | str, which: str = "last") -> Checkpoint:
    """The checkpoint `which` (last or best) of a run directory, or a file; its weights are passed on: it is checked."""
    path = Path(run)
    if not path.exists():
        raise UsageError(f"No such run: {run}. Expected a run directory, or a .ckpt file in it.")
    return read_checkpoint(path / "checkpoints" / f"{which}.ckpt" if path.is_dir() else path, checked=True)


def backbone_of_checkpoint(checkpoint: Checkpoint, which: str = "student") -> tuple[Backbone, BackboneMetadata]:
    """The student's or teacher's backbone as it was at a checkpoint, on the CPU, in evaluation mode.

    Raises:
        UsageError: the method has no such backbone, with those it has.
        CmidError: the checkpoint does not hold what its settings describe.
    """
    refuse_tasks(checkpoint.settings, str(checkpoint.path))
    settings, left_out = stored(PretrainConfig, checkpoint.settings, str(checkpoint.path))
    for words in left_out:
        terminal().print(f"note: {words}")
    with torch.random.fork_rng(devices=[]):  # building draws weights: a run that goes on must not notice
        learner = build_learner(settings)
    load_learner(learner, checkpoint.learner_state, checkpoint.path)
    backbones = learner.exported_backbones()
    if which not in backbones:
        raise UsageError(
            f"{settings.method} in {checkpoint.path} has no backbone {which!r}.{did_you_mean(which, backbones)} "
            f"It has: {', '.join(backbones)}."
        )
    batches = checkpoint.state.get("fixed", {}).get("batches_per_epoch")
    return backbones[which].eval(), describe(settings, checkpoint.progress, which, batches)


def refuse_tasks(settings: Mapping[str, Any], where: str) -> None:
    """Raise the UsageError for a run that `cmid finetune` made, where one of pre-training is needed."""
    if task := settings.get("task"):
        raise UsageError(
            f"{where} is of a run of `cmid finetune {task}`, and one of `cmid pretrain` is expected. A fine-tuned "
            f"model is its model.safetensors, which `cmid predict {task}` takes; its page is the report.html beside it."
        )


def describe(
    settings: PretrainConfig, progress: Progress, which: str = "student", batches: int | None = None
) -> BackboneMetadata:
    """What the file of a run's backbone says of it, after `progress`; `batches` is of one process and epoch.

    Without `batches` the images seen are known only where every optimiser step takes one batch.
    """
    t = settings.train
    if batches is None and t.accumulate == 1:
        done: int | None = progress.step
    else:
        done = None if batches is None else round(progress.epoch * batches)
    return BackboneMetadata(
        backbone=settings.backbone,
        in_chans=settings.in_chans,
        method=settings.method,
        mode=settings.cmid.mode if settings.method == "cmid" else None,
        which=which,
        bands=_bands(settings),
        mean=settings.views.mean,
        std=settings.views.std,
        low=settings.views.low or None,
        high=settings.views.high or None,
        size=settings.views.size,
        epochs=round(progress.epoch, 3),
        images_seen=None if done is None else done * settings.batch_size * t.devices * t.nodes,
    )


def _bands(settings: PretrainConfig) -> tuple[str, ...] | None:
    """What the bands are called."""
    names = settings.views.bands
    if not names or (settings.views.colours == "rgb" and all(name.isdigit() for name in names)):
        return ("red", "green", "blue") if settings.in_chans == 3 else None
    return names


def summary(metadata: BackboneMetadata) -> str:
    """The backbone in a line, such as `resnet18, cmid (exact), student, 10 epochs`."""
    parts = [metadata.backbone]
    if metadata.method:
        parts += [metadata.method + (f" ({metadata.mode})" if metadata.mode else ""), metadata.which]
    if metadata.epochs is not None:
        parts.append(f"{metadata.epochs:g} epoch{'' if metadata.epochs == 1 else 's'}")
    return ", ".join(parts)
