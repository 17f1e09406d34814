"""Settings from several places become one checked dataclass: defaults < recipe < file < what was given.

The dataclasses of `cmid.config` say what there is; jsonargparse checks and converts the values. Inside, settings
are flat, with dotted names: `{"views.size": 96}`. Dashes in names are the same as underscores.
"""

import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import jsonargparse
import yaml

from cmid.commands.ranges import within_range
from cmid.commands.recipes import find_recipe
from cmid.config import FinetuneConfig, FinetuneSegmentationConfig
from cmid.errors import UsageError, did_you_mean, nearest

T = TypeVar("T")
MOST_VALUES = 100_000
"""Of a settings file. A few aliases in a row can stand for more than any memory holds."""
TASKS = (FinetuneConfig.task, FinetuneSegmentationConfig.task)
SHORT = {"devices": "train.devices", "nodes": "train.nodes"}
"""Names by which other tools know some settings."""


def resolve(
    kind: type[T],
    given: Mapping[str, Any] | None = None,
    *,
    recipe: str | None = None,
    config: str | PathLike[str] | Mapping[str, Any] | None = None,
    source: str = "the call",
) -> T:
    """The settings `kind` with each place's values over those of the place before it.

    Args:
        kind: a dataclass of `cmid.config`.
        given: nested or dotted settings that win over all others; text is converted to the field's type.
        recipe: name of a packaged recipe.
        config: a YAML file, a mapping or a dataclass, over the recipe.
        source: what to call `given` in an error.

    Raises:
        UsageError: an unknown recipe or field (with the nearest names), an unreadable file, or a wrong value
            (with field, expected, found).
    """
    known = field_types(kind)
    flat: dict[str, Any] = {}
    if recipe is not None:
        flat |= checked(kind, read_yaml(find_recipe(str(recipe)).path), known, f"recipe {recipe}")
    if config is not None:
        content, where = config, "config"
        if isinstance(config, (str, PathLike)):
            content, where = read_yaml(Path(config)), fspath(config)
        flat |= checked(kind, _without_task(kind, content, where), known, where)
    flat |= checked(kind, given or {}, known, source)
    return _build(kind, flat)


def stored(kind: type[T], settings: Mapping[str, Any] | str | PathLike[str], source: str) -> tuple[T, list[str]]:
    """The settings that a run wrote down, perhaps by another version of this package; what it says in vain, in words.

    A field that is no longer known, or a value that no longer fits it, leaves the default in its place: what was
    learned can still be taken away, and weights that no longer fit are refused where they are loaded.

    Raises:
        UsageError: `settings` is a file that cannot be read, or holds no fields.
    """
    content = read_yaml(Path(settings)) if isinstance(settings, (str, PathLike)) else settings
    known, flat, left = field_types(kind), dict[str, Any](), []
    for name, value in _leaves(content, known):
        try:
            flat |= checked(kind, {name: value}, known, source)
        except UsageError as error:
            left.append(f"{error} Left out: another version of cmid may have written it.")
    return _build(kind, flat), left


def field_types(kind: type[Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name to type of every field of a dataclass, in order."""
    types: dict[str, Any] = {}
    for each in fields(kind):
        if is_dataclass(each.type):
            types |= field_types(each.type, f"{prefix}{each.name}.")  # type: ignore[arg-type]
        else:
            types[prefix + each.name] = each.type
    return types


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, as they stand there.

    Raises:
        UsageError: no such file, not YAML (with the line), or not a mapping of fields to values.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _EachOnce)
        if _written_out(content, {}) > MOST_VALUES:
            raise UsageError(f"{path} repeats parts of itself to more than {MOST_VALUES:,} values.")
    except OSError as error:
        raise UsageError(f"Cannot read the settings file {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it is not UTF-8 text"
        raise UsageError(f"{path}{where} is not valid YAML: {problem}.") from error
    except UsageError:
        raise
    except ValueError as error:  # such as of the 30th of February
        raise UsageError(f"{path} is not valid YAML: {error}.") from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply for a settings file.") from error
    if not isinstance(content, dict | NoneType):
        raise UsageError(f"{path}: expected lines of `field: value`, found {_show(content)}.")
    return content or {}


def _without_task(kind: type[Any], content: Any, source: str) -> Any:
    """Settings without the task that a run of `cmid finetune` wrote down with them, if it is the one of `kind`."""
    task = content.get("task") if isinstance(content, Mapping) else None
    if task is None:
        return content
    if task == getattr(kind, "task", None):
        return {name: value for name, value in content.items() if name != "task"}
    if task in TASKS:
        raise UsageError(f"{source} has the settings of a `cmid finetune {task}` run, which are for that verb alone.")
    return content


def checked(kind: type[Any], settings: Any, known: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`settings` flat, every name known, every value of its field's type and range; `source` names them in errors."""
    parser = _converter(kind)  # type: ignore[arg-type]
    values = {}
    for name, value in _flatten(_plain(settings), known, source):
        if name in values:
            raise UsageError(f"{name} ({source}) is given twice: leave one of the values out.")
        values[name] = _convert(parser, name, known[name], value, source)
        within_range(name, values[name], source)
        _check_text(name, values[name], source)
    return values


def _check_text(name: str, value: Any, source: str) -> None:
    """Raises the UsageError of text, in a value or in parts of it, that no file's name and no file can hold."""
    if isinstance(value, Mapping):
        value = (*value, *value.values())
    if isinstance(value, list | tuple):
        for part in value:
            _check_text(name, part, source)
    elif isinstance(value, str):
        try:
            sound = b"\0" not in os.fsencode(value)
        except UnicodeEncodeError:
            sound = False
        if not sound:
            raise UsageError(f"{name} ({source}): {_show(value)} holds a NUL, or half of a letter: write it anew.")


def make_parser(kind: type[Any], **more: Any) -> jsonargparse.ArgumentParser:
    """A parser with one option per field of `kind`, helped by the docstrings under the fields.

    Args:
        kind: a dataclass of `cmid.config`.
        more: further arguments of `ArgumentParser` (prog, usage, epilog ...).
    """
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(exit_on_error=False, **more)
    parser.add_class_arguments(kind)
    return parser


def _written_out(value: Any, known: dict[int, int]) -> int:
    """How many values there are once every alias of YAML is written out; parts met before are not walked again."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_written_out(each, known) for each in inside)
    return known[id(value)]


class _EachOnce(yaml.SafeLoader):
    """YAML in which a key given twice is an error: the safe loader lets the last one win."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As the safe loader's, before anything is merged into it, which may name a key again."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set[str | None]()
        for key, _ in node.value:
            # a name's dashes are underscores; `<<` merges, and may come more than once
            name = key.value.replace("-", "_") if isinstance(key, yaml.ScalarNode) else None
            if name in seen and name != "<<":
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            seen |= {name} - {None}
        return node


@cache
def _converter(kind: type[Any]) -> jsonargparse.ArgumentParser:
    return make_parser(kind)


def one_of(name: str, value: Any, choices: Iterable[str], source: str) -> None:
    """Raise the UsageError that names the choices, unless `value` is one of them."""
    choices = tuple(choices)
    if value not in choices:
        raise UsageError(
            f"{name} ({source}): expected one of {', '.join(choices)}, found {_show(value)}."
            f"{did_you_mean(str(value), choices)}"
        )


def unknown_field(name: str, known: Iterable[str], source: str) -> UsageError:
    """The error for a field that is not there, with the nearest that are; a bare `lr` finds `optimizer.lr`."""
    known = list(known)
    by_leaf: dict[str, list[str]] = {}
    for each in known:
        by_leaf.setdefault(each.rpartition(".")[2], []).append(each)
    leaf = name.rpartition(".")[2]
    near = nearest(name, known) if name.count(".") else []
    near = near or by_leaf.get(leaf) or [each for hit in nearest(leaf, by_leaf) for each in by_leaf[hit]]
    if near:
        advice = f"Did you mean {', '.join(near[:3])}?"
    else:
        tops = dict.fromkeys(each.partition(".")[0] + (".*" if "." in each else "") for each in known)
        advice = f"There are {', '.join(tops)}."
    return UsageError(f"Unknown setting {name!r} ({source}). {advice}")


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, paths as text, numbers and arrays of numpy as Python's."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        plain = [_plain(each) for each in value]
        return plain if isinstance(value, list) else tuple(plain)
    numpy = sys.modules.get("numpy")  # who has a number of its kind has imported it; the command line need not wait
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return value.tolist()
    return fspath(value) if isinstance(value, PathLike) else value


def _flatten(settings: Any, known: Mapping[str, Any], source: str, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if not isinstance(settings, Mapping):
        group = [name for name in known if name.startswith(prefix)]
        raise UsageError(
            f"{prefix.rstrip('.') or 'settings'} ({source}): expected a group of settings "
            f"({', '.join(group[:3])} ...), found {_show(settings)}."
        )
    for key, value in settings.items():
        name = prefix + str(key).replace("-", "_")
        name = SHORT.get(name, name) if SHORT.get(name) in known else name
        if name in known:
            yield name, value
        elif any(each.startswith(f"{name}.") for each in known):
            yield from _flatten(value, known, source, f"{name}.")
        else:
            raise unknown_field(name, known, source)


def _leaves(settings: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted names with their values, down to fields that are known or groups that are not."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in known and any(each.startswith(f"{name}.") for each in known):
            yield from _leaves(value, known, f"{name}.")
        else:
            yield name, value


def _convert(parser: jsonargparse.ArgumentParser, name: str, wanted: Any, value: Any, source: str) -> Any:
    """`value` as the type `wanted`; text is read as on the command line."""
    options = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    if value is None and NoneType in options:
        return None
    plain = next(each for each in options if each is not NoneType)
    if get_origin(plain) is tuple and get_args(plain)[0] is str:
        if isinstance(value, str):
            value = _split(value)
        if isinstance(value, (list, tuple)):  # YAML reads the band 4 as a number
            value = [str(each) if type(each) is int else each for each in value]
    elif get_origin(plain) is tuple and isinstance(value, str) and not value.strip().startswith("["):
        value = f"[{value}]"
    elif get_origin(plain) is tuple and Ellipsis in get_args(plain) and isinstance(value, (int, float)):
        value = [value]  # `k=5`, as on the command line
    value = _at_home(value)
    if get_origin(plain) is Literal:
        # YAML reads the precision 32 as a number
        value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        one_of(name, value, get_args(plain), source)
    nested: dict[str, Any] = {}
    group, _, leaf = name.rpartition(".")
    (nested.setdefault(group, {}) if group else nested)[leaf] = value
    try:
        if value is None:
            raise TypeError
        found = parser.parse_object(nested, defaults=False)[name]
        numbers = found if isinstance(found, tuple) else (found,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise TypeError
    except (jsonargparse.ArgumentError, TypeError) as error:
        raise UsageError(f"{name} ({source}): expected {describe(wanted)}, found {_show(value)}.") from error
    return found


def _at_home(value: Any) -> Any:
    """`~/folder` as the folder below the user's own; shells leave it as it is in `--out=~/runs`."""
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    return os.path.expanduser(value) if isinstance(value, str) and re.match(r"~[\w.-]*(/|$)", value) else value  # noqa: PTH111


def _split(text: str) -> list[str]:
    """The parts of a list of texts as written on the command line; a comma within brackets belongs to a part.

    `a,b`, `[a, b]` and `swav?views.small_scale=[0.05,0.2],byol`, which has two.
    """
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    parts = re.findall(r"(?:\[[^\]]*\]|[^,])+", text)
    return [part.strip() for part in parts if part.strip()]


def describe(wanted: Any) -> str:
    """A field's type in words."""
    origin, inside = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        return " or ".join("nothing (null)" if each is NoneType else describe(each) for each in inside)
    if origin is Literal:
        return f"one of {', '.join(inside)}"
    if origin is tuple:
        if inside[-1] is Ellipsis:
            return f"a list, each {describe(inside[0])}"
        return f"a list of {len(inside)}, each {describe(inside[0])}"
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    return words.get(wanted, str(wanted))


def _show(value: Any) -> str:
    return "nothing (null)" if value is None else repr(value)


def _build(kind: type[T], flat: Mapping[str, Any], prefix: str = "", default: T | None = None) -> T:
    """A `kind` of the values in `flat`; those that are not there are `default`'s, or the fields' own."""

    def of(each: Field[Any]) -> Any:
        leading = getattr(kind, "FOLLOWS", {}).get(each.name)
        if default is not None and f"{prefix}{leading}" not in flat:
            own = getattr(default, each.name)
        else:
            own = each.default if each.default_factory is MISSING else each.default_factory()
        if is_dataclass(each.type):  # one verb's group may have other defaults than another's
            return _build(each.type, flat, f"{prefix}{each.name}.", own)  # type: ignore[arg-type]
        return flat.get(prefix + each.name, own)

    return kind(**{each.name: of(each) for each in fields(kind)})  # type: ignore[arg-type]
