"""The rows of a comparison that are not trained in it: random weights, and backbones that others trained."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qsl

import torch
from rich.console import Console

from cmid.commands.compare_plan import Row, digest, key_of, slug
from cmid.commands.compare_scores import CellScores, kept_scores, labelled_images, score
from cmid.commands.compare_tables import EXTERNAL, Line
from cmid.commands.evaluate import UNKNOWN_SIZE
from cmid.commands.image_scale import check_size
from cmid.commands.learners import build_learner
from cmid.commands.weights import resolve_weights
from cmid.config import CompareConfig, EvaluateConfig, PretrainConfig
from cmid.data.torchgeo_datasets import is_named
from cmid.errors import UsageError
from cmid.zoo.backbone_files import BackboneMetadata, save_backbone

RANDOM = "random weights"


def outsiders_of(config: CompareConfig, rows: Sequence[Row]) -> list[str]:
    """Rows that are not trained here: random weights of each backbone among the rows, and what others trained."""
    backbones = dict.fromkeys(row.config.backbone for row in rows) if config.untrained else ()
    return [*(f"{RANDOM}, {backbone}" for backbone in backbones), *config.external]


def outside(name: str, config: CompareConfig, labelled: str, rows: Sequence[Row], out: Path, console: Console) -> Line:
    """The row of random weights, or of a backbone that others trained.

    Args:
        name: of `outsiders_of`.
        config: of the comparison.
        labelled: fingerprint of the labelled images.
        rows: of the comparison; the first gives the size that images are scored at.
        out: the comparison's folder.
        console: where progress is shown.

    Raises:
        UsageError: no such file, or not a backbone's.
        CmidError: features that are not finite, or a file that cannot be written.
    """
    untrained = next((row.config for row in rows if name == f"{RANDOM}, {row.config.backbone}"), None)
    if untrained is not None:
        found = {seed: _score_untrained(untrained, seed, config, labelled, out, console) for seed in config.seeds}
        return _line(name, "Random weights", "not trained", untrained.backbone, found)
    about, kept = _asked_of(name, config, rows, out)
    only = score(about, config, labelled, kept, name, console)
    known = only.about.get("backbone") or about.backbone or name
    return _line(name, _title(about.weights, config), EXTERNAL, known, {config.seeds[0]: only})


def check_outsiders(config: CompareConfig, labelled: str, rows: Sequence[Row], out: Path, bands: int) -> None:
    """All files that others trained are looked at before the first is scored.

    Args:
        config, labelled, rows, out: as of `outside`.
        bands: of the labelled images.

    Raises:
        UsageError: no such file, not a backbone's, or one that does not take such images.
    """
    for name in config.external:
        about, kept = _asked_of(name, config, rows, out)
        if kept_scores(about, config, labelled, kept) is None:
            backbone, metadata, _ = resolve_weights(about, bands, files=not is_named(about.data))
            check_size(about.size or metadata.size or UNKNOWN_SIZE, backbone)


def _asked_of(name: str, config: CompareConfig, rows: Sequence[Row], out: Path) -> tuple[EvaluateConfig, Path]:
    """An external row's backbone, as it is scored, and where its scores are kept."""
    weights, backbone = _file_and_backbone(name)
    about = EvaluateConfig(weights=weights, backbone=backbone, **labelled_images(config))
    if rows:
        about = replace(about, size=rows[0].config.views.size)
    return about, out / "cells" / f"{slug(name)}_{digest(name)}.npz"  # `a-b` and `a_b` have one slug


def _title(weights: str, config: CompareConfig) -> str:
    """The file's name, with as many of the folders above it as tell it from the other files."""
    others = {file for name in config.external if (file := _file_and_backbone(name)[0]) != weights}
    parts = Path(weights).parts
    for count in range(1, len(parts)):
        if all(Path(other).parts[-count:] != parts[-count:] for other in others):
            return "/".join(parts[-count:])
    return weights


def _line(name: str, title: str, kind: str, backbone: str, found: Mapping[int, CellScores]) -> Line:
    outcomes, ranks = ({s: getattr(e, what) for s, e in found.items()} for what in ("outcomes", "effective_rank"))
    precisions = frozenset(each.precision for each in found.values())
    return Line(name, title, kind, outcomes, ranks, backbone=backbone, precisions=precisions)


def _file_and_backbone(name: str) -> tuple[str, str | None]:
    """An external row's file and, where it says so after a question mark, its backbone's name.

    Raises:
        UsageError: something else is said there.
    """
    weights, mark, said = name.partition("?")
    if not mark or Path(name).exists():
        return name, None
    try:
        given = dict(parse_qsl(said, strict_parsing=True))
    except ValueError:
        given = {}
    if set(given) != {"backbone"}:
        raise UsageError(f"external: expected FILE or FILE?backbone=NAME, found {name!r}")
    return weights, given["backbone"]


def _score_untrained(
    settings: PretrainConfig, seed: int, config: CompareConfig, labelled: str, out: Path, console: Console
) -> CellScores:
    """Of the random weights that a run with this seed begins with, which are on the disk only meanwhile."""
    named = f"{slug(f'{RANDOM}, {settings.backbone}')}_s{seed}_{key_of(replace(settings, seed=seed), '')}"
    kept = out / "cells" / f"{named}.npz"
    v = settings.views
    with TemporaryDirectory() as folder:  # not among the cells: a process that is killed would leave it there
        file = Path(folder) / RANDOM / f"{named}.safetensors"  # as it stands in the protocol that is kept
        about = EvaluateConfig(weights=str(file), size=v.size, **labelled_images(config))
        if (found := kept_scores(about, config, labelled, kept)) is not None:
            return found
        torch.manual_seed(seed)
        learner = build_learner(settings)
        metadata = BackboneMetadata(
            settings.backbone, settings.in_chans, which="random", mean=v.mean, std=v.std, low=v.low or None,
            high=v.high or None, size=v.size,
        )  # fmt: skip
        save_backbone(file, learner.backbone, metadata)
        return score(about, config, labelled, kept, f"{RANDOM}, {settings.backbone}, seed {seed}", console)
