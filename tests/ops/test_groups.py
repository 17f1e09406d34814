"""Parts of a batch that are seen by themselves."""

import pytest
import torch

from cmid.ops.groups import in_groups, in_shuffled_groups


def mates(part):
    """For each image of a part, the numbers of all images it is seen with."""
    return part[None].expand(len(part), -1)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_every_image_is_seen_once_with_those_of_its_group(groups):
    images = torch.arange(64)
    for see in (in_groups, in_shuffled_groups):
        seen = see(mates, images, groups)
        assert seen.shape == (64, 64 // groups)
        assert torch.equal((seen == images[:, None]).sum(1), torch.ones(64, dtype=torch.int64))
        for row in seen:
            assert torch.equal(seen[row[0]], row)  # who is in my group has me in its own


def test_a_query_and_its_key_share_no_mates_but_by_chance():
    images = torch.arange(64)
    torch.manual_seed(0)
    for groups in (1, 2, 8):
        queries, keys = in_groups(mates, images, groups), in_shuffled_groups(mates, images, groups)
        shared = torch.stack([torch.isin(q, k).float().mean() for q, k in zip(queries, keys, strict=True)]).mean()
        size = 64 // groups
        assert float(shared) == pytest.approx((1 + (size - 1) ** 2 / 63) / size, abs=0.04)  # the image itself always is


def test_groups_need_not_be_of_one_size():
    assert torch.equal(in_shuffled_groups(lambda x: 2 * x, torch.arange(7), 3), 2 * torch.arange(7))
