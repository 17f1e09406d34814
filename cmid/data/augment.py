"""Colours of a whole batch at once, on its device: jitter, blur, noise, solarisation, grey, normalisation.

Written here because kornia, the library that draws per sample, has one blur kernel and one noise variance for a
whole batch, and takes more than twice as long (benchmarks/views.py). The single operations equal those of torchvision.

Every sample has its own draws; an operation that a sample is spared gets the factor that leaves it alone. The four
parts of the jitter come in a fixed order, brightness, contrast, saturation, hue: an order per sample would compute
each of them four times. All is float32 on 0..1, also under autocast, and clipped where torchvision clips.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmid.config import ViewConfig
from cmid.contracts import View, Views
from cmid.ops.normalise import normalise
from cmid.ops.transfer import to_device

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
BLUR_KERNELS = (3, 5, 7)
SOLARIZE_FROM = 128 / 255


class BatchAugment(nn.Module):
    """Crops of the workers to normalised float32 ones; which of them are recoloured `views.recoloured` says.

    Draws come from torch's default generator of the batch's device. What is no 8-bit RGB (`views.colours` is bands)
    gets what a sensor does instead of what a camera does: a gain, an offset, blur, noise, a band that is missing.
    """

    def __init__(self, views: ViewConfig) -> None:
        super().__init__()
        self.views = views
        self.rgb = views.colours == "rgb" or (views.colours == "auto" and len(views.mean) == 3 and not views.low)

    @torch.no_grad()
    def forward(self, batch: Views) -> Views:
        """The same crops with images `(B, C, S, S)` float32, normalised by the settings' mean and std.

        Raises:
            ValueError: where mean and std are not of C numbers.
        """
        mean, std = self.views.mean, self.views.std
        with torch.autocast(batch.indices.device.type, enabled=False):
            crops: list[View] = []
            for crop in batch:
                images = crop.images
                if self._is_recoloured(len(crops)):
                    images = (self.recolour if self.rgb else self.remeasure)(images, second=len(crops) == 1)
                crops.append(crop.with_images(normalise(images, mean, std)))
        return replace(batch, crops=tuple(crops))

    def _is_recoloured(self, crop: int) -> bool:
        # where no method has been asked there is a weak and a strong view
        chosen = {"method": crop > 0, "later": crop > 0, "all": True, "none": False, "alternate": crop % 2 == 1}
        return chosen[self.views.recoloured]

    def recolour(self, images: Tensor, *, second: bool = False) -> Tensor:
        """Other colours: `(B, 3, H, W)` uint8 to a new float32 tensor in 0..1; `second` as the second crop has them."""
        views, uniform, happens = self.views, *_draws(images)
        x = _as_numbers(images)
        jittered = happens(views.colour_jitter_p)
        brightness, contrast, saturation, hue = views.colour_jitter
        adjust_brightness_(x, uniform(max(0.0, 1 - brightness), 1 + brightness).where(jittered, 1))
        adjust_contrast_(x, uniform(max(0.0, 1 - contrast), 1 + contrast).where(jittered, 1))
        adjust_saturation_(x, uniform(max(0.0, 1 - saturation), 1 + saturation).where(jittered, 1))
        shift_hue_(x, uniform(-hue, hue).where(jittered, 0))
        x = self._blurred(x, second)
        add_noise_(x, self._noise(x)).clamp_(0, 1)
        solarize_(x, happens(_of_crop(views.solarize_p, views.second_solarize_p, second)))
        return adjust_saturation_(x, (~happens(views.grey_p)).float())

    def remeasure(self, images: Tensor, *, second: bool = False) -> Tensor:
        """A crop as another pass of the sensor: `(B, C, H, W)` to a new float32 tensor, not clipped."""
        views, uniform, happens = self.views, *_draws(images)
        x = _as_numbers(images)
        samples, bands = x.shape[:2]
        changed = happens(views.colour_jitter_p)
        for every in (1, bands):  # all bands together, then each by itself
            gain = uniform(1 - views.band_gain, 1 + views.band_gain, every)
            x.mul_(gain.where(changed.view(-1, 1), 1).view(samples, every, 1, 1))
        spread = to_device(torch.tensor(views.std, dtype=torch.float32), x.device)
        offset = uniform(-views.band_offset, views.band_offset, bands) * spread
        x.add_(offset.where(changed.view(-1, 1), 0).view(samples, bands, 1, 1))
        x = self._blurred(x, second)
        add_noise_(x, self._noise(x))
        if bands > 1:
            centre = to_device(torch.tensor(views.mean, dtype=torch.float32), x.device)
            which = torch.randint(bands, (samples, 1), device=x.device) == torch.arange(bands, device=x.device)
            dropped = (which & happens(views.band_drop_p).view(-1, 1)).view(samples, bands, 1, 1)
            x = torch.where(dropped, centre.view(1, bands, 1, 1), x)
        return x

    def _blurred(self, x: Tensor, second: bool) -> Tensor:
        uniform, happens = _draws(x)
        kernel = torch.randint(len(BLUR_KERNELS), (x.shape[0],), device=x.device)
        share = _of_crop(self.views.blur_p, self.views.second_blur_p, second)
        return blur(x, kernel, uniform(*self.views.blur_sigma), happens(share))

    def _noise(self, x: Tensor) -> Tensor:
        """Standard deviation `(B,)` of each sample's noise on the scale 0..1."""
        uniform, happens = _draws(x)
        variance = uniform(*self.views.noise_var).where(happens(self.views.noise_p), 0)
        return variance.sqrt_().mul_(1 / 255)


def _of_crop(every: float, of_second: float | None, second: bool) -> float:
    return of_second if second and of_second is not None else every


def _draws(images: Tensor) -> tuple[Callable[..., Tensor], Callable[[float], Tensor]]:
    """Uniform numbers `(B,)` or `(B, n)`, and coin flips `(B,)`, of each sample of `(B, ...)`."""
    samples, device = images.shape[0], images.device

    def uniform(low: float, high: float, *more: int) -> Tensor:
        return torch.empty(samples, *more, device=device).uniform_(low, high)

    def happens(probability: float) -> Tensor:
        return torch.rand(samples, device=device) < probability

    return uniform, happens


def _as_numbers(images: Tensor) -> Tensor:
    """Float32 around 0..1 of uint8 or float32 `(B, C, H, W)`; a new tensor."""
    x = images.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    return x.mul_(1 / 255) if images.dtype == torch.uint8 else x


def adjust_brightness_(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply `(B, C, H, W)` in 0..1 by `factor` `(B,)`, in place."""
    return x.mul_(factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast_(x: Tensor, factor: Tensor) -> Tensor:
    """Blend `(B, 3, H, W)` in 0..1 with the mean of its grey, by `factor` `(B,)`, in place."""
    grey = to_grey(x)
    factor = factor.view(-1, 1, 1, 1)
    level = grey.mean(dim=(1, 2, 3), keepdim=True)
    return x.mul_(factor).add_(level * (1 - factor)).clamp_(0, 1)


def adjust_saturation_(x: Tensor, factor: Tensor) -> Tensor:
    """Blend `(B, 3, H, W)` in 0..1 with its grey, by `factor` `(B,)`, in place; 0 leaves the grey."""
    factor = factor.view(-1, 1, 1, 1)
    grey = to_grey(x).mul_(1 - factor)
    return x.mul_(factor).add_(grey).clamp_(0, 1)


def to_grey(x: Tensor) -> Tensor:
    """Luma of `(B, 3, H, W)` as a new `(B, 1, H, W)`."""
    red, green, blue = GREY_WEIGHTS
    return (x[:, :1] * red).add_(x[:, 1:2], alpha=green).add_(x[:, 2:], alpha=blue)


def shift_hue_(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of `(B, 3, H, W)` in 0..1 by `shift` `(B,)` of a full circle, in -0.5..0.5, in place."""
    red, green, blue = x.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    safe = chroma.clamp(min=1e-12)
    # in sixths of the circle; where channels tie, both branches give the same hue
    hue = torch.where(
        value == red,
        (green - blue).div_(safe),
        torch.where(value == green, (blue - red).div_(safe).add_(2), (red - green).div_(safe).add_(4)),
    ).add_(6 * shift.view(-1, 1, 1))
    part = safe
    for channel, offset in ((red, 5.0), (green, 3.0), (blue, 1.0)):
        # value - chroma * min(k, 4 - k, 1), k the distance along the circle; written without branches
        torch.add(hue, offset, out=part).remainder_(6)
        part.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
        torch.addcmul(value, part, chroma, value=-1, out=channel)
    return x.clamp_(0, 1)


def blur(x: Tensor, kernel: Tensor, sigma: Tensor, chosen: Tensor) -> Tensor:
    """Gaussian blur with reflected edges, one kernel per sample.

    Args:
        x: `(B, C, H, W)` float32.
        kernel: `(B,)` int64, which of `BLUR_KERNELS` (side in pixels).
        sigma: `(B,)` float32 in pixels, above 0.
        chosen: `(B,)` bool; the others are left as they are.

    Returns:
        A new tensor of the same shape.
    """
    samples, bands, height, width = x.shape
    reach = max(BLUR_KERNELS) // 2
    distance = torch.arange(-reach, reach + 1, device=x.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (distance / sigma.view(-1, 1)).square())
    extent = (kernel + 1) * chosen  # BLUR_KERNELS[k] reaches k + 1 pixels; 0 keeps the middle alone
    weights = weights * (distance.abs() <= extent.view(-1, 1))
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(bands, dim=0)
    planes = F.pad(x, (reach,) * 4, mode=_edge(reach, height, width)).view(1, samples * bands, *_padded(x, reach))
    planes = F.conv2d(planes, weights.view(-1, 1, 2 * reach + 1, 1), groups=samples * bands)
    planes = F.conv2d(planes, weights.view(-1, 1, 1, 2 * reach + 1), groups=samples * bands)
    return planes.view(samples, bands, height, width)


def _edge(reach: int, height: int, width: int) -> str:
    return "reflect" if min(height, width) > reach else "replicate"  # there is nothing to reflect in a tiny crop


def _padded(x: Tensor, reach: int) -> tuple[int, int]:
    return x.shape[-2] + 2 * reach, x.shape[-1] + 2 * reach


def add_noise_(x: Tensor, deviation: Tensor) -> Tensor:
    """Add normal noise of `deviation` `(B,)`, on the scale 0..1, to `(B, C, H, W)`, each value its own, in place."""
    return x.addcmul_(torch.randn_like(x), deviation.view(-1, 1, 1, 1))


def solarize_(x: Tensor, chosen: Tensor) -> Tensor:
    """Invert the values from grey level 128 up, in the samples `chosen` `(B,)` of `(B, C, H, W)` in 0..1, in place."""
    bright = (x >= SOLARIZE_FROM).logical_and_(chosen.view(-1, 1, 1, 1))
    return x.copy_(torch.where(bright, 1 - x, x))
