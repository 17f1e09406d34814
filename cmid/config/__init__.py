"""Typed settings of every verb; imports nothing heavy, so that `cmid --help` is instant.

A recipe is a YAML file with these fields; the command line overrides it. Units are in the names or the text
below each field. The resolved settings of a run are written to its directory as `settings.yaml`.
"""

import json
from dataclasses import asdict
from typing import Any

from cmid.config.finetuning import ClassificationConfig, FinetuneConfig, MixingConfig
from cmid.config.looking import EvaluateConfig, ExtractConfig, ReportConfig
from cmid.config.making import DemoConfig, GenerateConfig, PackConfig, RecipesConfig
from cmid.config.methods import CMIDConfig
from cmid.config.predicting import PredictConfig
from cmid.config.pretraining import PretrainConfig
from cmid.config.training import KnnConfig, OptimizerConfig, TrainConfig
from cmid.config.views import SceneConfig, ViewConfig

__all__ = [
    "CMIDConfig",
    "ClassificationConfig",
    "DemoConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "FinetuneConfig",
    "GenerateConfig",
    "KnnConfig",
    "MixingConfig",
    "OptimizerConfig",
    "PackConfig",
    "PredictConfig",
    "PretrainConfig",
    "RecipesConfig",
    "ReportConfig",
    "SceneConfig",
    "TrainConfig",
    "ViewConfig",
    "as_plain",
]


def as_plain(config: Any) -> dict[str, Any]:
    """The settings as plain dicts, lists and numbers, ready for YAML."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))  # makes lists of tuples
    return plain
