"""Part of a labelled source: few images of each class, or a share held out."""

from collections.abc import Sequence

import numpy as np

from cmid.data.decode import Decoded, Reduction
from cmid.data.labelled import draw_share
from cmid.data.sources import LabelledSource
from cmid.errors import UsageError


class LabelledSubset:
    """Some images of a labelled source, under its classes.

    Args:
        source: of the images.
        places: `(N,)` int64, positions in it.
    """

    fresh = False

    def __init__(self, source: LabelledSource, places: np.ndarray) -> None:
        self.source, self.places = source, places
        self.labels, self.classes = source.labels[places], source.classes
        self.bands, self.dtype = source.bands, source.dtype

    def __len__(self) -> int:
        return len(self.places)

    def name(self, i: int) -> str:
        """What image i is called in messages."""
        return self.source.name(int(self.places[i]))

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Image i, shrunk as `reduction` allows; raises `BadImage`."""
        return self.source.decode(int(self.places[i]), reduction)


def few_of_each(source: LabelledSource, count: int, seed: int) -> LabelledSubset:
    """`count` images of each class, drawn by seed; more of them hold all that fewer hold.

    Raises:
        UsageError: a class has not as many.
    """
    labels, chosen = source.labels, []
    for label, name in enumerate(source.classes):
        members = np.flatnonzero(labels == label)
        if 0 < members.size < count:
            raise UsageError(f"per_class is {count}, but class {name} has {members.size} training images: lower it")
        generator = np.random.default_rng([seed & (1 << 64) - 1, label])
        chosen.append(generator.permutation(members)[:count])
    return LabelledSubset(source, np.sort(np.concatenate(chosen)))


def held_out(source: LabelledSource, share: float, seed: int) -> tuple[LabelledSubset, LabelledSubset]:
    """The rest, and a seeded `share` of each class; raises `UsageError` where a class has a single image."""
    away = draw_share(source.labels, source.classes, share=share, seed=seed)
    rest = np.setdiff1d(np.arange(len(source)), away)
    return LabelledSubset(source, rest), LabelledSubset(source, np.sort(away))


def missing_classes(labels: np.ndarray, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes that no image of `labels` `(N,)` is of."""
    return tuple(name for label, name in enumerate(classes) if not (labels == label).any())
