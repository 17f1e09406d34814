"""A learner from settings: the one place where a method is given its backbone."""

from cmid.backbones import create_backbone
from cmid.config import PretrainConfig
from cmid.contracts import Learner
from cmid.errors import UsageError, did_you_mean
from cmid.methods.cmid import CMID

METHODS = ("cmid",)


def build_learner(config: PretrainConfig) -> Learner:
    """The method of `config` on its backbone, on the CPU, with fresh weights from torch's default generator.

    Raises:
        UsageError: unknown method or backbone (with the nearest), or settings that do not fit together.
    """
    if config.method not in METHODS:
        raise UsageError(
            f"no method is called {config.method!r}.{did_you_mean(config.method, METHODS)} Known: {', '.join(METHODS)}."
        )
    c = config.cmid
    backbone = create_backbone(
        config.backbone,
        config.in_chans,
        mask_stage=c.mask_stage,
        mask_token=c.mask_token,
        drop_path=config.drop_path,
        img_size=config.views.size,
    )
    if not -len(backbone.channels) <= c.local_stage < len(backbone.channels):
        raise UsageError(
            f"cmid.local_stage names map {c.local_stage}, but {config.backbone} has {len(backbone.channels)} maps, "
            f"0 to {len(backbone.channels) - 1} or -1 for the coarsest"
        )
    if backbone.mask_stride and c.mask_cell_px % backbone.mask_stride:
        raise UsageError(
            f"cmid.mask_cell_px is {c.mask_cell_px}, but a mask cell must be a whole number of {config.backbone}'s "
            f"positions of {backbone.mask_stride} px: take a multiple of that which divides views.size "
            f"{config.views.size}"
        )
    for stride, what in ((backbone.strides[-1], f"the coarsest stride of {config.backbone}"), (c.mask_cell_px, "cell")):
        if config.views.size % stride:
            raise UsageError(
                f"views.size {config.views.size} is not a multiple of {stride} px ({what}): take "
                f"{config.views.size // stride * stride or stride} or {-(-config.views.size // stride) * stride}, or "
                "another cmid.mask_cell_px"
            )
    try:
        return CMID(backbone, c)
    except ValueError as error:
        raise UsageError(str(error)) from error
