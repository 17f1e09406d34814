"""What pre-training is told before it begins: settings that are allowed but seldom meant, or that nothing reads."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from cmid.config import PretrainConfig


def cautions(config: PretrainConfig, images: int) -> list[str]:
    """What is allowed but seldom meant, each with a number to use instead."""
    notes, c, o = [], config.cmid, config.optimizer
    ours = config.method == "cmid"
    queue = getattr(getattr(config, config.method), "queue_size", 0) if config.method != "swav" else 0
    if ours and not (c.global_weight and c.global_form == "moco"):
        queue = 0
    if not o.warmup_steps and o.warmup_epochs > config.epochs / 3:
        notes.append(
            f"the rate warms up over {o.warmup_epochs:g} of {config.epochs} epochs and hardly gets to its full height; "
            f"optimizer.warmup_epochs {config.epochs / 10:g} would be a tenth of them"
        )
    if not config.knn.data and (given := _changed("knn", config.knn)):
        notes.append(f"no kNN is computed: {', '.join(given)} is given, but knn.data, the images to look at, is not")
    notes += [f"not used, as {why}: {', '.join(names)}" for why, names in _idle_in_cmid(config)]
    if queue > 2 * images:
        notes.append(
            f"a queue of {queue:,} holds each of {images:,} images more than once, so that images are told from "
            f"themselves; {config.method}.queue_size {max(config.batch_size, images // 2)} or less would not"
        )
    if config.method == "swav" and config.swav.prototypes > images:
        notes.append(
            f"{config.swav.prototypes:,} prototypes for {images:,} images: most of them would stand for no image; "
            f"swav.prototypes {max(2, images // 10)} is plenty"
        )
    if ours and c.local_weight and c.local_temperature_epochs > config.epochs:
        notes.append(
            f"the local teacher's temperature rises over {c.local_temperature_epochs} epochs and is not through after "
            f"{config.epochs}; cmid.local_temperature_epochs {config.epochs} would be"
        )
    return notes


def _idle_in_cmid(config: PretrainConfig) -> Iterator[tuple[str, list[str]]]:
    """Settings of CMID's that were changed although the branch or form that reads them is off, and why it is."""
    if config.method != "cmid":
        return
    c, changed = config.cmid, _changed("cmid", config.cmid)
    without_queue, without_predictor = (not c.global_weight or c.global_form == form for form in ("byol", "moco"))
    off = [
        (not c.global_weight, "cmid.global_weight is 0", ("global_form", "global_hidden", "global_dim")),
        (without_queue, "the global branch has no queue", ("temperature", "queue_size")),
        (without_predictor, "the global branch has no predictor", ("predictor_hidden",)),
        (not c.reconstruction_weight, "cmid.reconstruction_weight is 0", ("frequency_weight",)),
        (not c.local_weight, "cmid.local_weight is 0", ("local_", "centre_momentum")),
    ]
    for is_off, why, starts in off:
        names = [name for name in changed if name.removeprefix("cmid.").startswith(starts)]
        if is_off and (names := [name for name in names if name != "cmid.local_weight"]):
            yield why, names


def _changed(group: str, settings: Any) -> list[str]:
    """The fields of a group of settings that are not at their defaults, by their full names."""
    return [f"{group}.{each.name}" for each in fields(settings) if getattr(settings, each.name) != each.default]
