"""Train and test of images with masks."""

import pytest

from cmid.data.mask_pairs import Pair
from cmid.data.pixel_splits import split_pairs
from cmid.errors import UsageError


def of_splits(*splits):
    return [Pair(f"{split}/images/{i}.png", f"{split}/masks/{i}.png", split, str(i)) for i, split in enumerate(splits)]


def test_folders_called_test_win_over_val():
    pairs = of_splits("train", "val", "test", "train")
    split = split_pairs(pairs, data="d")
    assert (split.train, split.test) == ((0, 3), (2,))
    assert "by the folders train and test; 1 images elsewhere are in neither" in split.how
    assert split_pairs(of_splits("train", "val", ""), data="d").test == (1,)


def test_one_group_is_drawn_by_image():
    pairs = [Pair(f"images/{i}.png", f"masks/{i}.png", group="a") for i in range(10)]
    split = split_pairs(pairs, data="d", seed=4)
    assert (len(split.train), len(split.test)) == (8, 2)
    assert sorted(split.train + split.test) == list(range(10))
    assert split == split_pairs(pairs, data="d", seed=4)
    assert split != split_pairs(pairs, data="d", seed=5)


@pytest.mark.parametrize(
    ("pairs", "settings", "says"),
    [
        (of_splits("")[:1], {}, "d has one image"),
        (of_splits("", ""), {"test_groups": ("0", "1")}, "no images are left for train"),
        (of_splits("", ""), {"test_groups": ("0",), "test_list": "x"}, "test_groups and lists both say"),
    ],
)
def test_splits_that_cannot_be(pairs, settings, says):
    with pytest.raises(UsageError, match=says):
        split_pairs(pairs, data="d", **settings)
