"""What a classifier says of images: a row of probabilities each."""

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from cmid.contracts import Backbone
from cmid.errors import CmidError, NotFinite
from cmid.evaluation.features import AUTOCAST, Batch, evaluation_mode, memory_format_of
from cmid.ops.transfer import to_device


class NamesClasses(Protocol):
    """A task with probabilities, as `cmid.tasks.classification.Classifier`."""

    backbone: Backbone

    def probabilities(self, images: Tensor) -> Tensor:
        """`(B, K)` float32 of normalised images `(B, C, H, W)`."""


@torch.no_grad()
def predict_probabilities(
    task: NamesClasses,
    batches: Iterable[Batch],
    device: torch.device | str,
    precision: Literal["32", "bf16", "16"] = "32",
) -> tuple[Tensor, Tensor]:
    """Probabilities of every image, in evaluation mode and without gradient.

    Args:
        task: a module, already on `device`; every part of it is back in its own mode afterwards.
        batches: images `(B, C, H, W)` float, normalised, with labels `(B,)` or `(B, K)`.
        device: where the forward runs.
        precision: of the forward.

    Returns:
        `(N, K)` float32 and labels `(N,)` or `(N, K)`, both on the CPU, in the order of `batches`.

    Raises:
        CmidError: there is no image; NotFinite, which is one, where a probability is not a finite number.
    """
    device, rows, labels = torch.device(device), [], []
    layout = memory_format_of(task.backbone)
    with evaluation_mode(task):  # type: ignore[arg-type]
        for images, numbers in batches:
            images = to_device(images, device).contiguous(memory_format=layout)
            with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
                rows.append(task.probabilities(images).float().cpu())
            labels.append(numbers.cpu())
    if not rows:
        raise CmidError("Classes were asked for, but there is no image that can be read.")
    found = torch.cat(rows)
    if not found.isfinite().all():
        bad = int((~found.isfinite().all(dim=1)).sum())
        finer = "" if precision == "32" else ", or try --precision 32 (of cmid finetune: --train.precision 32)"
        raise NotFinite(
            f"Expected finite probabilities, but {bad} of {len(found)} images have none. The weights may have "
            f"diverged: take an earlier checkpoint{finer}."
        )
    return found, torch.cat(labels)


def likely_classes(row: Sequence[float], classes: Sequence[str], threshold: float = 0.5) -> list[str]:
    """The classes whose probability in `row` `(K,)` is above `threshold`, in their order."""
    return [name for name, chance in zip(classes, row, strict=True) if chance > threshold]
