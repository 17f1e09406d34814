"""`cmid demo`: the main job from end to end on generated scenes; says at each step what it does and what to look at."""

import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from cmid.commands.evaluate import EvaluateResult, evaluate
from cmid.commands.generate import generate
from cmid.commands.learners import build_learner
from cmid.commands.pretrain import PretrainResult, pretrain
from cmid.commands.settings import resolve
from cmid.config import DemoConfig, EvaluateConfig, GenerateConfig, KnnConfig, PretrainConfig
from cmid.contracts import View, Views
from cmid.errors import UsageError
from cmid.train import resolve_device

RECIPE = "cmid-demo"
EPOCHS = (4, 60)
"""Fewest and most epochs, whatever the machine."""


def demo(config: DemoConfig) -> PretrainResult:
    """Generate, pre-train, extract, evaluate, report.

    Raises:
        UsageError: the folder holds files already.
        CmidError: a failure on the way.
    """
    console = Console(highlight=False)
    out = Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not empty: remove it, or give the demo another folder with --out")

    _say(console, 1, f"Drawing {config.count} overhead scenes with their labels (no download).")
    scenes = generate(GenerateConfig(out=str(out / "scenes"), count=config.count, seed=config.seed))
    console.print(
        f"   Look at: {scenes.images} (twelve kinds of place); masks, oriented boxes and a second date are beside it."
    )

    settings = _settings(config, out, scenes.images)
    _say(
        console,
        2,
        f"Pre-training CMID on these images without their labels: {settings.backbone}, {settings.epochs} epochs, "
        f"about {config.minutes:g} minutes here. A kNN on the labels watches from outside (knn_top1, percent).",
    )
    trained = pretrain(settings)

    _say(console, 3, "The backbone is in a file of its own, with timm's names and what is needed to use it.")
    console.print(f"   Look at: {trained.backbone}")

    _say(console, 4, "Scoring the frozen backbone on held-out scenes, beside the same network with random weights.")
    scores = {
        name: evaluate("linear", _evaluation(weights, settings, scenes.images, out / f"linear_{name}.json"))
        for name, weights in (("random", "random"), ("cmid", str(trained.backbone)))
    }

    _say(console, 5, "What was learned, to look at.")
    console.print(f"   linear probe on {scores['cmid'].classes} kinds of place: {_told(scores)}")
    console.print(f"   [bold]Open in a browser: {trained.report}[/bold]")
    console.print("   Your own images: cmid pretrain FOLDER --recipe cmid-small --out runs/first")
    return trained


def _say(console: Console, step: int, words: str) -> None:
    console.print(f"\n[bold]{step}/5[/bold] {words}")


def _settings(config: DemoConfig, out: Path, images: Path) -> PretrainConfig:
    """The packaged recipe, with as many epochs as the minutes allow on this machine."""
    settings = resolve(
        PretrainConfig,
        {"data": str(images), "out": str(out / "run"), "seed": config.seed},
        recipe=RECIPE,
    )
    settings = replace(settings, knn=KnnConfig(data=str(images), every_epochs=2))
    epochs = int(config.minutes * 60 * _images_per_second(settings) / config.count)
    return replace(settings, epochs=min(max(epochs, EPOCHS[0]), EPOCHS[1]))


def _images_per_second(settings: PretrainConfig) -> float:
    """The pace of a trial of three steps on grey noise; the first only warms up."""
    size, count = settings.views.size, min(32, settings.batch_size)
    learner = build_learner(settings).to(resolve_device(settings.train.accelerator))
    device = next(learner.parameters()).device
    box = torch.tensor([[0.0, 0.0, size, size]], device=device).repeat(count, 1)
    flipped = torch.zeros(count, dtype=torch.bool, device=device)
    views = tuple(View(torch.randn(count, 3, size, size, device=device), box, flipped) for _ in range(2))
    batch = Views(views, torch.arange(count, device=device))
    pace = 0.0
    for _ in range(3):
        begin = time.perf_counter()
        torch.stack(list(learner(batch).values())).sum().backward()
        pace = max(pace, count / (time.perf_counter() - begin))
    return pace


def _evaluation(weights: str, settings: PretrainConfig, images: Path, out: Path) -> EvaluateConfig:
    random = weights == "random"
    return EvaluateConfig(
        weights=weights,
        data=str(images),
        backbone=settings.backbone if random else None,
        size=settings.views.size,
        mean=settings.views.mean if random else None,
        std=settings.views.std if random else None,
        seed=settings.seed,
        out=str(out),
    )


def _told(scores: dict[str, EvaluateResult]) -> str:
    """Both accuracies with their intervals."""
    parts = []
    for name, result in scores.items():
        best = result.scores[0]
        parts.append(f"{name} {best.accuracy:.1f} % ({best.low:.1f} to {best.high:.1f})")
    return ", ".join(parts) + f"; chance is {next(iter(scores.values())).chance:.1f} %."
