"""Which position of one crop shows the same ground as which position of another."""

from typing import NamedTuple

import torch
from torch import Tensor


class Matches(NamedTuple):
    """Pairs of positions, n for each image, in ascending order of `first`.

    Attributes:
        first: `(B, n)` int64, positions of the first crop's grid, row by row.
        second: `(B, n)` int64, the nearest position of the second crop's grid.
        distance: `(B, n)` float, between their centres in source pixels; infinite where nothing matches.
        valid: `(B, n)` bool, False where the first position lies outside the second crop.
    """

    first: Tensor
    second: Tensor
    distance: Tensor
    valid: Tensor


def cell_centres(boxes: Tensor, flipped: Tensor, grid: tuple[int, int], turns: Tensor | None = None) -> Tensor:
    """Centres of a crop's grid of cells on the source image.

    Args:
        boxes: `(B, 4)` float, x0, y0, x1, y1 in source pixels.
        flipped: `(B,)` bool; a mirrored crop counts its columns from the right.
        grid: rows and columns of the feature map.
        turns: `(B,)` int64, quarter turns anticlockwise before the mirror; None where no crop was turned.

    Returns:
        `(B, rows * columns, 2)` float, x and y in source pixels, row by row.
    """
    rows, columns = grid
    across = (torch.arange(columns, device=boxes.device, dtype=boxes.dtype) + 0.5) / columns
    down = (torch.arange(rows, device=boxes.device, dtype=boxes.dtype) + 0.5) / rows
    x0, y0, x1, y1 = boxes.unbind(1)
    across = torch.where(flipped[:, None], 1 - across, across)[:, None, :].expand(-1, rows, -1)
    down = down[None, :, None].expand(len(boxes), -1, columns)
    if turns is not None:
        across, down = _turned_back(across, down, turns[:, None, None])
    x = x0[:, None, None] + across * (x1 - x0)[:, None, None]
    y = y0[:, None, None] + down * (y1 - y0)[:, None, None]
    return torch.stack((x, y), -1).flatten(1, 2)


def places_on_crop(points: Tensor, boxes: Tensor, flipped: Tensor, turns: Tensor | None = None) -> Tensor:
    """Where points of the source image are on a crop as it is shown: the way back of `cell_centres`.

    Args:
        points: `(B, N, 2)` float, x and y in source pixels.
        boxes: `(B, 4)` float, x0, y0, x1, y1 in source pixels.
        flipped: `(B,)` bool, mirrored left to right.
        turns: `(B,)` int64, quarter turns anticlockwise before the mirror; None where no crop was turned.

    Returns:
        `(B, N, 2)` float, x and y from 0 to 1 on the crop; beyond, the crop does not show the point.
    """
    across, down = ((points - boxes[:, None, :2]) / (boxes[:, None, 2:] - boxes[:, None, :2])).unbind(-1)
    if turns is not None:
        across, down = _turned_back(across, down, (-turns % 4)[:, None])
    return torch.stack((torch.where(flipped[:, None], 1 - across, across), down), -1)


def _turned_back(across: Tensor, down: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of a crop's width and height before it was turned `turns` quarters, of those after; all broadcast."""
    odd, half = turns % 2 == 1, turns >= 2
    across, down = torch.where(odd, 1 - down, across), torch.where(odd, across, down)
    return torch.where(half, 1 - across, across), torch.where(half, 1 - down, down)


def cells_under(points: Tensor, boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """The cell of a grid on the ground that each point lies in; outside, the nearest of the outermost cells.

    Args:
        points: `(B, N, 2)` float, x and y in source pixels.
        boxes: `(B, 4)` float, x0, y0, x1, y1, what the grid covers, in the same units.
        grid: rows and columns of cells.

    Returns:
        `(B, N)` int64, cells counted row by row.
    """
    rows, columns = grid
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    across, down = ((points - low) / (high - low)).unbind(-1)
    column, row = (across * columns).floor().long(), (down * rows).floor().long()
    return row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)


def nearest_positions(first: Tensor, second: Tensor, count: int, inside: Tensor | None = None) -> Matches:
    """For each position its nearest in the other crop; keeps the `count` positions whose nearest is nearest.

    Args:
        first: `(B, N, 2)` float, centres of the first crop's positions.
        second: `(B, M, 2)` float, centres of the second crop's positions, in the same units.
        count: pairs kept for each image; more than N keeps all N.
        inside: `(B, 4)` float, the second crop's box: a position whose centre is outside it matches nothing.
            Without it every position matches, however far.

    Source: VICRegL-like location matching of `models/pretrain_model.py` in the published code.
    """
    between = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    distance, nearest = between.min(dim=2)
    if inside is not None:
        low, high = inside[:, None, :2], inside[:, None, 2:]
        distance = distance.masked_fill(~((first >= low) & (first <= high)).all(-1), torch.inf)
    count = min(count, first.shape[1])
    chosen = distance.topk(count, dim=1, largest=False, sorted=False).indices.sort(dim=1).values
    distance = distance.gather(1, chosen)
    return Matches(chosen, nearest.gather(1, chosen), distance, distance.isfinite())


def take_positions(features: Tensor, positions: Tensor) -> Tensor:
    """The feature vectors `(B, n, C)` of a map `(B, C, H, W)` at `positions` `(B, n)`, counted row by row."""
    return take_rows(features.flatten(2).transpose(1, 2), positions)


def take_rows(rows: Tensor, positions: Tensor) -> Tensor:
    """Of `(B, N, C)` the rows at `positions` `(B, n)`: `(B, n, C)`."""
    return rows.gather(1, positions[..., None].expand(-1, -1, rows.shape[-1]))
