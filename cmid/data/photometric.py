"""Colours of labelled crops, on their device: the photometric distortion of published segmentation recipes.

Brightness, contrast, saturation and hue are each changed with even odds, contrast before or after the other two.
Source: mmsegmentation's `PhotoMetricDistortion`.

Departure: values are not rounded to 8 bits between the four, and a sample's draws come from torch's generator of the
device. What is not three 8-bit colours gets gain and offset alone, each band its own, by the strengths of contrast and
brightness.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from cmid.config import PixelCropConfig
from cmid.contracts import Views
from cmid.data.augment import adjust_brightness_, shift_hue_
from cmid.data.pixel_crops import PADDING
from cmid.data.pixel_labels import UNLABELLED
from cmid.ops.normalise import normalise


class LabelledBatch(nn.Module):
    """Crops and labels as the workers cut them to what a segmenter learns from.

    Args:
        mean, std: per band, on 0..1.
        crops: strengths of the colours' changes.
        rgb: whether the bands are three 8-bit colours.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], crops: PixelCropConfig, *, rgb: bool) -> None:
        super().__init__()
        self.mean, self.std, self.crops, self.rgb = mean, std, crops, rgb

    @torch.no_grad()
    def forward(self, batch: Views) -> Views:
        """Images float32 and normalised, 0 where they are padding; labels int64, classes or `UNLABELLED`."""
        view, labels = batch[0], batch.labels
        assert labels is not None
        padding = labels == PADDING
        with torch.autocast(view.images.device.type, enabled=False):
            images = view.images.to(torch.float32, copy=True)
            if view.images.dtype == torch.uint8:
                images.mul_(1 / 255)
            images = self.recolour(images) if self.rgb else self.remeasure(images)
            images = normalise(images, self.mean, self.std).masked_fill_(padding[:, None], 0)
        labels = labels.long().masked_fill_(padding, UNLABELLED)
        return replace(batch, crops=(view.with_images(images),), labels=labels)

    def recolour(self, images: Tensor) -> Tensor:
        """Changes `(B, 3, H, W)` float32 in 0..1, in place."""
        c = self.crops
        images.add_(_drawn(images, -c.brightness, c.brightness, 0).view(-1, 1, 1, 1)).clamp_(0, 1)
        contrast, first = _drawn(images, 1 - c.contrast, 1 + c.contrast, 1), _happens(images)
        adjust_brightness_(images, contrast.where(first, 1))
        saturate_(images, _drawn(images, 1 - c.saturation, 1 + c.saturation, 1))
        shift_hue_(images, _drawn(images, -c.hue, c.hue, 0))
        return adjust_brightness_(images, contrast.where(~first, 1))

    def remeasure(self, images: Tensor) -> Tensor:
        """Changes `(B, C, H, W)` float32 around 0..1 in place, each band for itself; not clipped."""
        c, bands = self.crops, images.shape[1]
        gain = _drawn(images, 1 - c.contrast, 1 + c.contrast, 1, bands)
        offset = _drawn(images, -c.brightness, c.brightness, 0, bands)
        return images.mul_(gain[..., None, None]).add_(offset[..., None, None])


def saturate_(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the saturation of HSV of `(B, 3, H, W)` in 0..1 by `factor` `(B,)`, to 1 at most, in place."""
    value = x.amax(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    times = torch.minimum(factor.view(-1, 1, 1, 1), value / chroma.clamp(min=1e-12))
    return x.sub_(value).mul_(times).add_(value).clamp_(0, 1)


def _happens(images: Tensor) -> Tensor:
    return torch.rand(len(images), device=images.device) < 0.5


def _drawn(images: Tensor, low: float, high: float, idle: float, bands: int = 0) -> Tensor:
    """`(B,)`, or `(B, bands)`, uniform in `low` to `high`, or with even odds a sample's are `idle`."""
    size = (len(images), bands) if bands else (len(images),)
    drawn, happens = torch.empty(size, device=images.device).uniform_(low, high), _happens(images)
    return drawn.where(happens.view(-1, 1) if bands else happens, idle)
