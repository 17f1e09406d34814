"""What `cmid compare` trains: its rows, their settings, and the name that a run has as long as its settings hold."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import yaml

from cmid.commands.learners import METHODS, method_of
from cmid.commands.settings import field_types, one_of, resolve, unknown_field
from cmid.config import CompareConfig, PretrainConfig, as_plain
from cmid.errors import UsageError

NO_MATTER = ("out", "resume", "report", "data", "knn")
"""Settings that change nothing of what a run learns, besides those of `NO_MATTER_OF_TRAIN`."""
CAME_LATER: dict[tuple[str, str], Any] = {("views", "turn"): 0.0, ("scenes", "nodata"): None}
"""Settings that earlier versions did not have, and the value by which they change nothing: what was done stays done."""
NO_MATTER_OF_TRAIN = ("workers", "checkpoint_minutes", "log_every", "loggers")
OURS = {"data": "data", "out": "out", "seed": "seeds", "method": "methods", "report": "report", "resume": "nothing"}
"""Settings of `pretrain` that a comparison decides, and by which of its own."""


@dataclass(frozen=True)
class Row:
    """One row of the table: a method with settings of its own.

    Attributes:
        label: as the user wrote it; names the row everywhere.
        config: of a run with the first seed, without a folder.
    """

    label: str
    config: PretrainConfig

    @property
    def title(self) -> str:
        """For people: `CMID`, `CMID (mode = parity)`; dates that are made up are always told."""
        own = dict(parse_qsl(self.label.partition("?")[2], keep_blank_values=True))
        if method_of(self.config).dates and self.config.seco.dates == "artificial":
            own["dates"] = "artificial"
        more = ", ".join(f"{k} = {v}" for k, v in own.items())
        return method_of(self.config).title + (f" ({more})" if more else "")


@dataclass(frozen=True)
class Cell:
    """One run: a row with a seed.

    Attributes:
        row: whose.
        seed: of the run.
        config: complete.
        folder: of the run.
    """

    row: Row
    seed: int
    config: PretrainConfig
    folder: Path


def plan_rows(config: CompareConfig) -> list[Row]:
    """The rows that are trained, in the user's order.

    Raises:
        UsageError: no method, or seed, one named twice, as labels and external files, an unknown method, a setting
            that it does not take, or one of `pretrain` that the comparison itself decides.
    """
    default = PretrainConfig()
    for name, instead in OURS.items():
        if getattr(config.pretrain, name) != getattr(default, name):
            how = f"use {instead}" if instead != "nothing" else "a comparison always goes on where it stopped"
            raise UsageError(f"pretrain.{name} is decided by the comparison: leave it out; {how}")
    if not config.methods and not config.external:
        raise UsageError("nothing to compare: name methods, as in --methods cmid,byol")
    if not config.seeds:
        raise UsageError("seeds is empty: give at least one, as in --seeds 0,1,2")
    if again := [seed for seed in config.seeds if config.seeds.count(seed) > 1]:
        raise UsageError(f"seeds names {again[0]} twice, and a run of the same seed is the same run: name others")
    if repeated := [label for label in config.methods if config.methods.count(label) > 1]:
        raise UsageError(f"methods names {repeated[0]} twice: more runs of one are --seeds 0,1,2")
    if again := [count for count in config.labels if config.labels.count(count) > 1]:
        raise UsageError(f"labels names {again[0]} twice, and the same draws give the same figure: leave one out")
    if repeated := [name for name in config.external if config.external.count(name) > 1]:
        raise UsageError(f"external names {repeated[0]} twice: leave one out")
    return [_row(label, config) for label in config.methods]


def _row(label: str, config: CompareConfig) -> Row:
    method, _, query = label.partition("?")
    one_of("methods", method, METHODS, f"the row {label!r}")
    own = {each.name for each in fields(getattr(config.pretrain, method))}
    given: dict[str, Any] = {"method": method}
    for name, text in parse_qsl(query, keep_blank_values=True):
        name = name.replace("-", "_")
        whose = name.partition(".")[0]
        if whose != method and whose in METHODS:
            raise UsageError(f"methods: {label!r} sets {name}, a number of {whose} that {method} does not read")
        name = f"{method}.{name}" if name in own else name
        _require_known(name, method, label)
        if name in given:
            raise UsageError(f"methods: {label!r} sets {name} twice: leave one of the values out")
        try:
            given[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f"methods: the value of {name} in {label!r} cannot be read: {text!r}") from None
    if clash := set(OURS) & (set(given) - {"method"}):
        raise UsageError(f"methods: {label!r} sets {clash.pop()}, which the comparison decides")
    if config.minutes_each and "epochs" in given:
        raise UsageError(f"methods: {label!r} sets epochs, which minutes_each decides: leave one of the two out")
    base = {k: v for k, v in as_plain(config.pretrain).items() if k not in METHODS}  # each reads its own numbers
    base |= {"data": config.data or "", "report": False, method: as_plain(getattr(config.pretrain, method))}
    return Row(label, resolve(PretrainConfig, given, config=base, source=f"the row {label!r}"))


def _require_known(name: str, method: str, label: str) -> None:
    """A row sets what there is; else `UsageError` names the nearest that it may set, the method's own first."""
    every = field_types(PretrainConfig)
    if name in every or any(each.startswith(f"{name}.") for each in every):
        return
    own = [each for each in every if each.startswith(f"{method}.")]
    rest = [each for each in every if each not in OURS and each.partition(".")[0] not in METHODS]
    raise unknown_field(name, [*own, *rest], f"the row {label!r}")


def plan_cells(rows: Sequence[Row], config: CompareConfig, learned: Mapping[str, str]) -> list[Cell]:
    """Every row with every seed, seed by seed, so that an interrupted comparison has whole columns.

    Args:
        rows: of `plan_rows`, with the epochs they are given.
        config: of the comparison.
        learned: fingerprint of the images, and labels if any, that each row's method learns from, by the row's label.
    """
    cells = []
    for seed in config.seeds:
        for row in rows:
            made = replace(row.config, seed=seed)
            folder = Path(config.out) / "runs" / f"{slug(row.label)}_s{seed}_{key_of(made, learned[row.label])}"
            cells.append(Cell(row, seed, replace(made, out=str(folder)), folder))
    return cells


def key_of(config: PretrainConfig, images: str) -> str:
    """8 hexadecimal digits that change with every setting that changes what is learned, and with the images."""
    plain = as_plain(config)
    for name in NO_MATTER:
        del plain[name]
    for name in NO_MATTER_OF_TRAIN:
        del plain["train"][name]
    for (room, name), neutral in CAME_LATER.items():
        if plain[room][name] == neutral:
            del plain[room][name]
    return digest([plain, images])


def digest(value: Any) -> str:
    """8 hexadecimal digits of plain values."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=4).hexdigest()


def slug(label: str) -> str:
    """A label as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", label).strip("._")[:60] or "row"
