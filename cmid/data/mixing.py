"""What fine-tuning does to labelled images: RandAugment in the workers; erasing, mixup and cutmix on the device.

All three are timm's, which draws from Python's and numpy's global generators. They are seeded here for each crop or
batch, from the numbers that are the run's own, and put back afterwards.
"""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn

from cmid.config import MixingConfig
from cmid.contracts import Views
from cmid.errors import UsageError
from cmid.ops.normalise import normalise

POLICY = re.compile(r"rand(-(m|n|p|mstd|mmax|inc|t)[0-9.]+)+(-w[0-9a-z]+)?")
TRANSLATED = 0.45
"""Greatest shift of RandAugment as a share of the crop's side, timm's choice for training."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's and numpy's global generators begin at `seed`, and afterwards go on where they were."""
    kept, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - timm draws from it
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(numbers)  # noqa: NPY002


class RandAugment:
    """timm's RandAugment on a crop of three 8-bit colours (Cubuk et al., arXiv 1909.13719).

    Args:
        policy: in timm's words, such as `rand-m9-mstd0.5-inc1`.
        size: side of the crops in pixels.
        mean: per band on 0..1, the colour of what moves into the picture.

    Raises:
        UsageError: timm does not know the policy.
    """

    def __init__(self, policy: str, size: int, mean: tuple[float, ...]) -> None:
        filled = tuple(min(255, round(255 * each)) for each in mean)
        try:
            if not POLICY.fullmatch(policy):  # timm passes over what it does not know
                raise ValueError
            self._policy = rand_augment_transform(
                policy, {"translate_const": int(TRANSLATED * size), "img_mean": filled}
            )
            for op in self._policy.ops:
                if op.name.startswith("Posterize"):
                    op.level_fn = partial(_one_bit_or_more, op.level_fn)
        except (AssertionError, ValueError, KeyError) as error:
            raise UsageError(
                f"mixing.randaugment is {policy!r}; expected timm's words, such as rand-m9-mstd0.5-inc1, or nothing"
            ) from error

    def __call__(self, crop: Tensor, seed: int) -> None:
        """Changes `(3, S, S)` uint8 in place."""
        image = Image.fromarray(np.ascontiguousarray(crop.permute(1, 2, 0).numpy()))
        with seeded(seed):
            changed = self._policy(image)
        crop.copy_(torch.from_numpy(np.asarray(changed).copy()).permute(2, 0, 1))


def _one_bit_or_more(level_fn: Callable[..., tuple[int, ...]], level: float, hparams: Any) -> tuple[int, ...]:
    """Departure: at its greatest level timm leaves a picture no bit, which made it black; Pillow 13 refuses it."""
    return tuple(max(1, bits) for bits in level_fn(level, hparams))


class TrainingBatch(nn.Module):
    """Crops as the workers cut them to what a task learns from: normalised, erased, mixed with their labels.

    Args:
        mean, std: per band, on 0..1.
        mixing: probabilities and strengths.
        classes: K.
        smoothing: of mixed labels.
        multi_label: labels are `(B, K)`; such images are not mixed.
    """

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        mixing: MixingConfig,
        *,
        classes: int,
        smoothing: float = 0.0,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        self.mean, self.std, self.erasing = mean, std, mixing.erasing
        self.mix = None
        if not multi_label and (mixing.mixup > 0 or mixing.cutmix > 0):
            self.mix = Mixup(
                mixup_alpha=mixing.mixup, cutmix_alpha=mixing.cutmix, prob=mixing.mix_p, switch_prob=mixing.switch_p,
                label_smoothing=smoothing, num_classes=classes,
            )  # fmt: skip

    @torch.no_grad()
    def forward(self, batch: Views) -> Views:
        """The same crops as float32; labels `(B,)` become `(B, K)` float where images are mixed."""
        view, labels = batch[0], batch.labels
        device = view.images.device
        with seeded(int(torch.randint(1 << 31, ()))), torch.autocast(device.type, enabled=False):
            images = normalise(view.images, self.mean, self.std)
            if self.erasing > 0:
                images = RandomErasing(self.erasing, mode="pixel", device=device)(images)
            if self.mix is not None:
                images, labels = self._mixed(images, labels)
        return replace(batch, crops=(view.with_images(images),), labels=labels)

    def _mixed(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each image with its mirror in the batch; of an odd batch the first, with a copy of the last."""
        assert self.mix is not None and labels is not None
        count = len(images)
        if count % 2:
            images, labels = torch.cat((images, images[-1:])), torch.cat((labels, labels[-1:]))
        images, labels = self.mix(images, labels)
        return images[:count], labels[:count]
