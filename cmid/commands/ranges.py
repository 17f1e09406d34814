"""What numbers a setting may have, by its dotted name; a setting that is not here may have any of its type."""

from typing import Any

from cmid.errors import UsageError

SHARE, POSITIVE, COUNT, FROM_ZERO = (0, 1), (1e-12, None), (1, None), (0, None)
"""Least and greatest value, both allowed; None is no bound."""

RANGES: dict[str, tuple[float | None, float | None]] = {
    "epochs": COUNT, "batch_size": COUNT, "in_chans": COUNT, "limit": FROM_ZERO, "max_bad_share": SHARE,
    "read_timeout_s": FROM_ZERO,
    "drop_path": (0, 0.99), "size": COUNT, "count": COUNT, "workers": (-1, None), "minutes": POSITIVE,
    "minutes_each": FROM_ZERO, "draws": COUNT,
    "bootstrap": COUNT, "seed": (0, 2**63 - 1), "seeds": (0, 2**63 - 1), "labels": COUNT,
    "k": COUNT, "temperature": POSITIVE, "regularisation": POSITIVE,
    "validation_share": (0.01, 0.99), "images": COUNT, "map_images": COUNT,
    "views.size": COUNT, "views.scale": (1e-4, 1), "views.ratio": (0.01, 100), "views.flip": SHARE, "views.turn": SHARE,
    "views.colour_jitter": FROM_ZERO, "views.colour_jitter_p": SHARE, "views.blur_p": SHARE,
    "views.blur_sigma": POSITIVE, "views.noise_p": SHARE, "views.noise_var": FROM_ZERO, "views.solarize_p": SHARE,
    "views.grey_p": SHARE, "views.std": POSITIVE, "views.band_gain": SHARE, "views.band_offset": FROM_ZERO,
    "views.band_drop_p": SHARE, "scenes.windows": FROM_ZERO, "scenes.window_px": FROM_ZERO, "scenes.max_nodata": SHARE,
    "scenes.statistics": COUNT, "shard_mb": COUNT, "window_px": COUNT, "step_px": COUNT, "labels.tile_px": (64, None),
    "views.small_crops": FROM_ZERO, "views.small_size": COUNT, "views.small_scale": (1e-4, 1),
    "views.second_blur_p": SHARE, "views.second_solarize_p": SHARE,
    "cmid.mask_ratio": (0.01, 1), "cmid.mask_cell_px": COUNT, "cmid.mask_stage": (0, None),
    "cmid.reconstruction_weight": FROM_ZERO, "cmid.frequency_weight": FROM_ZERO, "cmid.global_weight": FROM_ZERO,
    "cmid.local_weight": FROM_ZERO, "cmid.global_hidden": COUNT, "cmid.global_dim": COUNT,
    "cmid.predictor_hidden": COUNT, "cmid.temperature": POSITIVE, "cmid.queue_size": COUNT, "cmid.momentum": SHARE,
    "cmid.momentum_end": SHARE, "cmid.local_hidden": COUNT, "cmid.local_bottleneck": COUNT,
    "cmid.local_prototypes": COUNT, "cmid.local_matches": COUNT, "cmid.local_temperature": POSITIVE,
    "cmid.local_teacher_temperature": POSITIVE, "cmid.local_temperature_epochs": FROM_ZERO,
    "cmid.local_start_epoch": (-1, None), "cmid.centre_momentum": SHARE,
    "byol.hidden": COUNT, "byol.dim": COUNT, "byol.momentum": SHARE, "byol.momentum_end": SHARE,
    "moco_v2.hidden": COUNT, "moco_v2.dim": COUNT, "moco_v2.queue_size": COUNT, "moco_v2.temperature": POSITIVE,
    "moco_v2.momentum": SHARE, "moco_v2.batch_norm_groups": COUNT,
    "seco.hidden": COUNT, "seco.dim": COUNT, "seco.queue_size": COUNT, "seco.temperature": POSITIVE,
    "seco.momentum": SHARE, "seco.batch_norm_groups": COUNT,
    "barlow_twins.hidden": COUNT, "barlow_twins.dim": COUNT, "barlow_twins.redundancy_weight": FROM_ZERO,
    "barlow_twins.loss_scale": POSITIVE,
    "swav.hidden": COUNT, "swav.dim": COUNT, "swav.prototypes": COUNT, "swav.temperature": POSITIVE,
    "swav.sinkhorn_iterations": COUNT, "swav.sinkhorn_epsilon": (0.01, None), "swav.freeze_epochs": FROM_ZERO,
    "swav.queue_size": FROM_ZERO, "swav.queue_start_epoch": FROM_ZERO,
    "simmim.mask_ratio": (0.01, 1), "simmim.mask_cell_px": COUNT,
    "indexnet.index_grid": COUNT, "indexnet.index_weight": FROM_ZERO, "indexnet.hidden": COUNT, "indexnet.dim": COUNT,
    "indexnet.predictor_hidden": COUNT, "indexnet.momentum": SHARE, "indexnet.momentum_end": SHARE,
    "mae.mask_ratio": (0.01, 0.99), "mae.decoder_width": COUNT, "mae.decoder_depth": COUNT, "mae.decoder_heads": COUNT,
    "supervised.classes": FROM_ZERO,
    "optimizer.lr": (0, 1e30), "optimizer.lr_reference_batch": FROM_ZERO, "optimizer.betas": (0, 0.999999),
    "optimizer.eps": FROM_ZERO, "optimizer.weight_decay": FROM_ZERO, "optimizer.min_lr": FROM_ZERO,
    "optimizer.warmup_epochs": FROM_ZERO,
    "optimizer.warmup_steps": FROM_ZERO, "optimizer.warmup_ratio": SHARE, "optimizer.clip_norm": FROM_ZERO,
    "optimizer.layer_decay": (1e-3, 1),
    "train.accumulate": COUNT, "train.devices": COUNT, "train.workers": (-1, None), "train.max_steps": FROM_ZERO,
    "train.log_every": COUNT, "train.checkpoint_minutes": FROM_ZERO, "knn.k": COUNT, "knn.every_epochs": COUNT,
    "train.nodes": COUNT, "per_class": FROM_ZERO, "hold_out": (0, 0.9), "test_crop": (0.1, 1), "std": POSITIVE,
    "mixing.scale": (1e-4, 1), "mixing.ratio": (0.01, 100), "mixing.flip": SHARE, "mixing.turn": SHARE,
    "mixing.erasing": SHARE,
    "mixing.mixup": FROM_ZERO, "mixing.cutmix": FROM_ZERO, "mixing.mix_p": SHARE, "mixing.switch_p": SHARE,
    "classification.smoothing": (0, 0.99), "map_limit": FROM_ZERO,
    "train_share": (1e-6, 1), "window": FROM_ZERO,
    "crops.scale": (0.05, 20), "crops.max_share": (0.01, 1), "crops.flip": SHARE, "crops.turn": SHARE,
    "crops.brightness": SHARE,
    "crops.contrast": (0, 0.99), "crops.saturation": (0, 0.99), "crops.hue": (0, 0.5),
    "segmenter.width": COUNT, "segmenter.dropout": (0, 0.99), "segmenter.auxiliary_weight": FROM_ZERO,
    "segmenter.cross_entropy": FROM_ZERO, "segmenter.dice": FROM_ZERO, "segmenter.focal": FROM_ZERO,
    "segmenter.gamma": FROM_ZERO,
    "overlap": (-1, None), "min_area_px": FROM_ZERO,
}  # fmt: skip
ASCENDING = (
    "crops.scale",
    "mixing.scale",
    "mixing.ratio",
    "views.scale",
    "views.small_scale",
    "views.ratio",
    "views.blur_sigma",
    "views.noise_var",
)
"""Pairs whose first must not exceed their second."""


def within_range(name: str, value: Any, source: str) -> None:
    """Raise the UsageError that names setting, bounds and value, unless `value` (or each in it) is in its range."""
    low, high = RANGES.get(name.removeprefix("pretrain."), (None, None))
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        if (low is not None and number < low) or (high is not None and number > high):
            raise UsageError(f"{name} ({source}): expected {bounds(low, high)}, found {number}.")
    if name.removeprefix("pretrain.") in ASCENDING and value[0] > value[1]:
        raise UsageError(f"{name} ({source}): expected the least first, found {value[0]} before {value[1]}.")


def bounds(low: float | None, high: float | None) -> str:
    """A range in words."""
    if low == POSITIVE[0] and high is None:
        return "a number above 0"
    if high is None:
        return f"at least {low}"
    return f"{low} to {high}"
