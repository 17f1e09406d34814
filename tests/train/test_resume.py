"""A run that was interrupted, however it was, equals one that never was: bit by bit, row by row."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.data import DataLoader

from cmid.errors import CmidError, UsageError
from cmid.train import Interrupted, read_checkpoint
from cmid.train.schedules import CosineWithWarmup
from tests.processes import fork_server

from .small_run import SETTINGS, MemoryLoader, Probe, SmallLearner, numbers, rows, run_fit, small_learner

HOW = {"epochs": 4, "batches": 7, "train": {"accumulate": 2, "checkpoint_minutes": 1e-9}}
"""16 optimiser steps, of 2, 2, 2 and 1 batches, with a checkpoint after each."""


class SlowLoader(MemoryLoader):
    """Takes its time, so that there is some in which to be killed."""

    def __iter__(self):
        for views in super().__iter__():
            time.sleep(0.02)
            yield views


class WorkedLoader(MemoryLoader):
    """Has its batches from worker processes, as the real one does."""

    def __iter__(self):
        rest = _Numbered(list(super().__iter__()))
        yield from DataLoader(rest, batch_size=None, sampler=range(len(rest.views)), num_workers=2)


class _Numbered(torch.utils.data.Dataset):
    def __init__(self, views):
        self.views = views

    def __getitem__(self, number):
        time.sleep(0.05)
        return self.views[number]


def train_in_a_process(out, resume, how, loader):
    torch.set_num_threads(1)
    os.setsid()
    try:
        run_fit(Path(out), resume=resume, loader=loader(how["batches"]), probes=[Probe(knn_top1=1.0)], **how)
    except CmidError as error:
        Path(f"{out}.said").write_text(str(error))
        os._exit(error.exit_code)


@pytest.fixture(scope="module")
def start():
    """Starts training in a process of its own, forked from one that has the imports behind it."""

    def begin(out, *, resume, how=HOW, loader=SlowLoader):
        process = fork_server().Process(target=train_in_a_process, args=(str(out), resume, how, loader))
        process.start()
        return process

    return begin


def wait_for_rows(process, out, count):
    deadline = time.monotonic() + 120
    while not (out / "steps.csv").exists() or len((out / "steps.csv").read_text().splitlines()) <= count:
        assert process.is_alive(), f"ended with {process.exitcode} before step {count}"
        assert time.monotonic() < deadline
        time.sleep(0.003)


def same(a, b, where=""):
    """Equal in structure and bit by bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}.{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def same_run(a, b):
    for table in ("steps.csv", "metrics.csv"):
        assert numbers(a / table) == numbers(b / table)
    one, two = (read_checkpoint(path).state for path in (a, b))
    for part in ("learner", "optimiser", "progress", "position", "loader", "best"):
        same(one[part], two[part], part)


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory):
    # In a process like the others': what this one has imported and done before can change the last bit of a sum.
    out = tmp_path_factory.mktemp("unbroken") / "run"
    process = start(out, resume=False, loader=MemoryLoader)
    process.join(120)
    assert process.exitcode == 0
    assert [int(row["step"]) for row in rows(out / "steps.csv")] == list(range(1, 17))
    return out


def test_killed_again_and_again(tmp_path, start, unbroken):
    out = tmp_path / "run"
    for number, count in enumerate((2, 5, 8, 9, 14)):
        process = start(out, resume=number > 0)
        wait_for_rows(process, out, count)
        time.sleep(0.007 * number)  # now here, now there in a step
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        step = read_checkpoint(out, lazy=False).progress.step
        assert step >= count - 1
    process = start(out, resume=True)
    process.join(120)
    assert process.exitcode == 0
    same_run(out, unbroken)
    assert {p.name for p in (out / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert not (out / ".lock").exists()


def test_killed_while_writing_checkpoints(tmp_path, start):
    """A large state, written after every step: most of the time goes into writing, so most kills hit it."""
    out = tmp_path / "run"
    how = HOW | {"learner": small_learner(width=300), "batches": 40}
    for number in range(4):
        process = start(out, resume=number > 0, how=how)
        already = len(rows(out / "steps.csv")) if number else 0
        wait_for_rows(process, out, already + 2)
        time.sleep(0.017 * number)
        process.kill()
        process.join()
        assert read_checkpoint(out, lazy=False).progress.step >= already + 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop(tmp_path, start, unbroken, number):
    out = tmp_path / "run"
    how = HOW | {"train": {"accumulate": 2}}  # no checkpoints by the clock: this one is written for the signal
    process = start(out, resume=False, how=how)
    wait_for_rows(process, out, 6)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    assert f"Stopped by {number.name}. The run is saved after step" in Path(f"{out}.said").read_text()
    at = read_checkpoint(out).state
    assert at["position"]["batch"] > 0
    assert at["progress"]["step"] == len(rows(out / "steps.csv"))
    process = start(out, resume=True, how=how, loader=MemoryLoader)
    process.join(120)
    assert process.exitcode == 0
    same_run(out, unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_with_all_its_workers(tmp_path, start, unbroken, number):
    """As a terminal or a cluster does it: the signal goes to every process of the group."""
    out = tmp_path / "run"
    how = HOW | {"train": {"accumulate": 2}}
    process = start(out, resume=False, how=how, loader=WorkedLoader)
    wait_for_rows(process, out, 6)
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number, Path(f"{out}.said").read_text()
    assert read_checkpoint(out).progress.step == len(rows(out / "steps.csv")) >= 6
    process = start(out, resume=True, how=how, loader=MemoryLoader)
    process.join(120)
    assert process.exitcode == 0
    same_run(out, unbroken)


class EarlyTeacher(SmallLearner):
    """Its teacher moves within `forward`, before the optimiser steps."""

    def forward(self, batch):
        terms = super().forward(batch)
        self.follow(0.9)
        return terms


class StoppedLoader(MemoryLoader):
    """Amid the second window, the signal comes and the worker with the next batch dies of it."""

    def __iter__(self):
        for number, views in enumerate(super().__iter__()):
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
                raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")
            yield views


def test_a_step_taken_back_leaves_no_trace_in_a_teacher_that_moved_in_it(tmp_path):
    def run(name, **more):
        torch.manual_seed(5)
        run_fit(tmp_path / name, batches=7, learner=EarlyTeacher(), train={"accumulate": 2}, **more)

    run("whole")
    with pytest.raises(Interrupted, match="saved after step 1 "):
        run("pieces", loader=StoppedLoader(7))
    run("pieces", resume=True)
    same_run(tmp_path / "pieces", tmp_path / "whole")


class BreakingLoader(MemoryLoader):
    """Cannot go on after eleven batches, in the middle of an accumulated step."""

    def __iter__(self):
        for views in super().__iter__():
            if self.epoch == 1 and len(views.indices) and self.served == 11:
                raise CmidError("the disk has gone")
            self.served += 1
            yield views

    served = 0


def break_and_go_on(out, resume, how, loader):
    """First a run whose loader fails, then the rest of it, in the same kind of process as the others."""
    torch.set_num_threads(1)
    with pytest.raises(CmidError, match="the disk has gone"):
        run_fit(Path(out), loader=BreakingLoader(how["batches"]), probes=[Probe(knn_top1=1.0)], **how)
    Path(f"{out}.step").write_text(str(read_checkpoint(out).progress.step))
    run_fit(Path(out), resume=True, loader=MemoryLoader(how["batches"]), probes=[Probe(knn_top1=1.0)], **how)


def test_what_was_trained_before_the_loader_failed_is_saved(tmp_path, start, unbroken):
    out = tmp_path / "run"
    rarely = {**HOW, "train": {**HOW["train"], "checkpoint_minutes": 0.0}}
    process = fork_server().Process(target=break_and_go_on, args=(str(out), False, rarely, None))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert (tmp_path / "run.step").read_text() == "6"  # 11 batches: 4 + 2 whole steps, and the half of one undone
    same_run(out, unbroken)


def test_max_steps_is_a_piece_of_the_run(tmp_path, start, unbroken):
    out = tmp_path / "run"
    for steps, resume in [(3, False), (3, True), (4, True), (9, True), (0, True)]:
        how = HOW | {"train": {"accumulate": 2, "max_steps": steps}}
        process = start(out, resume=resume, how=how, loader=MemoryLoader)
        process.join(120)
        assert process.exitcode == 0
        assert read_checkpoint(out).progress.step == (steps or 16)
    assert read_checkpoint(out).progress.epoch == 4
    same_run(out, unbroken)


def test_rows_of_several_steps_survive_an_interruption_between_them(tmp_path):
    train = {"log_every": 4}
    run_fit(tmp_path / "whole", epochs=3, batches=7, train=train)
    for number, steps in enumerate((2, 6, 6, 10, 0)):
        run_fit(tmp_path / "pieces", epochs=3, batches=7, train=train | {"max_steps": steps}, resume=number > 0)
        last = rows(tmp_path / "pieces" / "steps.csv")[-1]
        assert int(last["step"]) == steps or steps == 0  # a run that max_steps stops has a last row, too
    same_run(tmp_path / "pieces", tmp_path / "whole")


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_each_optimiser_resumes(tmp_path, name):
    how = {"optimizer": {"name": name, "betas": (0.9, 0.99)}, "train": {"max_steps": 4}}
    run_fit(tmp_path / "whole", **how | {"train": {}})
    run_fit(tmp_path / "pieces", **how)
    run_fit(tmp_path / "pieces", resume=True, **how | {"train": {}})
    same_run(tmp_path / "pieces", tmp_path / "whole")


def test_a_finished_run_resumes_to_itself(tmp_path):
    before = run_fit(tmp_path / "run", probes=[Probe(knn_top1=4.0)])
    content = before.last_checkpoint.read_bytes()
    learner = small_learner()
    after = run_fit(tmp_path / "run", resume=True, learner=learner)
    assert (after.epochs_done, after.metrics) == (2, before.metrics)
    assert after.last_checkpoint.read_bytes() == content
    same(dict(learner.state_dict()), read_checkpoint(tmp_path / "run").learner_state)


def test_skipped_files_are_listed_and_kept_over_a_resume(tmp_path):
    loader = MemoryLoader(5)
    loader.skipped = {"bad.jpg": "cut short"}
    run_fit(tmp_path / "run", loader=loader, train={"max_steps": 3})
    assert (tmp_path / "run" / "skipped.csv").read_text() == "file,reason\nbad.jpg,cut short\n"
    again = MemoryLoader(5)
    run_fit(tmp_path / "run", loader=again, resume=True)
    assert again.skipped == {"bad.jpg": "cut short"}


def test_what_would_make_another_run_is_refused(tmp_path):
    run_fit(tmp_path / "run", train={"max_steps": 3})
    before = (tmp_path / "run" / "steps.csv").read_text()
    kept = (tmp_path / "run" / "settings.yaml").read_bytes()
    changed = {"settings": SETTINGS | {"data": "elsewhere", "out": "y"}}
    for how, words in (
        ({"epochs": 3}, "epochs was 2, is 3"),
        ({"seed": 9}, "seed was 3, is 9"),
        ({"images_per_batch": 8}, "images_per_batch was 4, is 8"),
        ({"batches": 6}, "batches_per_epoch was 5, is 6"),
        ({"train": {"accumulate": 2}}, "accumulate was 1, is 2"),
        ({"settings": SETTINGS | {"backbone": "swin"}}, "backbone was 'small', is 'swin'"),
    ):
        with pytest.raises(UsageError, match=words):
            run_fit(tmp_path / "run", resume=True, **changed | how)
    with pytest.raises(CmidError, match=r"another architecture.*backbone.conv.weight \(6, 3, 3, 3\) instead of \(8,"):
        run_fit(tmp_path / "run", resume=True, learner=small_learner(width=8), **changed)
    with pytest.raises(UsageError, match="already holds a run"):
        run_fit(tmp_path / "run")
    assert (tmp_path / "run" / "steps.csv").read_text() == before
    assert (tmp_path / "run" / "settings.yaml").read_bytes() == kept
    run_fit(tmp_path / "run", resume=True, **changed)
    assert yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text()) == changed["settings"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_before_its_first_checkpoint_is_begun_anew_by_the_same_command(tmp_path, start, resume, capfd):
    out, rarely = tmp_path / "run", HOW | {"train": {"accumulate": 2}}
    process = start(out, resume=False, how=rarely)
    wait_for_rows(process, out, 2)
    process.kill()
    process.join()
    if (out / "checkpoints" / "last.ckpt").exists():
        pytest.skip("the machine was too slow to kill it within its first epoch")
    run_fit(out, resume=resume, **HOW)
    assert "ended before its first checkpoint; it is begun anew" in " ".join(capfd.readouterr().err.split())
    assert [int(row["step"]) for row in rows(out / "steps.csv")] == list(range(1, 17))
    assert len(rows(out / "metrics.csv")) == 4


def test_a_rate_that_was_too_high_may_be_lowered_and_the_change_is_said(tmp_path, capfd):
    settings = SETTINGS | {"optimizer": {"lr": 0.01, "clip_norm": 1.0}}
    run_fit(tmp_path / "run", settings=settings, train={"max_steps": 6})
    capfd.readouterr()
    lower = {"lr": 0.001, "clip_norm": 0.5}
    run_fit(tmp_path / "run", settings=SETTINGS | {"optimizer": lower}, optimizer=lower, resume=True)
    said = " ".join(capfd.readouterr().err.split())
    assert "goes on with other settings: optimizer.lr was 0.01, is 0.001; optimizer.clip_norm was 1.0, is 0.5." in said
    rates = [float(row["lr"]) for row in rows(tmp_path / "run" / "steps.csv")]
    assert [CosineWithWarmup(lr, 1e-6, 10, 5)(step) for lr, step in ((0.01, 5), (0.001, 6))] == pytest.approx(
        rates[5:7]
    )


def nine_or_ten(images):
    """Two batches of four an epoch, whichever it is."""
    loader = MemoryLoader(2)
    loader.images = loader.images[torch.arange(images) % 8]
    return loader


def test_another_number_of_images_is_refused_though_the_batches_are_as_many(tmp_path):
    run_fit(tmp_path / "run", loader=nine_or_ten(9), train={"max_steps": 3})
    with pytest.raises(UsageError, match=r"images was 9, is 10\."):
        run_fit(tmp_path / "run", resume=True, loader=nine_or_ten(10))
    assert run_fit(tmp_path / "run", resume=True, loader=nine_or_ten(9)).steps_done == 4


def test_a_checkpoint_that_does_not_count_images_is_resumed(tmp_path):
    loader = nine_or_ten(9)
    loader.state_dict = lambda: {"skipped": {}}
    run_fit(tmp_path / "run", loader=loader, train={"max_steps": 3})
    assert "images" not in read_checkpoint(tmp_path / "run").state["fixed"]
    assert run_fit(tmp_path / "run", resume=True, loader=nine_or_ten(9)).steps_done == 4


def test_a_damaged_last_checkpoint_is_said(tmp_path):
    result = run_fit(tmp_path / "run")
    result.last_checkpoint.write_bytes(result.last_checkpoint.read_bytes()[:-100])
    with pytest.raises(CmidError, match=r"cut short.*such as best.ckpt"):
        run_fit(tmp_path / "run", resume=True)
