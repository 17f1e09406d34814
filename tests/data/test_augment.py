import logging
from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from cmid.config import ViewConfig
from cmid.contracts import View, Views
from cmid.data import augment
from cmid.data.augment import BLUR_KERNELS, BatchAugment
from cmid.ops.normalise import denormalise

CLOSE = {"rtol": 0, "atol": 1e-5}
OFF = ViewConfig(size=24, colour_jitter_p=0, blur_p=0, noise_p=0, solarize_p=0, grey_p=0)


def images(seed=0, count=6, bands=3, side=24):
    return torch.rand(count, bands, side, side, generator=torch.Generator().manual_seed(seed))


def views_of(pixels, crops=2):
    view = View(pixels, torch.rand(len(pixels), 4), torch.zeros(len(pixels), dtype=torch.bool))
    return Views((view,) * crops, torch.arange(len(pixels)), epoch=3)


def pixels(seed=0, count=6, bands=3, side=24):
    return (images(seed, count, bands, side) * 255).round().to(torch.uint8)


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (augment.adjust_brightness_, F.adjust_brightness, [0.0, 0.6, 0.9, 1.0, 1.1, 1.4]),
        (augment.adjust_contrast_, F.adjust_contrast, [0.0, 0.6, 0.9, 1.0, 1.1, 1.4]),
        (augment.adjust_saturation_, F.adjust_saturation, [0.0, 0.6, 0.9, 1.0, 1.2, 2.0]),
        (augment.shift_hue_, F.adjust_hue, [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5]),
    ],
)
def test_each_sample_equals_torchvision(ours, theirs, factors):
    x = images()
    x[:, :, 0] = x[:, :1, 0]  # grey: no hue
    x[:, :, 1] = 0
    x[:, :, 2] = 1
    x[:, 1, 3] = x[:, 0, 3]  # ties of two bands
    x[:, 2, 4] = x[:, 1, 4]
    x[:, 2, 5] = x[:, 0, 5]
    expected = torch.stack([theirs(image, factor) for image, factor in zip(x, factors, strict=True)])
    torch.testing.assert_close(ours(x.clone(), torch.tensor(factors)), expected, **CLOSE)


def test_blur_equals_torchvision_and_spares_who_is_not_chosen():
    x, sigma = images(), torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0, 2.0])
    kernel, chosen = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([True] * 5 + [False])
    expected = [
        F.gaussian_blur(image, BLUR_KERNELS[k], float(s)) if c else image
        for image, k, s, c in zip(x, kernel, sigma, chosen, strict=True)
    ]
    torch.testing.assert_close(augment.blur(x, kernel, sigma, chosen), torch.stack(expected), **CLOSE)


def test_solarize_equals_torchvision():
    x = pixels().float() / 255
    chosen = torch.tensor([True, False] * 3)
    expected = [F.solarize(image, 128 / 255) if c else image for image, c in zip(x, chosen, strict=True)]
    torch.testing.assert_close(augment.solarize_(x.clone(), chosen), torch.stack(expected), **CLOSE)


def test_noise_has_its_own_variance_in_every_sample():
    deviation = torch.tensor([0.0, 0.01, 0.03])
    noise = augment.add_noise_(torch.full((3, 3, 100, 100), 0.5), deviation) - 0.5
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), deviation, rtol=0.03, atol=0)
    assert noise.mean(dim=(1, 2, 3)).abs().max() < 1e-3
    assert (noise[1, 0] - noise[1, 1]).abs().max() > 0.01


def test_the_first_crop_is_only_normalised_and_the_rest_recoloured():
    batch = views_of(pixels(), crops=3)
    done = BatchAugment(ViewConfig(size=24))(batch)
    kept = denormalise(done[0].images, ViewConfig().mean, ViewConfig().std)
    torch.testing.assert_close(kept, batch[0].images / 255, **CLOSE)
    assert torch.equal(done.indices, batch.indices) and done.epoch == 3
    for k in (1, 2):
        assert done[k].images.dtype == torch.float32 and done[k].boxes is batch[k].boxes
        assert (done[k].images - done[0].images).abs().mean(dim=(1, 2, 3)).min() > 0.01
    assert not torch.equal(done[1].images, done[2].images)
    assert batch[1].images.dtype == torch.uint8


def test_nothing_happens_with_probability_0():
    done = BatchAugment(OFF)(views_of(pixels()))
    torch.testing.assert_close(done[1].images, done[0].images, **CLOSE)


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ({"colour_jitter_p": 0.3}, lambda x, y: (x - y).abs().amax((1, 2, 3)) > 1e-4),
        ({"blur_p": 0.3, "blur_sigma": (1.0, 2.0)}, lambda x, y: (x - y).abs().amax((1, 2, 3)) > 1e-4),
        ({"noise_p": 0.3}, lambda x, y: (x - y).abs().amax((1, 2, 3)) > 1e-4),
        ({"solarize_p": 0.3}, lambda x, y: (x - y).abs().amax((1, 2, 3)) > 1e-4),
        ({"grey_p": 0.3}, lambda x, y: (x[:, 0] - x[:, 1]).abs().amax((1, 2)) < 1e-5),
    ],
)
def test_each_operation_has_its_probability(setting, changes):
    torch.manual_seed(0)
    x = pixels(count=3000, side=8)
    y = BatchAugment(replace(OFF, **setting)).recolour(x)
    share = changes(y, x.float() / 255).float().mean()
    assert abs(share - 0.3) < 0.03  # over three standard deviations of 3,000 draws


def test_the_same_seed_gives_the_same_batch():
    batch, recolour = views_of(pixels()), BatchAugment(ViewConfig(size=24))
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(recolour(batch)[1].images)
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_autocast_changes_nothing():
    batch, recolour = views_of(pixels()), BatchAugment(ViewConfig(size=24))
    torch.manual_seed(0)
    expected = recolour(batch)[1].images
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = recolour(batch)[1].images
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_other_numbers_of_bands_keep_what_needs_no_colour(bands, caplog):
    settings = ViewConfig(size=24, mean=(0.3,) * bands, std=(0.2,) * bands)
    recolour = BatchAugment(settings)
    with caplog.at_level(logging.INFO, logger="cmid"):
        for _ in range(2):
            done = recolour(views_of(pixels(bands=bands)))
    assert done[1].images.shape == (6, bands, 24, 24) and done[1].images.isfinite().all()
    assert [record.getMessage() for record in caplog.records] == [f"{bands} bands: saturation, hue and grey are off"]


def test_means_must_fit_the_bands():
    with pytest.raises(ValueError, match="for images of 4 bands"):
        BatchAugment(ViewConfig())(views_of(pixels(bands=4)))


@pytest.mark.parametrize("side", [1, 3, 4])
def test_crops_smaller_than_the_blur(side):
    assert BatchAugment(ViewConfig(size=side))(views_of(pixels(side=side)))[1].images.isfinite().all()


def test_the_grey_levels_of_a_blend_are_those_of_the_settings():
    torch.manual_seed(0)
    flat = torch.full((400, 3, 2, 2), 100, dtype=torch.uint8)
    bright = BatchAugment(replace(OFF, colour_jitter_p=1.0)).recolour(flat)[:, 0, 0, 0] * 255 / 100
    assert 0.6 <= bright.min() < 0.63 and 1.37 < bright.max() <= 1.4 + 1e-5
