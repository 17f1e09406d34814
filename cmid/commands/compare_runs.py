"""What became of each run of a comparison: what is known of it, and training where that is not enough."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cmid.commands.compare_plan import Cell
from cmid.commands.compare_processes import in_a_process
from cmid.commands.compare_scores import kept_scores, labelled_images
from cmid.config import CompareConfig, EvaluateConfig, PretrainConfig, as_plain
from cmid.whole_files import replace_whole

ASIDE = re.compile(r"\.diverged-\d+$")
"""How the folder of a run ends that was put aside."""
OF_PRETRAIN = (
    (r"--(optimizer|train)\.", r"--pretrain.\1."),
    (r"go on with --resume with ", "train with "),
    (r": take an earlier checkpoint, or try --precision 32\.", "; a lower --pretrain.optimizer.lr may help."),
)
"""What the errors of a run advise, and how that is said to a comparison."""


def result_of(cell: Cell) -> Path:
    """Where it is written what became of a run."""
    return cell.folder.parent.parent / "cells" / f"{cell.folder.name}.json"


def scores_of(cell: Cell) -> Path:
    """Where it is kept what a run reached."""
    return result_of(cell).with_suffix(".npz")


def scored_by(cell: Cell, config: CompareConfig) -> EvaluateConfig:
    """Which backbone a run leaves, and on what it is scored."""
    return EvaluateConfig(weights=str(cell.folder / "backbone.safetensors"), **labelled_images(config))


def read_result(path: Path, holds: str = "status") -> dict[str, Any] | None:
    """What a process left in a file, which `holds` this; None without one, or where it is torn, as by copying."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and holds in found else None


def known(cell: Cell, config: CompareConfig, labelled: str) -> dict[str, Any] | None:
    """What became of a run; None where it is to be trained.

    Args:
        cell: the run.
        config: of the comparison: a run that was trained has to have kept scores by its k, labels and draws, or the
            backbone to score.
        labelled: fingerprint of the labelled images.
    """
    ended = read_result(result_of(cell))
    if ended is None:
        return None
    if ended["status"] == "diverged":
        return None if config.retry else ended
    about = scored_by(cell, config)
    there = Path(about.weights).is_file() or kept_scores(about, config, labelled, scores_of(cell)) is not None
    return ended if there else None


def trained(cell: Cell, which: str, config: CompareConfig, labelled: str, console: Console) -> dict[str, Any]:
    """What became of a run; trains it, or goes on, where that is not known; errors as of `in_a_process`."""
    result = result_of(cell)
    ended = known(cell, config, labelled)
    if ended is None:
        before = read_result(result)
        if before and before["status"] == "diverged":
            _put_aside(cell.folder)
        elif before and scores_of(cell).is_file():
            console.print(
                f"note: {cell.row.title}, seed {cell.seed} was scored otherwise (k, labels, draws, images) or its "
                "scores are torn, and its backbone is not here"
            )
        result.unlink(missing_ok=True)
        console.print(f"run {which}: {cell.row.title}, seed {cell.seed}, {cell.config.epochs} epochs -> {cell.folder}")
        settings = result.with_suffix(".yaml")
        write_settings(settings, cell.config)
        in_a_process("cmid.commands.compare_cell", settings, result)
        ended = read_result(result)
    assert ended is not None, "it ended well, so it has written what became of it"
    if ended["status"] == "diverged":
        console.print(f"note: {cell.row.title}, seed {cell.seed} diverged: {why(ended, cell.config.method)}")
    return ended


def why(ended: dict[str, Any], method: str) -> str:
    """The reason of a run that diverged; what it advises are settings of a comparison."""
    reason = str(ended["reason"])
    for theirs, ours in OF_PRETRAIN:
        reason = re.sub(theirs, ours, reason)
    if "--pretrain." in reason:
        reason += f" As a setting of one row: {method}?optimizer.lr=RATE."
    return reason


def _put_aside(folder: Path) -> None:
    """Out of the way, not removed."""
    if folder.is_dir():
        number = next(n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}.diverged-{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}.diverged-{number}"))  # see ASIDE


def write_settings(path: Path, config: CompareConfig | PretrainConfig) -> None:
    """The settings as YAML, whole or not at all; raises OSError."""
    text = yaml.safe_dump(as_plain(config), sort_keys=False, allow_unicode=True)
    replace_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
