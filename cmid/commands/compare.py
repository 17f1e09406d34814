"""`cmid compare`: methods trained on the same images and budget, scored alike, in one table that can be believed.

Each run is trained in a process of its own and kept under a name that changes with its settings and its images; so
the same command goes on where it stopped, and a run of other settings is never taken for one of these.
"""

import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from cmid.commands.compare_cell import write_result
from cmid.commands.compare_images import Images, Learned
from cmid.commands.compare_outsiders import outside, outsiders_of
from cmid.commands.compare_plan import Cell, Row, key_of, plan_cells, plan_rows, slug
from cmid.commands.compare_scores import CellScores, labelled_images, score
from cmid.commands.compare_tables import Line, write_tables
from cmid.commands.fingerprint import fingerprint, label_fingerprint
from cmid.commands.learners import build_learner
from cmid.commands.pretrain import settled
from cmid.commands.sources import open_one_class_each
from cmid.config import CompareConfig, EvaluateConfig, PretrainConfig, as_plain
from cmid.errors import CmidError, NotFinite, UsageError
from cmid.train import Interrupted
from cmid.whole_files import replace_whole

ASIDE = re.compile(r"\.diverged-\d+$")
"""How the folder of a run ends that was put aside."""


@dataclass(frozen=True)
class CompareResult:
    """What a comparison left.

    Attributes:
        out: its folder.
        csv: every figure, one a line.
        table: the table in Markdown.
        page: the HTML page; None where none was asked for.
        lines: the table's rows.
    """

    out: Path
    csv: Path
    table: Path
    page: Path | None
    lines: tuple[Line, ...]


@dataclass
class _Runs:
    """What became of the runs of one row, by seed."""

    row: Row
    cells: dict[int, Cell] = field(default_factory=dict)
    ended: dict[int, dict[str, Any]] = field(default_factory=dict)
    scores: dict[int, CellScores] = field(default_factory=dict)


def compare(config: CompareConfig) -> CompareResult:
    """Train what is missing, score what is trained, write the tables and the page.

    Raises:
        UsageError: data, methods or settings that do not go together; nothing has been trained.
        CmidError: a run failed for want of something (memory, disk ...); what is done is kept.
        Interrupted: Ctrl-C or SIGTERM; the same command goes on.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if not config.data and config.methods:
        raise UsageError("no images given: name a folder of images to learn from, or no --methods")
    rows = plan_rows(config)
    names = [row.label for row in rows] + list(config.external)
    reference = config.reference or names[0]
    if reference not in names:
        raise UsageError(f"reference is {reference!r}, which is none of the rows: {', '.join(names)}")
    sides = open_one_class_each(config.labelled, config.train_list, config.test_list)
    labelled = "-".join((*map(fingerprint, sides), label_fingerprint(*sides)))
    if config.k > len(sides[0]):
        raise UsageError(f"k is {config.k}, but there are {len(sides[0])} training images of {config.labelled}")
    images = Images(sides[1], config.seeds)
    seen = {row.label: images.of(row) for row in rows}  # whatever does not fit is told before anything is trained
    rows = [each.row for each in seen.values()]
    for row in rows:
        _require_trainable(row)
    out = Path(config.out)
    _take(out, config)
    # before anything is trained, so that a file or a number that does not fit is told in time
    outsiders = [outside(name, config, labelled, rows, out, console) for name in outsiders_of(config, rows)]
    rows = _with_budget(rows, config, seen, console)
    cells = plan_cells(rows, config, {label: each.images for label, each in seen.items()})
    _tell_plan(cells, config, seen, console)
    runs = {row.label: _Runs(row) for row in rows}
    for number, cell in enumerate(cells, 1):
        mine = runs[cell.row.label]
        mine.cells[cell.seed] = cell
        mine.ended[cell.seed] = _trained(cell, f"{number} of {len(cells)}", config, console)
    for mine in runs.values():
        for seed, ended in mine.ended.items():
            if ended["status"] == "trained":
                cell = mine.cells[seed]
                about = EvaluateConfig(weights=str(cell.folder / "backbone.safetensors"), **labelled_images(config))
                try:
                    mine.scores[seed] = score(
                        about, config, labelled, _kept(cell), f"{mine.row.title}, seed {seed}", console
                    )
                except NotFinite as error:
                    mine.ended[seed] = ended | {"status": "diverged", "reason": str(error)}
                    write_result(_result_of(cell), mine.ended[seed])  # for --retry
    lines = [*(_line(mine, config) for mine in runs.values()), *outsiders]
    csv, table = write_tables(out, lines, reference, config, _budget_words(rows, config, seen))
    page = None
    if config.report:
        from cmid.commands.compare_page import write_page

        page = write_page(out, lines, reference, config, {k: m.cells for k, m in runs.items()})
    console.print(table.read_text(encoding="utf-8"))
    console.print(f"figures: {csv}\ntable:   {table}")
    if page is not None:
        console.print(f"report:  {page}  (open it in a browser)")
    return CompareResult(out, csv, table, page, tuple(lines))


def _require_trainable(row: Row) -> None:
    """What a run would be refused for is told before any is trained; `UsageError` with the row's name."""
    try:
        build_learner(settled(row.config))
    except UsageError as error:
        raise UsageError(f"the row {row.label!r} cannot be trained: {error}") from error


def _take(out: Path, config: CompareConfig) -> None:
    """The folder, new or of an earlier comparison; says in it what was asked for."""
    mark = out / "compare.yaml"
    # cells alone may have come from another machine
    others = {entry.name for entry in out.iterdir()} - {"cells"} if out.is_dir() else ()
    if others and not mark.is_file():
        raise UsageError(f"{out} holds other files and no comparison. Choose another --out.")
    try:
        for folder in (out / "runs", out / "cells"):
            folder.mkdir(parents=True, exist_ok=True)
        _write_settings(mark, config)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}. Choose another --out.") from error


def _write_settings(path: Path, config: CompareConfig | PretrainConfig) -> None:
    text = yaml.safe_dump(as_plain(config), sort_keys=False, allow_unicode=True)
    replace_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def _with_budget(rows: list[Row], config: CompareConfig, seen: Mapping[str, Learned], console: Console) -> list[Row]:
    """The rows with their epochs: of `pretrain`, or by the pace of each on this machine, measured once and kept."""
    if not config.minutes_each:
        return rows
    timed = []
    for row in rows:
        pace = _pace(row, Path(config.out))
        epochs = max(1, round(60 * config.minutes_each * pace / seen[row.label].count))
        console.print(f"{row.title}: {pace:.3g} images/s here, so {epochs} epochs in {config.minutes_each:g} min")
        timed.append(Row(row.label, replace(row.config, epochs=epochs)))
    return timed


def _pace(row: Row, out: Path) -> float:
    """Images a second of a row's training steps, as they will be trained: by processes of their own."""
    # not among the cells, which are carried from machine to machine
    kept = out / "pace" / f"{slug(row.label)}_{key_of(row.config, '')}.json"
    if (told := _said(kept)) is None:
        kept.parent.mkdir(exist_ok=True)
        settings = kept.with_suffix(".yaml")
        _write_settings(settings, row.config)
        _in_a_process("cmid.commands.pace", settings, kept)
        settings.unlink()
        told = _said(kept)
    assert told is not None, "it ended well, so it has written its pace"
    return float(told["images_per_s"])


def _budget_words(rows: Sequence[Row], config: CompareConfig, seen: Mapping[str, Learned]) -> str:
    first = next(iter(seen.values()), None)
    count = first.count if first else 0
    more = "".join(
        f"; an epoch of {row.title} is {seen[row.label].count:,} {seen[row.label].what}"
        for row in rows
        if seen[row.label].count != count
    )
    return _epochs_words(rows, config, count) + more


def _epochs_words(rows: Sequence[Row], config: CompareConfig, count: int) -> str:
    if config.minutes_each:
        epochs = ", ".join(f"{row.title} {row.config.epochs}" for row in rows)
        return f"equal time: about {config.minutes_each:g} minutes a run on this machine, in epochs: {epochs}"
    each = {row.config.epochs for row in rows}
    if len(each) == 1:
        return f"equal epochs: {each.pop()} of {count:,} images"
    epochs = ", ".join(f"{row.title} {row.config.epochs}" for row in rows)
    return f"epochs of {count:,} images as each row was given: {epochs}" if rows else "nothing was trained"


def _tell_plan(cells: Sequence[Cell], config: CompareConfig, seen: Mapping[str, Learned], console: Console) -> None:
    done = sum(_said(_result_of(cell)) is not None for cell in cells)
    count = max((each.count for each in seen.values()), default=0)
    rows = {cell.row.label for cell in cells}
    console.print(
        f"comparison of {len(rows)} methods with {len(config.seeds)} seeds on {count:,} images: {len(cells)} runs, "
        f"{done} of them done before"
    )
    wanted = {cell.folder.name for cell in cells}
    kept = (p.name for p in (Path(config.out) / "runs").iterdir() if not ASIDE.search(p.name))
    others = sorted(name for name in kept if name not in wanted)
    if others:
        console.print(
            f"note: {len(others)} runs of other settings are kept in {config.out}/runs and not used: {others[0]} ..."
        )


def _result_of(cell: Cell) -> Path:
    return cell.folder.parent.parent / "cells" / f"{cell.folder.name}.json"


def _kept(cell: Cell) -> Path:
    return _result_of(cell).with_suffix(".npz")


def _said(path: Path) -> dict[str, Any] | None:
    """What a run left in a file; None where there is none, or a torn one: copied by hand, it may break off."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _trained(cell: Cell, which: str, config: CompareConfig, console: Console) -> dict[str, Any]:
    """What became of a run; trains it, or goes on, where that is not known."""
    result = _result_of(cell)
    ended = _said(result)
    if ended and config.retry and ended["status"] == "diverged":
        ended = None
        _put_aside(cell.folder)
    gone = not _kept(cell).is_file() and not (cell.folder / "backbone.safetensors").is_file()
    if ended and gone and ended["status"] == "trained":
        ended = None  # it was never scored
    if ended is None:
        result.unlink(missing_ok=True)
        console.print(f"run {which}: {cell.row.title}, seed {cell.seed}, {cell.config.epochs} epochs -> {cell.folder}")
        settings = result.with_suffix(".yaml")
        _write_settings(settings, cell.config)
        _in_a_process("cmid.commands.compare_cell", settings, result)
        ended = _said(result)
    assert ended is not None, "it ended well, so it has written what became of it"
    if ended["status"] == "diverged":
        console.print(f"note: {cell.row.title}, seed {cell.seed} diverged: {ended['reason']}")
    return ended


def _put_aside(folder: Path) -> None:
    """Out of the way, not removed."""
    if folder.is_dir():
        number = next(n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}.diverged-{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}.diverged-{number}"))  # see ASIDE


def _in_a_process(module: str, settings: Path, result: Path) -> None:
    """What `python -m module` does with the settings, in a process of its own; it writes `result`.

    Raises:
        Interrupted: it, or this process, was asked to stop; the run is saved.
        CmidError: it failed; what it said stands above.
    """
    command = [sys.executable, "-m", module, str(settings), str(result)]
    with _passing_on() as children:
        child = subprocess.Popen(command)
        children.append(child)
        child.wait()
    if child.returncode in (130, 143, -signal.SIGINT, -signal.SIGTERM):
        number = signal.SIGTERM if child.returncode in (143, -signal.SIGTERM) else signal.SIGINT
        raise Interrupted("The comparison was interrupted; the same command goes on where it stopped.", number)
    if child.returncode or not result.is_file():
        raise CmidError(
            f"A run of the comparison ended with code {child.returncode}; what it said stands above. When that is put "
            "right, the same command goes on."
        )


@contextmanager
def _passing_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """While entered, Ctrl-C and SIGTERM are for the children: those save their runs and end."""
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: object) -> None:
        for child in children:  # which the group's signal may have reached already: see `Interrupts`
            child.send_signal(number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(mine: _Runs, config: CompareConfig) -> Line:
    """A trained method's row of the table."""
    reached = [e for e in mine.ended.values() if e["status"] == "trained"]
    return Line(
        label=mine.row.label,
        title=mine.row.title,
        kind="trained here",
        outcomes={seed: s.outcomes for seed, s in mine.scores.items()},
        effective_rank={seed: s.effective_rank for seed, s in mine.scores.items()},
        images_per_s=_middle(e.get("images_per_s") for e in reached),
        peak_memory_gb=_middle(e.get("peak_memory_gb") for e in reached),
        diverged={seed: e["reason"] for seed, e in mine.ended.items() if e["status"] == "diverged"},
        backbone=mine.row.config.backbone,
        precisions=frozenset(s.precision for s in mine.scores.values()),
    )


def _middle(values: Any) -> float:
    known = [float(v) for v in values if v is not None]
    return float(np.median(known)) if known else math.nan
