"""`cmid finetune`: a backbone becomes a task's model, and is scored on images it was not trained on.

Nothing is chosen on the test images: the result is the last epoch, or the best on a held-out part of train.
"""

from dataclasses import replace
from typing import Literal

import torch

from cmid.commands.classifier_scores import FinetuneResult, PublishedAccuracy, ValidationAccuracy, score_and_keep
from cmid.commands.finetune_parts import (
    account_of,
    build_classifier,
    build_loader,
    notes_on,
    open_parts,
    told,
    without_repeated,
)
from cmid.commands.finetune_seeds import SeedsResult, finetune_seeds
from cmid.commands.terminal import terminal
from cmid.commands.train_task import train_task
from cmid.commands.twins import Twins, find_twins
from cmid.config import FinetuneConfig
from cmid.train import Probe, RunDirectory, gather_team, resolve_device, resolve_precision


def finetune(kind: Literal["classification"], config: FinetuneConfig) -> FinetuneResult | SeedsResult:
    """Train, score on the test images, write the model and what it said of each of them; once for each of `seeds`.

    Raises:
        UsageError: the request cannot be carried out: nothing has been trained or overwritten.
        CmidError: a failure while training; what the run had saved is still there.
    """
    if config.seeds:
        return finetune_seeds(config, _finetune)
    return _finetune(config)


def _finetune(config: FinetuneConfig) -> FinetuneResult:
    team = gather_team(config.train)
    config = replace(config, train=replace(config.train, devices=team.size // team.nodes, nodes=team.nodes))
    console = terminal(quiet=not team.leads)
    with team.as_one():
        parts = open_parts(config)
    wanted = config.duplicates != "off" and team.leads
    with team.as_one():
        twins = find_twins(parts.train, parts.test, config, console) if wanted else Twins()
    twins = team.of_leader(twins)
    with team.as_one():
        parts = without_repeated(parts, twins)
        torch.manual_seed(config.seed)
        learner = build_classifier(parts)
        loader, prepare = build_loader(parts, team)
    console.print(told(parts))
    for note in notes_on(parts):
        console.print(f"note: {note}")
    precision = resolve_precision(config.train.precision, resolve_device(config.train.accelerator))
    probes: list[Probe] = [] if parts.validation is None else [ValidationAccuracy(parts, parts.validation, precision)]
    probes += [PublishedAccuracy(parts, parts.test, precision)] if config.published_protocol else []
    with RunDirectory(config.out) as run:
        learner, done = train_task(
            learner, loader, config, run, team,
            images_per_batch=loader.batch_size, prepare=prepare, probes=probes, account=account_of(parts),
        )  # fmt: skip
        return score_and_keep(parts, learner, done, precision, console, writes=team.leads)
