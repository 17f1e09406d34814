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
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["cpu", "python", "cuda", "cuda, no context", "cublas"],
)
def test_want_of_memory_is_told_with_what_to_do(error):
    told = str(in_words(error))
    assert told.startswith("Memory was short amid a step: ") and "a lower --batch_size" in told and "\n" not in told


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError("Caught MemoryError in DataLoader worker process 0.\nTraceback ...\nMemoryError"), "MemoryError"),
        (
            RuntimeError("Caught RuntimeError in DataLoader worker process 1.\nTraceback ...\nRuntimeError: unable to "
                         "allocate shared memory(shm) for file </torch_1>: No space left on device (28)"),
            "unable to allocate shared memory(shm)",
        ),
    ],
)  # fmt: skip
def test_of_a_loader_process_its_cause_is_told_and_not_the_device_blamed(error, cause):
    told = str(in_words(error))
    assert told.startswith("Memory was short in a loader process: ") and cause in told
    assert "fewer train.workers" in told and "device's" not in told


def test_a_process_that_is_gone_is_told():
    assert "Another process of the run is gone" in str(in_words(dist.DistBackendError("NCCL communicator was aborted")))
    assert "Another process" in str(in_words(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed")))


def test_a_loader_process_that_dies_is_told():
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    assert str(in_words(error)).startswith("A loader process died, which is mostly for want of memory: DataLoader")


def test_a_mistake_of_ours_is_not_put_into_words():
    assert in_words(raised(lambda: torch.zeros(2, 3) @ torch.zeros(2, 3))) is None
    assert (
        in_words(RuntimeError("The tensor has a non-zero number of elements, but its data is not allocated yet"))
        is None
    )
