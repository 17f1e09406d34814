"""Small images with a class for each pixel, in memory: a square of each class's own colour on plain ground."""

import numpy as np
import torch

from cmid.data.decode import BadImage
from cmid.data.pixel_labels import LabelledPixels

COLOURS = ((90, 90, 90), (220, 60, 60), (60, 90, 220))


class Squares:
    """A `PixelSource`: class 0 is ground, 1 and 2 are squares; the outermost pixel of each image has no label.

    Args:
        count: images.
        side: of each, in pixels.
        broken: positions that cannot be read.
        per_group: images of one group.
    """

    bands, dtype, stored_dtype, fresh = 3, torch.uint8, "uint8", False
    names = ("red", "green", "blue")
    classes, colours = ("ground", "red", "blue"), COLOURS

    def __init__(self, count=8, side=96, broken=(), per_group=2):
        self.count, self.side, self.broken, self.per_group = count, side, broken, per_group

    def __len__(self):
        return self.count

    def name(self, i):
        return f"{self.group(i)}/{i}.png"

    def group(self, i):
        return f"tile {i // self.per_group}"

    def place(self, i):
        return (i % self.per_group) * self.side, 0

    def read(self, i):
        if i in self.broken:
            raise BadImage(self.name(i), "truncated")
        rng = np.random.default_rng(i)
        labels = np.zeros((self.side, self.side), np.uint8)
        for k in (1, 2):
            x, y = rng.integers(2, self.side // 2, 2)
            labels[y : y + self.side // 3, x : x + self.side // 3] = k
        pixels = np.array(COLOURS, np.uint8)[labels] + rng.integers(0, 30, (*labels.shape, 3), np.uint8)
        labels[[0, -1]] = 255
        labels[:, [0, -1]] = 255
        return LabelledPixels(pixels, labels)
