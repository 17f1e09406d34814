"""`cmid pretrain`: a folder of unlabelled images becomes a backbone, and a page that shows what it learned."""

import shlex
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from cmid.commands.cautions import cautions
from cmid.commands.dates import with_dates
from cmid.commands.fingerprint import fingerprint, label_fingerprint
from cmid.commands.image_scale import put_on_scale
from cmid.commands.labels import with_labels
from cmid.commands.learners import build_learner, check_small_crops, method_of, views_of
from cmid.commands.looking import Chosen
from cmid.commands.settings import read_yaml, stored
from cmid.commands.sources import Opened, open_one_class_each, open_source, reads_files
from cmid.commands.terminal import terminal
from cmid.config import ExtractConfig, PretrainConfig, ReportConfig, as_plain, other_methods
from cmid.data.augment import BatchAugment
from cmid.data.folder import FolderSource
from cmid.data.image_notes import LABELLED, UNLABELLED, image_notes, list_notes, mask_notes
from cmid.data.images import ImageLoader
from cmid.data.places import Places
from cmid.data.sources import ImageSource, LabelledSource
from cmid.data.views import ViewLoader
from cmid.errors import CmidError, UsageError
from cmid.evaluation.online import FeatureSpread, OnlineKnn
from cmid.ops.normalise import normalise
from cmid.ops.transfer import to_device
from cmid.train import FitResult, Probe, RunDirectory, Team, fit, gather_team, resolve_device, resolve_precision

SPREAD_IMAGES = 256
MEASURED = ("mean", "std", "low", "high", "bands", "colours")
"""Settings of the views that follow from the data, and that a run which goes on keeps."""


@dataclass(frozen=True)
class PretrainResult:
    """What a pre-training run left.

    Attributes:
        run: its directory.
        backbone: the student's weights, `.safetensors`.
        report: the page, where one was asked for.
        fit: the trainer's own account.
    """

    run: Path
    backbone: Path
    report: Path | None
    fit: FitResult


def pretrain(config: PretrainConfig) -> PretrainResult:
    """Train, write the backbone, draw the report.

    Raises:
        UsageError: the request cannot be carried out: nothing has been trained or overwritten.
        CmidError: a failure while training; what the run had saved is still there.
    """
    config = settled(config)
    team = gather_team(config.train)
    config = replace(config, train=replace(config.train, devices=team.size // team.nodes, nodes=team.nodes))
    console = terminal(quiet=not team.leads)
    with team.as_one():
        if team.leads:  # before anything is read: opening and measuring scenes may take long
            RunDirectory(config.out).check(resume=config.resume)
        check_queue(config, team.size)
        opened = _open(config, console)
        if method_of(config).labelled:
            opened = with_labels(opened)
        if method_of(config).dates:
            opened = with_dates(opened)
        source, config = opened.source, opened.config
        images, labels = fingerprint(source), ""
        if method_of(config).labelled and isinstance(source, LabelledSource):
            labels = label_fingerprint(source)
        loader = ViewLoader(
            source,
            views_of(config),
            batch_size=config.batch_size,
            seed=config.seed,
            workers=config.train.workers,
            crops=method_of(config).crops,
            dates=method_of(config).dates,
            rank=team.rank,
            world_size=team.size,
            max_bad_share=config.max_bad_share,
            read_timeout_s=config.read_timeout_s,
            pin_memory=resolve_device(config.train.accelerator).type == "cuda",
            fingerprint=images,
            labels=labels,
        )
        torch.manual_seed(config.seed)
        learner = build_learner(config)
        probes = build_probes(config, source, lambda: loader.skipped)  # on all: they decide together what is due
    check_same_data(team, source, config, images, labels)
    what = "windows an epoch" if config.source == "scenes" else "places" if isinstance(source, Places) else "images"
    mode = f" ({config.cmid.mode})" if config.method == "cmid" else ""
    console.print(
        f"{config.method}{mode} on {config.backbone}: {len(source):,} {what} of {config.data}, "
        f"views of {config.views.size} px, {config.epochs} epochs"
    )
    for note in (*opened.notes, *cautions(config, len(source))):
        console.print(f"note: {note}")
    with RunDirectory(config.out) as run:
        done = fit(
            learner,
            loader,
            prepare=BatchAugment(views_of(config)),
            run=run,
            epochs=config.epochs,
            seed=config.seed,
            optimizer=config.optimizer,
            train=config.train,
            images_per_batch=config.batch_size,
            settings=as_plain(config),
            probes=probes,
            account=opened.account,
            resume=config.resume,
            team=team,
        )
        if loader.skipped:
            console.print(f"{len(loader.skipped)} images could not be read and were skipped: {run.skipped}")
    if not team.leads:  # what follows one process does
        return PretrainResult(done.run, done.run / "backbone.safetensors", None, done)
    return _leave_results(config, done, console)


def settled(config: PretrainConfig) -> PretrainConfig:
    """The settings with what follows from others filled in, and checked as far as needs no data.

    Raises:
        UsageError: settings that do not go together.
    """
    if not config.data:
        raise UsageError("no images given: name a folder of images or a list file, as in `cmid pretrain images/`")
    if config.batch_size < 2:
        raise UsageError(
            f"batch_size must be at least 2 (batch-norm, and telling images apart), found {config.batch_size}"
        )
    if reads_files(config) and config.in_chans != 3:
        raise UsageError(f"in_chans is {config.in_chans}, but image files are read as RGB: leave it at 3")
    for other in other_methods(config):
        if getattr(config, other) != getattr(PretrainConfig(), other):
            raise UsageError(
                f"settings of {other} are given, by a recipe, a file or in words, but the method is {config.method}: "
                f"leave them out (a recipe of {other} is none for {config.method}; `cmid recipes` lists them), or "
                f"--method {other}"
            )
    check_small_crops(config)
    if config.views.squash and config.views.small_crops:
        raise UsageError("views.squash and views.small_crops do not go together: leave one of them out")
    if config.method != "cmid":
        return config
    c = config.cmid
    check_queue(config, processes=1)
    if c.mode == "parity" and config.train.accumulate > 1:
        raise UsageError(
            f"train.accumulate is {config.train.accumulate}, but the published code, and so parity mode, never adds up "
            "gradients: set it to 1 (and batch_size to all images of a step), or take cmid.mode exact"
        )
    if c.mode == "parity" and config.train.strategy == "fsdp":
        raise UsageError(
            "parity mode's teacher moves within the forward pass, where train.strategy fsdp has put only some of the "
            "parameters together: take --train.strategy ddp, or cmid.mode exact"
        )
    if c.mode == "parity" and not config.views.squash:
        # The published positions are shares of the squashed image; elsewhere they would mean nothing.
        config = replace(config, views=replace(config.views, squash=True))
    return config


def check_queue(config: PretrainConfig, processes: int) -> None:
    """Parity mode's queue must be a multiple of what a step writes of each view.

    Raises:
        UsageError: it is not.
    """
    c = config.cmid
    if config.method != "cmid" or c.mode != "parity" or c.global_form != "moco" or not c.global_weight:
        return
    # The published code gathers what it has gathered: the keys of all processes, once for each process.
    keys = config.batch_size * processes**2
    if c.queue_size % keys:
        size = f"batch_size {config.batch_size}"
        what = size if processes == 1 else f"{keys}, which is {size} x {processes} processes x {processes}"
        raise UsageError(
            f"in parity mode the queue must be a multiple of the batch, as the published code asks: cmid.queue_size "
            f"{c.queue_size} is none of {what}; change one, or take cmid.mode exact"
        )


def check_same_data(team: Team, source: ImageSource, config: PretrainConfig, images: str, labels: str) -> None:
    """All processes must have opened the same images and labels (by their fingerprints), of the same bands.

    Raises:
        UsageError: in all processes; the leading one tells.
    """
    v = config.views
    everywhere = team.gather((len(source), images, labels, source.bands, v.bands, v.mean, v.std, v.low, v.high))
    first = everywhere[0]
    rank, seen = next(((rank, seen) for rank, seen in enumerate(everywhere) if seen != first), (0, first))
    if rank == 0:
        return
    said = f"{first[0]} images in process 0, {seen[0]} in process {rank}"
    if seen[:2] == first[:2] and seen[2] != first[2]:
        said = f"the same {first[0]} images with other labels in processes 0 and {rank}"
    elif seen[0] == first[0] and seen[3:] == first[3:]:
        said = f"as many images ({first[0]}) of other names or in another order in processes 0 and {rank}"
    elif seen[0] == first[0]:
        said = f"bands, mean or deviation differ: {first[3:]} in process 0, {seen[3:]} in process {rank}"
    error = UsageError(
        f"the processes do not see the same data in {config.data}: {said}. Put it on a disk that all of them see, or "
        "the same copy on each"
    )
    error.quiet = not team.leads
    raise error


def _open(config: PretrainConfig, console: Console) -> Opened:
    """The source; a run that goes on keeps what was measured when it began."""
    run = RunDirectory(config.out)
    begun, goes_on = run.settings, config.resume and run.settings.is_file() and run.last.is_file()
    if not reads_files(config) and goes_on:
        before, _ = stored(PretrainConfig, read_yaml(begun), str(begun))
        if reads_files(before) == reads_files(config) and before.source == config.source:
            refuse_others(config, before)
            measured = {name: getattr(before.views, name) for name in MEASURED}
            config = replace(config, in_chans=before.in_chans, views=replace(config.views, **measured))
            return open_source(config, known=True, console=console)
    opened = open_source(config, known=reads_files(config) and goes_on, console=console)
    if isinstance(opened.source, FolderSource):
        looked = image_notes(opened.source, LABELLED if method_of(config).labelled else UNLABELLED)
        named = (*list_notes(opened.source), *mask_notes(opened.source))
        return replace(opened, notes=(*opened.notes, *named, *looked))
    return opened


def refuse_others(config: PretrainConfig, before: PretrainConfig) -> None:
    """Raises `UsageError` where numbers of the data are given that differ from those that the run has begun with."""
    now, was, default = as_plain(config), as_plain(before), as_plain(PretrainConfig())
    asked = [("in_chans", now["in_chans"], was["in_chans"], default["in_chans"])]
    asked += [(f"views.{name}", *(each["views"][name] for each in (now, was, default))) for name in MEASURED]
    if others := [f"{name} was {old!r}, is {new!r}" for name, new, old, unset in asked if new not in (old, unset)]:
        raise UsageError(
            f"The run in {config.out} was started with other settings: {'; '.join(others)}. Leave them out to resume, "
            "or start a new run in another --out."
        )


def build_probes(
    config: PretrainConfig, source: ImageSource, skipped: Callable[[], Collection[int]] = tuple
) -> list[Probe]:
    """The spread of features on some of the run's own images, and kNN where a labelled folder is named.

    Args:
        config: of the run.
        source: its images.
        skipped: positions of those that are known by now to be unreadable.

    Raises:
        UsageError: what kNN is to look at is not there, or cannot be read.
    """
    precision = resolve_precision(config.train.precision, resolve_device(config.train.accelerator))
    places = np.random.default_rng(config.seed).permutation(len(source))[:SPREAD_IMAGES]
    some = Chosen(source, sorted(places.tolist()))
    spread = FeatureSpread(batches_of(some, config, config.data, lambda: some.among(skipped())), precision=precision)
    probes: list[Probe] = [spread]
    if config.knn.data:
        train, test = open_one_class_each(config.knn.data, config.knn.train_list, config.knn.test_list)
        put_on_scale((train, test), config.views, config.knn.data)
        for side in (train, test):
            require_readable(side, config)
        probes.append(
            OnlineKnn(
                batches_of(train, config, config.knn.data),
                batches_of(test, config, config.knn.data),
                k=config.knn.k,
                every_epochs=config.knn.every_epochs,
                precision=precision,
            )
        )
    return probes


def require_readable(source: ImageSource, config: PretrainConfig) -> None:
    """At least one image, or kNN would have nothing to look at when the first epoch has been trained.

    Raises:
        UsageError: there is none.
    """
    loader = ImageLoader(
        source, config.views.size, batch_size=1, workers=min(1, abs(config.train.workers)),
        read_timeout_s=config.read_timeout_s,
    )  # fmt: skip
    if next(iter(loader), None) is None:
        raise UsageError(
            f"{_none_read(loader, str(config.knn.data))}: repair them, or give kNN others by --knn.data (without it "
            "there is no kNN)"
        )


def batches_of(
    source: ImageSource, config: PretrainConfig, data: str, skipped: Callable[[], Collection[int]] = tuple
) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """Whole images of `source` as the backbone sees them, with labels (zeros where there are none), each time anew.

    Args:
        source: images.
        config: of the run.
        data: what they belong to.
        skipped: positions of those that are known by now to be unreadable; nobody tries them.

    Raises:
        CmidError: while iterating, where none can be read.
    """
    loader = ImageLoader(
        source, config.views.size, batch_size=64, workers=config.train.workers, read_timeout_s=config.read_timeout_s
    )

    device = resolve_device(config.train.accelerator)  # bytes travel there, a quarter of what they become

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        loader.leave_out(dict.fromkeys(skipped(), "unreadable while training"))
        read = 0
        for batch in loader:
            labels = torch.zeros_like(batch.indices) if batch.labels is None else batch.labels
            yield normalise(to_device(batch.images, device), config.views.mean, config.views.std), labels
            read += len(labels)
        if not read:
            raise CmidError(_none_read(loader, data))

    return batches


def _none_read(loader: ImageLoader, data: str) -> str:
    place, reason = next(iter(loader.skipped.items()))
    return (
        f"none of {len(loader.source)} images of {data} can be read; the first: {loader.source.name(place)}: {reason}"
    )


def _leave_results(config: PretrainConfig, done: FitResult, console: Console) -> PretrainResult:
    """The backbone's own file and the report, and where they are."""
    from cmid.commands.extract import extract

    backbone = extract(ExtractConfig(run=str(done.run), overwrite=True))
    page = None
    if config.report:
        from cmid.commands.report import report

        page = report(ReportConfig(run=str(done.run)))
    console.print(f"backbone: {backbone}")
    if page:
        console.print(f"report:   {page}  (open it in a browser)")
    if config.knn.data:
        words = ("cmid", "evaluate", "linear", str(done.run), config.knn.data)
        console.print(f"next:     {shlex.join(words)}")
    return PretrainResult(done.run, backbone, page, done)
