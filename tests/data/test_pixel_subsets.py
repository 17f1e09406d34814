"""Shares are nested, and what is held out touches nothing that is learned."""

import numpy as np
import pytest

from cmid.data.pixel_subsets import PixelSubset, held_out, share_of
from cmid.errors import UsageError
from tests.data.labelled_squares import Squares


def test_a_subset_gives_the_images_of_the_other_source():
    source = Squares(6)
    some = PixelSubset(source, [4, 1])
    assert (len(some), some.name(0), some.group(1), some.place(1)) == (2, "tile 2/4.png", "tile 0", (96, 0))
    assert np.array_equal(some.read(0).pixels, source.read(4).pixels)
    assert (some.bands, some.classes, some.colours, some.stored_dtype) == (3, source.classes, source.colours, "uint8")


def test_smaller_shares_of_a_seed_are_among_larger_ones():
    source = Squares(40)
    found = [set(share_of(source, share, 5).indices) for share in (0.1, 0.3, 1.0)]
    assert [len(each) for each in found] == [4, 12, 40]
    assert found[0] < found[1] < found[2]
    assert set(share_of(source, 0.1, 6).indices) != found[0]
    assert len(share_of(source, 0.001, 5)) == 2, "batch-norm needs two"
    with pytest.raises(UsageError, match="are not two"):
        share_of(Squares(1), 0.5, 0)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
def test_whole_groups_are_held_out(share):
    source = Squares(40, per_group=5)
    for seed in range(5):
        rest, out, by = held_out(source, share, seed)
        groups = [{side.group(i) for i in range(len(side))} for side in (rest, out)]
        assert not groups[0] & groups[1] and len(rest) + len(out) == 40
        assert abs(len(out) - 40 * share) <= 4
        assert by == f"whole: {', '.join(sorted(groups[1]))}"


def drawn_plainly(source, share, seed):
    """Positions held out, by the rule as it is said: each time all groups are sorted and all taken are counted."""
    members = {}
    for i in range(len(source)):
        members.setdefault(source.group(i), []).append(i)
    taken = []
    for k in np.random.default_rng(seed).permutation(len(members))[:-1]:
        name = sorted(members)[k]
        before = sum(len(members[each]) for each in taken)
        if before and abs(before + len(members[name]) - share * len(source)) >= abs(before - share * len(source)):
            break
        taken.append(name)
    return sorted(i for name in taken for i in members[name])


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_the_draw_is_the_plain_rules(share):
    class Uneven(Squares):
        def group(self, i):
            return f"tile {int(i**0.5) * 7 % 10}"

    for source in (Squares(60, per_group=3), Uneven(70)):
        for seed in range(6):
            assert held_out(source, share, seed)[1].indices == drawn_plainly(source, share, seed)


def test_groups_are_sorted_once():
    compared = []

    class Counting(str):
        __slots__ = ()

        def __lt__(self, other):
            compared.append(1)
            return str.__lt__(self, other)

    class Many(Squares):
        def group(self, i):
            return Counting(super().group(i))

    assert len(held_out(Many(1000, per_group=2), 0.5, 0)[1]) == 500
    assert len(compared) < 20 * 500, "once for each of 500 groups would be some 500 times as many"


def test_of_one_group_images_are_held_out():
    source = Squares(20, per_group=20)
    rest, out, by = held_out(source, 0.25, 3)
    assert (len(rest), len(out)) == (15, 5) and not set(rest.indices) & set(out.indices)
    assert "out of one scene" in by
    with pytest.raises(UsageError, match="too few on one side"):
        held_out(source, 0.01, 3)
