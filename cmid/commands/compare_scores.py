"""What a comparison asks of each backbone: kNN, linear probes on all and on few labels, effective rank.

Which test images were classified rightly is kept image by image, so that intervals and differences can be taken
later without the backbone.
"""

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from cmid.commands.compare_plan import digest
from cmid.commands.evaluate import frozen_features
from cmid.config import CompareConfig, EvaluateConfig, as_plain
from cmid.data.torchgeo_datasets import is_named
from cmid.evaluation.knn import knn_predict
from cmid.evaluation.linear import linear_probe
from cmid.evaluation.spread import effective_rank
from cmid.whole_files import write_whole

FEW_LABELS_C = 1.0
"""Inverse strength of the probes on few labels, where nothing can be held out to choose one."""


@dataclass(frozen=True)
class CellScores:
    """What one backbone reached.

    Attributes:
        outcomes: probe to `(M,)` float, the share of its draws in which each test image was right.
        effective_rank: of the test images' features.
        about: protocol and chosen numbers, plain.
    """

    outcomes: dict[str, np.ndarray]
    effective_rank: float
    about: dict[str, Any]

    @property
    def precision(self) -> str:
        """That the features were computed in."""
        return str(self.about["protocol"]["precision"])


def probe_names(config: CompareConfig) -> list[str]:
    """The probes, in the table's order."""
    return [knn_name(config), "linear", *(few_name(n) for n in config.labels)]


def knn_name(config: CompareConfig) -> str:
    """The kNN probe's name."""
    return f"kNN-{config.k}"


PLACES = ("weights", "data", "train_list", "test_list")
"""Settings that say where something lies: what the labelled images and their split are is in their fingerprint."""


def labelled_images(config: CompareConfig) -> dict[str, Any]:
    """What is scored on, as settings of `evaluate`."""
    return {"data": config.labelled, "train_list": config.train_list, "test_list": config.test_list}


def few_name(labels: int) -> str:
    """The name of a linear probe on few labels."""
    return f"linear, {labels} a class"


def score(
    weights: EvaluateConfig, config: CompareConfig, images: str, kept: Path, what: str, console: Console
) -> CellScores:
    """All probes of one backbone; read again from `kept` (.npz) where it was scored by the same rules before.

    What was kept is good without the backbone, too: a run that was scored may be removed, or left on another machine.

    Args:
        weights: which backbone, and how images are given to it.
        config: of the comparison.
        images: fingerprint of the labelled images.
        kept: where the outcomes are kept.
        what: the backbone is called.
        console: where progress is shown.

    Raises:
        CmidError: features that are not finite, or the file cannot be written.
    """
    if (found := kept_scores(weights, config, images, kept)) is not None:
        return found
    console.print(f"scoring {what}: features, kNN, linear probes")
    frozen = frozen_features(weights, console)
    (train, train_y), (test, test_y) = frozen.train, frozen.test
    right = {knn_name(config): knn_predict(train, train_y, test, [config.k])[config.k] == test_y}
    probe = linear_probe(train, train_y, test, seed=weights.seed)
    right["linear"] = probe.predicted == test_y
    outcomes = {name: each.double().numpy() for name, each in right.items()}
    for labels in config.labels:
        if (few := _few(train, train_y, test, test_y, labels, config.draws)) is not None:
            outcomes[few_name(labels)] = few
    about = {
        "protocol": _portable(frozen.protocol), "backbone": frozen.metadata.backbone,
        "linear_C": probe.chosen, "few_labels_C": FEW_LABELS_C, "draws": config.draws,
        "train_images": len(train), "test_images": len(test), "skipped": frozen.skipped, "file": _identity(weights),
    }  # fmt: skip
    found = CellScores(outcomes, effective_rank(test), about)
    _write(kept, _rules(weights, config, images), found)
    return found


def _portable(protocol: dict[str, Any]) -> dict[str, Any]:
    """A protocol that names files by the ends of their paths alone: cells are carried to other machines."""
    paths = {name: protocol[name] for name in PLACES if protocol[name] and not is_named(protocol[name])}
    return protocol | {name: "/".join(Path(path).parts[-2:]) for name, path in paths.items()}


def kept_scores(weights: EvaluateConfig, config: CompareConfig, images: str, kept: Path) -> CellScores | None:
    """What `score` kept, where it was by the same rules, and of this file if the backbone is still there."""
    return _read(kept, _rules(weights, config, images), _identity(weights))


def _rules(weights: EvaluateConfig, config: CompareConfig, images: str) -> str:
    how = {name: value for name, value in as_plain(weights).items() if name not in PLACES}
    return digest([how, images, config.labels, config.draws, config.k])


def _few(train: Tensor, train_y: Tensor, test: Tensor, test_y: Tensor, labels: int, draws: int) -> np.ndarray | None:
    """Mean over draws of being right, `(M,)`; None where a class has not as many labels."""
    members = [(train_y == number).nonzero().squeeze(1) for number in train_y.unique()]
    if min(map(len, members)) < labels:
        return None
    total = np.zeros(len(test))
    for draw in range(draws):
        generator = np.random.default_rng([draw, labels])
        chosen = torch.cat([each[generator.permutation(len(each))[:labels]] for each in members])
        probe = linear_probe(train[chosen], train_y[chosen], test, (FEW_LABELS_C,))
        total += (probe.predicted == test_y).double().numpy()
    return total / draws


def _identity(weights: EvaluateConfig) -> list[Any]:
    """What tells a file of weights from another of its name: its size and time."""
    path = Path(weights.weights)
    file = path / "backbone.safetensors" if path.is_dir() else path
    if not file.is_file():
        return []
    about = file.stat()
    return [about.st_size, about.st_mtime_ns]


def _read(kept: Path, rules: str, identity: list[Any]) -> CellScores | None:
    try:
        with kept.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # by name a torn one stays open
            about = json.loads(str(file["about"]))
            if about["rules"] != rules or (identity and identity != about["file"]):
                return None
            outcomes = {str(name): file[f"outcomes_{i}"] for i, name in enumerate(file["probes"])}
            return CellScores(outcomes, float(file["effective_rank"]), about)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):  # not there, or torn
        return None


def _write(kept: Path, rules: str, scores: CellScores) -> None:
    arrays: dict[str, Any] = {f"outcomes_{i}": each for i, each in enumerate(scores.outcomes.values())}
    about = json.dumps({**scores.about, "rules": rules})

    def write(part: Path) -> None:
        with part.open("wb") as file:  # by name numpy would put .npz behind it
            np.savez_compressed(
                file,
                probes=np.array(list(scores.outcomes)),
                effective_rank=scores.effective_rank,
                about=about,
                **arrays,
            )

    write_whole(kept, write, advice="Make room, and run the same again.")
