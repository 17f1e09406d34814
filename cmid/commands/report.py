"""`cmid report`: draws the page of a run again, from its folder and its images, as far as they are there."""

import csv
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmid.commands.extract import refuse_tasks
from cmid.commands.learners import build_learner, method_of
from cmid.commands.looking import Album, Looker, choose
from cmid.commands.out_folder import checked_file
from cmid.commands.settings import read_yaml, stored
from cmid.commands.sources import open_labelled_whole, open_source, shown_bands
from cmid.commands.terminal import terminal
from cmid.config import PretrainConfig, ReportConfig, as_plain
from cmid.data.sources import ImageSource
from cmid.errors import CmidError, UsageError
from cmid.report.curves import Table, has, knn_section, last, loss_section, pace_section, read_table, spread_section
from cmid.report.page import Absent, Header, Section, render
from cmid.train import Checkpoint, RunDirectory, collapse_warning, load_learner, read_checkpoint, resolve_device
from cmid.whole_files import write_whole

NO_LOSS = frozenset({"step", "epoch", "lr", "grad_norm", "images_per_s", "data_wait", "matched_share"})
VIEW_TITLES = ("Reconstructions", "Matches", "Correspondences")
WHOLE_TITLES = ("Nearest neighbours", "Feature map")


@dataclass
class Run:
    """A run as found: what is in its folder, and what is missing in words.

    Attributes:
        files: its folder.
        settings: as it was started.
        steps: the columns of steps.csv.
        metrics: the columns of metrics.csv.
        checkpoint: the last, or None.
        missing: what could not be used, one sentence each.
    """

    files: RunDirectory
    settings: PretrainConfig
    steps: Table
    metrics: Table
    checkpoint: Checkpoint | None
    missing: list[str] = field(default_factory=list)


def report(config: ReportConfig) -> Path:
    """Writes the report of a run; what is missing is said on the page.

    Returns:
        The page's path.

    Raises:
        UsageError: the run, or images asked for by name, are not there, or none are where a page already is; a file
            is at `out`; UMAP is asked for and not installed.
        CmidError: the page cannot be written.
    """
    for name, value, least in (("images", config.images, 1), ("map_images", config.map_images, 2)):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, found {value}")
    asked = checked_file(config.out, overwrite=config.overwrite)
    run = read_run(config.run)
    album, labelled = _albums(config, run)
    path = asked or run.files.path / "report.html"
    looker = looker_of(run)
    for each in run.missing:
        terminal().print(f"note: {each}")
    if not config.out and path.is_file() and (album is None or looker is None):
        lacks, now = (
            ("images", "say where the run's images are now with --data, or")
            if album is None
            else ("what the learner sees", "put its checkpoint back, or say")
        )
        raise UsageError(
            f"{path} is kept, since a page without {lacks} would take its place: {now} where to write with --out"
        )
    sections = [*_journal(run, labelled), *_looked(config, looker, album, labelled)]
    page = render(_header(run), sections)
    # a file name may hold no valid text
    write_whole(
        path, lambda part: part.write_text(page, encoding="utf-8", errors="replace"), advice="Choose another --out."
    )
    terminal(results=True).print(f"report -> {path}")
    return path


def read_run(path: str | Path) -> Run:
    """What there is of the run in the folder `path`.

    Raises:
        UsageError: no folder, or no settings in it.
    """
    files = RunDirectory(path)
    if not str(path) or not files.path.is_dir():
        raise UsageError(f"expected the folder of a run, found none at {str(path)!r}")
    missing: list[str] = []
    checkpoint = None
    try:
        checkpoint = read_checkpoint(files.last)
    except CmidError as error:
        missing.append(str(error))
    written = read_yaml(files.settings) if files.settings.is_file() else {}  # a full disk leaves an empty file
    if written:
        refuse_tasks(written, str(files.settings))
        settings, left_out = stored(PretrainConfig, written, files.settings.name)
    elif checkpoint is not None:
        settings, left_out = stored(PretrainConfig, checkpoint.settings, checkpoint.path.name)
        if files.settings.is_file():
            missing.append(f"{files.settings} is empty: the settings are those in {checkpoint.path.name}")
    else:
        raise UsageError(f"{files.path} is not the folder of a run: it has neither settings.yaml nor checkpoints")
    return Run(files, settings, read_table(files.steps), read_table(files.metrics), checkpoint, missing + left_out)


def _albums(config: ReportConfig, run: Run) -> tuple[Album | None, Album | None]:
    """Example images, and labelled ones; what was asked for by name must be there, the run's own may have moved."""
    s = run.settings
    size = s.views.size

    def opened(asked: str | None, own: str | None, open_: Callable[[str], ImageSource], what: str) -> Album | None:
        if asked is None and own is None:
            return None
        try:
            source = open_(asked or own or "")
            return choose(
                source, max(config.map_images, config.images), s.seed, size, shown_bands(s.views.bands),
                skipped=_known_unreadable(run, source) if what == "images" and asked is None else (),
                workers=min(1, abs(s.train.workers)), read_timeout_s=s.read_timeout_s,
            )  # fmt: skip
        except CmidError as error:
            if asked is not None:
                raise
            run.missing.append(f"The run's {what} cannot be shown: {error}.")
            return None

    def images(path: str) -> ImageSource:
        limit = 0 if config.data else s.limit
        return open_source(replace(s, data=path, limit=limit), known=True).source

    album = opened(config.data, s.data, images, "images")
    labelled = opened(config.labelled, s.knn.data, lambda path: open_labelled_whole(path, s), "labelled images")
    return album, labelled


def _known_unreadable(run: Run, source: ImageSource) -> Collection[int]:
    """Positions of images of the run that it could not read."""
    loader = {} if run.checkpoint is None else run.checkpoint.state.get("loader", {})
    return loader.get("skipped", {}) if loader.get("images") == len(source) else ()


def _journal(run: Run, labelled: Album | None) -> list[Section | Absent]:
    s, c = run.settings, run.settings.cmid
    terms = [name for name in run.steps if name not in NO_LOSS]
    terms.sort(key=lambda name: name != "total")
    guesses = {
        "global": (c.global_weight * math.log(1 + c.queue_size), "guessing"),
        "local": (c.local_weight * math.log(c.local_prototypes), "guessing"),
    }
    if s.method != "cmid":
        guesses = {}
    elif c.global_form != "moco":
        del guesses["global"]
    steps = dict(run.steps)
    for share in ("data_wait", "matched_share"):
        if share in steps:
            steps[share] = 100 * steps[share]
    chance = 100 / len(labelled.source.classes) if labelled is not None and s.knn.data else None
    return [
        loss_section(steps, {name: name.replace("_", " ").capitalize() for name in terms}, guesses),
        pace_section(
            steps,
            {
                "images_per_s": ("Images a second", ""),
                "data_wait": ("Data wait", " %"),
                "lr": ("Learning rate", ""),
                "grad_norm": ("Gradient norm", ""),
                "matched_share": ("Positions with a match", " %"),
            },
        ),
        knn_section(
            run.metrics,
            {"knn_top1": f"Student, k = {s.knn.k}", "knn_top1_teacher": f"Teacher, k = {s.knn.k}"},
            chance,
            "No epoch with kNN has ended." if s.knn.data else "",
        ),
        spread_section(run.metrics, {"feature_std": ("Feature std", None), "effective_rank": ("Effective rank", None)}),
    ]


def _looked(
    config: ReportConfig, looker: Looker | None, album: Album | None, labelled: Album | None
) -> list[Section | Absent]:
    """The sections that need the learner."""
    titles = (*VIEW_TITLES, *WHOLE_TITLES, "Dense features")
    if looker is None:
        return [Absent(title, "The learner could not be rebuilt; see above.") for title in titles]

    def attempt(
        made: Callable[[Looker, Album], list[Section | Absent]], album: Album | None, titles: tuple[str, ...]
    ) -> list[Section | Absent]:
        if album is None:
            return [Absent(title, "There are no images to look at: give some by --data.") for title in titles]
        try:
            return made(looker, album)
        except UsageError:
            raise
        except CmidError as error:
            return [Absent(title, str(error)) for title in titles]

    n = config.images
    views = attempt(lambda looker, album: looker.view_sections(album, n), album, VIEW_TITLES)
    dense = attempt(lambda looker, album: [looker.dense_section(album, n)], album, ("Dense features",))
    whole = attempt(
        lambda looker, album: looker.neighbour_and_map_sections(album, n, config.projection),
        labelled or album,
        WHOLE_TITLES,
    )
    return [*views[:2], whole[0], *dense, *views[2:], *whole[1:]]


def looker_of(run: Run) -> Looker | None:
    """What asks the trained learner about images; None (and a word in `run.missing`) where it cannot be rebuilt."""
    if run.checkpoint is None:
        return None
    try:
        with torch.random.fork_rng(devices=[]):  # building draws weights: a caller's own draws must not notice
            learner = build_learner(run.settings)
        load_learner(learner, run.checkpoint.learner_state, run.checkpoint.path)
    except CmidError as error:
        run.missing.append(str(error))
        return None
    # a GPU that the run was told to leave alone may be full; one that it had may not be here
    device = resolve_device("cpu" if run.settings.train.accelerator == "cpu" else "auto")
    return Looker(learner, run.settings, device, shown_bands(run.settings.views.bands))


def _header(run: Run) -> Header:
    s, checkpoint = run.settings, run.checkpoint
    state: Mapping[str, Any] = checkpoint.state if checkpoint is not None else {}
    facts = [
        ("method", method_of(s).title + (f", {s.cmid.mode}" if s.method == "cmid" else "")),
        ("backbone", s.backbone),
        ("data", s.data),
    ]
    images = state.get("loader", {}).get("images")
    if images:
        facts.append(("images", f"{images:,}"))
    if checkpoint is not None:
        progress = checkpoint.progress
        facts += [
            ("epochs", f"{progress.epoch:.4g} of {progress.total_epochs}"),
            ("steps", f"{progress.step:,} of {progress.total_steps:,}"),
        ]
    together = s.batch_size * s.train.accumulate * s.train.devices * s.train.nodes
    facts.append(("crops", f"{s.views.size} px, batch {together}"))
    seconds = float(np.nansum(run.metrics["seconds"])) if has(run.metrics, "seconds") else 0.0
    seconds += state.get("journal", {}).get("epoch_pace", {}).get("seconds", 0.0)
    if seconds:
        facts.append(("training time", duration(seconds)))
    if has(run.steps, "images_per_s"):
        facts.append(("images a second", f"{np.nanmedian(run.steps['images_per_s']):,.3g}"))
    if said := bands_words(s.views.bands):
        facts.append(("bands", said))
    if isinstance(state.get("machine"), str):
        facts.append(("hardware", state["machine"]))
    knn = last(run.metrics, ["knn_top1"])
    if knn is not None:
        facts.append((f"kNN, k = {s.knn.k}", f"{knn:.1f} %"))
    skipped = _skipped(run.files.skipped)
    return Header(
        title=run.files.path.resolve().name,
        facts=facts,
        warnings=_warnings(run, len(skipped), images),
        settings=as_plain(s),
        skipped=skipped,
    )


def bands_words(names: tuple[str, ...]) -> str:
    """How many bands a run has, and which of them the pictures show; empty for plain colours, which have no names."""
    drawn = [names[i] for i in shown_bands(names)] if names else []
    if len(drawn) < 2:
        return f"{len(names)}; pictures show {drawn[0]} in grey" if drawn else ""
    plain = [name.casefold() for name in drawn] == ["red", "green", "blue"]
    return f"{len(names)}; pictures show {', '.join(drawn)}" + ("" if plain else " as red, green and blue")


def _warnings(run: Run, skipped: int, images: int | None) -> list[str]:
    said = []
    names = [name for name in ("feature_std", "effective_rank") if has(run.metrics, name)]
    rows = [
        {name: float(run.metrics[name][i]) for name in names if np.isfinite(run.metrics[name][i])}
        for i in range(len(run.metrics.get("epoch", ())))
    ]
    rows = [row for row in rows if row]
    if rows and (collapsing := collapse_warning(rows[-1], rows[:-1])):
        said.append(collapsing)
    if skipped:
        of = f" of {images:,}" if images else ""
        said.append(f"{skipped:,}{of} images could not be read and were skipped; they are listed below.")
    if run.files.nonfinite.is_file():
        said.append(f"The run stopped because a loss was not finite{_where(run.files.nonfinite)}.")
    return said + run.missing


def _where(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f": step {int(found['step'])}, epoch {int(found['epoch'])}; its files are in {path.name}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"; see {path.name}"


def _skipped(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as lines:
        return [(row.get("path") or "", row.get("reason") or "") for row in csv.DictReader(lines)]


def duration(seconds: float) -> str:
    """Seconds in words: 4 s, 12 min, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
