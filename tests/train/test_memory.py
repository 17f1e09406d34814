import os
import subprocess
import sys

import pytest
import torch

from cmid.train.memory import keep_freed_memory, peak_memory_gb

FAULTS = """
import resource, sys, torch
from cmid.train.memory import keep_freed_memory
done = keep_freed_memory() if sys.argv[1] == "keep" else False
def work():
    for _ in range(8):
        a = torch.empty(2**24).fill_(1.0)  # 64 MB
        b = a * 2
        del a, b
for _ in range(3):  # until the heap has found its layout
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, clean_environment):
    result = subprocess.run(
        [sys.executable, "-c", FAULTS, how], env=clean_environment, capture_output=True, text=True, check=True
    )
    done, count = result.stdout.split()
    return done == "True", int(count)


@pytest.fixture
def clean_environment():
    others = ("LD_PRELOAD", "GLIBC_TUNABLES")
    return {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k not in others}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_used_again_without_page_faults(clean_environment):
    done, kept = faults("keep", clean_environment)
    if not done:
        pytest.skip("not glibc")
    _, returned = faults("return", clean_environment)
    # 16 tensors of 64 MB: 262,144 pages of 4 kB, less where the kernel gives huge pages
    assert kept < 1000 < returned


def test_who_chose_an_allocator_is_left_alone(monkeypatch):
    chosen = {"MALLOC_ARENA_MAX": "2", "LD_PRELOAD": "libjemalloc.so", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    for name, value in chosen.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert keep_freed_memory() is False


def test_the_peak_of_a_process_is_its_own():
    """On Linux what the system tells of a process begins with the greatest that its parent held."""
    said = "from cmid.train.memory import peak_memory_gb; print(peak_memory_gb())"
    parent = "import subprocess, sys; b = bytearray(2**31); subprocess.run([sys.executable, '-c', sys.argv[1]])"
    result = subprocess.run([sys.executable, "-c", parent, said], capture_output=True, text=True, check=True)
    assert 0.1 < float(result.stdout) < 1.9


def test_a_cpu_that_trained_beside_an_idle_gpu_has_its_own_peak(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    assert peak_memory_gb() > 0.05
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    assert peak_memory_gb() == 3
