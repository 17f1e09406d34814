import os
import pickle
import resource
import signal
import time

import pytest
import torch
from torch import nn

from cmid.contracts import Progress
from cmid.errors import CmidError, UsageError
from cmid.train import load_learner, read_checkpoint
from cmid.train.checkpoints import (
    FORMAT,
    keep_as,
    remove_leftovers,
    require_plain,
    weights_are_finite,
    write_checkpoint,
)

PROGRESS = {"step": 3, "total_steps": 10, "epoch": 0.5, "total_epochs": 2}


def state(**more):
    return {
        "format": FORMAT,
        "settings": {"seed": 1},
        "learner": {"w": torch.arange(6.0)},
        "progress": PROGRESS,
        **more,
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Code:
    """Runs when it is unpickled."""

    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return (os.mkdir, (self.witness,))


@pytest.mark.parametrize("lazy", [True, False])
def test_reads_what_was_written(tmp_path, lazy):
    write_checkpoint(tmp_path / "a.ckpt", state(optimiser={"state": {0: {"m": torch.ones(2)}}, "betas": (0.9, 0.99)}))
    got = read_checkpoint(tmp_path / "a.ckpt", lazy=lazy)
    assert got.settings == {"seed": 1}
    assert got.progress == Progress(3, 10, 0.5, 2)
    assert torch.equal(got.learner_state["w"], torch.arange(6.0))
    assert got.state["optimiser"]["betas"] == (0.9, 0.99)
    assert names(tmp_path) == ["a.ckpt"]


def test_a_run_directory_means_its_last_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    write_checkpoint(tmp_path / "checkpoints" / "last.ckpt", state())
    assert read_checkpoint(tmp_path).path.name == "last.ckpt"
    with pytest.raises(UsageError, match=r"Expected a checkpoint at .*none.ckpt, found none"):
        read_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("form", ["archive", "pickle", "legacy"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, form):
    path, witness = tmp_path / "bad.ckpt", tmp_path / "was_run"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Code(witness)))
    else:
        torch.save(state(extra=Code(witness)), path, _use_new_zipfile_serialization=form == "archive")
    with pytest.raises(CmidError, match=r"nothing (in it )?was run"):
        read_checkpoint(path)
    assert not witness.exists()


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("keep", [0, 10, 700, -30])
def test_a_cut_file_is_said_to_be_damaged(tmp_path, lazy, keep):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, state())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CmidError, match=r"cut short|damaged"):
        read_checkpoint(path, lazy=lazy)


def test_flipped_bytes_are_noticed_when_read_whole(tmp_path):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, state(learner={"w": torch.zeros(5000)}))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(CmidError, match="damaged"):
        read_checkpoint(path, lazy=False)


def test_other_files_are_named_for_what_they_lack(tmp_path):
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(CmidError, match="lacks format, learner, progress, settings"):
        read_checkpoint(tmp_path / "other.pth")
    torch.save(torch.ones(2), tmp_path / "tensor.pth")
    with pytest.raises(CmidError, match="no checkpoint of a cmid run"):
        read_checkpoint(tmp_path / "tensor.pth")
    write_checkpoint(tmp_path / "new.ckpt", state() | {"format": 99})
    with pytest.raises(CmidError, match="format 99, this version of cmid reads format 1"):
        read_checkpoint(tmp_path / "new.ckpt")
    write_checkpoint(tmp_path / "more.ckpt", state() | {"progress": {"moon": 3}})
    with pytest.raises(CmidError, match="says its progress in a way that this version of cmid does not know"):
        read_checkpoint(tmp_path / "more.ckpt")


def test_another_architecture_is_named(tmp_path):
    small, large = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    before = large[0].weight.clone()
    with pytest.raises(CmidError) as caught:
        load_learner(large, small.state_dict(), "x.ckpt")
    assert "x.ckpt is of another architecture" in str(caught.value)
    assert "2 unknown (1.weight, 1.bias)" in str(caught.value)
    assert "2 of another shape (0.weight (3, 2) instead of (4, 2), 0.bias (3,) instead of (4,))" in str(caught.value)
    assert torch.equal(large[0].weight, before)


def test_only_plain_values_are_written(tmp_path):
    require_plain({"a": [1, (2.0, None, "x", True)], 3: torch.ones(1)})
    with pytest.raises(TypeError, match=r"state\['loader'\]\[0\] is a PosixPath"):
        write_checkpoint(tmp_path / "a.ckpt", state(loader=[tmp_path]))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_former_checkpoint(tmp_path):
    """The kernel's own limit on file sizes stands in for a full disk."""
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, state())
    former = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for limit in (100, 40_000, 200_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(OSError):
                write_checkpoint(path, state(learner={"w": torch.zeros(100_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == former
    assert names(tmp_path) == ["last.ckpt"]


def test_best_is_what_last_was(tmp_path):
    last, best = tmp_path / "last.ckpt", tmp_path / "best.ckpt"
    for step in (1, 2):
        write_checkpoint(last, state(number=step))
        if step == 1:
            keep_as(last, best)
            keep_as(last, best)
    assert (read_checkpoint(best).state["number"], read_checkpoint(last).state["number"]) == (1, 2)
    assert names(tmp_path) == ["best.ckpt", "last.ckpt"]


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".last.ckpt.123.part").write_text("half")
    (tmp_path / "last.ckpt").write_text("whole")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["last.ckpt"]


def test_finite_weights():
    module = nn.BatchNorm1d(3)
    module.register_buffer("limit", torch.tensor(float("inf")))
    assert weights_are_finite(module)
    for spoil in (module.weight.data, module.running_mean):
        spoil[1] = float("nan")
        assert not weights_are_finite(module)
        spoil[1] = 0.0
    module.bias.data[0] = -float("inf")
    assert not weights_are_finite(module)


def test_reading_is_lazy(tmp_path):
    write_checkpoint(tmp_path / "a.ckpt", state(optimiser={"m": torch.zeros(20_000_000)}))
    began = time.perf_counter()
    read_checkpoint(tmp_path / "a.ckpt")
    lazy = time.perf_counter() - began
    began = time.perf_counter()
    read_checkpoint(tmp_path / "a.ckpt", lazy=False)
    assert lazy < 0.5 * (time.perf_counter() - began)
