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


def test_a_folder_of_groups_is_held_out_with_all_that_is_in_it():
    groups = ("Tile 1/a", "Tile 7/a", "Tile 7/b", "Tile 70/a")
    pairs = [Pair(f"{g}/images/{i}.png", f"{g}/masks/{i}.png", group=g) for g in groups for i in range(2)]
    assert split_pairs(pairs, data="d", test_groups=("Tile 7",), seed=0).test == (2, 3, 4, 5)
    assert split_pairs(pairs, data="d", test_groups=("Tile 7/b", "Tile 1/"), seed=0).test == (0, 1, 4, 5)
    with pytest.raises(UsageError, match="names 'Tile'"):
        split_pairs(pairs, data="d", test_groups=("Tile",), seed=0)


def test_one_group_is_drawn_by_image():
    pairs = [Pair(f"images/{i}.png", f"masks/{i}.png", group="a") for i in range(10)]
    split = split_pairs(pairs, data="d", seed=4)
    assert (len(split.train), len(split.test)) == (8, 2)
    assert sorted(split.train + split.test) == list(range(10))
    assert split == split_pairs(pairs, data="d", seed=4)
    assert split != split_pairs(pairs, data="d", seed=5)


def test_one_list_leaves_the_rest_to_the_other_side(tmp_path):
    pairs = of_splits(*[""] * 200)
    named = [7, 3, *range(100, 180)]
    (tmp_path / "list.txt").write_text("\n".join(pairs[i].image for i in named))
    rest = tuple(i for i in range(len(pairs)) if i not in {*named})
    by_train = split_pairs(pairs, data="d", train_list=str(tmp_path / "list.txt"))
    by_test = split_pairs(pairs, data="d", test_list=str(tmp_path / "list.txt"))
    assert (by_train.train, by_train.test) == (tuple(named), rest)
    assert (by_test.train, by_test.test) == (rest, tuple(named))


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
