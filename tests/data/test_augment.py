from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from cmid.config import ViewConfig
from cmid.contracts import View, Views
from cmid.data import augment
from cmid.data.augment import BLUR_KERNELS, SOLARIZE_FROM, BatchAugment
from cmid.ops.normalise import denormalise, normalise

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
    torch.manual_seed(0)  # a draw may hardly change a picture
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


def measured(bands, **more):
    settings = ViewConfig(size=24, mean=(0.3,) * bands, std=(0.2,) * bands, low=(0.0,) * bands, high=(1.0,) * bands)
    return replace(settings, **more)


def test_colours_are_for_three_bytes_unless_told_otherwise():
    assert BatchAugment(ViewConfig()).rgb
    assert not BatchAugment(measured(3)).rgb
    assert not BatchAugment(ViewConfig(mean=(0.1,) * 4, std=(0.1,) * 4)).rgb
    assert not BatchAugment(ViewConfig(colours="bands")).rgb


@pytest.mark.parametrize("bands", [1, 2, 3, 13])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_bands_get_a_gain_an_offset_and_nothing_else(bands, dtype):
    only = {"blur_p": 0.0, "noise_p": 0.0, "band_drop_p": 0.0, "colour_jitter_p": 1.0}
    values = pixels(count=40, bands=bands) if dtype == torch.uint8 else images(count=40, bands=bands)
    torch.manual_seed(0)
    weak, strong = BatchAugment(measured(bands, **only, colours="bands"))(views_of(values))
    x, y = (v.images.flatten(2).double() * 0.2 + 0.3 for v in (weak, strong))
    gain = (y.amax(2) - y.amin(2)) / (x.amax(2) - x.amin(2))
    offset = y.mean(2) - gain * x.mean(2)
    assert torch.allclose(y, gain[..., None] * x + offset[..., None], atol=1e-5)
    assert gain.min() >= 0.8**2 - 1e-5 and gain.max() <= 1.2**2 + 1e-5 and gain.std() > 0.05
    assert offset.abs().max() <= 0.1 * 0.2 + 1e-5 and offset.std() > 0.005
    if bands > 1:  # each band has a part of its own
        assert (gain / gain[:, :1] - 1).abs().max() > 0.05


def test_a_dropped_band_is_its_mean_and_one_band_alone_is_never_dropped():
    only = {"blur_p": 0.0, "noise_p": 0.0, "band_drop_p": 1.0, "colour_jitter_p": 0.0}
    for bands in (1, 4):
        weak, strong = BatchAugment(measured(bands, **only))(views_of(images(count=60, bands=bands)))
        gone = (strong.images == 0).flatten(2).all(2)
        assert gone.sum(1).tolist() == [int(bands > 1)] * 60
        assert torch.equal(strong.images[~gone], weak.images[~gone])
        assert bands == 1 or (gone.sum(0) > 4).all()


def test_values_beyond_the_stretch_are_not_clipped():
    beyond = images(count=4, bands=2) * 6 - 3
    _, strong = BatchAugment(measured(2))(views_of(beyond))
    numbers = strong.images * 0.2 + 0.3
    assert numbers.min() < -1 and numbers.max() > 1.5 and numbers.isfinite().all()


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


@pytest.mark.parametrize(
    "which, recoloured",
    [("later", [False, True, True]), ("all", [True] * 3), ("none", [False] * 3), ("alternate", [False, True, False])],
)
def test_which_crops_get_other_colours(which, recoloured):
    batch = views_of(pixels(), crops=3)
    views = ViewConfig(size=24, recoloured=which)
    done = BatchAugment(views)(batch)
    plain = [normalise(view.images, views.mean, views.std) for view in batch]
    assert [not torch.equal(a.images, b) for a, b in zip(done, plain, strict=True)] == recoloured


def test_the_second_crop_may_have_chances_of_its_own():
    views = replace(OFF, recoloured="all", solarize_p=1.0, second_solarize_p=0.0, blur_p=0.0, second_blur_p=1.0)
    levels = pixels()
    levels[levels == 128] = 140  # at the threshold itself rounding decides
    first, second = BatchAugment(views)(views_of(levels))
    plain = normalise(levels, views.mean, views.std)
    x = levels / 255
    inverted = torch.where(x >= SOLARIZE_FROM, 1 - x, x)
    torch.testing.assert_close(first.images, normalise(inverted, views.mean, views.std))
    assert second.images.diff(dim=-1).abs().mean() < 0.8 * plain.diff(dim=-1).abs().mean()  # smoothed
