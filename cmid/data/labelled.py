"""Images on disk with one folder per class, and their division into train and test."""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from cmid.data.decode import SUFFIXES, Decoded, Reduction, decode
from cmid.data.folder import find_files, kind_of, listed_positions, why
from cmid.errors import UsageError


@dataclass(frozen=True)
class LabelledImages:
    """Some images of a labelled folder.

    Attributes:
        paths: N files.
        labels: `(N,)` int64, positions in `classes`; or `(N, K)` float32 of 0 and 1, where an image may have several.
        classes: names of all classes, of a folder sorted.
        root: the folder they were found in or are named from; moving it makes no other images of them.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    root: Path
    bands: ClassVar[int] = 3
    dtype: ClassVar[torch.dtype] = torch.uint8
    fresh: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, i: int) -> str:
        """What image i is called in messages: its path."""
        return str(self.paths[i])

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Image i, shrunk as `reduction` allows; raises `BadImage`."""
        return decode(self.paths[i], reduction)

    def read(self, i: int) -> np.ndarray:
        """Image i as `(H, W, 3)` uint8 RGB; raises `BadImage`."""
        return self.decode(i).pixels


def root_of_classes(path: Path) -> Path:
    """The folder that holds the class folders of `path`: itself, or the single one in it; as `LabelledFolder.root`."""
    return _classes_in(path)[0]


def _classes_in(path: Path) -> tuple[Path, list[Path]]:
    folders = _folders(path)
    if len(folders) == 1 and len(inner := _folders(folders[0])) > 1:
        return folders[0], inner
    return path, folders


class LabelledFolder:
    """A folder with one folder per class, each of any depth.

    A folder that holds a single folder with the class folders in it (UC Merced's `Images`) stands for that one.

    Args:
        path: the folder.
        least: how many classes there must be.

    Raises:
        UsageError: where the folder is missing, cannot be listed, has too few classes, or a class has no image.
    """

    def __init__(self, path: Path | str, *, least: int = 2) -> None:
        self.path = Path(path)
        if kind_of(self.path) != "folder":
            raise UsageError(f"no such folder: {path}; expected a folder with one folder per class")
        root, folders = _classes_in(self.path)
        if len(folders) < least:
            found = f"only one class, {folders[0].name}" if folders else "no folders"
            wanted = (
                "folders of images, one per class" if least == 1 else "at least two folders of images, one per class"
            )
            raise UsageError(f"{found} in {path}: expected {wanted}")
        self.root = root
        self.classes = tuple(folder.name for folder in folders)
        self._names: list[str] = []
        labels: list[int] = []
        for label, folder in enumerate(folders):
            names = find_files(folder)
            if not names:
                raise UsageError(
                    f"class {folder.name} has no images: looked in {folder} for files ending in {' '.join(SUFFIXES)}; "
                    "add some or remove the folder"
                )
            self._names += [f"{folder.name}/{name}" for name in names]
            labels += [label] * len(names)
        self._labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def all(self) -> LabelledImages:
        """Every image, sorted by class and name."""
        return self._take(np.arange(len(self)))

    def listed(self, path: Path | str) -> LabelledImages:
        """The images that a list names, in its order; see `split` for the list and its errors."""
        return self._take(self._listed(path))

    def split(
        self,
        train_list: Path | str | None = None,
        test_list: Path | str | None = None,
        *,
        train_share: float = 0.8,
        seed: int = 0,
    ) -> tuple[LabelledImages, LabelledImages]:
        """Train and test.

        Args:
            train_list: text file of paths under the folder, such as `agricultural/agricultural00.jpg`; the suffix
                may differ from the file's. Unset: what `test_list` leaves, or a seeded `train_share` of each class.
            test_list: the same for test; unset: the rest.
            train_share: share of each class in train where there is no list, at least one image on either side.
            seed: fixes that draw; a class's draw does not depend on the other classes.

        Raises:
            UsageError: where a list names files that are not there, or the two share files, or one side is empty.
        """
        every = np.arange(len(self))
        if train_list is not None:
            train = self._listed(train_list)
        elif test_list is not None:
            train = np.setdiff1d(every, self._listed(test_list))
        else:
            train = self._drawn(train_share, seed)
        test = self._listed(test_list) if test_list is not None else np.setdiff1d(every, train)
        shared = np.intersect1d(train, test)
        if shared.size:
            raise UsageError(
                f"{shared.size} images are in both {train_list} and {test_list}, first {self._names[shared[0]]}: "
                "a test image must not be trained on"
            )
        for side, chosen in (("train", train), ("test", test)):
            if chosen.size == 0:
                raise UsageError(f"no images left for {side} in {self.path}: shorten the list of the other side")
        return self._take(train), self._take(test)

    def _take(self, chosen: np.ndarray) -> LabelledImages:
        paths = tuple(self.root / self._names[i] for i in chosen)
        return LabelledImages(paths, self._labels[chosen], self.classes, self.root)

    def _drawn(self, share: float, seed: int) -> np.ndarray:
        if not 0 < share < 1:
            raise UsageError(f"the share of train must lie between 0 and 1, found {share}")
        return draw_share(self._labels, self.classes, share=share, seed=seed)

    def _listed(self, path: Path | str) -> np.ndarray:
        """Positions of the entries of a list, in its order, each once."""
        outer = "" if self.root == self.path else f"{self.root.name}/"
        return np.array(listed_positions(path, self._names, str(self.root), outer), dtype=np.int64)


def draw_share(labels: np.ndarray, classes: Sequence[str], *, share: float, seed: int) -> np.ndarray:
    """Positions of a seeded share of each class, class by class, at least one image in it and one left out.

    Args:
        labels: `(N,)` int64, positions in `classes`; or `(N, K)` of 0 and 1, where an image may be of several.
        classes: their names; a class's draw depends on its name and images, not on the other classes.
        share: between 0 and 1.
        seed: fixes the draw.

    Raises:
        UsageError: a class has a single image; one without any is passed over. Not where an image may be of several:
            a rare class may then be on the greater side alone.
    """
    if labels.ndim == 2:
        return _draw_of_several(labels > 0, share, seed)
    chosen = [np.empty(0, np.int64)]
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label)
        if not members.size:
            continue
        if members.size < 2:
            raise UsageError(f"class {name} has one image: at least two are needed to split it into train and test")
        count = min(max(round(share * members.size), 1), members.size - 1)
        generator = np.random.default_rng([seed & (1 << 64) - 1, zlib.crc32(os.fsencode(name))])
        chosen.append(np.sort(generator.permutation(members)[:count]))
    return np.concatenate(chosen)


def _draw_of_several(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Positions, sorted, of nearly `share` of each class's images in `labels` `(N, K)` bool, at least one and not all.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011, for two parts): the class with the fewest images
    that are not placed yet is next, and each of those goes to the part that lacks that class most.
    """
    order = np.random.default_rng([seed & (1 << 64) - 1, len(labels)]).permutation(len(labels))
    labels, parts = labels[order], np.array([share, 1 - share])
    lacks, room = np.outer(parts, labels.sum(0)), parts * len(labels)  # (2, K) and (2,)
    part = np.full(len(labels), -1)

    def place(i: Any, wish: np.ndarray) -> None:
        part[i] = 0 if (wish[0], room[0]) >= (wish[1], room[1]) else 1
        lacks[part[i]] -= labels[i]
        room[part[i]] -= 1

    left = labels.sum(0)
    while left.any():
        label = int(np.argmin(np.where(left > 0, left, len(labels) + 1)))
        for i in np.flatnonzero(labels[:, label] & (part < 0)):
            place(i, lacks[:, label].copy())
        left = labels[part < 0].sum(0)
    for i in np.flatnonzero(part < 0):  # of no class
        place(i, room.copy())
    for own in (0, 1):
        if not (part == own).any():  # then an image whose classes have the most others
            part[np.argmax(np.where(labels, labels.sum(0), len(labels) + 1).min(1))] = own
    return np.sort(order[part == 0])


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"cannot list the folder {error.filename or path}: {why(error)}") from None
