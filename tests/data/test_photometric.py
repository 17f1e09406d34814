"""Colours of labelled crops: by matplotlib's HSV, within their strengths, and nothing for padding."""

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

from cmid.config import PixelCropConfig
from cmid.contracts import View, Views
from cmid.data.photometric import LabelledBatch, saturate_
from cmid.data.pixel_crops import PADDING
from cmid.data.pixel_labels import UNLABELLED

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
STILL = PixelCropConfig(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)


def batch(images, labels):
    count = len(images)
    view = View(images, torch.zeros(count, 4), torch.zeros(count, dtype=torch.bool))
    return Views((view,), torch.arange(count), 0, labels)


def some(count=64, side=8):
    torch.manual_seed(0)
    images = torch.randint(256, (count, 3, side, side), dtype=torch.uint8)
    return images, torch.randint(3, (count, side, side)).to(torch.uint8)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.4, 3.0])
def test_saturation_is_that_of_hsv(factor):
    torch.manual_seed(1)
    x = torch.rand(5, 3, 16, 16)
    hsv = rgb_to_hsv(x.permute(0, 2, 3, 1).numpy())
    hsv[..., 1] = np.clip(hsv[..., 1] * factor, 0, 1)
    found = saturate_(x.clone(), torch.full((5,), factor)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found.numpy(), hsv_to_rgb(hsv), atol=2e-6)


def test_without_strength_images_are_normalised_and_nothing_else():
    images, labels = some()
    found = LabelledBatch(MEAN, STD, STILL, rgb=True)(batch(images, labels))
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    torch.testing.assert_close(found[0].images, (images / 255 - mean) / std, atol=1e-5, rtol=1e-5)
    assert found.labels.dtype == torch.int64 and torch.equal(found.labels, labels.long())


def test_padding_is_neutral_and_unlabelled():
    images, labels = some()
    labels[:, :, 5:] = PADDING
    labels[:, 0] = UNLABELLED
    found = LabelledBatch(MEAN, STD, PixelCropConfig(), rgb=True)(batch(images, labels))
    assert (found[0].images[:, :, 1:, 5:] == 0).all() and (found.labels[:, :, 5:] == UNLABELLED).all()
    assert (found.labels[:, 0] == UNLABELLED).all() and not (found[0].images[:, :, 0, :5] == 0).all()
    assert torch.equal(found.labels[:, 1:, :5], labels[:, 1:, :5].long())


def test_each_change_happens_to_about_half_of_the_images_and_within_its_strength():
    torch.manual_seed(2)
    grey = torch.full((4000, 3, 2, 2), 128, dtype=torch.uint8)
    labels = torch.zeros(4000, 2, 2, dtype=torch.uint8)
    plain = ((0.0,) * 3, (1.0,) * 3)
    for name, low, high in (("brightness", -0.1, 0.1), ("contrast", 0.7, 1.3)):
        crops = PixelCropConfig(**dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0) | {
            name: 0.1 if name == "brightness" else 0.3})  # fmt: skip
        found = LabelledBatch(*plain, crops, rgb=True)(batch(grey, labels))[0].images[:, 0, 0, 0]
        change = found - 128 / 255 if name == "brightness" else found / (128 / 255)
        same = (change - (0 if name == "brightness" else 1)).abs() < 1e-6
        assert 0.45 < same.float().mean() < 0.55
        assert change.min() >= low - 1e-5 and change.max() <= high + 1e-5
        assert change.min() < low + 0.02 and change.max() > high - 0.02


def test_hue_turns_colours_and_leaves_grey_alone():
    crops = PixelCropConfig(brightness=0, contrast=0, saturation=0, hue=0.1)
    images, labels = some(200)
    torch.manual_seed(0)
    found = LabelledBatch((0.0,) * 3, (1.0,) * 3, crops, rgb=True)(batch(images, labels))[0].images
    before, after = (rgb_to_hsv(x.permute(0, 2, 3, 1).numpy()) for x in (images / 255, found.clamp(0, 1)))
    coloured = before[..., 1] > 0.2
    turned = (after[..., 0] - before[..., 0] + 0.5) % 1 - 0.5
    assert np.abs(turned[coloured]).max() < 0.102
    assert 0.3 < (np.abs(turned).max(axis=(1, 2), where=coloured, initial=0) < 1e-3).mean() < 0.7
    grey = torch.full((50, 3, 4, 4), 99, dtype=torch.uint8)
    still = LabelledBatch((0.0,) * 3, (1.0,) * 3, crops, rgb=True)(batch(grey, labels[:50, :4, :4]))[0].images
    torch.testing.assert_close(still, grey / 255, atol=1e-6, rtol=0)


def test_deep_bands_get_gain_and_offset_of_their_own_and_are_not_clipped():
    torch.manual_seed(3)
    images = torch.rand(100, 5, 6, 6) * 3 - 1
    labels = torch.zeros(100, 6, 6, dtype=torch.uint8)
    module = LabelledBatch((0.0,) * 5, (1.0,) * 5, PixelCropConfig(brightness=0.1, contrast=0.2), rgb=False)
    found = module(batch(images, labels))[0].images
    assert found.max() > 1.5 and found.min() < -0.5
    for image, changed in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        gain, offset = np.polyfit(image.ravel().numpy(), changed.ravel().numpy(), 1)
        assert 0.799 < gain < 1.201 and abs(offset) < 0.101
        torch.testing.assert_close(changed, image * float(gain) + float(offset), atol=1e-4, rtol=1e-4)
