"""Masks and their fill against the published code's numbers."""

import pytest
import torch

from cmid.ops.masking import draw_masks, fill_with_mean, hidden_positions, to_pixels


def test_as_many_cells_are_hidden_as_published(reference):
    r = reference("mask")
    torch.manual_seed(0)
    masks = draw_masks(200, (7, 7), 0.6)
    assert masks.dtype == torch.bool
    assert (masks.sum((1, 2)) == r["mask_count"]).all()
    assert (r["blocks_7x7"].sum((1, 2)) == r["mask_count"]).all()
    # 56 x 56 positions of stride 4
    assert (to_pixels(masks, (56, 56)).sum((1, 2, 3)) == r["masked_tokens_per_draw"]).all()


def test_every_cell_is_hidden_equally_often():
    torch.manual_seed(1)
    frequency = draw_masks(20_000, (7, 7), 0.6).float().mean(0)
    assert (frequency - 30 / 49).abs().max() < 5 * (30 / 49 * 19 / 49 / 20_000) ** 0.5
    assert not torch.equal(draw_masks(1, (7, 7), 0.6), draw_masks(1, (7, 7), 0.6))


def test_hidden_pixels_get_the_image_mean_as_published(reference):
    r = reference("mask")
    hidden = to_pixels(r["small_mask"][None].bool(), (64, 64))
    torch.testing.assert_close(fill_with_mean(r["small_in"][None], hidden)[0], r["small_out"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("ratio", "grid"), [(0.6, (7, 7)), (0.6, (14, 21)), (1.0, (7, 7)), (0.0, (14, 14))])
def test_hidden_positions_are_those_of_the_mask(ratio, grid):
    torch.manual_seed(2)
    masks = draw_masks(5, (7, 7), ratio)
    positions = hidden_positions(masks, grid, ratio)
    for mask, found in zip(to_pixels(masks, grid), positions, strict=True):
        assert torch.equal(found.sort().values, mask.flatten().nonzero().flatten())


def test_cells_must_tile_the_image():
    with pytest.raises(ValueError, match="7 x 7 cells does not tile an image of 100 x 224"):
        to_pixels(torch.ones(1, 7, 7), (100, 224))
