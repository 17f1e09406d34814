"""Fine-tuning with several seeds: runs in folders of their own, and what they say together."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cmid.commands.terminal import terminal
from cmid.config import FinetuneConfig, FinetuneSegmentationConfig, as_plain
from cmid.errors import UsageError
from cmid.evaluation.seeds import SeedSummary, summarise_seeds
from cmid.train import asked_processes
from cmid.whole_files import write_whole

C = TypeVar("C", FinetuneConfig, FinetuneSegmentationConfig)
PERCENT = {
    "overall_accuracy": "overall accuracy", "average_accuracy": "average accuracy", "macro_f1": "macro F1",
    "expected_calibration_error": "calibration error", "mean_average_precision": "mAP", "micro_f1": "micro F1",
    "mean_iou": "mIoU", "mean_f1": "mF1",
}  # fmt: skip
"""Figures of scores.json that are shown, in percent."""


@dataclass(frozen=True)
class SeedsResult:
    """What runs with several seeds left.

    Attributes:
        out: the folder that holds them, and seeds.json.
        runs: the folder of each run, by seed.
        summaries: figure to its mean and interval over the seeds, in percent (kappa as it is).
    """

    out: Path
    runs: dict[int, Path]
    summaries: dict[str, SeedSummary]


def finetune_seeds(config: C, train: Callable[[C], object]) -> SeedsResult:
    """One run a seed, each in `out/seed_N`; those that are finished are kept, those begun go on with `resume`.

    Raises:
        UsageError: a seed twice, `seed` beside `seeds`, several processes, or a folder that holds something and
            `resume` is off.
        CmidError: a run failed; what is done is kept.
    """
    out, seeds = Path(config.out), config.seeds
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds are {', '.join(map(str, seeds))}: each may be there once")
    if config.seed != type(config)().seed and not config.resume:  # what was begun with both goes on
        raise UsageError(
            f"seed is {config.seed}, but seeds are {', '.join(map(str, seeds))}, and each run has one of those: leave "
            "--seed out, or --seeds for a single run"
        )
    if asked_processes(config.train) != (1, 1):
        raise UsageError(
            "several seeds are trained one after the other in one process: with more, give one --seed a run"
        )
    if out.is_dir() and any(out.iterdir()) and not config.resume:
        raise UsageError(f"{out} holds files. Choose another --out, or go on with the runs in it by --resume.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}. Choose another --out.") from error
    settings = {"task": config.task, **as_plain(replace(config, resume=False))}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_whole(out / "settings.yaml", lambda part: part.write_text(text, "utf-8"), advice="Choose another --out.")
    console = terminal()
    runs: dict[int, Path] = {}
    for number, seed in enumerate(seeds, 1):
        run = runs[seed] = out / f"seed_{seed}"
        if (run / "scores.json").is_file() and (run / "model.safetensors").is_file():
            console.print(f"seed {seed} ({number} of {len(seeds)}) is finished: {run}")
            continue
        console.print(f"seed {seed} ({number} of {len(seeds)}) -> {run}")
        begun = run.is_dir() and any(run.iterdir())
        train(replace(config, seed=seed, seeds=(), out=str(run), resume=begun))
    summaries = _summaries([_scores(run) for run in runs.values()])
    _keep(out / "seeds.json", runs, summaries)
    for name, each in summaries.items():
        interval = "" if each.of == "nothing" else f" ({each.low:.4g} to {each.high:.4g}, 95 % over seeds)"
        console.print(f"{name}: {each.mean:.4g}{interval}, {each.runs} seeds, standard deviation {each.std:.2g}")
    return SeedsResult(out, runs, summaries)


def _scores(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    return content


def _summaries(scores: list[dict[str, Any]]) -> dict[str, SeedSummary]:
    """Of the figures that every run has."""
    found = {}
    for key, name in {**PERCENT, "kappa": "kappa"}.items():
        values = [each.get(key) for each in scores]
        known = [float(v) * (1 if key == "kappa" else 100) for v in values if v is not None]
        if len(known) == len(scores):
            found[name] = summarise_seeds(known, within=(-1, 1) if key == "kappa" else (0, 100))
    return found


def _keep(path: Path, runs: dict[int, Path], summaries: dict[str, SeedSummary]) -> None:
    plain = {
        "seeds": list(runs),
        "runs": [run.name for run in runs.values()],
        "figures": {name: each.to_plain() for name, each in summaries.items()},
    }
    content = json.dumps(plain, indent=1) + "\n"
    write_whole(path, lambda part: part.write_text(content), advice="Make room, and go on with --resume.")
