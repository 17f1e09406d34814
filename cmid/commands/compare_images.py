"""What the rows of a comparison learn from: how many images an epoch has, and which they are."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cmid.commands.compare_plan import Row, digest
from cmid.commands.dates import with_dates
from cmid.commands.fingerprint import fingerprint, label_fingerprint
from cmid.commands.labels import with_labels
from cmid.commands.learners import method_of
from cmid.commands.sources import Opened, open_source, reads_files
from cmid.config import PretrainConfig, as_plain
from cmid.data.places import Places
from cmid.data.sources import ImageSource, LabelledSource
from cmid.errors import UsageError


@dataclass(frozen=True)
class Learned:
    """A row, and what it learns from.

    Attributes:
        row: with what images and labels decide filled in.
        images: fingerprint of them, and of their labels where the method learns these.
        count: of an epoch.
        what: is counted.
    """

    row: Row
    images: str
    count: int
    what: str


class Images:
    """The images of one comparison, opened once for all rows that see the same.

    Args:
        test: images that the rows are scored on.
        seeds: each row is trained once with each.
    """

    def __init__(self, test: LabelledSource, seeds: Sequence[int]) -> None:
        self.test, self.seeds = test, seeds
        self._scored = set(_paths(test))
        self._opened: dict[str, Opened] = {}

    def of(self, row: Row) -> Learned:
        """What a row learns from.

        Raises:
            UsageError: it would learn the labels of images that it is scored on, its data do not fit its method, or
                there are fewer images than a batch has.
        """
        method, labels, what = method_of(row.config), "", "images"
        opened = self._open(row.config)
        if method.labelled:
            opened, what = with_labels(opened), "labelled images"
            self._refuse_known(opened.source, row)
            for seed in self.seeds if row.config.limit else ():  # which images a limit leaves, the seed draws
                self._refuse_known(with_labels(self._open(replace(row.config, seed=seed))).source, row)
            if isinstance(opened.source, LabelledSource):
                labels = label_fingerprint(opened.source)
        elif method.dates:
            opened = with_dates(opened)
            what = "places at several dates" if isinstance(opened.source, Places) else what
        source, config = opened.source, opened.config
        if config.batch_size > len(source):
            raise UsageError(f"{row.label}: batch_size {config.batch_size} is more than the {len(source)} {what}")
        return Learned(replace(row, config=config), fingerprint(source) + labels, len(source), what)

    def _open(self, config: PretrainConfig) -> Opened:
        plain = as_plain(config)
        seen = [config.data, config.source, config.limit, config.seed if config.limit else 0]
        # what images that are no files of 8-bit RGB are measured by decides on bands, windows and numbers, too
        seen += [] if reads_files(config) else [plain["scenes"], plain["views"], config.in_chans]
        if (key := digest(seen)) not in self._opened:
            self._opened[key] = open_source(config)
        opened = self._opened[key]
        if not reads_files(config):
            found = opened.config
            config = replace(config, in_chans=found.in_chans, views=found.views, scenes=found.scenes)
        return replace(opened, config=config)

    def _refuse_known(self, source: ImageSource, row: Row) -> None:
        if known := [path for path in _paths(source) if path in self._scored]:
            raise UsageError(
                f"{row.label} would learn the labels of {len(known)} of the {len(self.test)} images that it is scored "
                f"on, such as {known[0]}: give other images, or a folder whose train.txt or labels.csv leaves them out"
            )


def _paths(source: ImageSource) -> list[str]:
    """Where the images of a source lie, links followed; their names where these are no paths."""
    return [os.path.realpath(source.name(i)) for i in range(len(source))]
