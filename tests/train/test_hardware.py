import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision, Precision
from torch import nn

from cmid.config import OptimizerConfig
from cmid.errors import NotFinite, UsageError
from cmid.train import resolve_device, resolve_precision
from cmid.train.hardware import Machine, cpu_multiplies_bf16
from cmid.train.optimisers import build_optimiser

from .small_run import rows, run_fit

CPU = torch.device("cpu")


def test_auto_takes_bf16_only_where_the_cpu_multiplies_it():
    assert resolve_precision("auto", CPU) == ("bf16" if cpu_multiplies_bf16() else "32")
    flags = Path("/proc/cpuinfo").read_text().split()
    assert cpu_multiplies_bf16() == bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


def test_what_is_asked_for_is_taken_or_refused():
    assert [resolve_precision(p, CPU) for p in ("32", "bf16")] == ["32", "bf16"]
    assert resolve_precision("16", torch.device("cuda")) == "16"
    with pytest.raises(UsageError, match="needs a GPU; on a CPU use 32"):
        resolve_precision("16", CPU)
    with pytest.raises(UsageError, match="auto, 32, bf16 or 16, found '64'"):
        resolve_precision("64", CPU)


def test_devices():
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="sees no CUDA device"):
            resolve_device("gpu")
    with pytest.raises(UsageError, match="found 'tpu'"):
        resolve_device("tpu")


def machine_of(kind):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if kind == "16-mixed" else None
    plugin = Precision() if kind is None else MixedPrecision(kind, "cpu", scaler)
    return Machine(Fabric(accelerator="cpu", plugins=plugin), CPU, "16" if scaler else "32", channels_last=False)


def test_float32_is_float32_in_convolutions_too(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    resolve_device("auto")
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_a_scaler_goes_on_or_starts_afresh_where_the_run_had_none():
    saved = machine_of("16-mixed").precision_state()
    assert saved["scale"] == 8
    for kind in (None, "bf16-mixed"):
        assert machine_of(kind).precision_state() == {}
        machine_of(kind).load_precision_state(saved)
    half = machine_of("16-mixed")
    half.load_precision_state({})
    assert half.precision_state() == saved
    half.load_precision_state(saved | {"scale": 4.0})
    assert half.precision_state()["scale"] == 4


def test_gradients_that_overflow_at_any_scale_are_told():
    machine = machine_of("16-mixed")
    machine.require_scale()
    machine.load_precision_state(machine.precision_state() | {"scale": 2.0**-12})
    with pytest.raises(NotFinite, match=r"step after step.*take --train.precision bf16"):
        machine.require_scale()
    machine_of(None).require_scale()


@pytest.mark.parametrize("name", ["adamw", "sgd", "adan", "lars"])
def test_scaled_gradients_are_clipped_before_any_optimiser_steps(name):
    torch.manual_seed(0)
    plain, scaled = (nn.Linear(3, 2) for _ in range(2))
    scaled.load_state_dict(plain.state_dict())
    machine, x = machine_of("16-mixed"), torch.randn(4, 3)
    config = OptimizerConfig(name=name, weight_decay=0.0)
    for module, half in ((plain, False), (scaled, True)):
        optimiser = build_optimiser(module, config, 0.1, scaled=half)
        loss = module(x).square().sum()
        if not half:
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            optimiser.step()
            continue
        own = machine.fabric.setup_optimizers(optimiser)
        machine.fabric.backward(loss)
        machine.fabric.clip_gradients(module, own, max_norm=0.5, error_if_nonfinite=False)
        own.step()
    torch.testing.assert_close(scaled.weight, plain.weight)


def test_reading_checkpoints_does_not_wait_for_lightning():
    code = "import cmid.train, sys; sys.exit(any(m.split('.')[0] == 'lightning' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


QUIET = """
import sys, tempfile, warnings
sys.path.insert(0, sys.argv[1])
from tests.train.small_run import run_fit
run_fit(sys.argv[2], epochs=1, batches=2)
"""


def test_lightning_says_nothing_and_leaves_no_folders(tmp_path, request):
    command = [sys.executable, "-c", QUIET, str(request.config.rootpath), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert re.match(r"cpu \(.+, 1 threads\), precision 32, channels last; learning rate 0.01", lines[0])
    assert len(lines) == 4, lines
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {"settings.yaml", "steps.csv", "metrics.csv", "checkpoints"}


def test_a_run_goes_on_in_another_memory_format(tmp_path):
    """Fused AdamW goes through weights and their moments in the order in which they lie."""
    optimizer = {"name": "adamw", "betas": (0.9, 0.999)}
    for name, formats in (("one", [False, False]), ("two", [True, False])):
        for channels_last, steps in zip(formats, (4, 0), strict=True):
            how = {"channels_last": channels_last, "max_steps": steps}
            run_fit(tmp_path / name, optimizer=optimizer, train=how, resume=steps == 0)
    ours, theirs = (rows(tmp_path / name / "steps.csv") for name in ("one", "two"))
    assert [float(row["total"]) for row in ours] == pytest.approx([float(row["total"]) for row in theirs], rel=1e-4)
