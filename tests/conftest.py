"""Fixtures that several rooms' tests share."""

import signal
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.processes import run_together

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell starts what it puts in the background like that
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def reference():
    """Loads a fixture of numbers from the published code: `reference("focal_l1")` gives its arrays by name."""
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip("the reference numbers of the published code are not beside this checkout")

    def load(name):
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    load.folder = folder
    return load


@pytest.fixture(scope="session")
def real_images():
    """The folder of real image sets, `real_images / "UCMerced_LandUse"` and so on."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real image sets are not beside this checkout")
    return folder


@pytest.fixture
def two_processes():
    """Runs a module in two real processes that train together; fails with their output where one fails."""

    def run(module, *arguments):
        codes, said, errors = run_together(2, module, *arguments, timeout=240)
        assert codes == [0, 0], said[-2000:] + errors[-6000:]

    return run


def formula(name, shape):
    """The formula tensor that the reference README defines: standard normal numbers seeded by the name's CRC."""
    numbers = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(int(np.prod(shape)))
    return torch.from_numpy(numbers.astype(np.float32).reshape(shape))


def fill_by_formula(state):
    """A state dict with every float tensor replaced by the reference README's formula for its key."""
    filled = {}
    for key, value in state.items():
        if not value.is_floating_point():
            filled[key] = value
            continue
        n, last = formula(key, tuple(value.shape)), key.rsplit(".", 1)[-1]
        if last == "running_var":
            n = 1 + 0.1 * n.abs()
        elif last in {"running_mean", "queue"}:
            n = 0.1 * n
        elif last == "center":
            n = torch.zeros_like(n)
        elif last == "weight_g":
            n = torch.ones_like(n)
        elif last in {
            "mask_token", "pos_embed", "pos_embedding", "relative_position_bias_table", "rel_pos_h", "rel_pos_w",
        }:  # fmt: skip
            n = 0.1 * n
        elif n.ndim >= 2:
            n = n * (1 / np.prod(n.shape[1:])) ** 0.5
        elif last == "weight":
            n = 1 + 0.1 * n
        else:
            n = 0.1 * n
        filled[key] = n
    return filled
