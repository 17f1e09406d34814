"""Runs by two real processes: the numbers of one, the writing of one, and the failure of one is that of all."""

import os
import signal
import subprocess
import time

import pytest

from cmid.train import read_checkpoint
from tests.train.runs_in_processes import ALONE, TOGETHER, TORCHRUN, run, same_rows, same_weights, start
from tests.train.small_run import numbers


def test_two_processes_give_the_numbers_of_one_and_one_of_them_writes(alone, tmp_path):
    code, saved, errors = run(TOGETHER, tmp_path / "run", told="WROTE")
    assert code == 0, errors
    assert saved == ["5", "10", "15"]  # the ends of the epochs, though the other process's clock says it is time
    same_rows(numbers(alone / "steps.csv"), numbers(tmp_path / "run" / "steps.csv"))
    same_rows(numbers(alone / "metrics.csv"), numbers(tmp_path / "run" / "metrics.csv"))
    same_weights(alone, tmp_path / "run")
    assert sorted(p.name for p in alone.iterdir()) == sorted(p.name for p in (tmp_path / "run").iterdir())
    assert errors.count("step 15/15") == 1  # told once
    assert (tmp_path / "run" / "skipped.csv").read_text().count("a reason") == 2  # of both processes
    assert read_checkpoint(tmp_path / "run").state["fixed"]["processes"] == 2


@pytest.mark.parametrize(("first", "then"), [(TOGETHER, ALONE), (ALONE, TOGETHER)], ids=["2 then 1", "1 then 2"])
def test_a_run_goes_on_with_other_processes(alone, tmp_path, first, then):
    out = tmp_path / "run"
    code, _, errors = run(first, out, "steps=7")  # amid the second epoch
    assert code == 0, errors
    code, _, errors = run(then, out, "resume")
    assert code == 0, errors
    assert "no image is seen twice" in errors
    same_rows(numbers(alone / "steps.csv"), numbers(out / "steps.csv"))
    same_weights(alone, out)


@pytest.mark.parametrize("stop", ["steps=2", "bad=1"])
def test_what_each_process_skipped_outlives_a_stop_amid_an_epoch(tmp_path, stop):
    out = tmp_path / "run"
    code, _, errors = run(TOGETHER, out, stop)
    assert (code == 0) == (stop == "steps=2"), errors
    assert read_checkpoint(out).state["position"] == {"epoch": 0, "batch": 2 if code == 0 else 3}
    for _ in range(2):
        assert read_checkpoint(out).state["loader"]["skipped"] == {0: "a reason", 1: "a reason"}
        assert (out / "skipped.csv").read_text().count("a reason") == 2
        code, _, errors = run(ALONE, out, "resume")
        assert code == 0, errors


def test_images_that_only_together_are_too_many_stop_both_at_the_end_of_the_epoch(alone, tmp_path):
    out = tmp_path / "run"
    for words in ((), ("resume",)):
        code, said, errors = run(TOGETHER, out, "allowed=1", *words)
        assert code == 1 and said == ["CmidError too many unreadable images: 2"], errors
        assert read_checkpoint(out).state["position"] == {"epoch": 0, "batch": 5} and not (out / "metrics.csv").exists()
    code, _, errors = run(TOGETHER, out, "allowed=2", "resume")
    assert code == 0, errors
    for table in ("steps.csv", "metrics.csv"):
        same_rows(numbers(alone / table), numbers(out / table))


def test_a_loss_that_is_not_finite_in_one_process_stops_both_and_is_told_once(tmp_path):
    code, said, errors = run(TOGETHER, tmp_path / "run", "nan=1")
    assert code != 0 and len(said) == 1, errors
    assert "Process 1 of 2 has stopped: The loss is not finite in step 4" in said[0]
    assert (tmp_path / "run" / "nonfinite.json").is_file()


def test_a_process_that_cannot_read_stops_both(tmp_path):
    code, said, errors = run(TOGETHER, tmp_path / "run", "bad=1")
    assert code != 0 and len(said) == 1, errors
    assert "Process 1 of 2 has stopped: the disk has gone" in said[0]


def test_processes_are_of_one_mind_on_what_is_saved_where_the_disk_is_full(tmp_path):
    """The leading process cannot write: the other must not think the run saved and stay away when it tries again."""
    code, said, errors = run(TOGETHER, tmp_path / "run", "full", "bad=1")
    assert code != 0 and len(said) == 1, errors
    assert "Process 1 of 2 has stopped: the disk has gone" in said[0]
    assert "could not be written" in errors and "The run is saved" not in errors
    assert errors.count("Warning: the checkpoint") == 4  # after each step, and once more at the end


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_probe_that_fails_in_the_leading_process_stops_neither(alone, tmp_path, strategy):
    code, _, errors = run(TOGETHER, tmp_path / "run", "broken=2", strategy)
    assert code == 0, errors
    assert errors.count("could not be measured at the end of epoch 2") == 1 and "no image can be read" in errors
    assert [row["knn_top1"] for row in numbers(tmp_path / "run" / "metrics.csv")] == ["1", "", "2"]
    if strategy == "ddp":
        same_rows(numbers(alone / "steps.csv"), numbers(tmp_path / "run" / "steps.csv"))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_both_leave_where_the_leading_process_is_asked_to_amid_a_probe(alone, tmp_path, strategy):
    out = tmp_path / "run"
    code, said, errors = run(TOGETHER, out, "halted=1", strategy)
    assert code == 143, errors
    assert said == [f"Interrupted Stopped by SIGTERM. The run is saved after step 5 in {out}/checkpoints/last.ckpt; "
                    "go on with --resume."]  # fmt: skip
    assert read_checkpoint(out).state["position"] == {"epoch": 0, "batch": 5} and not (out / "metrics.csv").exists()
    code, _, errors = run(TOGETHER, out, "resume", strategy)
    assert code == 0, errors
    for table in ("steps.csv", "metrics.csv"):
        same_rows(numbers(alone / table), numbers(out / table), 2e-5 if strategy == "ddp" else 5e-4)


def test_a_process_that_is_killed_stops_the_other_and_the_checkpoint_survives(alone, tmp_path):
    out = tmp_path / "run"
    code, _, errors = run(TORCHRUN, out, "die=1")
    assert code != 0, errors
    assert read_checkpoint(out).progress.step == 3
    code, _, errors = run(TOGETHER, out, "resume")
    assert code == 0, errors
    same_rows(numbers(alone / "steps.csv"), numbers(out / "steps.csv"))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_amid_a_step_stops_the_other_in_words(tmp_path, rank, strategy):
    code, said, errors = run(TOGETHER, tmp_path / "run", f"drop={rank}", strategy)
    assert code != 0 and len(said) == 1, errors
    assert "Another process of the run is gone" in said[0] and "--resume" in said[0]
    assert read_checkpoint(tmp_path / "run").progress.step == 3


def test_a_signal_to_one_process_stops_both_with_the_run_saved(alone, tmp_path):
    out = tmp_path / "run"
    process = start(out, "slow")
    deadline = time.monotonic() + 100
    while not (out / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(children(process.pid)[1], signal.SIGTERM)
    said, errors = process.communicate(timeout=100)
    assert process.returncode != 0 and "SAID Interrupted Stopped by" in said, errors
    code, _, errors = run(TOGETHER, out, "resume")
    assert code == 0, errors
    same_rows(numbers(alone / "steps.csv"), numbers(out / "steps.csv"))


def children(pid):
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return sorted(int(each) for each in listed.stdout.split())
