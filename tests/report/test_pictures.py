import base64
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from cmid.ops.normalise import denormalise, normalise
from cmid.report.pictures import as_rgb, data_uri, fit, square

MEAN, STD = (0.33797, 0.3605, 0.3348), (0.1359, 0.1352, 0.1407)


def decoded(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(BytesIO(base64.b64decode(body))).convert("RGB"))


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 90), (17, 130, 240), (86, 92, 85)])
def test_a_constant_colour_goes_through_normalisation_and_the_page_unchanged(colour):
    image = torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, 40, 56)
    back = as_rgb(denormalise(normalise(image, MEAN, STD), MEAN, STD).numpy())
    assert (back == np.array(colour, np.uint8)).all()
    shown = decoded(data_uri(back)).astype(int)
    assert shown.shape == (40, 56, 3)
    assert np.abs(shown - colour).max() <= 2  # what JPEG's rounding to YCbCr and back may cost


def test_colours_clip_and_nan_is_black():
    values = np.array([-3.0, 0.5, 7.0, np.nan]).reshape(1, 1, 4).repeat(3, 0)
    assert as_rgb(values)[0, :, 0].tolist() == [0, 128, 255, 0]


def test_bands_beyond_three_are_left_out_and_fewer_are_grey():
    values = np.stack([np.full((2, 2), v) for v in (0.0, 0.2, 0.4, 1.0)])
    assert as_rgb(values)[0, 0].tolist() == [0, 51, 102]
    assert as_rgb(values[1:3])[0, 0].tolist() == [51, 51, 51]


def test_fit_shrinks_and_never_enlarges():
    image = np.zeros((300, 200, 3), np.uint8)
    assert fit(image, 150).shape == (150, 100, 3)
    assert fit(image, 400) is image
    assert fit(np.zeros((1, 5000, 3), np.uint8), 100).shape == (1, 100, 3)


def test_square_takes_the_centre():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert (square(image, 6) >= 190).all()


@pytest.mark.parametrize("side", [1, 224, 512])
def test_noise_is_a_picture_too(side):
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    assert decoded(data_uri(noise)).shape == noise.shape
