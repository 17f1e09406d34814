"""Which images with masks are for training and which for test; those of one group are never on both sides by chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmid.data.folder import listed_positions
from cmid.data.mask_pairs import Pair
from cmid.errors import UsageError, did_you_mean

TRAIN_SHARE = 0.8


@dataclass(frozen=True)
class Split:
    """Positions of images for each side, and how they were chosen, in words."""

    train: tuple[int, ...]
    test: tuple[int, ...]
    how: str

    def to_plain(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """For a run's account: how, and the names on either side."""
        return {
            "how": self.how,
            "train": [pairs[i].image for i in self.train],
            "test": [pairs[i].image for i in self.test],
        }


def split_pairs(
    pairs: Sequence[Pair],
    *,
    data: str,
    train_list: str | None = None,
    test_list: str | None = None,
    test_groups: Sequence[str] = (),
    seed: int = 0,
) -> Split:
    """Train and test: by lists, by folders called train and val or test, by groups held out, or drawn.

    Raises:
        UsageError: lists that name images that are not there or share some, groups that are not there, an empty side.
    """
    named = named_split(pairs, data=data, train_list=train_list, test_list=test_list, test_groups=test_groups)
    chosen = named or _drawn(pairs, data, seed)
    if not chosen.train:
        raise UsageError(f"no images are left for train in {data}, split {chosen.how}")
    return chosen


def named_split(
    pairs: Sequence[Pair],
    *,
    data: str,
    train_list: str | None = None,
    test_list: str | None = None,
    test_groups: Sequence[str] = (),
) -> Split | None:
    """As `split_pairs`, but nothing is drawn: None where nothing says what is for test. Train may be empty."""
    if test_groups and (train_list or test_list):
        raise UsageError("test_groups and lists both say what is for test: give one of them")
    if train_list or test_list:
        chosen = _by_lists(pairs, data, train_list, test_list)
    elif test_groups:
        chosen = _by_groups(pairs, data, test_groups)
    elif any(pair.split == "train" for pair in pairs) and any(pair.split in ("val", "test") for pair in pairs):
        chosen = _by_folders(pairs)
    else:
        return None
    if not chosen.test:
        raise UsageError(f"no images are left for test in {data}, split {chosen.how}")
    return chosen


def _by_folders(pairs: Sequence[Pair]) -> Split:
    """Of test and val the one that has masks; test where both have."""
    held = "test" if any(pair.split == "test" for pair in pairs) else "val"
    train, test = (tuple(i for i, pair in enumerate(pairs) if pair.split == side) for side in ("train", held))
    left = len(pairs) - len(train) - len(test)
    rest = f"; {left} images elsewhere are in neither" if left else ""
    return Split(train, test, f"by the folders train and {held}{rest}")


def _by_groups(pairs: Sequence[Pair], data: str, wanted: Sequence[str]) -> Split:
    """The groups that are named held out, and those below them: `Tile 7` holds `Tile 7/part_1`."""
    groups = sorted({pair.group for pair in pairs})
    for name in wanted:
        if not any(_is_of(pair, name) for pair in pairs):
            shown = ", ".join(groups[:8]) + (f" and {len(groups) - 8} more" if len(groups) > 8 else "")
            raise UsageError(
                f"test_groups names {name!r}, which {data} has not.{did_you_mean(name, groups)} It has {shown}"
            )
    held = [any(_is_of(pair, name) for name in wanted) for pair in pairs]
    train, test = (tuple(i for i, each in enumerate(held) if each == side) for side in (False, True))
    return Split(train, test, f"by the groups held out, {', '.join(wanted)}")


def _is_of(pair: Pair, name: str) -> bool:
    return pair.own_name == name or f"{pair.group}/".startswith(f"{name.rstrip('/')}/")


def _drawn(pairs: Sequence[Pair], data: str, seed: int) -> Split:
    groups = sorted({pair.group for pair in pairs})
    key = [pair.group for pair in pairs] if len(groups) > 1 else [pair.image for pair in pairs]
    names = sorted(set(key))
    if len(names) < 2:
        raise UsageError(f"{data} has one image: at least two are needed to split it into train and test")
    count = min(max(round(TRAIN_SHARE * len(names)), 1), len(names) - 1)
    order = np.random.default_rng([seed & (1 << 64) - 1, len(names)]).permutation(len(names))
    mine = {names[i] for i in order[:count]}
    train, test = (tuple(i for i, k in enumerate(key) if (k in mine) == side) for side in (True, False))
    what = "images" if len(groups) < 2 or len(groups) == len(pairs) else "groups"
    return Split(train, test, f"by a draw of {count} of {len(names)} {what} with seed {seed}")


def _by_lists(pairs: Sequence[Pair], data: str, train_list: str | None, test_list: str | None) -> Split:
    listed = {path: _listed(pairs, data, path) for path in (train_list, test_list) if path}
    if train_list and test_list:
        shared = sorted(set(listed[train_list]) & set(listed[test_list]))
        if shared:
            raise UsageError(
                f"{len(shared)} images are in both {train_list} and {test_list}, first {pairs[shared[0]].image}: a "
                "test image must not be trained on"
            )
    named = {i for places in listed.values() for i in places}
    rest = [i for i in range(len(pairs)) if i not in named]  # where one list is given, what it does not name
    train = listed[train_list] if train_list else rest
    test = listed[test_list] if test_list else rest
    return Split(tuple(train), tuple(test), f"by {' and '.join(listed)}")


def _listed(pairs: Sequence[Pair], data: str, path: str) -> list[int]:
    return listed_positions(path, [pair.image for pair in pairs], f"{data}, or have no mask")
