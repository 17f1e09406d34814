"""Scores of overlapping windows, added up with their weights, and what they come to: classes and probabilities."""

import torch
from torch import Tensor

from cmid.predict.windows import Block, Layout

FULL = 254
"""What probability 1 is in uint8."""
NODATA = 255


class Scores:
    """Weighted sums of the windows of one panel, for the rows that are not finished yet.

    Args:
        layout: the windows.
        block: the first of the panel that is to be finished; rows above it are not added up.
        held: rows that are held at most.
        classes: K.
        device: where the scores are.
    """

    def __init__(self, layout: Layout, block: Block, held: int, classes: int, device: torch.device) -> None:
        self._x, self._y = layout.x, layout.y
        self._x0, self._x1, self._top = block.x0, block.x1, block.y0
        self._sums = torch.zeros(classes, held, block.x1 - block.x0, device=device)
        self._weights: dict[tuple[int, int], Tensor] = {}
        self._across = torch.from_numpy(self._x.total(block.x0, block.x1)).to(device)

    def add(self, scores: Tensor, i: int, j: int) -> None:
        """Adds `scores` `(K, S, S)` float32 of the window in row i and column j, in the part that counts."""
        (y, _), (x, _) = self._y.span(i), self._x.span(j)
        (y0, y1), (x0, x1) = self._y.counted(i), self._x.counted(j)
        top, bottom = max(y0, self._top), min(y1, self._top + self._sums.shape[1])
        left, right = max(x0, self._x0), min(x1, self._x1)
        if top >= bottom or left >= right:
            return
        weight = self._weight(i, j)[top - y0 : bottom - y0, left - x0 : right - x0]
        part = scores[:, top - y : bottom - y, left - x : right - x]
        self._sums[:, top - self._top : bottom - self._top, left - self._x0 : right - self._x0].addcmul_(part, weight)

    def _weight(self, i: int, j: int) -> Tensor:
        """Of one window, `(h, w)`; the same for all that do not lie at an edge."""
        key = self._kind(i, len(self._y.starts)), self._kind(j, len(self._x.starts))
        if key not in self._weights:
            down, across = torch.from_numpy(self._y.weights(i)), torch.from_numpy(self._x.weights(j))
            self._weights[key] = torch.outer(down, across).to(self._sums.device)
        return self._weights[key]

    @staticmethod
    def _kind(i: int, count: int) -> int:
        return (i == 0) + 2 * (i == count - 1)

    def finish(self, row: int, *, probabilities: bool) -> tuple[Tensor, Tensor | None, bool]:
        """Takes out the rows before `row`, which no further window touches.

        Returns:
            classes `(h, w)` uint8, the first of the most probable; probabilities `(K, h, w)` uint8 in 0..254 where
            asked for; whether all sums are finite.
        """
        height, width = row - self._top, self._sums.shape[2]
        sums = self._sums[:, :height]
        finite = bool(torch.isfinite(sums.sum()))
        best, classes = sums[0].clone(), torch.zeros(height, width, dtype=torch.uint8, device=sums.device)
        above = torch.empty(height, width, dtype=torch.bool, device=sums.device)
        for k in range(1, len(sums)):  # argmax over the first dimension takes twenty times as long on a CPU
            torch.gt(sums[k], best, out=above)
            torch.maximum(best, sums[k], out=best)
            torch.maximum(classes, above.view(torch.uint8) * k, out=classes)  # the last that was above all before it
        shares = None
        if probabilities:
            down = torch.from_numpy(self._y.total(self._top, row)).to(sums.device)
            shares = torch.empty(len(sums), height, width, dtype=torch.uint8, device=sums.device)
            for k in range(len(sums)):
                share = sums[k] / down[:, None] / self._across
                shares[k] = share.mul_(FULL).round_().clamp_(0, FULL).to(torch.uint8)
        left = self._sums[:, height:].clone()
        self._sums[:, : left.shape[1]] = left
        self._sums[:, left.shape[1] :].zero_()
        self._top = row
        return classes, shares, finite
