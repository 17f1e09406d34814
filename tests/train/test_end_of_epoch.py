"""What comes after the last batch of an epoch: probes, a row, a checkpoint; and what may go wrong there."""

import os
import signal
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from cmid.errors import CmidError, NotFinite
from cmid.train import Interrupted, read_checkpoint, saving
from cmid.train.checkpoints import write_checkpoint
from cmid.train.plan import Plan
from tests.processes import fork_server

from .small_run import MemoryLoader, Probe, rows, run_fit
from .test_resume import WorkedLoader, same_run

AT_ONCE = {"checkpoint_minutes": 1e-9}
"""A checkpoint after every step, and before every measurement."""


def position(out):
    return read_checkpoint(out, lazy=False).state["position"]


class WorkedProbe(Probe):
    """Has images from loader processes, which take long to come; says when it has begun."""

    def __init__(self, began, **values):
        super().__init__(**values)
        self.began = began

    def __call__(self, learner, device):
        for _ in DataLoader(_Slow(), batch_size=None, num_workers=1):
            self.began.touch()
        return super().__call__(learner, device)


class _Slow:
    def __len__(self):
        return 600

    def __getitem__(self, number):
        time.sleep(0.1)
        return number


def train_in_a_process(out, asked, minutes):
    os.setsid()
    probes = [Probe(knn_top1=1.0), WorkedProbe(Path(f"{out}.began"), feature_std=0.1)] if asked else quick_probes()
    try:
        how = {"resume": not asked, "loader": (WorkedLoader if asked else MemoryLoader)(5)}
        run_fit(Path(out), probes=probes, train={"checkpoint_minutes": minutes}, **how)
    except CmidError as error:
        Path(f"{out}.said").write_text(str(error))
        os._exit(error.exit_code)


def quick_probes():
    return [Probe(knn_top1=1.0), Probe(feature_std=0.1)]


@pytest.mark.parametrize("minutes", [0.0, 1e-9], ids=["saved when asked", "saved before measuring"])
def test_a_signal_to_the_group_amid_a_probe_leaves_with_the_epoch_saved(tmp_path, minutes):
    """The loader processes of training and of the probe die of it: that is no want of memory."""
    out = tmp_path / "run"
    process = fork_server().Process(target=train_in_a_process, args=(str(out), True, minutes))
    process.start()
    deadline = time.monotonic() + 120
    while not Path(f"{out}.began").exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143, process.exitcode
    assert "Stopped by SIGTERM. The run is saved after step 5" in Path(f"{out}.said").read_text()
    assert position(out) == {"epoch": 0, "batch": 5} and not (out / "metrics.csv").exists()
    # where it was saved for now, what was before it waits until it has been measured
    before = {".last.ckpt.former.part"} if minutes else set()
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"last.ckpt"} | before
    whole = fork_server().Process(target=train_in_a_process, args=(str(out), False, minutes))
    whole.start()
    whole.join(120)
    assert whole.exitcode == 0
    run_fit(tmp_path / "whole", probes=quick_probes())
    same_run(out, tmp_path / "whole")


class Asked(MemoryLoader):
    """The signal comes with the last batch of the first epoch."""

    def __iter__(self):
        for number, views in enumerate(super().__iter__(), 1):
            if (self.epoch, number) == (0, self.batches):
                os.kill(os.getpid(), signal.SIGTERM)
            yield views


def test_a_run_that_is_asked_to_stop_in_the_last_step_of_an_epoch_measures_later(tmp_path):
    probe = Probe(knn_top1=[1.0, 2.0])
    with pytest.raises(Interrupted, match="saved after step 5 "):
        run_fit(tmp_path / "run", loader=Asked(5), probes=[probe])
    assert probe.calls == 0 and position(tmp_path / "run") == {"epoch": 0, "batch": 5}
    run_fit(tmp_path / "run", probes=[probe], resume=True)
    run_fit(tmp_path / "whole", probes=[Probe(knn_top1=[1.0, 2.0])])
    same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("when", ["before the row", "after the row"])
def test_a_run_that_is_killed_at_the_end_of_an_epoch_has_each_row_once(tmp_path, monkeypatch, when):
    def killed(path, state):
        if state["position"] == {"epoch": 1, "batch": 0}:
            raise KeyboardInterrupt
        write_checkpoint(path, state)

    def probes():
        return [Probe(knn_top1=[3.0, 2.0])]

    class Killing(Probe):
        def __call__(self, learner, device):
            raise KeyboardInterrupt

    run_fit(tmp_path / "whole", probes=probes())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saving, "write_checkpoint", killed)
        before = [Killing()] if when == "before the row" else probes()
        run_fit(tmp_path / "run", probes=before, train=AT_ONCE)
    assert position(tmp_path / "run") == {"epoch": 0, "batch": 5}
    assert (tmp_path / "run" / "metrics.csv").exists() == (when == "after the row")
    run_fit(tmp_path / "run", probes=probes(), train=AT_ONCE, resume=True)
    same_run(tmp_path / "run", tmp_path / "whole")
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt").state["best"]["epoch"] == 1


class Breaking(Probe):
    """Raises `error` at the end of the second epoch."""

    def __init__(self, error, **values):
        super().__init__(**values)
        self.error = error

    def __call__(self, learner, device):
        found = super().__call__(learner, device)
        if self.calls == 2:
            raise self.error
        return found


@pytest.mark.parametrize(
    "error", [CmidError("no image\nis there."), RuntimeError("out of memory"), OSError(5, "Input")]
)
def test_a_probe_that_fails_is_told_and_leaves_a_gap(tmp_path, capfd, error):
    probes = [Breaking(error, knn_top1=[1.0, 9.0, 3.0]), Probe(feature_std=[0.3, 0.2, 0.1])]
    done = run_fit(tmp_path / "run", epochs=3, probes=probes)
    said = " ".join(capfd.readouterr().err.split())
    reason = " ".join(str(error).split()).rstrip(".")
    assert "Warning: probe could not be measured at the end of epoch 2, and its place in metrics.csv stays" in said
    assert f"{reason}. Training goes on." in said and "epoch 2/3 total" in said
    table = rows(tmp_path / "run" / "metrics.csv")
    assert [(row["knn_top1"], row["feature_std"]) for row in table] == [("1", "0.3"), ("", "0.2"), ("3", "0.1")]
    assert done.best_is_measured and read_checkpoint(done.best_checkpoint).state["best"]["epoch"] == 3


def test_a_best_epoch_of_which_nothing_was_measured_is_not_called_so(tmp_path):
    assert not run_fit(tmp_path / "run", epochs=1).best_is_measured


@pytest.mark.parametrize("batches", [1, 5])
def test_features_that_are_not_finite_stop_the_run_and_are_nothing_to_go_on_from(tmp_path, batches):
    """The checkpoint that was written before the probe, which found it out, gives way to the one before."""
    probe = Breaking(NotFinite("features are NaN"), knn_top1=1.0)
    probe.calls = int(batches == 1)
    with pytest.raises(NotFinite):
        run_fit(tmp_path / "run", batches=batches, probes=[probe], train=AT_ONCE)
    left = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    if batches == 1:  # it was the first
        assert not left
    else:
        assert left == {"last.ckpt", "best.ckpt"} and position(tmp_path / "run") == {"epoch": 1, "batch": 4}
    run_fit(tmp_path / "run", batches=batches, probes=[Probe(knn_top1=1.0)], train=AT_ONCE, resume=True)
    run_fit(tmp_path / "whole", batches=batches, probes=[Probe(knn_top1=1.0)])
    same_run(tmp_path / "run", tmp_path / "whole")


class Asking(Probe):
    """The signal comes while it measures the second epoch."""

    def __call__(self, learner, device):
        if self.calls == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__(learner, device)


@pytest.mark.parametrize("how", ["killed", "asked"])
def test_what_a_session_that_ended_had_yet_to_measure_gives_way_in_the_next(tmp_path, how):
    run = tmp_path / "run"
    if how == "killed":  # nothing is tidied up
        with pytest.raises(KeyboardInterrupt):
            run_fit(run, probes=[Breaking(KeyboardInterrupt(), knn_top1=1.0)], train=AT_ONCE)
    else:
        with pytest.raises(Interrupted):
            run_fit(run, probes=[Asking(feature_std=1.0), Probe(knn_top1=1.0)], train=AT_ONCE)
    assert position(run) == {"epoch": 1, "batch": 5}
    with pytest.raises(NotFinite):
        probe = Breaking(NotFinite("features are NaN"), knn_top1=1.0)
        probe.calls = 1
        run_fit(run, probes=[probe], train=AT_ONCE, resume=True)
    assert position(run) == {"epoch": 1, "batch": 4}
    run_fit(run, probes=[Probe(knn_top1=1.0)], train=AT_ONCE, resume=True)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}


def twelve_images(batch_size):
    loader = MemoryLoader(12 // batch_size, batch_size)
    loader.images = MemoryLoader(3, 4).images
    return loader


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_that_goes_on_with_others_at_the_end_of_an_epoch_ends_that_epoch(tmp_path, epochs):
    """Two steps of four images are all that one step of eight has room for: nothing of the epoch is left to train."""
    how = {"epochs": epochs, "probes": [Probe(knn_top1=2.0)]}
    run_fit(tmp_path / "run", loader=twelve_images(4), train={"max_steps": 2}, **how)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    state = read_checkpoint(last, lazy=False).state
    state["fixed"] |= {"processes": 2, "images_per_batch": 2}  # as if two had begun it
    write_checkpoint(last, state)
    done = run_fit(tmp_path / "run", loader=twelve_images(8), images_per_batch=8, resume=True, **how)
    table = rows(tmp_path / "run" / "metrics.csv")
    assert [row["epoch"] for row in table] == [str(1 + epoch) for epoch in range(epochs)]
    assert all(float(row["total"]) and row["knn_top1"] == "2" for row in table)
    assert (done.epochs_done, done.steps_done) == (epochs, epochs)
    assert read_checkpoint(last).state["position"] == {"epoch": epochs, "batch": 0}
    assert read_checkpoint(done.best_checkpoint).progress.epoch == 1


def test_where_others_go_on():
    """By images that the epoch has had: never beyond them, at the start of a step, or at the epoch's end."""
    plan = Plan(epochs=2, batches_per_epoch=5, accumulate=2)
    expected = {0: (0, 0), 8: (0, 8), 16: (2, 0), 31: (2, 15), 32: (4, 0), 39: (4, 7), 40: (5, 0), 43: (5, 0)}
    assert {seen: plan.batch_among((2, 4), seen) for seen in expected} == expected
