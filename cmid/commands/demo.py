"""`cmid demo`: the main job from end to end on generated scenes; says at each step what it does and what to look at.

Given the same folder again it goes on where it was left: scenes that are complete are not drawn again, a run that
has a checkpoint is resumed, one that was stopped before its first is begun anew, one that has ended is only evaluated
and reported again.
"""

import csv
import json
import re
import shutil
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cmid.commands.demo_map import learn_and_map
from cmid.commands.evaluate import EvaluateResult, evaluate
from cmid.commands.finetune import finetune
from cmid.commands.generate import generate
from cmid.commands.learners import build_learner
from cmid.commands.out_folder import held
from cmid.commands.pace import images_per_second
from cmid.commands.pretrain import PretrainResult, pretrain
from cmid.commands.report import duration
from cmid.commands.settings import resolve
from cmid.config import DemoConfig, EvaluateConfig, FinetuneConfig, GenerateConfig, KnnConfig, PretrainConfig
from cmid.data.generated import SCENE_CLASSES
from cmid.errors import UsageError
from cmid.folder_lock import LOCK
from cmid.train import Interrupted, RunDirectory, read_checkpoint

RECIPE = "cmid-demo"
EPOCHS = (3, 60)
"""Fewest and most epochs, whatever the machine."""
FEW, CLASSIFIER_EPOCHS = 10, 30
"""Labelled scenes of each kind that the classifier learns from, and how often it sees them."""
BESIDE_STEPS = 1.2
"""Time of a run over that of its training steps alone, for online kNN, spread of features, checkpoints and loading.

Measured 1.15 on one busy CPU thread with 600 scenes. Where decoding sets the pace of a GPU the run takes longer.
"""
OWN = ("scenes", "run", "classifier", "segmenter", "map", "linear_*.json", ".linear_*.json.*.part", ".DS_Store")
"""What may be in the demo's folder."""
SCENE_FILE = re.compile(
    rf"classes\.json|labelTxt/({'|'.join(SCENE_CLASSES)})_\d{{5,}}\.txt"
    rf"|(images|date2|masks|change)/({'|'.join(SCENE_CLASSES)})/\3_\d{{5,}}\.(jpg|png)"
)
"""Files that an interrupted `generate` can have left, by their paths in its folder."""


def demo(config: DemoConfig) -> PretrainResult:
    """Generate, pre-train, extract, evaluate, fine-tune, map; goes on where an earlier demo in the folder was left.

    Raises:
        UsageError: too few scenes for a batch, or a folder that holds something else: nothing has been written.
        CmidError: a failure on the way.
    """
    console = Console(highlight=False)
    out = Path(config.out)
    settings = _settings(config, out)
    _check(config, settings, out)
    run = RunDirectory(settings.out)

    _draw(console, config, out / "scenes")
    _show(
        console,
        f"Look at: {settings.data} (twelve kinds of place); masks, oriented boxes and a second date are beside it.",
    )

    if run.last.is_file():
        settings, words = _resumed(settings, run)
        _say(console, 2, words)
    else:
        epochs, seconds = _epochs(config, settings, images_per_second(settings, build_learner(settings)))
        cooling = min(epochs, settings.cmid.local_temperature_epochs)
        settings = replace(settings, epochs=epochs, cmid=replace(settings.cmid, local_temperature_epochs=cooling))
        _say(
            console,
            2,
            f"Pre-training CMID on these images without their labels: {settings.backbone}, {epochs} epochs, about "
            f"{duration(seconds)} here. A kNN on the labels watches from outside (knn_top1, percent).",
        )
    try:
        trained = pretrain(settings)
    except Interrupted:
        _show(console, "The same command again goes on from there.")
        raise

    _say(console, 3, "The backbone is in a file of its own, with timm's names and what is needed to use it.")
    _show(console, f"Look at: {trained.backbone}")

    _say(console, 4, "Scoring the frozen backbone on held-out scenes, beside the same network with random weights.")
    scores = {
        name: evaluate("linear", _evaluation(weights, settings, out / f"linear_{name}.json"))
        for name, weights in (("random", "random"), ("cmid", str(trained.backbone)))
    }

    _say(console, 5, "Fine-tuning: the backbone becomes a classifier, from a few labelled scenes of each kind.")
    named = _classify(console, config, settings, trained.backbone, out / "classifier")

    _say(
        console,
        6,
        "Segmentation: the backbone learns the class of every pixel, and maps a larger scene that nothing has seen.",
    )
    mapped = learn_and_map(config, trained.backbone, out / "scenes", out / "segmenter", out / "map")

    _say(console, 7, "What was learned, to look at.")
    _show(console, f"linear probe on {scores['cmid'].classes} kinds of place: {_told(scores)}")
    _show(console, f"classifier fine-tuned on {named}")
    _show(console, f"segmenter fine-tuned on {mapped.learned}")
    _show(console, f"the map of the scene that nothing has seen: {mapped.mapped}")
    _show(console, f"Open in a browser: {mapped.page}", style="bold")
    _show(console, f"and: {trained.report}", style="bold")
    _show(console, f"and: {out / 'classifier' / 'report.html'}", style="bold")
    _show(console, f"and: {out / 'segmenter' / 'report.html'}", style="bold")
    _show(console, f"In a GIS: {mapped.map} and {mapped.polygons}")
    _show(console, "Your own images: cmid pretrain FOLDER --recipe cmid-small --out runs/first")
    return trained


def _say(console: Console, step: int, words: str) -> None:
    console.print(Text.assemble("\n", (f"{step}/7", "bold"), f" {words}"), soft_wrap=True)


def _show(console: Console, words: str, style: str = "") -> None:
    """A line under a step; a path in it is printed as it is, whole."""
    console.print(Text(f"   {words}", style=style), soft_wrap=True)


def _settings(config: DemoConfig, out: Path) -> PretrainConfig:
    """The packaged recipe on the demo's scenes."""
    images = str(out / "scenes" / "images")
    settings = resolve(PretrainConfig, {"data": images, "out": str(out / "run"), "seed": config.seed}, recipe=RECIPE)
    return replace(settings, knn=KnnConfig(data=images, every_epochs=2))


def _check(config: DemoConfig, settings: PretrainConfig, out: Path) -> None:
    """Raises `UsageError` for what would only fail later, or would touch what is not the demo's."""
    least = max(settings.batch_size, 2 * len(SCENE_CLASSES))  # a kind of place needs a scene to train on, one to test
    if config.count < least:
        raise UsageError(f"count is {config.count}; the demo's batches need at least {least} scenes: --count {least}.")
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; give the demo a folder with --out.")
    foreign = sorted(p.name for p in out.iterdir() if not any(fnmatch(p.name, own) for own in OWN))
    if foreign:
        raise UsageError(
            f"{out} holds files that are not the demo's ({', '.join(foreign[:3])}{' ...' if foreign[3:] else ''}): "
            "give it another folder with --out."
        )
    _check_scenes(config, out / "scenes")
    run = RunDirectory(settings.out)
    if run.last.is_file():
        seed = read_checkpoint(run.last).settings.get("seed")
        if seed != config.seed:
            raise UsageError(
                f"The run in {run.path} was begun with seed {seed}, asked for is {config.seed}: take --seed {seed}, "
                "or another folder with --out."
            )
    elif not run.may_begin:
        raise UsageError(
            f"{run.path} has no checkpoint to go on from: remove it, or give the demo another folder with --out."
        )


def _check_scenes(config: DemoConfig, scenes: Path) -> None:
    """Scenes must be those asked for, or none, or what an interrupted `generate` has left."""
    advice = "or give the demo another folder with --out"
    if not scenes.exists() and not scenes.is_symlink():
        return
    if not (scenes / "scenes.csv").is_file():
        if not _left_by_generate(scenes):
            raise UsageError(f"{scenes} is no complete set of scenes (no scenes.csv in it): remove it, {advice}.")
        return
    with (scenes / "scenes.csv").open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    seeds = sorted({str(row.get("seed")) for row in rows})
    if len(rows) != config.count or seeds != [str(config.seed)]:
        raise UsageError(
            f"{scenes} holds {len(rows)} scenes of seed {', '.join(seeds)}, asked for are {config.count} of seed "
            f"{config.seed}: ask for those with --count and --seed, remove the folder, {advice}."
        )
    missing = [str(row.get("file")) for row in rows if not (scenes / str(row.get("file"))).is_file()]
    if missing:
        raise UsageError(
            f"{scenes} lacks {len(missing)} of its scenes, first {missing[0]}: remove the folder, {advice}."
        )


def _left_by_generate(scenes: Path) -> bool:
    """Whether there is nothing in the folder `scenes` but what `generate` makes before it is done."""
    if scenes.is_symlink() or not scenes.is_dir():
        return False
    files = (path for path in scenes.rglob("*") if path.is_symlink() or not path.is_dir())
    inside = [path for path in files if path != scenes / LOCK]  # which one that was killed leaves
    known = all(not p.is_symlink() and SCENE_FILE.fullmatch(p.relative_to(scenes).as_posix()) for p in inside)
    return known and (not inside or (scenes / "classes.json").is_file())


def _draw(console: Console, config: DemoConfig, scenes: Path) -> None:
    """The scenes, unless they are there; what was left of an interrupted drawing is removed first."""
    if (scenes / "scenes.csv").is_file():
        _say(console, 1, f"The {config.count} overhead scenes are there from before; they are used as they are.")
        return
    _say(console, 1, f"Drawing {config.count} overhead scenes with their labels (no download).")
    if scenes.is_dir() and any(scenes.iterdir()):
        with held(scenes, "another `cmid generate`"):
            _show(console, f"The drawing in {scenes} was interrupted; it is removed and begun anew.")
        shutil.rmtree(scenes)
    generate(GenerateConfig(out=str(scenes), count=config.count, seed=config.seed))


def _resumed(settings: PretrainConfig, run: RunDirectory) -> tuple[PretrainConfig, str]:
    """The settings that the run was begun with, on the scenes where they are now, and what is to be done in words."""
    checkpoint = read_checkpoint(run.last)
    begun = resolve(PretrainConfig, config=checkpoint.settings, source=str(run.last))
    knn = replace(begun.knn, data=settings.knn.data)
    train = replace(settings.train, accumulate=begun.train.accumulate)
    begun = replace(
        begun, data=settings.data, out=settings.out, knn=knn, train=train, report=settings.report, resume=True
    )
    done = checkpoint.progress
    if done.step >= done.total_steps:
        return begun, f"The pre-training of {begun.epochs} epochs has ended before; it is evaluated and reported again."
    return begun, f"Going on with the pre-training begun before: {done.epoch:.3g} of {begun.epochs} epochs are done."


def _epochs(config: DemoConfig, settings: PretrainConfig, pace: float) -> tuple[int, float]:
    """As many epochs as the minutes allow at that pace of training steps, within `EPOCHS`, and their seconds."""
    images = config.count // settings.batch_size * settings.batch_size
    seconds = BESIDE_STEPS * images / pace
    epochs = min(max(int(60 * config.minutes / seconds), EPOCHS[0]), EPOCHS[1])
    return epochs, epochs * seconds


def _evaluation(weights: str, settings: PretrainConfig, out: Path) -> EvaluateConfig:
    random = weights == "random"
    return EvaluateConfig(
        weights=weights,
        data=settings.data,
        backbone=settings.backbone if random else None,
        size=settings.views.size,
        overwrite=True,
        mean=settings.views.mean if random else None,
        std=settings.views.std if random else None,
        seed=settings.seed,
        out=str(out),
    )


def _classify(console: Console, config: DemoConfig, settings: PretrainConfig, backbone: Path, run: Path) -> str:
    """The classifier's accuracy in words; one that is there from before is not trained again."""
    each = config.count // len(SCENE_CLASSES)  # of which, as anywhere, four fifths may be trained on
    few = min(FEW, max(1, min(round(0.8 * each), each - 1)))
    if not (run / "model.safetensors").is_file():
        given = {
            "weights": str(backbone), "data": settings.data, "out": str(run), "seed": config.seed, "per_class": few,
            "epochs": CLASSIFIER_EPOCHS, "resume": RunDirectory(run).last.is_file(),
        }  # fmt: skip
        finetune("classification", resolve(FinetuneConfig, given, recipe="finetune-small"))
    else:
        _show(console, "It is there from before.")
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    low, high = (100 * end for end in scores["interval"])
    right = 100 * scores["overall_accuracy"]
    return f"{few} scenes of each kind: {right:.1f} % ({low:.1f} to {high:.1f}) of the others are named rightly."


def _told(scores: dict[str, EvaluateResult]) -> str:
    """Both accuracies with their intervals."""
    parts = []
    for name, result in scores.items():
        best = result.scores[0]
        parts.append(f"{name} {best.accuracy:.1f} % ({best.low:.1f} to {best.high:.1f})")
    return ", ".join(parts) + f"; chance is {next(iter(scores.values())).chance:.1f} %."
