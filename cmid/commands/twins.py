"""Pictures that are in train and in test: found, named, and left out of train where asked for."""

from dataclasses import dataclass

import numpy as np
from rich.console import Console

from cmid.commands.sources import progress
from cmid.config import FinetuneConfig
from cmid.data.duplicates import find_duplicates
from cmid.data.few_labels import LabelledSubset, missing_classes
from cmid.data.sources import LabelledSource
from cmid.errors import UsageError


@dataclass(frozen=True)
class Twins:
    """Pictures that are in train and in test.

    Attributes:
        pairs: name in train, name in test, exact or near.
        dropped: how many images were left out of train for it.
    """

    pairs: tuple[tuple[str, str, str], ...] = ()
    dropped: int = 0

    @property
    def test_names(self) -> frozenset[str]:
        """Of the test images concerned."""
        return frozenset(test for _, test, _ in self.pairs)

    def words(self, tests: int) -> str:
        """What the user should hear, of `tests` test images."""
        exact = sum(kind == "exact" for _, _, kind in self.pairs)
        done = f"{self.dropped} are left out of train" if self.dropped else "--duplicates drop leaves them out of train"
        return (
            f"{len(self.test_names)} of {tests} test images are also in train ({exact} exact pairs, "
            f"{len(self.pairs) - exact} near), first {' and '.join(self.pairs[0][:2])}; all are in data.json, and "
            f"{done}"
        )


def find_twins(train: LabelledSource, test: LabelledSource, config: FinetuneConfig, console: Console) -> Twins:
    """Looks at every image of both, with progress."""
    with progress(console, "looking for pictures that are in train and in test") as tick:
        found = find_duplicates(
            train, test, within=False, workers=config.train.workers, read_timeout_s=config.read_timeout_s, tick=tick
        )
    return Twins(tuple((train.name(p.first), test.name(p.second), p.kind) for p in found.between))


def without_twins(train: LabelledSource, twins: Twins) -> LabelledSubset:
    """The train images whose picture is not in test.

    Raises:
        UsageError: a class would have no training image left.
    """
    away = {name for name, _, _ in twins.pairs}
    kept = np.array([i for i in range(len(train)) if train.name(i) not in away], np.int64)
    before, after = (missing_classes(labels, train.classes) for labels in (train.labels, train.labels[kept]))
    if lost := [name for name in after if name not in before]:
        names = ", ".join(lost)
        raise UsageError(f"all training images of {names} are in test as well: take duplicates report, or other lists")
    return LabelledSubset(train, kept)
