"""Runs of `fit_in_processes` in one process or two, and how two of them are compared."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cmid.train import read_checkpoint
from tests.processes import run_together

ROOT = Path(__file__).resolve().parents[2]
ALONE, TOGETHER = 1, 2
"""Processes, forked from one that has the imports behind it; what torchrun itself has a part in is started by it."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--module"]


def start(out, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*TORCHRUN, "tests.train.fit_in_processes", str(out), *words], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def run(how, out, *words, told="SAID"):
    """Exit code, the errors told, and what went to stderr; fails where the processes do not come to an end."""
    if how != TORCHRUN:
        codes, said, errors = run_together(how, "tests.train.fit_in_processes", str(out), *words)
        assert len({bool(code) for code in codes}) == 1, f"some have failed, some not: {codes}\n{errors}"
        return codes[0], re.findall(rf"^{told} (.*)$", said, re.M), errors
    process = start(out, *words)
    try:
        said, errors = process.communicate(timeout=150)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, re.findall(rf"^{told} (.*)$", said, re.M), errors


def same_rows(a, b, relative=2e-5):
    assert len(a) == len(b) and len(a) > 1
    for one, two in zip(a, b, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert float(two[name]) == pytest.approx(float(value), rel=relative, abs=1e-6), name


def same_weights(a, b):
    ours, theirs = read_checkpoint(a).learner_state, read_checkpoint(b).learner_state
    for name, value in ours.items():
        if name.endswith((".conv.bias", ".norm1.running_mean")):
            # A bias before batch-norm has a gradient of rounding alone, which Adan makes as large as any other; the
            # running mean takes the bias along, and the normalisation takes it out again.
            continue
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)
