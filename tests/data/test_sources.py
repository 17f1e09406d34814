"""How many loader processes a training process takes for itself."""

import os

import pytest

from cmid.data.sources import choose_workers
from cmid.errors import UsageError

CASES = {  # environment, cores the process may use of 64, processes in all: loader processes
    "alone": ({}, 64, 1, 8),
    "two on this machine": ({}, 8, 2, 3),
    "torchrun, 2 nodes of 8": ({"LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "16"}, 64, 16, 7),
    "SLURM, 2 nodes of 8, not bound": ({"SLURM_PROCID": "3", "SLURM_NTASKS_PER_NODE": "8"}, 64, 16, 7),
    "SLURM, bound to 8 cores each": ({"SLURM_PROCID": "3", "SLURM_NTASKS_PER_NODE": "8"}, 8, 16, 7),
    "torchrun in a task of SLURM's, bound to 16 cores": (
        {"SLURM_PROCID": "0", "SLURM_NTASKS_PER_NODE": "1", "LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "8"},
        16,
        8,
        1,
    ),
    "in a shell of SLURM's, started by Lightning": (
        {"SLURM_PROCID": "0", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NAME": "interactive", "WORLD_SIZE": "4"},
        16,
        4,
        3,
    ),
    "a shell of SLURM's": ({"SLURM_NTASKS_PER_NODE": "8"}, 4, 1, 3),
    "started by Lightning, while it measures": ({"WORLD_SIZE": "4"}, 16, 1, 3),
    "more processes than cores": ({"LOCAL_WORLD_SIZE": "8"}, 4, 8, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_the_cores_of_a_node_are_shared_by_its_processes(monkeypatch, case):
    environment, cores, processes, expected = CASES[case]
    for name in list(os.environ):
        if name.startswith("SLURM_") or name.endswith("WORLD_SIZE"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert choose_workers(-1, processes) == expected
    assert choose_workers(5, processes) == 5


def test_a_number_below_is_refused():
    with pytest.raises(UsageError, match=r"-1 .* or above, found -2"):
        choose_workers(-2)
