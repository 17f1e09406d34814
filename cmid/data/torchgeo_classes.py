"""torchgeo's classes by name, and what their objects say: files, labels, the classes of two splits on one list."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cmid.errors import UsageError, did_you_mean

NO_CLASS = "the data set gives it no class"


class _Labelled(Protocol):
    """As `TorchgeoSource`, which needs this file."""

    @property
    def named(self) -> Any: ...
    def __len__(self) -> int: ...
    def name(self, i: int) -> str: ...
    def all_labels(self, bad: dict[int, str] | None = None) -> np.ndarray: ...


def class_called(name: str) -> Any:
    """Torchgeo's class of images of that name, or ours that stands for it.

    Raises:
        UsageError: there is none (with the nearest), or it is one of scenes.
    """
    import torchgeo.datasets as known

    kinds = {n: k for n in known.__all__ if inspect.isclass(k := getattr(known, n))}
    images = {n for n, kind in kinds.items() if issubclass(kind, known.NonGeoDataset)} - {
        "NonGeoDataset",
        "NonGeoClassificationDataset",
    }
    if name in kinds and issubclass(kinds[name], known.GeoDataset):
        raise UsageError(
            f"torchgeo's {name} is one of large scenes: name the folder of its files and read windows of them, "
            "with --source scenes"
        )
    if name not in images:
        raise UsageError(f"torchgeo has no data set of images called {name!r}.{did_you_mean(name, images)}")
    kind = kinds[name]
    if name == "SEN12MS":
        from cmid.data.sen12ms import SEN12MSScenes as kind
    elif name == "SeasonalContrastS2":
        from cmid.data.patch_folders import SeasonalContrastPatches as kind
    elif name == "SSL4EOS12":
        from cmid.data.patch_folders import SSL4EOS12Patches as kind
    return kind


def classes_of(dataset: Any) -> tuple[str, ...]:
    """Names of the classes, where torchgeo's object has them."""
    sets = getattr(dataset, "class_sets", None)  # BigEarthNet has one of 19 and one of 43, its V2 one of 19
    own = sets.get(getattr(dataset, "num_classes", None)) if isinstance(sets, dict) else None
    own = own or getattr(dataset, "class_set", None)
    return tuple(str(name) for name in own or getattr(dataset, "classes", ()) or ())


def image_files(dataset: Any) -> list[str]:
    """The file of each sample, where torchgeo's object lists them; empty where it does not, or orders them itself."""
    listed = getattr(dataset, "files", None)
    if not isinstance(listed, list | tuple) or len(listed) != len(dataset) or hasattr(dataset, "imgs"):
        return []
    files = [each.get("image") if isinstance(each, dict) else each for each in listed]
    return [str(file) for file in files] if all(isinstance(file, str | Path) for file in files) else []


def as_label(label: Any, data: str) -> int | np.ndarray:
    """A sample's `label` as a class, which torchgeo may say to be -1, or as `(K,)` float32 of 0 and 1.

    Raises:
        UsageError: it is neither.
    """
    found = None if label is None else np.asarray(label)
    if found is not None and found.ndim == 1 and found.size > 1 and np.isin(found, (0, 1)).all():
        return found.astype(np.float32)
    if found is None or found.size != 1 or found.dtype.kind not in "iub":
        raise UsageError(f"torchgeo's {data} gives an image no class; scoring needs one, or several")
    return max(int(found.item()), -1)  # of whatever shape: MillionAID gives a list of one class


def stacked(labels: Sequence[int | np.ndarray]) -> np.ndarray:
    """`(N,)`, or `(N, K)` where an image may be of several classes: -1 is then all of the row of one without label."""
    shape = max((np.shape(each) for each in labels), key=len)
    return np.stack([np.full(shape, -1) if isinstance(each, int) and each < 0 else each for each in labels])


def with_labels(source: _Labelled) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """The images of a source that can be scored.

    Returns:
        positions `(n,)` of those; their labels `(n,)` int64, or `(n, K)` float32 where one may be of several; name and
        reason of each other image.

    Raises:
        UsageError: there is none, or the data set has no classes.
    """
    bad = dict[int, str]()
    labels = source.all_labels(bad)
    known = labels >= 0 if labels.ndim == 1 else (labels >= 0).all(1)
    # no dict: images of two splits may be called the same
    left_out = [(source.name(i), bad.get(i, NO_CLASS)) for i in np.flatnonzero(~known).tolist()]
    if not known.any():
        name, reason = left_out[0]
        raise UsageError(
            f"none of {len(labels)} images of torchgeo's {source.named.name} with {source.named.arguments} has a label "
            f"that can be read, first {name}: {reason}. Name a split with labels, or look whether the files are whole"
        )
    return np.flatnonzero(known), labels[known], left_out


def left_out_notes(left_out: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """A sentence of images that `with_labels` leaves out; none where there are none."""
    if not left_out:
        return ()
    name, reason = left_out[0]
    return (f"{len(left_out)} images without a label that can be read are left out, first {name}: {reason}",)


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
