"""A labelled source under the classes of a classifier, matched by name."""

from collections.abc import Sequence

import numpy as np

from cmid.data.few_labels import LabelledSubset
from cmid.data.sources import LabelledSource, is_multi_label


class MatchedClasses(LabelledSubset):
    """The images of `source`, labelled by the place of their class among `classes`.

    An image whose one class is unknown is left out. Where an image may be of several, only its unknown classes are,
    and it counts as of none of the `classes` that the source does not have.

    Args:
        source: with classes of its own, in any order.
        classes: K names.

    Attributes:
        unknown: images of each class of `source` that `classes` lacks, by name; those without an image are no matter.
        absent: names of `classes` that have no image.
    """

    def __init__(self, source: LabelledSource, classes: Sequence[str]) -> None:
        place_of = {name: place for place, name in enumerate(classes)}
        places = np.array([place_of.get(name, -1) for name in source.classes], np.int64)
        if is_multi_label(source):
            super().__init__(source, np.arange(len(source)))
            counts = source.labels.sum(0).astype(int)
            self.labels = np.zeros((len(source), len(classes)), np.float32)
            self.labels[:, places[places >= 0]] = source.labels[:, places >= 0]
            occur = self.labels.any(0)
        else:
            matched = places[source.labels]
            super().__init__(source, np.flatnonzero(matched >= 0))
            counts = np.bincount(source.labels, minlength=len(source.classes))
            self.labels = matched[matched >= 0]
            occur = np.bincount(self.labels, minlength=len(classes)) > 0
        self.classes = tuple(classes)
        named = zip(source.classes, counts.tolist(), places.tolist(), strict=True)
        self.unknown = {name: count for name, count, place in named if count and place < 0}
        self.absent = tuple(name for name, there in zip(classes, occur, strict=True) if not there)
