"""What a small sum over two CPU processes takes: gloo's own, against gathering the numbers and adding them up.

    python benchmarks/exchange.py

Two processes, each pinned to a core with one thread, as a run has them; milliseconds of wall time, median of 200, for
some numbers of values a process. The sides take turns.
"""

import os
import statistics

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from machine import seconds

SIZES = (1, 1025, 4097, 8192, 16384, 32768, 131072)


def run(rank):
    """One of the two; the first tells."""
    os.sched_setaffinity(0, {rank})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="tcp://127.0.0.1:29641", rank=rank, world_size=2)
    for size in SIZES:
        own, parts = torch.randn(size), [torch.empty(size) for _ in range(2)]
        acts = (lambda own=own: dist.all_reduce(own.mul_(0.5)), lambda own=own, parts=parts: gathered(own, parts))
        times = [[seconds(act) for act in acts] for _ in range(220)][20:]
        if rank == 0:
            summed, added = (1000 * statistics.median(side) for side in zip(*times, strict=True))
            print(f"{size:7,} numbers: gloo's sum {summed:.2f} ms, gathered {added:.2f} ms", flush=True)
    dist.barrier()
    dist.destroy_process_group()


def gathered(own, parts):
    """The sum of what both have."""
    dist.all_gather(parts, own)
    return torch.stack(parts).sum(0)


if __name__ == "__main__":
    mp.spawn(run, nprocs=2)
