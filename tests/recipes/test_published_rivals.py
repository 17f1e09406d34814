"""The recipes of the rivals hold the numbers of their papers or published code, typed here once more from those."""

import pytest

from cmid.commands.learners import METHODS
from cmid.commands.settings import resolve
from cmid.config import PretrainConfig
from cmid.train.optimisers import scaled_lr

STRONG = (0.4, 0.4, 0.2, 0.1)  # colour jitter of BYOL, which Barlow Twins took over
MOCO = (0.4, 0.4, 0.4, 0.1)
BYOLS = {
    "colour_jitter": STRONG, "grey_p": 0.2, "blur_p": 1.0, "second_blur_p": 0.1, "solarize_p": 0.0,
    "second_solarize_p": 0.2, "noise_p": 0.0, "scale": (0.08, 1.0),
}  # fmt: skip
MOCOS = {"colour_jitter": MOCO, "grey_p": 0.2, "blur_p": 0.5, "solarize_p": 0.0, "noise_p": 0.0, "scale": (0.2, 1.0)}
# Of each: epochs, images a step, optimiser, its rate at that batch, momenta, weight decay, epochs of warm-up; crops and
# colours; the method's own numbers.
PAPERS = {
    "byol-resnet50": (
        (300, 4096, "lars", 4.8, (0.9,), 1e-6, 10), BYOLS,
        {"hidden": 4096, "dim": 256, "momentum": 0.99, "momentum_end": 1.0},
    ),
    "barlow_twins-resnet50": (
        (1000, 2048, "lars", 1.6, (0.9,), 1.5e-6, 10), BYOLS,
        {"hidden": 8192, "dim": 8192, "redundancy_weight": 0.0051, "loss_scale": 0.024},
    ),
    "moco_v2-resnet50": (
        (200, 256, "sgd", 0.03, (0.9,), 1e-4, 0), MOCOS,
        {"hidden": 2048, "dim": 128, "queue_size": 65536, "temperature": 0.2, "momentum": 0.999},
    ),
    "seco-resnet50": (
        (200, 256, "sgd", 0.03, (0.9,), 1e-4, 0), MOCOS,
        {"hidden": 2048, "dim": 128, "queue_size": 16384, "temperature": 0.07, "momentum": 0.999},
    ),
    "swav-resnet50": (
        (200, 256, "lars", 0.6, (0.9,), 1e-6, 0),
        {"colour_jitter": (0.8, 0.8, 0.8, 0.2), "grey_p": 0.2, "blur_p": 0.5, "solarize_p": 0.0, "noise_p": 0.0,
         "scale": (0.14, 1.0), "small_crops": 6, "small_size": 96, "small_scale": (0.05, 0.14)},
        {"hidden": 2048, "dim": 128, "prototypes": 3000, "temperature": 0.1, "sinkhorn_iterations": 3,
         "sinkhorn_epsilon": 0.05, "freeze_epochs": 1, "queue_size": 3840, "queue_start_epoch": 15},
    ),
    "mae-vit-b": (
        (800, 4096, "adamw", 2.4e-3, (0.9, 0.95), 0.05, 40), {"scale": (0.2, 1.0)},
        {"mask_ratio": 0.75, "decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16, "normalise_pixels": True},
    ),
    "simmim-swin-b": (
        (100, 2048, "adamw", 8e-4, (0.9, 0.999), 0.05, 10), {"size": 192, "scale": (0.67, 1.0)},
        {"mask_ratio": 0.6, "mask_cell_px": 32},
    ),
    "indexnet-resnet50": (
        (400, 64, "sgd", 0.03, (0.0,), 1.5e-6, 0), MOCOS | {"turn": 0.3, "noise_p": 0.6},
        {"index_grid": 7, "index_weight": 1.0, "hidden": 4096, "dim": 256, "predictor_hidden": 512, "momentum": 0.996,
         "momentum_end": 1.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_published_numbers(name):
    config = resolve(PretrainConfig, recipe=name)
    (epochs, images, optimiser, lr, betas, decay, warmup), views, own = PAPERS[name]
    o = config.optimizer
    assert (config.epochs, config.batch_size * config.train.accumulate) == (epochs, images)
    assert (o.name, o.betas, o.weight_decay, o.warmup_epochs) == (optimiser, betas, decay, warmup)
    assert scaled_lr(o, images)[0] == pytest.approx(lr)
    assert {key: getattr(config.views, key) for key in views} == views
    assert {key: getattr(getattr(config, config.method), key) for key in own} == own


def test_which_crops_each_method_recolours():
    """Masked methods paint what was photographed; SeCo's first view of each pair of dates keeps its colours."""
    assert {name: method.recoloured for name, method in METHODS.items()} == {
        "cmid": "later", "seco": "alternate", "mae": "none", "simmim": "none",
        **dict.fromkeys(("byol", "moco_v2", "barlow_twins", "swav", "indexnet", "supervised"), "all"),
    }  # fmt: skip
