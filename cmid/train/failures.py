"""What an error that is not our own means to the user, where it ends a run."""

import torch.distributed as dist

from cmid.errors import CmidError, cause_of, is_out_of_memory


def in_words(error: Exception) -> CmidError | None:
    """An error amid training as the user should hear of it; None where it is a mistake of ours."""
    if isinstance(error, RuntimeError) and is_loss(error):  # where gradients should have met, or divided parameters
        return told_of_loss(error)
    if str(error).startswith("DataLoader worker (pid"):  # torch's signal handler says so wherever we happen to be
        return CmidError(
            f"A loader process died, which is mostly for want of memory: {error}. Go on with --resume, and fewer "
            "train.workers."
        )
    if not is_out_of_memory(error):
        return None
    if str(error).startswith("Caught "):
        return CmidError(
            f"Memory was short in a loader process: {cause_of(error)}. Go on with --resume and fewer train.workers; in "
            "a container it may be its shared memory that is short (--shm-size)."
        )
    return CmidError(
        f"Memory was short amid a step: {cause_of(error)} Go on with --resume once other programs have left the "
        "device's memory, or with --train.precision bf16, or with more --devices and fewer images each (--batch_size); "
        "or begin another run with a lower --batch_size, and train.accumulate for as many images per step."
    )


def is_loss(error: RuntimeError) -> bool:
    """Whether an error amid a step says that another process no longer answers: gloo's and nccl's do."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def told_of_loss(error: RuntimeError) -> CmidError:
    """The same for the user."""
    return CmidError(
        "Another process of the run is gone, so this one stops, too. What it wrote before it died says why (the "
        "kernel's log, where memory ran out); the last good checkpoint is kept: go on with --resume. "
        f"({str(error).splitlines()[0][:120]})"
    )
