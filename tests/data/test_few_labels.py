import numpy as np
import pytest

from cmid.data.few_labels import LabelledSubset, few_of_each, held_out, missing_classes
from cmid.errors import UsageError


class Labels:
    bands, dtype, fresh = 3, None, False

    def __init__(self, labels, classes):
        self.labels, self.classes = np.array(labels, np.int64), classes

    def __len__(self):
        return len(self.labels)

    def name(self, i):
        return f"image {i}"


@pytest.fixture
def source():
    return Labels([0] * 10 + [1] * 6 + [2] * 8, ("a", "b", "c"))


def test_few_of_each_are_as_many_of_each_and_fewer_are_among_more(source):
    five, two = few_of_each(source, 5, seed=1), few_of_each(source, 2, seed=1)
    assert np.bincount(five.labels).tolist() == [5, 5, 5] and np.bincount(two.labels).tolist() == [2, 2, 2]
    assert set(two.places) < set(five.places)
    assert set(few_of_each(source, 5, seed=2).places) != set(five.places)
    assert five.name(0) == f"image {five.places[0]}"
    with pytest.raises(UsageError, match="class b has 6 training images"):
        few_of_each(source, 7, seed=0)


def test_what_is_held_out_is_not_trained_on(source):
    rest, away = held_out(source, 0.25, seed=0)
    assert not set(rest.places) & set(away.places) and len(rest) + len(away) == len(source)
    assert np.bincount(away.labels).tolist() == [2, 2, 2]


def test_missing_classes(source):
    assert missing_classes(source.labels, source.classes) == ()
    assert missing_classes(LabelledSubset(source, np.arange(12)).labels, source.classes) == ("c",)
