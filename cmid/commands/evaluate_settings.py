"""Which settings of `cmid evaluate` each kind of evaluation of whole images reads."""

from dataclasses import fields

from cmid.config import EvaluateConfig
from cmid.errors import UsageError

FROZEN = ("knn", "linear")
READ_BY = {
    "k": ("knn",), "temperature": ("knn",), "regularisation": ("linear",), "validation_share": ("linear",),
    "ignore_unknown_classes": ("classification",), "report": ("classification",),
} | dict.fromkeys(("train_list", "backbone", "size", "mean", "std"), FROZEN)  # fmt: skip
"""Kinds that read a setting; all other settings are read by each."""


def settings_of(kind: str) -> list[str]:
    """Names of the settings that `kind` reads."""
    return [f.name for f in fields(EvaluateConfig) if kind in READ_BY.get(f.name, (kind,))]


def refuse_idle_settings(config: EvaluateConfig, kind: str) -> None:
    """That nothing was given that would have no effect; raises `UsageError`."""
    defaults, read = EvaluateConfig(), settings_of(kind)
    given = (f.name for f in fields(config) if getattr(config, f.name) != getattr(defaults, f.name))
    if not (idle := [name for name in given if name not in read]):
        return
    readers = {kind for name in idle for kind in READ_BY[name]}
    verbs = " and ".join(f"`cmid evaluate {reader}`" for reader in sorted(readers))
    why = ""
    if kind == "classification":
        why = ": a classifier's file says how images are prepared, and all of them, or those of test_list, are scored"
    raise UsageError(f"{', '.join(idle)} is read by {verbs}, not by {kind}{why}. Leave it out")
