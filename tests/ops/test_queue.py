"""The ring of negatives."""

import pytest
import torch

from cmid.ops.queue import enqueue, new_queue


def test_starts_with_unit_rows():
    torch.testing.assert_close(new_queue(10, 4).norm(dim=1), torch.ones(10))


@pytest.mark.parametrize(("size", "batch"), [(8, 4), (10, 4), (7, 3), (5, 5), (3, 7)])
def test_holds_the_latest_keys_whatever_the_sizes(size, batch):
    queue, pointer = new_queue(size, 1), torch.zeros(1, dtype=torch.int64)
    written = []
    for step in range(6):
        keys = torch.arange(batch, dtype=torch.float32)[:, None] + 100 * (step + 1)
        enqueue(queue, pointer, keys)
        written += keys.flatten().tolist()
    assert sorted(queue.flatten().tolist()) == sorted(written[-size:])
    assert 0 <= pointer.item() < size
