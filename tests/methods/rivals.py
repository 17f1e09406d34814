"""Small builds of the methods that CMID is compared with, and batches for them; one row a method."""

import torch

from cmid.backbones import create_backbone
from cmid.config import (
    BarlowTwinsConfig,
    BYOLConfig,
    IndexNetConfig,
    MAEConfig,
    MoCoV2Config,
    SeCoConfig,
    SimMIMConfig,
    SupervisedConfig,
    SwAVConfig,
)
from cmid.contracts import Learner, View, Views
from cmid.methods.barlow_twins import BarlowTwins
from cmid.methods.byol import BYOL
from cmid.methods.indexnet import IndexNet
from cmid.methods.mae import MAE
from cmid.methods.moco_v2 import MoCoV2
from cmid.methods.seco import SeCo
from cmid.methods.simmim import SimMIM
from cmid.methods.supervised import Supervised
from cmid.methods.swav import SwAV


def byol(backbone):
    return BYOL(create_backbone(backbone, mask_stage=None), BYOLConfig(hidden=32, dim=16, momentum=0.9))


def moco_v2(backbone, **settings):
    small = {"hidden": 32, "dim": 16, "queue_size": 20, "momentum": 0.9}
    return MoCoV2(create_backbone(backbone, mask_stage=None), MoCoV2Config(**small | settings))


def seco(backbone, **settings):
    small = {"hidden": 32, "dim": 16, "queue_size": 20, "momentum": 0.9, "temperature": 0.2}
    return SeCo(create_backbone(backbone, mask_stage=None), SeCoConfig(**small | settings))


def barlow_twins(backbone, **settings):
    small = {"hidden": 32, "dim": 16}
    return BarlowTwins(create_backbone(backbone, mask_stage=None), BarlowTwinsConfig(**small | settings))


def swav(backbone, **settings):
    """Its queue is full of random rows, so that they count at once."""
    small = {"hidden": 32, "dim": 16, "prototypes": 12, "freeze_epochs": 0, "queue_size": 6, "queue_start_epoch": 0}
    model = SwAV(create_backbone(backbone, mask_stage=None), SwAVConfig(**small | settings))
    if model.config.queue_size:
        model.queue.copy_(torch.nn.functional.normalize(torch.randn_like(model.queue), dim=-1))
        model.queue_filled.fill_(model.config.queue_size)
    return model


def simmim(backbone):
    return SimMIM(create_backbone(backbone, mask_token="replace", img_size=64), SimMIMConfig(mask_ratio=0.5))


def indexnet(backbone, **settings):
    small = {"index_grid": 3, "hidden": 32, "dim": 16, "predictor_hidden": 24, "momentum": 0.9}
    return IndexNet(create_backbone(backbone, mask_stage=None), IndexNetConfig(**small | settings))


def mae(backbone):
    config = MAEConfig(decoder_width=32, decoder_depth=2, decoder_heads=4)
    return MAE(create_backbone(backbone, mask_stage=None, img_size=64), config)


def supervised(backbone):
    return Supervised(create_backbone(backbone, mask_stage=None), SupervisedConfig(classes=3))


RIVALS = {
    "byol": (byol, "test_resnet", 2),
    "moco_v2": (moco_v2, "test_resnet", 2),
    "seco": (seco, "test_resnet", 4),
    "barlow_twins": (barlow_twins, "test_resnet", 2),
    "swav": (swav, "test_resnet", 2),
    "simmim": (simmim, "test_resnet", 1),
    "indexnet": (indexnet, "test_resnet", 2),
    "mae": (mae, "test_vit", 1),
    "supervised": (supervised, "test_resnet", 1),
}
"""Name: how it is built, a backbone for it, and how many crops it takes."""
SMALL_CROPS = {"swav": 3}
"""Crops of half the size, for those that take some."""


def learner(name: str, backbone: str | None = None, seed: int = 0, **settings) -> Learner:
    build, usual, _ = RIVALS[name]
    torch.manual_seed(seed)
    return build(backbone or usual, **settings).train()


def batch(name: str, count: int = 4, size: int = 64, seed: int = 0) -> Views:
    """Crops of noise, of as many views as the method takes."""
    g = torch.Generator().manual_seed(seed)
    views = []
    for side in [size] * RIVALS[name][2] + [size // 2] * SMALL_CROPS.get(name, 0):
        start = torch.rand(count, 2, generator=g) * 30
        images = torch.randn(count, 3, side, side, generator=g)
        flipped = torch.rand(count, generator=g) < 0.5
        views.append(View(images, torch.cat((start, start + 60), 1), flipped))
    labels = torch.arange(count) % 3
    return Views(tuple(views), torch.arange(count), labels=labels)


def rows(views: Views, chosen: slice) -> Views:
    """Some images of a batch."""
    crops = tuple(v.rows(chosen) for v in views)
    labels = None if views.labels is None else views.labels[chosen]
    return Views(crops, views.indices[chosen], labels=labels)
