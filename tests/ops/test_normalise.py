import pytest
import torch
from torchvision.transforms.v2 import functional as F

from cmid.ops.normalise import denormalise, normalise

MEAN, STD = (0.3, 0.4, 0.5), (0.1, 0.2, 0.3)


def test_equals_torchvision_from_uint8_and_from_float():
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    expected = F.normalize(images.float() / 255, list(MEAN), list(STD))
    kept = images.clone()
    torch.testing.assert_close(normalise(images, MEAN, STD), expected, rtol=1e-5, atol=1e-5)
    floats = images.float() / 255
    torch.testing.assert_close(normalise(floats, MEAN, STD), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(images, kept) and torch.equal(floats, kept.float() / 255)


def test_denormalise_undoes_it_and_clips():
    images = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    back = denormalise(normalise(images, MEAN, STD), MEAN, STD)
    torch.testing.assert_close(back, images / 255, rtol=0, atol=1e-6)
    assert denormalise(torch.full((3, 1, 1), 99.0), MEAN, STD).max() == 1


def test_every_band_needs_its_numbers():
    with pytest.raises(ValueError, match="3 values of mean or std for images of 4 bands"):
        normalise(torch.zeros(1, 4, 2, 2), MEAN, STD)
