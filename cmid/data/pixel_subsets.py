"""Some images of a source of labelled pixels: a share drawn by seed, a part held out by whole groups."""

import numpy as np
import torch

from cmid.data.pixel_labels import LabelledPixels, PixelSource
from cmid.errors import UsageError


class PixelSubset:
    """Images of another source, by their positions in it.

    Args:
        source: the other.
        indices: positions, in the order they are to have here.
    """

    fresh = False

    def __init__(self, source: PixelSource, indices: list[int]) -> None:
        self.source, self.indices = source, indices

    @property
    def bands(self) -> int:
        """As of the other source, like the next four."""
        return self.source.bands

    @property
    def dtype(self) -> torch.dtype:
        """Of every image's pixels."""
        return self.source.dtype

    @property
    def stored_dtype(self) -> str:
        """Of the files' own values."""
        return self.source.stored_dtype

    @property
    def names(self) -> tuple[str, ...]:
        """Of the bands."""
        return self.source.names

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes."""
        return self.source.classes

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """Of each class."""
        return self.source.colours

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, i: int) -> str:
        """As of the other source, like the next three."""
        return self.source.name(self.indices[i])

    def group(self, i: int) -> str:
        """What image i was cut from."""
        return self.source.group(self.indices[i])

    def place(self, i: int) -> tuple[int, int]:
        """Where in it."""
        return self.source.place(self.indices[i])

    def read(self, i: int) -> LabelledPixels:
        """Image i and its labels; raises `BadImage`."""
        return self.source.read(self.indices[i])


def share_of(source: PixelSource, share: float, seed: int) -> PixelSubset:
    """A share of the images, at least two, drawn by seed; a greater share of the same seed holds a smaller one.

    Raises:
        UsageError: there are not two.
    """
    count = max(2, round(share * len(source)))
    if count > len(source):
        raise UsageError(f"{share:.2%} of {len(source)} images are not two; a batch needs two")
    order = np.random.default_rng(seed).permutation(len(source))
    return PixelSubset(source, sorted(order[:count].tolist()))


def held_out(source: PixelSource, share: float, seed: int) -> tuple[PixelSubset, PixelSubset, str]:
    """The images without, and those of, a part held out; and how it was drawn, in words.

    Whole groups are held out, as near to the share as they come, where there are several: images of one scene may
    touch or overlap. Of a single group images are.

    Raises:
        UsageError: one of the two would be empty.
    """
    members: dict[str, list[int]] = {}
    for i in range(len(source)):
        members.setdefault(source.group(i), []).append(i)
    draws = np.random.default_rng(seed)
    if len(members) > 1:
        ordered = sorted(members)  # the draw does not depend on the order in which the images come
        names = [ordered[k] for k in draws.permutation(len(ordered))]
        taken: list[str] = []
        before = 0
        for name in names[:-1]:
            # taken if that comes nearer to the share than stopping short of it
            if before and abs(before + len(members[name]) - share * len(source)) >= abs(before - share * len(source)):
                break
            taken.append(name)
            before += len(members[name])
        out, by = sorted(i for name in taken for i in members[name]), f"whole: {', '.join(sorted(taken))}"
    else:
        order = draws.permutation(len(source))
        out, by = sorted(order[: round(share * len(source))].tolist()), f"drawn by seed {seed} out of one scene"
    away = set(out)
    rest = [i for i in range(len(source)) if i not in away]
    if not out or len(rest) < 2:
        raise UsageError(f"hold_out {share:g} of {len(source)} images leaves too few on one side: give another share")
    return PixelSubset(source, rest), PixelSubset(source, out), by
