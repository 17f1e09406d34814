"""A learner from settings: the one place where a method is given its backbone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from cmid.backbones import create_backbone
from cmid.backbones.timm_backbone import TimmBackbone
from cmid.config import PretrainConfig, ViewConfig
from cmid.contracts import Learner
from cmid.errors import UsageError, did_you_mean, is_out_of_memory, multiples
from cmid.methods.barlow_twins import BarlowTwins
from cmid.methods.byol import BYOL
from cmid.methods.cmid import CMID
from cmid.methods.indexnet import IndexNet
from cmid.methods.mae import MAE
from cmid.methods.moco_v2 import MoCoV2
from cmid.methods.seco import SeCo
from cmid.methods.simmim import SimMIM
from cmid.methods.supervised import Supervised
from cmid.methods.swav import SwAV
from cmid.ops.masking import hidden_of


@dataclass(frozen=True)
class Method:
    """What is to be known of a method before it is built; its numbers are the group of settings of its name.

    Attributes:
        title: how people write it.
        crops: crops of `views.size` that it takes of each image.
        recoloured: which of them get other colours, by its paper.
        build: the learner, on the CPU.
        small: whether it takes small crops beside them.
        labelled: whether it learns from labels.
        dates: from which of the dates drawn of a place each crop is cut; empty: from the one image there is.
    """

    title: str
    crops: int
    recoloured: Literal["later", "all", "none", "alternate"]
    build: Callable[[PretrainConfig], Learner]
    small: bool = False
    labelled: bool = False
    dates: tuple[int, ...] = ()


def build_learner(config: PretrainConfig) -> Learner:
    """The method of `config` on its backbone, on the CPU, with fresh weights from torch's default generator.

    Raises:
        UsageError: unknown method or backbone (with the nearest), or settings that do not fit together.
    """
    check_small_crops(config)
    try:
        return method_of(config).build(config)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError(
            f"the memory of this machine cannot hold {config.method} on {config.backbone} as it is set: lower the "
            f"sizes of its heads or queue ({config.method}.*), or take a smaller backbone"
        ) from error


def method_of(config: PretrainConfig) -> Method:
    """The method's row of `METHODS`; `UsageError` with the nearest names where there is none."""
    if config.method not in METHODS:
        raise UsageError(
            f"no method is called {config.method!r}.{did_you_mean(config.method, METHODS)} Known: {', '.join(METHODS)}."
        )
    return METHODS[config.method]


def check_small_crops(config: PretrainConfig) -> None:
    """Raises `UsageError` where small crops are asked for and the method takes none."""
    if config.views.small_crops and not method_of(config).small:
        some = ", ".join(name for name, each in METHODS.items() if each.small)
        raise UsageError(
            f"views.small_crops is {config.views.small_crops}, but {config.method} takes no small crops: set it to 0, "
            f"or take a method that does ({some})"
        )


def views_of(config: PretrainConfig) -> ViewConfig:
    """The settings of the views, with what the method decides filled in."""
    views = config.views
    return replace(views, recoloured=method_of(config).recoloured) if views.recoloured == "method" else views


def _cmid(config: PretrainConfig) -> Learner:
    c = config.cmid
    backbone = masked_backbone(config, c.mask_stage, c.mask_token, c.mask_cell_px, "cmid")
    if not -len(backbone.channels) <= c.local_stage < len(backbone.channels):
        raise UsageError(
            f"cmid.local_stage names map {c.local_stage}, but {config.backbone} has {len(backbone.channels)} maps, "
            f"0 to {len(backbone.channels) - 1} or -1 for the coarsest"
        )
    return CMID(backbone, c)


def _moco_v2(config: PretrainConfig) -> Learner:
    _check_groups(config, config.moco_v2.batch_norm_groups)
    return MoCoV2(whole_backbone(config), config.moco_v2)


def _seco(config: PretrainConfig) -> Learner:
    _check_groups(config, config.seco.batch_norm_groups)
    return SeCo(whole_backbone(config), config.seco)


def _check_groups(config: PretrainConfig, groups: int) -> None:
    if config.batch_size % groups:
        raise UsageError(
            f"{config.method}.batch_norm_groups is {groups}, but a batch of {config.batch_size} images falls into no "
            f"{groups} groups of one size: take a divisor of batch_size"
        )


def _swav(config: PretrainConfig) -> Learner:
    backbone, views = whole_backbone(config), config.views
    if views.small_crops and backbone.fixed_size not in (None, (views.small_size, views.small_size)):
        raise UsageError(
            f"{config.backbone} takes crops of one size only: set views.small_size to {views.size} or "
            "views.small_crops to 0, or take a backbone that takes any size, such as resnet50 or a Swin"
        )
    return SwAV(backbone, config.swav)


def _simmim(config: PretrainConfig) -> Learner:
    return SimMIM(masked_backbone(config, 0, "replace", config.simmim.mask_cell_px, "simmim"), config.simmim)


def _mae(config: PretrainConfig) -> Learner:
    learner = MAE(whole_backbone(config), config.mae)
    patch_px = learner.backbone.patch_px
    patches = (config.views.size // patch_px) ** 2
    if hidden_of(patches, config.mae.mask_ratio) >= patches:
        raise UsageError(
            f"mae.mask_ratio {config.mae.mask_ratio} leaves none of {patches} patches of {patch_px} px to be "
            f"seen: lower it, or raise views.size {config.views.size}"
        )
    return learner


def whole_backbone(config: PretrainConfig) -> TimmBackbone:
    """The backbone of a method that hides nothing.

    Raises:
        UsageError: no such backbone, or crops that its strides do not divide.
    """
    backbone = create_backbone(
        config.backbone,
        config.in_chans,
        mask_stage=None,
        drop_path=config.drop_path,
        img_size=config.views.size,
    )
    _check_size(config, backbone.strides[-1], f"the coarsest stride of {config.backbone}")
    return backbone


def masked_backbone(
    config: PretrainConfig, stage: int, token: Literal["add", "replace"], cell_px: int, group: str
) -> TimmBackbone:
    """The backbone of a method that hides cells of `cell_px` pixels; `group` names its settings in errors.

    Raises:
        UsageError: no such backbone, one without a place for the mask token, or crops, cells and strides that do not
            divide one another.
    """

    def created(stage: int) -> TimmBackbone:
        return create_backbone(
            config.backbone,
            config.in_chans,
            mask_stage=stage,
            mask_token=token,
            drop_path=config.drop_path,
            img_size=config.views.size,
        )

    backbone = created(stage)
    if backbone.mask_stride is None:
        advice, at = "name another --backbone, such as resnet50, a ConvNeXt, a ViT or a Swin", ""
        if hasattr(getattr(config, group), "mask_stage"):
            others = [str(i) for i in range(len(backbone.strides)) if i != stage and created(i).mask_token is not None]
            advice = f"set {group}.mask_stage to one of {', '.join(others)}, or {advice}" if others else advice
            at = f" at {group}.mask_stage {stage}"
        raise UsageError(
            f"{method_of(config).title} hides cells behind a mask token, and {config.backbone} has no known place for "
            f"it{at}: {advice}; or take a --method that hides nothing, such as byol"
        )
    if cell_px % backbone.mask_stride:
        raise UsageError(
            f"{group}.mask_cell_px is {cell_px}, but a mask cell must be a whole number of {config.backbone}'s "
            f"positions of {backbone.mask_stride} px: take a multiple of that which divides views.size "
            f"{config.views.size}"
        )
    _check_size(config, backbone.strides[-1], f"the coarsest stride of {config.backbone}")
    _check_size(config, cell_px, "cell", group)
    return backbone


def _check_size(config: PretrainConfig, stride: int, what: str, group: str | None = None) -> None:
    size = config.views.size
    if size % stride:
        other = f", or another {group}.mask_cell_px" if group else ""
        raise UsageError(
            f"views.size {size} is not a multiple of {stride} px ({what}): take {multiples(size, stride)}{other}"
        )
    if config.views.small_crops and config.views.small_size % stride:
        raise UsageError(
            f"views.small_size {config.views.small_size} is not a multiple of {stride} px ({what}): take "
            f"{-(-config.views.small_size // stride) * stride}"
        )


METHODS = {
    "cmid": Method("CMID", 2, "later", _cmid),
    "byol": Method("BYOL", 2, "all", lambda config: BYOL(whole_backbone(config), config.byol)),
    "moco_v2": Method("MoCo v2", 2, "all", _moco_v2),
    "seco": Method("SeCo", 4, "alternate", _seco, dates=(0, 1, 2, 0)),
    "barlow_twins": Method(
        "Barlow Twins", 2, "all", lambda config: BarlowTwins(whole_backbone(config), config.barlow_twins)
    ),
    "swav": Method("SwAV", 2, "all", _swav, small=True),
    "simmim": Method("SimMIM", 1, "none", _simmim),
    "indexnet": Method("IndexNet", 2, "all", lambda config: IndexNet(whole_backbone(config), config.indexnet)),
    "mae": Method("MAE", 1, "none", _mae),
    "supervised": Method("supervised", 1, "all", lambda c: Supervised(whole_backbone(c), c.supervised), labelled=True),
}
