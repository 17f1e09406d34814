"""From unlabelled overhead imagery to maps.

Every verb of the command line is a function here, with the same settings under the same names (see `cmid.config`):

    import cmid
    run = cmid.pretrain("images/", recipe="cmid-small", out="runs/a", epochs=3, cmid={"mode": "parity"})

Importing `cmid` is cheap: torch and the rest are imported by the first call.
"""

import sys
from collections.abc import Mapping
from os import PathLike
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from cmid.commands import VERBS, carry_out

if TYPE_CHECKING:
    from pathlib import Path

    from cmid.commands.classifier_scores import FinetuneResult
    from cmid.commands.compare import CompareResult
    from cmid.commands.diagnosis import Diagnosis
    from cmid.commands.evaluate import EvaluateResult
    from cmid.commands.evaluate_classifier import ClassifierResult
    from cmid.commands.finetune_seeds import SeedsResult
    from cmid.commands.generate import GenerateResult
    from cmid.commands.pack import PackResult
    from cmid.commands.predict import PredictResult
    from cmid.commands.predict_segmentation import MapsResult
    from cmid.commands.prepare_isprs import PrepareResult
    from cmid.commands.pretrain import PretrainResult
    from cmid.commands.recipes import Recipe
    from cmid.commands.segmentation_scores import SegmentationResult

StrPath = str | PathLike[str]
Settings = str | PathLike[str] | Mapping[str, Any]

__all__ = [
    "compare",
    "demo",
    "doctor",
    "evaluate",
    "extract",
    "finetune",
    "generate",
    "pack",
    "predict",
    "prepare",
    "pretrain",
    "recipes",
    "report",
]


def pretrain(
    data: StrPath | None = None, *, recipe: str | None = None, config: Settings | None = None, **settings: Any
) -> "PretrainResult":
    """Pre-train a backbone on unlabelled images.

    Precedence: defaults < `recipe` < `config` < the keywords.

    Args:
        data: a folder of images (any depth), or a text file listing them.
        recipe: name of a packaged recipe; `cmid.recipes()` lists them.
        config: a YAML file, a dict or a `PretrainConfig`.
        settings: fields of `cmid.config.PretrainConfig`: `out="runs/a"`, `epochs=10`, `views={"size": 96}`.

    Returns:
        The run's directory, its backbone file, its report and the trainer's account.

    Raises:
        UsageError: an unknown recipe or setting (with the nearest names), a wrong value, no images, a run that
            exists.
        CmidError: a failure while training, such as a loss that is not finite.
    """
    return carry_out("pretrain", _given(settings, data=data), recipe=recipe, config=config)


def extract(run: StrPath | None = None, *, config: Settings | None = None, **settings: Any) -> "Path":
    """Write a run's backbone to a file of its own, .safetensors or .pth.

    Args:
        run: a run directory, or one of its checkpoints.
        config: a YAML file, a dict or an `ExtractConfig`.
        settings: fields of `cmid.config.ExtractConfig`: `out="backbone.pth"`, `which="teacher"`.

    Returns:
        The file written.

    Raises:
        UsageError: no such run, a file that exists, an unknown setting.
    """
    return carry_out("extract", _given(settings, run=run), config=config)


def evaluate(
    kind: Literal["knn", "linear", "classification", "segmentation"],
    weights: StrPath | None = None,
    data: StrPath | None = None,
    *,
    config: Settings | None = None,
    **settings: Any,
) -> "EvaluateResult | ClassifierResult | SegmentationResult":
    """Score a backbone's frozen features, or a finished classifier or segmenter, on labelled images.

    Args:
        kind: `"knn"`, neighbours that vote; `"linear"`, a linear probe; `"classification"` and `"segmentation"`, a
            model as it is.
        weights: a backbone file, a run directory, or `"random"`; a run of `finetune` for the last two kinds.
        data: a folder with one folder per class; for `"segmentation"` one of images and masks.
        config: a YAML file, a dict or an `EvaluateConfig`.
        settings: fields of `cmid.config.EvaluateConfig`: `size=96`, `k=(1, 5)`, `train_list="train.txt"`; for
            `"segmentation"` those of `cmid.config.EvaluateSegmentationConfig`.

    Returns:
        The scores with their intervals.

    Raises:
        UsageError: an unknown kind or setting, weights or data that cannot be read.
    """
    return carry_out("evaluate", _given(settings, weights=weights, data=data), kind=kind, config=config)


def finetune(
    kind: Literal["classification", "segmentation"],
    weights: StrPath | None = None,
    data: StrPath | None = None,
    *,
    recipe: str | None = None,
    config: Settings | None = None,
    **settings: Any,
) -> "FinetuneResult | SegmentationResult | SeedsResult":
    """Train a task on labelled images, from a pre-trained backbone.

    Args:
        kind: `"classification"`, a class an image, or `"segmentation"`, a class a pixel.
        weights: a backbone file, a run directory, or `"random"`.
        data: a folder with one folder per class; for `"segmentation"` one of images and masks.
        recipe: name of a packaged recipe.
        config: a YAML file, a dict or a `FinetuneConfig`.
        settings: fields of `cmid.config.FinetuneConfig`: `out="runs/ucm"`, `epochs=50`, `per_class=10`; for
            `"segmentation"` those of `cmid.config.FinetuneSegmentationConfig`.

    Returns:
        The run's directory, the model's file, and the scores on the test images; with `seeds`, of each.

    Raises:
        UsageError: weights or data that cannot be read, a run that exists, an unknown setting.
        CmidError: a failure while training.
    """
    return carry_out("finetune", _given(settings, weights=weights, data=data), kind=kind, recipe=recipe, config=config)


def compare(
    data: StrPath | None = None,
    labelled: StrPath | None = None,
    *,
    recipe: str | None = None,
    config: Settings | None = None,
    **settings: Any,
) -> "CompareResult":
    """Pre-train several methods on the same images and budget, and score them alike.

    Args:
        data: the images to learn from.
        labelled: a folder with one folder per class, to score on.
        recipe: name of a packaged recipe.
        config: a YAML file, a dict or a `CompareConfig`.
        settings: fields of `cmid.config.CompareConfig`: `methods=("cmid", "byol")`, `seeds=(0, 1)`.

    Returns:
        The tables, the page, and the rows with their outcomes.

    Raises:
        UsageError: data, methods or settings that do not go together; nothing has been trained.
        CmidError: a run failed; what is done is kept, and the same call goes on.
    """
    return carry_out("compare", _given(settings, data=data, labelled=labelled), recipe=recipe, config=config)


def generate(out: StrPath | None = None, *, config: Settings | None = None, **settings: Any) -> "GenerateResult":
    """Draw overhead scenes with labels for every task, the same for the same seed.

    Args:
        out: folder to write; must not hold files.
        config: a YAML file, a dict or a `GenerateConfig`.
        settings: fields of `cmid.config.GenerateConfig`: `count=200`, `size=256`, `seed=0`.

    Returns:
        What was written, and where.

    Raises:
        UsageError: a folder with files in it, an unknown setting.
    """
    return carry_out("generate", _given(settings, out=out), config=config)


def pack(data: StrPath | None = None, *, config: Settings | None = None, **settings: Any) -> "PackResult":
    """Pack many images into few large shards, which `pretrain` reads as it reads a folder; or check shards.

    Args:
        data: what pre-training would read; with `check=True`, a folder of shards.
        config: a YAML file, a dict or a `PackConfig`.
        settings: fields of `cmid.config.PackConfig`: `out="shards"`, `shard_mb=256`.

    Returns:
        What was packed.

    Raises:
        UsageError: nothing to pack, a folder that holds files, an unknown setting.
        CmidError: too many unreadable images, a full disk, or a shard that is not as it was.
    """
    return carry_out("pack", _given(settings, data=data), config=config)


def prepare(
    kind: Literal["potsdam", "vaihingen"],
    source: StrPath | None = None,
    *,
    config: Settings | None = None,
    **settings: Any,
) -> "PrepareResult":
    """Cut ISPRS Potsdam or Vaihingen, as they are shipped, into windows to train and test on.

    Args:
        kind: `"potsdam"` or `"vaihingen"`.
        source: a folder of the zips, or of what is in them; or one zip.
        config: a YAML file, a dict or a `PrepareConfig`.
        settings: fields of `cmid.config.PrepareConfig`: `out="potsdam"`, `bands="IRRG"`.

    Returns:
        The folder and how many windows it holds.

    Raises:
        UsageError: files that are missing or damaged, colours that are none of the benchmark's, an unknown setting.
        CmidError: the disk is full.
    """
    return carry_out("prepare", _given(settings, source=source), kind=kind, config=config)


def doctor(data: StrPath | None = None, *, config: Settings | None = None, **settings: Any) -> "Diagnosis":
    """Say what is wrong with images that have a class for each pixel, before anyone trains on them.

    Args:
        data: a folder of images and masks, what `prepare` wrote, or torchgeo:NAME?root=DIR.
        config: a YAML file, a dict or a `DoctorConfig`.
        settings: fields of `cmid.config.DoctorConfig`: `labels={"palette": "classes.csv"}`, `out="found.json"`.

    Returns:
        What was found, with the share of each class, where nothing is wrong.

    Raises:
        UsageError: nothing there that can be looked at, an unknown setting.
        CmidError: something is wrong; its `diagnosis` tells all of it.
    """
    return carry_out("doctor", _given(settings, data=data), config=config)


def predict(
    kind: Literal["classification", "segmentation"],
    model: StrPath | None = None,
    data: StrPath | None = None,
    *,
    config: Settings | None = None,
    **settings: Any,
) -> "PredictResult | MapsResult":
    """Let a fine-tuned model name what is in new images, or map scenes.

    Args:
        kind: `"classification"`, a class for each image; `"segmentation"`, a georeferenced map of each scene.
        model: a run of `finetune`, or its model.safetensors.
        data: an image or a scene, a folder of them, or a text file listing them.
        config: a YAML file, a dict, or a dataclass of the settings.
        settings: fields of `cmid.config.PredictConfig`: `out="classes.json"`; for `"segmentation"` of
            `cmid.config.PredictSegmentationConfig`: `out="maps"`, `polygons="gpkg"`.

    Returns:
        The file written, with how many images and which were skipped; or the maps, with their classes' pixels.

    Raises:
        UsageError: no model, no images, a file that exists, an unknown setting.
        CmidError: nothing could be read, or a file cannot be written.
    """
    return carry_out("predict", _given(settings, model=model, data=data), kind=kind, config=config)


def report(run: StrPath | None = None, *, config: Settings | None = None, **settings: Any) -> "Path":
    """Draw a run's report again, on other images or with another map if asked.

    Args:
        run: a run directory.
        config: a YAML file, a dict or a `ReportConfig`.
        settings: fields of `cmid.config.ReportConfig`: `projection="pca"`, `labelled="UCMerced/"`.

    Returns:
        The page.

    Raises:
        UsageError: no such run, an unknown setting.
    """
    return carry_out("report", _given(settings, run=run), config=config)


def recipes() -> "dict[str, Recipe]":
    """The packaged recipes by name: what each trains, its command, time, results, and its file's `text`."""
    from cmid.commands.recipes import all_recipes

    return all_recipes()


def demo(out: StrPath | None = None, *, config: Settings | None = None, **settings: Any) -> Any:
    """Generate scenes, pre-train on them, look at what was learned: minutes on two cores.

    Args:
        out: where everything goes.
        config: a YAML file, a dict or a `DemoConfig`.
        settings: fields of `cmid.config.DemoConfig`: `minutes=4.0`, `count=600`.

    Returns:
        What `cmid.commands.demo.demo` returns.

    Raises:
        UsageError: a folder with files in it, an unknown setting.
    """
    return carry_out("demo", _given(settings, out=out), config=config)


def _given(settings: dict[str, Any], **positional: Any) -> dict[str, Any]:
    return {name: value for name, value in positional.items() if value is not None} | settings


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cmid")
    raise AttributeError(f"module 'cmid' has no attribute {name!r}")


class _CallableRoom(ModuleType):
    """A room that shares its name with a verb (`cmid.report`): a module that can be called as the verb."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return _VERBS[self.__name__.rpartition(".")[2]](*args, **settings)


class _Package(ModuleType):
    """Importing a room binds it over the verb of the same name; this keeps the verb callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS and isinstance(value, ModuleType):
            value.__class__ = _CallableRoom
        super().__setattr__(name, value)


_VERBS = {name: globals()[name] for name in VERBS}
sys.modules[__name__].__class__ = _Package
