"""Small segmenters in files, and what one says of a whole scene at once."""

import numpy as np
import torch

from cmid.backbones import create_backbone
from cmid.contracts import View, Views
from cmid.tasks.segmentation import Segmenter
from cmid.zoo.backbone_files import BackboneMetadata
from cmid.zoo.segmenter_files import SegmenterMetadata, load_segmenter, save_segmenter

CLASSES = ("water", "field", "roof")
COLOURS = ((0, 0, 255), (0, 160, 0), (200, 30, 30))
RGB = {"bands": ("red", "green", "blue"), "mean": (0.4, 0.45, 0.5), "std": (0.2, 0.25, 0.3)}
DEEP = {
    "bands": ("red", "green", "blue", "nir"), "mean": (0.4, 0.45, 0.5, 0.6), "std": (0.2, 0.25, 0.3, 0.2),
    "low": (100.0, 50.0, 20.0, 200.0), "high": (900.0, 1000.0, 1100.0, 1200.0),
}  # fmt: skip


def near_sighted(path, about=RGB, dtypes=(), window=64):
    """A segmenter whose scores come from its finest maps alone, so that it looks some 50 px far, in a file."""
    torch.manual_seed(0)
    bands = len(about["mean"])
    task = Segmenter(create_backbone("resnet10t", bands, mask_stage=None), 3, head="lateral_sum", width=8)
    draw = torch.Generator().manual_seed(1)
    view = View(torch.randn(2, bands, 64, 64, generator=draw), torch.zeros(2, 4), torch.zeros(2, dtype=torch.bool))
    labels = torch.randint(0, 3, (2, 64, 64), generator=draw)
    for _ in range(20):  # batch-norm's running means come near what they count
        task.train()(Views((view,), torch.arange(2), labels=labels))
    with torch.no_grad():
        for lateral in task.decoder.laterals[1:]:
            lateral.weight.zero_()
        task.scores[1].weight.mul_(200)  # scores that differ from pixel to pixel
        task.scores[1].bias.copy_(
            -task.eval().scores(task.decoder(task.levels(task.backbone(view.images).maps))).mean((0, 2, 3))
        )
    metadata = SegmenterMetadata(
        BackboneMetadata("resnet10t", bands, **about), CLASSES, COLOURS, "lateral_sum", 8, False, dtypes, window
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_segmenter(path, task, metadata)


@torch.no_grad()
def whole(path, values, valid=None):
    """Probabilities `(K, H, W)` of a scene's values `(C, H, W)`, normalised by the formula, in one forward."""
    task, about = load_segmenter(path)
    b = about.backbone
    scaled = values.astype(np.float64)
    if b.low is None:
        scaled = scaled / 255
    else:
        low, high = (np.array(each)[:, None, None] for each in (b.low, b.high))
        scaled = (scaled - low) / (high - low)
    mean, std = (np.array(each)[:, None, None] for each in (b.mean, b.std))
    numbers = (scaled - mean) / std
    if valid is not None:
        numbers[:, ~valid] = 0
    return task.probabilities(torch.from_numpy(numbers).float()[None])[0].numpy()
