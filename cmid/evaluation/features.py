"""Frozen features: each image becomes one vector, the mean of the backbone's last map over its positions."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from cmid.contracts import Backbone
from cmid.errors import CmidError, NotFinite
from cmid.ops.transfer import to_device

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Normalised images `(B, C, H, W)` float and their class numbers `(B,)` int64."""

Module = TypeVar("Module", bound=nn.Module)
AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


@torch.no_grad()
def extract_features(
    backbone: Backbone,
    batches: Iterable[Batch],
    device: torch.device | str,
    precision: Literal["32", "bf16", "16"] = "32",
    stages: Sequence[int] = (-1,),
) -> tuple[Tensor, Tensor]:
    """Pooled features of every image, in evaluation mode and without gradient.

    Args:
        backbone: already on `device`; every module is back in its own mode afterwards.
        batches: images `(B, C, H, W)` float, normalised, with labels `(B,)`.
        device: where the forward runs.
        precision: of the forward; pooling is in float32.
        stages: maps of the pyramid that are pooled and set side by side.

    Returns:
        Features `(N, D)` float32 and labels `(N,)` int64, both on the CPU, in the order of `batches`.

    Raises:
        CmidError: where there is no image; NotFinite, which is one, where a feature is not a finite number.
    """
    device = torch.device(device)
    memory_format = memory_format_of(backbone)
    features, labels = [], []
    with evaluation_mode(backbone):
        for images, numbers in batches:
            images = to_device(images, device).contiguous(memory_format=memory_format)
            with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
                pyramid = backbone(images)
            pooled = [pyramid[stage].float().mean(dim=(2, 3)) for stage in stages]
            features.append(torch.cat(pooled, dim=1).cpu())
            labels.append(numbers.cpu())
    if not features:
        raise CmidError("Features were asked for, but there is no image to compute them from.")
    stacked = torch.cat(features)
    bad = int((~stacked.isfinite().all(dim=1)).sum())
    if bad:
        raise NotFinite(
            f"Finite features were expected, but {bad} of {len(stacked)} images have NaN or infinite ones. The weights "
            "may have diverged: take an earlier checkpoint, or try --precision 32."
        )
    return stacked, torch.cat(labels).long()


def placed(module: Module, device: torch.device) -> Module:
    """`module` on `device`, on a GPU with convolutions in the memory format that its tensor cores compute in."""
    module.to(device)
    return module.to(memory_format=torch.channels_last) if device.type == "cuda" else module


def memory_format_of(backbone: nn.Module) -> torch.memory_format:
    """The images' format follows the weights', so that no convolution reorders them again."""
    kernels = (p for p in backbone.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    follows = any(not p.is_contiguous() and p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    return torch.channels_last if follows else torch.contiguous_format


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Each module's own mode is restored: parts may have been frozen in evaluation mode on purpose."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
