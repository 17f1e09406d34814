"""Typed settings of every verb; imports nothing heavy, so that `cmid --help` is instant.

A recipe is a YAML file with these fields; the command line overrides it. Units are in the names or the text
below each field. The resolved settings of a run are written to its directory as `settings.yaml`.
"""

import json
from dataclasses import asdict
from typing import Any, get_args

from cmid.config.comparing import CompareConfig
from cmid.config.finetuning import ClassificationConfig, FinetuneConfig, MixingConfig
from cmid.config.looking import DoctorConfig, EvaluateConfig, ExtractConfig, ReportConfig
from cmid.config.making import DemoConfig, GenerateConfig, PackConfig, PrepareConfig, RecipesConfig
from cmid.config.methods import (
    BarlowTwinsConfig,
    BYOLConfig,
    CMIDConfig,
    IndexNetConfig,
    MAEConfig,
    MoCoV2Config,
    SeCoConfig,
    SimMIMConfig,
    SupervisedConfig,
    SwAVConfig,
)
from cmid.config.pixel_labels import PixelLabelsConfig
from cmid.config.predicting import PredictConfig, PredictSegmentationConfig
from cmid.config.pretraining import PretrainConfig
from cmid.config.segmenting import (
    EvaluateSegmentationConfig,
    FinetuneSegmentationConfig,
    PixelCropConfig,
    SegmenterConfig,
)
from cmid.config.training import KnnConfig, OptimizerConfig, TrainConfig
from cmid.config.views import SceneConfig, ViewConfig

__all__ = [
    "BYOLConfig",
    "BarlowTwinsConfig",
    "CMIDConfig",
    "ClassificationConfig",
    "CompareConfig",
    "DemoConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "EvaluateSegmentationConfig",
    "ExtractConfig",
    "FinetuneConfig",
    "FinetuneSegmentationConfig",
    "GenerateConfig",
    "IndexNetConfig",
    "KnnConfig",
    "MAEConfig",
    "MixingConfig",
    "MoCoV2Config",
    "OptimizerConfig",
    "PackConfig",
    "PixelCropConfig",
    "PixelLabelsConfig",
    "PredictConfig",
    "PredictSegmentationConfig",
    "PrepareConfig",
    "PretrainConfig",
    "RecipesConfig",
    "ReportConfig",
    "SceneConfig",
    "SeCoConfig",
    "SegmenterConfig",
    "SimMIMConfig",
    "SupervisedConfig",
    "SwAVConfig",
    "TrainConfig",
    "ViewConfig",
    "as_plain",
]


def as_plain(config: Any) -> dict[str, Any]:
    """The settings as plain dicts, lists and numbers, ready for YAML."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))  # makes lists of tuples
    if isinstance(config, PretrainConfig):  # not of a comparison, whose methods each have their own
        for other in other_methods(config):
            del plain[other]
    return plain


def other_methods(config: PretrainConfig) -> list[str]:
    """The methods that `config` does not train with; their groups of settings say nothing of its run."""
    return [name for name in get_args(type(config).__annotations__["method"]) if name != config.method]
