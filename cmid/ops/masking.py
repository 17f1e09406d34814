"""Masks of square cells, and what the hidden pixels become."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def draw_masks(
    batch_size: int, grid: tuple[int, int], ratio: float, *, device: torch.device | str | None = None
) -> Tensor:
    """Hide `ceil(ratio * cells)` random cells of each image, the same number in every image.

    Args:
        batch_size: number of images B.
        grid: rows and columns of cells.
        ratio: share hidden, 0 to 1.
        device: where to draw; torch's default generator of that device is used.

    Returns:
        bool `(B, rows, columns)`, True = hidden.
    """
    cells = grid[0] * grid[1]
    hidden = hidden_of(cells, ratio)
    rank = torch.rand(batch_size, cells, device=device).argsort(dim=1).argsort(dim=1)
    return (rank < hidden).view(batch_size, *grid)


def hidden_of(cells: int, ratio: float) -> int:
    """How many of so many cells are hidden: at least the share `ratio`."""
    return math.ceil(ratio * cells)


def hidden_positions(mask: Tensor, grid: Sequence[int], ratio: float) -> Tensor:
    """Which positions of a map are hidden, where each is hidden whole or not at all.

    Args:
        mask: `(B, h, w)` as `draw_masks` draws it for `ratio`. Their number is counted from that: reading it off the
            mask would wait for the device.
        grid: rows and columns of the map, whole multiples of the mask's.
        ratio: share hidden, 0 to 1.

    Returns:
        int64 `(B, n)`, counted row by row.
    """
    flat, cells = to_pixels(mask, grid).flatten(1).to(torch.uint8), mask[0].numel()
    count = hidden_of(cells, ratio) * flat.shape[1] // cells
    return flat.argsort(dim=1, descending=True, stable=True)[:, :count]


def to_pixels(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask of cells `(B, h, w)` as one of pixels `(B, 1, H, W)`, same dtype.

    Raises:
        ValueError: where the cells do not tile the image.
    """
    (height, width), (h, w) = size, mask.shape[-2:]
    if height % h or width % w:
        raise ValueError(f"a mask of {h} x {w} cells does not tile an image of {height} x {width} pixels")
    return mask.repeat_interleave(height // h, -2).repeat_interleave(width // w, -1).unsqueeze(1)


def fill_with_mean(images: Tensor, hidden: Tensor) -> Tensor:
    """Put each image's own per-channel mean (hidden pixels included) in place of its hidden pixels.

    Args:
        images: `(B, C, H, W)` float.
        hidden: bool `(B, 1, H, W)`.

    Source: A2MIM (arXiv 2205.13943); `Dataset/mask.py` of the published code.
    """
    return torch.where(hidden, images.mean(dim=(2, 3), keepdim=True), images)
