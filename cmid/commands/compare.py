"""`cmid compare`: methods trained on the same images and budget, scored alike, in one table that can be believed.

Each run is trained in a process of its own and kept under a name that changes with its settings and its images; so
the same command goes on where it stopped, and a run of other settings is never taken for one of these.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from cmid.commands.compare_cell import write_result
from cmid.commands.compare_images import Images, Learned
from cmid.commands.compare_outsiders import check_outsiders, outside, outsiders_of
from cmid.commands.compare_plan import Cell, Row, key_of, plan_cells, plan_rows, slug
from cmid.commands.compare_processes import in_a_process, interruptible
from cmid.commands.compare_runs import (
    ASIDE,
    known,
    read_result,
    result_of,
    scored_by,
    scores_of,
    trained,
    why,
    write_settings,
)
from cmid.commands.compare_scores import CellScores, score
from cmid.commands.compare_tables import TRAINED, Line, table_of, write_tables
from cmid.commands.fingerprint import fingerprint, label_fingerprint
from cmid.commands.learners import build_learner
from cmid.commands.out_folder import held
from cmid.commands.pretrain import settled
from cmid.commands.sources import open_one_class_each
from cmid.commands.terminal import terminal
from cmid.config import CompareConfig
from cmid.errors import NotFinite, UsageError
from cmid.folder_lock import LOCK


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
    with interruptible():
        return _compare(config, terminal())


def _compare(config: CompareConfig, console: Console) -> CompareResult:
    if not config.data and config.methods:
        raise UsageError("no images given: name a folder of images to learn from, or no --methods")
    rows = plan_rows(config)
    reference = _reference(config, rows)
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
    check_outsiders(config, labelled, rows, out, sides[0].bands)
    with _taken(out, config):
        # before anything is trained, so that numbers that do not fit are told in time
        outsiders = [outside(name, config, labelled, rows, out, console) for name in outsiders_of(config, rows)]
        rows = _with_budget(rows, config, seen, console)
        cells = plan_cells(rows, config, {label: each.images for label, each in seen.items()})
        _tell_plan(cells, config, labelled, seen, console)
        runs = {row.label: _Runs(row) for row in rows}
        for number, cell in enumerate(cells, 1):
            mine = runs[cell.row.label]
            mine.cells[cell.seed] = cell
            mine.ended[cell.seed] = trained(cell, f"{number} of {len(cells)}", config, labelled, console)
        for mine in runs.values():
            _score(mine, config, labelled, console)
        lines = (*(_line(mine) for mine in runs.values()), *outsiders)
        shown = table_of(lines, reference, config, _budget_words(rows, config, seen))
        csv, table = write_tables(out, shown)
        page = None
        if config.report:
            from cmid.commands.compare_page import write_page

            page = write_page(out, shown, config, {k: m.cells for k, m in runs.items()})
    console.print(table.read_text(encoding="utf-8"))
    console.print(f"figures: {csv}\ntable:   {table}")
    if page is not None:
        console.print(f"report:  {page}  (open it in a browser)")
    return CompareResult(out, csv, table, page, lines)


def _reference(config: CompareConfig, rows: Sequence[Row]) -> str:
    """Label of the row that differences are taken to; `UsageError` where there is no such row."""
    names = [row.label for row in rows] + outsiders_of(config, rows)
    wanted = config.reference or names[0]
    alike = [name for name in names if name.casefold() == wanted.casefold()]  # tables write `Random weights`
    if wanted in names or not alike:
        alike = [name for name in names if name == wanted]
    if not alike:
        raise UsageError(f"reference is {wanted!r}, which is none of the rows: {', '.join(names)}")
    return alike[0]


def _score(mine: _Runs, config: CompareConfig, labelled: str, console: Console) -> None:
    """All runs of a row that reached their end; one whose features are not finite has diverged."""
    for seed, ended in mine.ended.items():
        if ended["status"] == "trained":
            cell = mine.cells[seed]
            what = f"{mine.row.title}, seed {seed}"
            try:
                mine.scores[seed] = score(scored_by(cell, config), config, labelled, scores_of(cell), what, console)
            except NotFinite as error:
                mine.ended[seed] = ended | {"status": "diverged", "reason": str(error)}
                write_result(result_of(cell), mine.ended[seed])  # for --retry


def _require_trainable(row: Row) -> None:
    """What a run would be refused for is told before any is trained; `UsageError` with the row's name."""
    try:
        build_learner(settled(row.config))
    except UsageError as error:
        raise UsageError(f"the row {row.label!r} cannot be trained: {error}") from error


@contextmanager
def _taken(out: Path, config: CompareConfig) -> Iterator[None]:
    """While entered, the folder, new or of an earlier comparison, is ours; it is said in it what was asked for."""
    mark = out / "compare.yaml"
    # cells alone may have come from another machine
    others = {entry.name for entry in out.iterdir()} - {"cells", LOCK} if out.is_dir() else ()
    if others and not mark.is_file():
        raise UsageError(f"{out} holds other files and no comparison. Choose another --out.")
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(out, "another comparison"))
            for folder in (out / "runs", out / "cells"):
                folder.mkdir(exist_ok=True)
            write_settings(mark, config)
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror}. Choose another --out.") from error
        yield


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
    if (told := read_result(kept, "images_per_s")) is None:
        kept.parent.mkdir(exist_ok=True)
        settings = kept.with_suffix(".yaml")
        write_settings(settings, row.config)
        in_a_process("cmid.commands.pace", settings, kept)
        settings.unlink()
        told = read_result(kept, "images_per_s")
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


def _tell_plan(
    cells: Sequence[Cell], config: CompareConfig, labelled: str, seen: Mapping[str, Learned], console: Console
) -> None:
    done = sum(known(cell, config, labelled) is not None for cell in cells)
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


def _line(mine: _Runs) -> Line:
    """A trained method's row of the table."""
    reached = [e for e in mine.ended.values() if e["status"] == "trained"]
    return Line(
        label=mine.row.label,
        title=mine.row.title,
        kind=TRAINED,
        outcomes={seed: s.outcomes for seed, s in mine.scores.items()},
        effective_rank={seed: s.effective_rank for seed, s in mine.scores.items()},
        images_per_s=_middle(e.get("images_per_s") for e in reached),
        peak_memory_gb=_middle(e.get("peak_memory_gb") for e in reached),
        diverged={s: why(e, mine.row.config.method) for s, e in mine.ended.items() if e["status"] == "diverged"},
        backbone=mine.row.config.backbone,
        precisions=frozenset(s.precision for s in mine.scores.values()),
    )


def _middle(values: Any) -> float:
    known = [float(v) for v in values if v is not None]
    return float(np.median(known)) if known else math.nan
