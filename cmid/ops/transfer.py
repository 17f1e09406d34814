"""Tensors on their way to the device."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on `device`; a CUDA device is not waited for.

    Only there: torch copies to CUDA from page-locked memory that it keeps until the copy is done, and from other memory
    through a buffer of its own. On Apple's GPUs a copy that is not waited for may read memory that has been freed by
    then (pytorch issues 139550 and 189690).
    """
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")
