"""An image in memory and a model for windows: the class of every pixel, with the windows and weights of scenes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cmid.errors import NotFinite
from cmid.predict.blend import Scores
from cmid.predict.turns import Predict, predict_in_turns
from cmid.predict.windows import Layout, Tiling


@torch.inference_mode()
def image_to_map(image: Tensor, predict: Predict, classes: int, tiling: Tiling) -> Tensor:
    """Classes `(H, W)` uint8 on the CPU, the first of the most probable.

    Args:
        image: `(C, H, W)` float, as `predict` takes it, on its device.
        predict: `(B, C, S, S)` to probabilities `(B, K, S, S)`; B is at most `tiling.batch`.
        classes: K.
        tiling: windows, overlap, averaging. An image smaller than a window is mirrored at its edge and cut.

    Raises:
        NotFinite: probabilities that are not.
    """
    height, width = image.shape[-2:]
    side = tiling.window
    for axis, length in ((-1, width), (-2, height)):
        image = _mirrored(image, axis, side - length)
    layout = Layout(width, height, classes, tiling)
    columns: dict[int, list[Tensor]] = {}
    scores: Scores | None = None
    for block in layout.blocks:
        if scores is None or block.x0 not in columns:
            scores, columns[block.x0] = Scores(layout, block, layout.held, classes, image.device), []
        places = list(block.places)
        for begin in range(0, len(places), tiling.batch):
            some = places[begin : begin + tiling.batch]
            corners = [(layout.y.starts[i], layout.x.starts[j]) for i, j in some]
            windows = torch.stack([image[:, y : y + side, x : x + side] for y, x in corners])
            for (i, j), found in zip(some, predict_in_turns(predict, windows, tiling.turns), strict=True):
                scores.add(found, i, j)
        found, _, finite = scores.finish(block.y1, probabilities=False)
        if not finite:
            raise NotFinite("the model gives scores that are not finite: try precision 32")
        columns[block.x0].append(found.cpu())
    return torch.cat([torch.cat(rows) for rows in columns.values()], 1)


def _mirrored(image: Tensor, axis: int, missing: int) -> Tensor:
    """`image` longer by `missing` pixels along `axis`, mirrored again and again where it is shorter than that."""
    while missing > 0 and image.shape[axis] > 1:
        some = min(missing, image.shape[axis] - 1)
        pad = (0, some) if axis == -1 else (0, 0, 0, some)
        image, missing = F.pad(image, pad, mode="reflect"), missing - some
    if missing > 0:  # one pixel: there is nothing to mirror
        image = image.repeat_interleave(missing + 1, axis)
    return image
