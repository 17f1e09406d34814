"""What errors of torch and the system mean to the user."""

import pytest
import torch
import torch.distributed as dist

from cmid.train.failures import in_words


def raised(call):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        raised(lambda: torch.empty(1 << 60)),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["cpu", "python", "cuda", "cublas"],
)
def test_want_of_memory_is_told_with_what_to_do(error):
    told = str(in_words(error))
    assert told.startswith("Memory was short amid a step: ") and "a lower --batch_size" in told and "\n" not in told


def test_a_process_that_is_gone_is_told():
    assert "Another process of the run is gone" in str(in_words(dist.DistBackendError("NCCL communicator was aborted")))
    assert "Another process" in str(in_words(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed")))


def test_a_loader_process_that_dies_is_told():
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    assert str(in_words(error)).startswith("A loader process died, which is mostly for want of memory: DataLoader")


def test_a_mistake_of_ours_is_not_put_into_words():
    assert in_words(raised(lambda: torch.zeros(2, 3) @ torch.zeros(2, 3))) is None
