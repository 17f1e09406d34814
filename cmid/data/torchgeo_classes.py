"""The classes of torchgeo's data sets: those of two splits, which may number them each by itself, on one list."""

from collections.abc import Sequence

import numpy as np

from cmid.errors import UsageError


def class_names(known: tuple[str, ...], labels: Sequence[np.ndarray]) -> tuple[str, ...]:
    """What the classes are called.

    Args:
        known: as far as the data set says.
        labels: of each side `(N,)`, or `(N, K)` where an image may be of several.
    """
    count = _class_count(labels)
    return known if len(known) >= count else tuple(str(i) for i in range(count))


def of_one_list(
    data: str, own: Sequence[tuple[str, ...]], labels: list[np.ndarray]
) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """The classes of train and test, and the labels of both as positions among these.

    Args:
        data: what the data set is called.
        own: names that train and test have for their classes, each for itself.
        labels: of both, as `class_names` takes them.

    Raises:
        UsageError: the two number them differently, and names do not tell which is which.
    """
    if own[0] == own[1]:
        return class_names(own[0], labels), labels
    for split, names, numbers in zip(("train", "test"), own, labels, strict=True):
        if len(names) < _class_count([numbers]) or len(set(names)) < len(names):
            raise UsageError(
                f"torchgeo's {data} numbers the classes of train and of test each by itself, and does not name each of "
                f"those of {split} once ({', '.join(names) or 'none is named'}): they cannot be matched"
            )
    classes = (*own[0], *(name for name in own[1] if name not in own[0]))
    return classes, [_renumbered(*each, classes) for each in zip(labels, own, strict=True)]


def _renumbered(labels: np.ndarray, own: tuple[str, ...], classes: tuple[str, ...]) -> np.ndarray:
    places = np.array([classes.index(name) for name in own], np.int64)
    if labels.ndim == 1:
        return places[labels]
    renumbered = np.zeros((len(labels), len(classes)), labels.dtype)
    renumbered[:, places[: labels.shape[1]]] = labels
    return renumbered


def _class_count(labels: Sequence[np.ndarray]) -> int:
    return labels[0].shape[1] if labels[0].ndim == 2 else 1 + max(int(each.max()) for each in labels)
