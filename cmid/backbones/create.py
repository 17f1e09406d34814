"""A backbone by its timm name, built so that it takes any number of bands and any size it can."""

import re
from typing import Any, Literal

import timm
from torch import nn

from cmid.backbones.plain_vit import PlainViT, is_plain_vit
from cmid.backbones.shift_masks import remember_shift_masks
from cmid.backbones.swin_padding import pad_before_shift
from cmid.backbones.timm_backbone import TimmBackbone
from cmid.errors import CmidError, UsageError, did_you_mean


def backbone_names(pattern: str = "") -> list[str]:
    """The names `create_backbone` takes that match the shell pattern; all of timm's where it is empty."""
    return timm.list_models(pattern)


def create_backbone(
    name: str,
    in_chans: int = 3,
    *,
    mask_stage: int | None = 0,
    mask_token: Literal["add", "replace"] = "add",
    drop_path: float = 0.0,
    pretrained: bool = False,
    img_size: int | None = None,
    window_padding: Literal["timm", "published"] = "timm",
    **timm_kwargs: Any,
) -> TimmBackbone:
    """A timm model as a `Backbone`, on the CPU, in train mode.

    Args:
        name: any of `backbone_names()`, with or without timm's tag of pre-trained weights.
        in_chans: number of bands.
        mask_stage: where hidden positions get the mask token: 0 after the stem (ResNet: after the max-pool; Swin,
            ViT: after patch embedding), k = 1 .. n - 1 after stage k, on map k - 1 of the pyramid, as the
            published `mask_layer` of a ResNet counts. None builds no token, so that training without masks leaves
            no parameter without gradient.
        mask_token: add the token to what is at a hidden position, or put it in its place.
        drop_path: rate of stochastic depth at the last block, rising linearly from 0.
        pretrained: download timm's weights.
        img_size: side in pixels that position embeddings (ViT) are laid out for, interpolated at other sizes; the
            only size where a model can take but one. Swin and SwinV2 need none: their windows keep their size.
        window_padding: for Swin and SwinV2 where windows do not divide a map: `timm` as timm does, or `published`
            (see `pad_before_shift`).
        timm_kwargs: passed to timm as they are.

    Raises:
        UsageError: unknown name (with the nearest), a model without feature maps, a setting it does not take.
        CmidError: the pre-trained weights could not be had.
    """
    if not timm.is_model(name):
        raise UsageError(
            f"No backbone is called {name!r}.{did_you_mean(name, timm.list_models())} "
            "cmid.backbones.backbone_names() lists all."
        )
    if in_chans < 1:
        raise UsageError(f"in_chans is the number of bands, 1 or more; found {in_chans}.")
    model, fixed_size = _build(name, in_chans, drop_path, pretrained, img_size, timm_kwargs)
    if window_padding == "published":
        pad_before_shift(model)
    remember_shift_masks(model)
    kind = PlainViT if is_plain_vit(model) else TimmBackbone
    return kind(name, model, in_chans, fixed_size=fixed_size, mask_stage=mask_stage, replace=mask_token == "replace")


def _build(
    name: str, in_chans: int, drop_path: float, pretrained: bool, img_size: int | None, timm_kwargs: dict[str, Any]
) -> tuple[nn.Module, tuple[int, int] | None]:
    """The timm model, and the one size in pixels (height, width) it takes, or None where it takes any."""
    cfg = timm.models.get_pretrained_cfg(name)
    wanted: dict[str, Any] = {"drop_path_rate": drop_path}
    if cfg is not None and cfg.fixed_input_size:
        wanted |= {"strict_img_size": False, "dynamic_img_size": True}
    wanted = {key: value for key, value in wanted.items() if key not in timm_kwargs}
    while True:
        try:
            model = timm.create_model(
                name, pretrained=pretrained, in_chans=in_chans, num_classes=0, **wanted, **timm_kwargs
            )
            break
        except TypeError as error:
            # timm's families differ in which of these their constructors know, and say so only when called
            refused = re.search(r"unexpected keyword argument\D*?'(\w+)'", str(error))
            if refused is None:
                raise
            if refused[1] not in wanted:
                raise UsageError(f"{name} takes no setting {refused[1]!r}; leave it out.") from error
            if refused[1] == "drop_path_rate" and drop_path > 0:
                raise UsageError(f"{name} has no stochastic depth; set drop_path to 0, found {drop_path}.") from error
            del wanted[refused[1]]
            if refused[1] == "strict_img_size" and img_size is not None:
                wanted["img_size"] = img_size
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            raise CmidError(
                f"timm's weights for {name} could not be had ({error}). Check the network, or set pretrained to false."
            ) from error
    if cfg is None or not cfg.fixed_input_size or not {"strict_img_size", "dynamic_img_size"}.isdisjoint(wanted):
        return model, None
    height, width = (img_size, img_size) if img_size is not None else cfg.input_size[-2:]
    return model, (height, width)
