"""An image in memory is mapped as a scene on disk is."""

import numpy as np
import pytest
import torch

from cmid.errors import CmidError
from cmid.predict.image_to_map import image_to_map
from cmid.predict.windows import Tiling


def local(images):
    """A model that looks 3 pixels far: three classes by a blurred band."""
    torch.manual_seed(0)
    weight = torch.randn(3, 2, 7, 7, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.conv2d(torch.nn.functional.pad(images, (3,) * 4), weight).softmax(1)


@pytest.mark.parametrize("shape", [(200, 333), (64, 64), (65, 200), (300, 64)])
def test_windows_say_what_the_whole_image_says_where_the_model_looks_no_further_than_the_margin(shape):
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    found = image_to_map(image, local, 3, Tiling(window=64, overlap=32, margin=8, batch=3))
    whole = local(image[None])[0].argmax(0).to(torch.uint8)
    assert found.dtype == torch.uint8 and torch.equal(found, whole)


@pytest.mark.parametrize("shape", [(5, 9), (1, 1), (1, 100), (40, 70)])
def test_an_image_smaller_than_a_window_is_mirrored_as_numpy_does_and_cut(shape):
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(3))
    seen = []

    def watched(images):
        seen.append(images.clone())
        return local(images)

    found = image_to_map(image, watched, 3, Tiling(window=64, batch=1))
    assert found.shape == shape
    if shape[0] == 40:
        first = np.pad(image[:, :, :64].numpy(), ((0, 0), (0, 24), (0, 0)), mode="reflect")
        np.testing.assert_array_equal(seen[0][0].numpy(), first)


def test_averages_over_turns_do_not_move_the_map():
    image = torch.randn(2, 90, 70, generator=torch.Generator().manual_seed(4))

    def pointwise(images):
        return torch.cat((images, -images[:, :1]), 1).softmax(1)

    maps = [image_to_map(image, pointwise, 3, Tiling(window=32, turns=turns)) for turns in ("none", "flips", "d4")]
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])


def test_scores_that_are_not_finite_are_an_error():
    with pytest.raises(CmidError, match="not finite"):
        image_to_map(torch.zeros(1, 40, 40), lambda x: x.expand(-1, 2, -1, -1) * float("nan"), 2, Tiling(window=32))
