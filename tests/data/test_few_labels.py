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


@pytest.fixture
def several():
    """60 images, a common class, two that overlap, a rare one, and images of none."""
    rng = np.random.default_rng(0)
    rows = rng.random((60, 4)) < (0.7, 0.3, 0.25, 0.0)
    rows[:7, 3] = True
    rows[7:12] = False
    source = Labels([0] * 60, ("common", "b", "c", "rare"))
    source.labels = rows.astype(np.float32)
    return source


def test_of_several_classes_an_image_each_class_has_enough_and_fewer_are_among_more(several):
    drawn = [set(few_of_each(several, count, seed=3).places) for count in range(1, 8)]
    for count, (places, more) in enumerate(zip(drawn, [*drawn[1:], set(range(60))], strict=True), 1):
        assert several.labels[sorted(places)].sum(0).min() >= count and places < more
        assert len(places) <= 4 * count, "no image is taken that no class asked for"
    with pytest.raises(UsageError, match="class rare has 7 training images"):
        few_of_each(several, 8, seed=0)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_a_part_held_out_has_its_share_of_each_of_several_classes(several, share):
    rest, away = held_out(several, share, seed=1)
    assert not set(rest.places) & set(away.places) and len(rest) + len(away) == 60
    totals = several.labels.sum(0)
    assert (np.abs(away.labels.sum(0) - share * totals) <= 1).all() and abs(len(away) - share * 60) <= 2
    assert set(held_out(several, share, seed=2)[1].places) != set(away.places)


def test_a_class_with_one_image_of_several_classes_stays_in_train(several):
    several.labels[1:, 3] = 0
    for seed in range(5):
        assert 0 in held_out(several, 0.3, seed)[0].places
    with pytest.raises(UsageError, match="leaves no training images of rare: lower it"):
        held_out(several, 0.9, seed=0)


def test_of_few_images_of_several_classes_one_is_held_out_all_the_same(several):
    rest, away = held_out(LabelledSubset(several, np.arange(6, 16)), 0.01, seed=0)
    assert len(away) == 1 and len(rest) == 9


def test_missing_classes(source):
    assert missing_classes(source.labels, source.classes) == ()
    assert missing_classes(LabelledSubset(source, np.arange(12)).labels, source.classes) == ("c",)
