"""What every source of images with a class for each pixel offers."""

from typing import NamedTuple, Protocol

import numpy as np
import torch

UNLABELLED = 255
"""The label of pixels that do not count."""


class LabelledPixels(NamedTuple):
    """One image and its labels.

    Attributes:
        pixels: `(H, W, C)`, uint8 in 0..255 or float32, as the source's `dtype` says.
        labels: `(H, W)` uint8, positions in the source's `classes`, or `UNLABELLED`.
    """

    pixels: np.ndarray
    labels: np.ndarray


class PixelSource(Protocol):
    """Images with labels for every pixel, by position; large scenes come as windows that tile them."""

    @property
    def bands(self) -> int:
        """C, of every image."""

    @property
    def dtype(self) -> torch.dtype:
        """Of every image's pixels: uint8 in 0..255, or float32 around 0..1."""

    @property
    def stored_dtype(self) -> str:
        """Numpy's name of the type of the files' own values."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the bands; a number where the files name none."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all K classes."""

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """Of each class, red, green and blue in 0..255, for pictures and maps."""

    @property
    def fresh(self) -> bool:
        """False: each epoch sees the same images."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """What image i is called in messages and lists: its path under the data set's folder."""

    def group(self, i: int) -> str:
        """What image i was cut from, a tile or a scene: images of one group are never split between train and test."""

    def place(self, i: int) -> tuple[int, int]:
        """Where image i lies in its group, x and y of its first pixel; 0, 0 where that is not known."""

    def read(self, i: int) -> LabelledPixels:
        """Image i and its labels, whole; raises `BadImage`."""
