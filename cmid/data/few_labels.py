"""Part of a labelled source: few images of each class, or a share held out."""

from collections.abc import Sequence

import numpy as np

from cmid.data.decode import Decoded, Reduction
from cmid.data.labelled import draw_share
from cmid.data.sources import LabelledSource, is_multi_label
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

    Where an image may be of several classes, images are drawn until each class has `count` of them, one a class in
    turn, the rarest class first; those of common classes then come to more.

    Raises:
        UsageError: a class has not as many.
    """
    if is_multi_label(source):
        return LabelledSubset(source, _few_of_several(source, count, seed))
    labels, chosen = source.labels, []
    for label, name in enumerate(source.classes):
        members = np.flatnonzero(labels == label)
        if 0 < members.size < count:
            raise UsageError(f"per_class is {count}, but class {name} has {members.size} training images: lower it")
        generator = np.random.default_rng([seed & (1 << 64) - 1, label])
        chosen.append(generator.permutation(members)[:count])
    return LabelledSubset(source, np.sort(np.concatenate(chosen)))


def _few_of_several(source: LabelledSource, count: int, seed: int) -> np.ndarray:
    order = np.random.default_rng([seed & (1 << 64) - 1]).permutation(len(source))
    labels, have = source.labels[order] > 0, np.zeros(len(source.classes), np.int64)
    totals, taken = labels.sum(0), np.zeros(len(order), bool)
    if short := [f"{name} has {n}" for name, n in zip(source.classes, totals, strict=True) if 0 < n < count]:
        raise UsageError(f"per_class is {count}, but class {short[0]} training images: lower it")
    rarest_first = [label for label in np.argsort(totals, kind="stable") if totals[label]]
    for wanted in range(1, count + 1):  # in rounds: what is taken for fewer is then taken for more
        for label in rarest_first:
            if have[label] < wanted:
                place = np.flatnonzero(labels[:, label] & ~taken)[0]
                taken[place] = True
                have += labels[place]
    return np.sort(order[taken])


def held_out(source: LabelledSource, share: float, seed: int) -> tuple[LabelledSubset, LabelledSubset]:
    """The rest, and a seeded `share` of each class.

    Raises:
        UsageError: a class has a single image; or, where an image may be of several, no image left to learn from.
    """
    away = draw_share(source.labels, source.classes, share=share, seed=seed)
    rest = np.setdiff1d(np.arange(len(source)), away)
    before, after = (missing_classes(labels, source.classes) for labels in (source.labels, source.labels[rest]))
    if lost := [name for name in after if name not in before]:
        raise UsageError(f"hold_out is {share}, which leaves no training images of {', '.join(lost[:5])}: lower it")
    return LabelledSubset(source, rest), LabelledSubset(source, np.sort(away))


def check_tells_apart(train: LabelledSource, data: str) -> None:
    """Raises `UsageError` where the training images all have the same labels: there is nothing to tell apart."""
    if (train.labels == train.labels[:1]).all():
        first = np.atleast_1d(train.labels[0])
        which = np.flatnonzero(first) if is_multi_label(train) else first
        what = " and ".join(train.classes[i] for i in which) or "none"
        raise UsageError(
            f"all {len(train)} training images of {data} have the same label, {what}: expected two classes or more to "
            "tell apart; add training images of another"
        )


def missing_classes(labels: np.ndarray, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes that no image of `labels` `(N,)`, or `(N, K)`, is of."""
    if labels.ndim == 2:
        return tuple(name for label, name in enumerate(classes) if not labels[:, label].any())
    return tuple(name for label, name in enumerate(classes) if not (labels == label).any())
