"""The verbs, one file each: where the neighbours of floor 2 meet. The table below is all that the outside knows.

Imports nothing heavy: the command line and the Python API read the table, and a verb's file is imported when the
verb is carried out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from os import PathLike
from typing import Any


@dataclass(frozen=True)
class Apart:
    """A kind of a verb that has settings of its own.

    Attributes:
        target: `module:function`; the function takes the resolved settings alone.
        settings: name of its dataclass in `cmid.config`, whose docstring is the kind's help.
        words: those that help shows for positional fields, where they differ from the verb's.
    """

    target: str
    settings: str
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verb:
    """How a verb is called.

    Attributes:
        target: `module:function`; the function takes the resolved settings, after the kind where there are kinds.
        settings: name of its dataclass in `cmid.config`, whose docstring is the verb's help.
        positional: fields that may be given without their name, in order, with the word that help shows for each.
            Where the field's default is the empty string it must be given.
        kinds: choices of a first word after the verb; empty where there is none.
        recipes: whether packaged recipes hold settings for it.
        apart: the kinds that have settings of their own; the positional fields are the same.
    """

    target: str
    settings: str
    positional: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    recipes: bool = False
    apart: Mapping[str, Apart] = field(default_factory=dict)


VERBS: dict[str, Verb] = {
    "pretrain": Verb("cmid.commands.pretrain:pretrain", "PretrainConfig", {"data": "IMAGES"}, recipes=True),
    "extract": Verb("cmid.commands.extract:extract", "ExtractConfig", {"run": "RUN"}),
    "evaluate": Verb(
        "cmid.commands.evaluate:evaluate",
        "EvaluateConfig",
        {"weights": "WEIGHTS", "data": "DATA"},
        kinds=("knn", "linear", "classification", "segmentation"),
        apart={
            "segmentation": Apart(
                "cmid.commands.evaluate_segmentation:evaluate_segmentation", "EvaluateSegmentationConfig"
            )
        },
    ),
    "finetune": Verb(
        "cmid.commands.finetune:finetune",
        "FinetuneConfig",
        {"weights": "WEIGHTS", "data": "DATA"},
        kinds=("classification", "segmentation"),
        recipes=True,
        apart={
            "segmentation": Apart(
                "cmid.commands.finetune_segmentation:finetune_segmentation", "FinetuneSegmentationConfig"
            )
        },
    ),
    "compare": Verb(
        "cmid.commands.compare:compare", "CompareConfig", {"data": "IMAGES", "labelled": "LABELLED"}, recipes=True
    ),
    "generate": Verb("cmid.commands.generate:generate", "GenerateConfig", {"out": "FOLDER"}),
    "pack": Verb("cmid.commands.pack:pack", "PackConfig", {"data": "DATA"}),
    "prepare": Verb(
        "cmid.commands.prepare_isprs:prepare",
        "PrepareConfig",
        {"source": "SOURCE"},
        kinds=("potsdam", "vaihingen"),
    ),
    "doctor": Verb("cmid.commands.doctor:doctor", "DoctorConfig", {"data": "DATA"}),
    "predict": Verb(
        "cmid.commands.predict:predict",
        "PredictConfig",
        {"model": "MODEL", "data": "IMAGES"},
        kinds=("classification", "segmentation"),
        apart={
            "segmentation": Apart(
                "cmid.commands.predict_segmentation:predict_segmentation",
                "PredictSegmentationConfig",
                {"data": "SCENES"},
            )
        },
    ),
    "report": Verb("cmid.commands.report:report", "ReportConfig", {"run": "RUN"}),
    "recipes": Verb("cmid.commands.recipes:recipes", "RecipesConfig", {"name": "NAME"}),
    "demo": Verb("cmid.commands.demo:demo", "DemoConfig", {"out": "FOLDER"}),
}


def settings_class(verb: str, kind: str | None = None) -> type[Any]:
    """The dataclass of `cmid.config` that holds the settings of `verb`, or of its kind."""
    return getattr(import_module("cmid.config"), _way(verb, kind).settings)


def positional(verb: str, kind: str | None = None) -> dict[str, str]:
    """Fields of `verb`, or of its kind, that may be given without their name, with the word that help shows."""
    way = _way(verb, kind)
    return {**VERBS[verb].positional, **(way.words if isinstance(way, Apart) else {})}


def _way(verb: str, kind: str | None) -> Verb | Apart:
    how = VERBS[verb]
    return how.apart.get(kind, how) if kind is not None else how


def prepare(
    verb: str,
    given: Mapping[str, Any],
    *,
    kind: str | None = None,
    recipe: str | None = None,
    config: str | PathLike[str] | Mapping[str, Any] | None = None,
    source: str = "the call",
) -> Any:
    """The checked settings of `verb`, as `carry_out` passes them on; same arguments and errors."""
    from cmid.commands.settings import one_of, resolve
    from cmid.errors import UsageError

    how = VERBS[verb]
    if how.kinds:
        if kind is None:
            raise UsageError(f"`{verb}` needs to know what: one of {', '.join(how.kinds)} comes first.")
        one_of("kind", kind, how.kinds, source)
    if recipe is not None and not how.recipes:
        raise UsageError(f"`{verb}` has no recipes; leave out the recipe {recipe!r}.")
    if recipe is not None:
        from cmid.commands.recipes import find_recipe

        found = find_recipe(recipe)
        asked = f"{verb} {kind}" if kind else verb
        if found.verb != asked:
            raise UsageError(f"The recipe {recipe!r} is for `cmid {found.verb}`, not for `cmid {asked}`.")
    settings = resolve(settings_class(verb, kind), given, recipe=recipe, config=config, source=source)
    if getattr(settings, "resume", False) and recipe is None and config is None:
        settings = resolve(type(settings), given, config=_of_run(settings), source=source)
    for name, word in positional(verb, kind).items():
        if getattr(settings, name) == "":
            raise UsageError(f"`{verb}` needs {word} (setting {name!r}), which was not given.")
    return settings


def _of_run(settings: Any) -> Any:
    """The settings of the run that `settings.out` names, so that a run goes on by its own; None where it has none.

    With as many processes on this machine as on each of the run's, where they can be had; whether other machines take
    part is for the launcher to say, or for who calls.
    """
    from dataclasses import replace
    from pathlib import Path

    from cmid.commands.settings import stored
    from cmid.train.team import devices_again

    begun = Path(settings.out) / "settings.yaml"
    if not begun.is_file():
        return None
    found = stored(type(settings), begun, str(begun))[0]
    return replace(found, train=replace(found.train, devices=devices_again(found.train), nodes=1))


def carry_out(verb: str, given: Mapping[str, Any], *, kind: str | None = None, **where: Any) -> Any:
    """Resolve the settings of `verb` and call it; returns what its function returns.

    Args:
        verb: a key of `VERBS`.
        given: settings that win over everything, nested or with dotted names.
        kind: one of the verb's kinds, where it has any.
        where: `recipe`, the name of a packaged recipe, for verbs that have some; `config`, a YAML file or settings,
            over the recipe; `source`, what to call `given` in an error.

    Raises:
        UsageError: for an unknown kind, recipe or field, a value of another type, or a needed field left out.
    """
    settings = prepare(verb, given, kind=kind, **where)
    way = _way(verb, kind)
    module, _, function = way.target.partition(":")
    arguments = (settings,) if kind is None or isinstance(way, Apart) else (kind, settings)
    return getattr(import_module(module), function)(*arguments)
