"""`cmid finetune segmentation`: a backbone becomes a segmenter, and is scored on images it was not trained on.

Nothing is chosen on the test images: the result is the last epoch, or the best on a held-out part of train.
"""

from dataclasses import replace

import torch

from cmid.commands.finetune_seeds import SeedsResult, finetune_seeds
from cmid.commands.segmentation_parts import (
    account_of,
    build_loader,
    build_segmenter,
    notes_on,
    open_parts,
    told,
    with_class_weights,
)
from cmid.commands.segmentation_scores import SegmentationResult, ValidationIoU, score_and_keep
from cmid.commands.terminal import terminal
from cmid.commands.train_task import train_task
from cmid.config import FinetuneSegmentationConfig
from cmid.train import Probe, RunDirectory, gather_team, resolve_device, resolve_precision


def finetune_segmentation(config: FinetuneSegmentationConfig) -> SegmentationResult | SeedsResult:
    """Train, score on the test images, write the model and its page; once for each of `seeds`.

    Raises:
        UsageError: the request cannot be carried out: nothing has been trained or overwritten.
        CmidError: a failure while training; what the run had saved is still there.
    """
    if config.seeds:
        return finetune_seeds(config, _finetune)
    return _finetune(config)


def _finetune(config: FinetuneSegmentationConfig) -> SegmentationResult:
    team = gather_team(config.train)
    config = replace(config, train=replace(config.train, devices=team.size // team.nodes, nodes=team.nodes))
    console = terminal(quiet=not team.leads)
    with team.as_one():
        parts = with_class_weights(open_parts(config, console), console)
        torch.manual_seed(config.seed)
        learner = build_segmenter(parts)
        loader, prepare = build_loader(parts, team)
    console.print(told(parts))
    for note in notes_on(parts):
        console.print(f"note: {note}")
    precision = resolve_precision(config.train.precision, resolve_device(config.train.accelerator))
    probes: list[Probe] = [] if parts.validation is None else [ValidationIoU(parts, parts.validation, precision)]
    with RunDirectory(config.out) as run:
        learner, done = train_task(
            learner, loader, config, run, team,
            images_per_batch=loader.batch_size, prepare=prepare, probes=probes, account=account_of(parts),
        )  # fmt: skip
        return score_and_keep(parts, learner, done, precision, console, writes=team.leads)
