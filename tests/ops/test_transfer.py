"""What is waited for on the way to a device."""

import pytest
import torch

from cmid.contracts import View, Views
from cmid.ops.transfer import to_device


class Told(torch.Tensor):
    """Keeps what it is told; stands for a tensor on a machine with GPUs."""

    def to(self, device, *, non_blocking=False):
        return torch.device(device).type, non_blocking


@pytest.mark.parametrize(("device", "waits"), [("cpu", True), ("mps", True), ("cuda", False), ("cuda:1", False)])
def test_cuda_alone_is_not_waited_for(device, waits):
    """A copy to Apple's GPUs that is not waited for may read memory that has been freed."""
    assert to_device(torch.zeros(2).as_subclass(Told), device) == (torch.device(device).type, not waits)


def test_views_go_whole():
    view = View(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 4), torch.zeros(2, dtype=torch.bool))
    moved = Views((view,), torch.arange(2), epoch=3, labels=torch.zeros(2)).to("meta")
    assert {t.device.type for t in (moved[0].images, moved[0].boxes, moved[0].flipped, moved.indices)} == {"meta"}
    assert moved.labels.device.type == "meta" and moved.epoch == 3
