"""Patches against torch's own rearrangement."""

import pytest
import torch

from cmid.ops.patches import to_patches


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_patches_are_those_of_pixel_unshuffle(memory_format):
    images = torch.randn(2, 3, 12, 20).to(memory_format=memory_format)
    expected = torch.nn.functional.pixel_unshuffle(images, 4).flatten(2).transpose(1, 2)
    found = to_patches(images, 4)
    assert found.shape == (2, 15, 48) and torch.equal(found, expected)


def test_patches_that_do_not_tile_the_image_are_refused():
    with pytest.raises(RuntimeError):
        to_patches(torch.zeros(1, 3, 12, 18), 4)
