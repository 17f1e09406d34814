import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from cmid.errors import CmidError, UsageError
from cmid.train import RunDirectory
from cmid.train.checkpoints import FORMAT, write_checkpoint
from cmid.train.run_directory import differing_settings

SETTINGS = {"method": "cmid", "seed": 0, "train": {"workers": 2, "accumulate": 1}, "out": "a"}


def put_checkpoint(run, settings=SETTINGS):
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    progress = {"step": 1, "total_steps": 2, "epoch": 0.5, "total_epochs": 1}
    write_checkpoint(run.last, {"format": FORMAT, "settings": settings, "learner": {}, "progress": progress})


def test_a_new_run_holds_its_settings(tmp_path):
    with RunDirectory(tmp_path / "a" / "b") as run:
        run.open(SETTINGS, resume=False)
        assert yaml.safe_load(run.settings.read_text()) == SETTINGS
        put_checkpoint(run)
    assert {p.name for p in run.path.iterdir()} == {"settings.yaml", "checkpoints"}


def test_the_settings_of_a_resumed_run_begin_another(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.open({"seed": 1}, resume=False)
    run.write_settings({"seed": 1, "resume": True})
    assert yaml.safe_load(run.settings.read_text()) == {"seed": 1, "resume": False}


def test_settings_that_cannot_be_written_whole_leave_those_that_were(tmp_path, monkeypatch):
    """A full disk, or a kill, amid the settings of a resume."""
    with RunDirectory(tmp_path) as run:
        run.open(SETTINGS, resume=False)
        put_checkpoint(run)

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UsageError, match="No space left"):
            run.write_settings({**SETTINGS, "seed": 1})
        assert yaml.safe_load(run.settings.read_text()) == SETTINGS


def test_nothing_is_left_of_a_run_in_which_nothing_happened(tmp_path):
    with RunDirectory(tmp_path / "a" / "b") as run:
        run.open(SETTINGS, resume=False)
    assert not (tmp_path / "a").exists()


def test_a_folder_removed_under_the_job_is_let_go_quietly(tmp_path):
    with RunDirectory(tmp_path / "a") as run:
        run.open(SETTINGS, resume=False)
        shutil.rmtree(run.path)
    assert not run.is_open


def test_a_folder_with_files_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"already holds files \(notes.txt\).*another --out\.$"):
        RunDirectory(tmp_path).open(SETTINGS, resume=False)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    run = RunDirectory(tmp_path / "run")
    put_checkpoint(run)
    run.settings.write_text("seed: 0\n")
    with pytest.raises(UsageError, match=r"already holds a run.*another --out, or go on .*--resume"):
        run.open(SETTINGS, resume=False)
    assert run.settings.read_text() == "seed: 0\n"


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"last.ckpt, found no such folder"):
        RunDirectory(tmp_path / "none").open(SETTINGS, resume=True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match=r"found no checkpoint in it"):
        RunDirectory(tmp_path).open(SETTINGS, resume=True)


@pytest.mark.parametrize("inside", ["file/run", "file"])
def test_a_file_in_the_way_is_said(tmp_path, inside):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"another --out"):
        RunDirectory(tmp_path / inside).open(SETTINGS, resume=False)


def test_an_unwritable_folder_is_said(tmp_path):
    place = "/proc/cmid_run" if os.geteuid() == 0 else str(tmp_path / "locked" / "run")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UsageError, match=r"cannot be written"):
        RunDirectory(place).open(SETTINGS, resume=False)


def test_settings_that_make_another_run_are_named(tmp_path):
    run = RunDirectory(tmp_path)
    put_checkpoint(run)
    changed = {**SETTINGS, "method": "byol", "train": {"workers": 9, "accumulate": 4}, "out": "b"}
    with pytest.raises(UsageError, match=r"method was 'cmid', is 'byol'; train.accumulate was 1, is 4\."):
        run.open(changed, resume=True)
    assert not run.is_open
    free = {**SETTINGS, "train": {"workers": 9, "accumulate": 1}, "out": "b", "new_field": 1}
    with run:
        run.open(free, resume=True)
        assert not run.settings.exists()  # the checkpoint may yet be refused
        run.write_settings(free)
        assert yaml.safe_load(run.settings.read_text()) == free


def test_what_the_errors_of_a_run_advise_may_be_changed_and_is_told(tmp_path):
    begun = {**SETTINGS, "read_timeout_s": 300.0, "optimizer": {"lr": 1e-3, "min_lr": 1e-6, "clip_norm": 0.0, "eps": 1}}
    put_checkpoint(RunDirectory(tmp_path), begun)
    advised = {"lr": 1e-4, "min_lr": 0.0, "clip_norm": 1.0, "eps": 1}
    with RunDirectory(tmp_path) as run:
        run.open({**begun, "read_timeout_s": 900.0, "optimizer": advised, "out": "b"}, resume=True)
        assert run.goes_on and len(run.notes) == 1
        for words in (
            "read_timeout_s was 300.0, is 900.0",
            "optimizer.lr was 0.001, is 0.0001",
            "clip_norm was 0.0, is 1",
        ):
            assert words in run.notes[0]
        assert "out was" not in run.notes[0]
    with pytest.raises(UsageError, match=r"settings: optimizer.eps was 1, is 2\."):
        RunDirectory(tmp_path).open({**begun, "optimizer": {**advised, "eps": 2}}, resume=True)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "left",
    [
        (), ("settings.yaml", ".settings.yaml.12.part", "data.json", "steps.csv", "metrics.csv.tmp", ".lock"),
        ("settings.yaml", "steps.csv", "steps.csv.damaged"),
    ],
)  # fmt: skip
def test_a_run_that_never_came_to_a_checkpoint_is_begun_anew(tmp_path, resume, left):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.ckpt.123.part").write_text("half")
    for name in left:
        (tmp_path / name).write_text("old\n")
    assert RunDirectory(tmp_path).may_begin and RunDirectory(tmp_path / "new").may_begin
    with RunDirectory(tmp_path) as run:
        run.open(SETTINGS, resume=resume)
        assert not run.goes_on and "before its first checkpoint; it is begun anew" in run.notes[0]
        kept = {name for name in left if name.endswith(".damaged")}
        assert {p.name for p in tmp_path.iterdir()} == {".lock", "checkpoints", "settings.yaml"} | kept
        assert not list(run.checkpoints.iterdir()) and yaml.safe_load(run.settings.read_text()) == SETTINGS
        put_checkpoint(run)


def test_what_stopped_a_run_that_is_begun_anew_is_kept(tmp_path):
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    for number in (1, 2):
        run.nonfinite.write_text(f"stop {number}")
        with run:
            run.open(SETTINGS, resume=False)
            assert (
                not run.nonfinite.exists() and (tmp_path / f"nonfinite-{number}.json").read_text() == f"stop {number}"
            )
    assert (tmp_path / "nonfinite-1.json").read_text() == "stop 1"


def test_what_loggers_left_of_such_a_run_is_put_aside(tmp_path):
    """Where the settings name them: the run's own, though others write it."""
    run, settings = RunDirectory(tmp_path), {**SETTINGS, "train": {"loggers": ["tensorboard", "mlflow"]}}
    for number in (1, 2, 3):
        with run:
            run.open(settings, resume=number == 2)
            assert len(run.notes) == number - 1
            (tmp_path / "tensorboard").mkdir()
            (tmp_path / "tensorboard" / "events").write_text(f"try {number}")
            (tmp_path / ".mlflow_id").write_text("known")
            (run.checkpoints / ".last.ckpt.123.part").write_text("half")  # killed while it wrote the first
    kept = {path.parent.name: path.read_text() for path in tmp_path.glob("tensorboard*/events")}
    assert kept == {"tensorboard": "try 3", "tensorboard-1": "try 1", "tensorboard-2": "try 2"}
    (tmp_path / "wandb").mkdir()
    with pytest.raises(UsageError, match="already holds a run"):
        run.open(settings, resume=False)


@pytest.mark.parametrize("other", ["notes.txt", "tensorboard", "checkpoints/best.ckpt"])
def test_a_folder_with_anything_else_is_left_alone(tmp_path, other):
    (tmp_path / "checkpoints").mkdir()
    for name in ("settings.yaml", "steps.csv", other):
        (tmp_path / name).write_text("old")
    assert not RunDirectory(tmp_path).may_begin and not RunDirectory(tmp_path / "steps.csv").may_begin
    for resume, words in ((False, "already holds a run. Choose another --out.$"), (True, "found no checkpoint in it")):
        with pytest.raises(UsageError, match=words):
            RunDirectory(tmp_path).open(SETTINGS, resume=resume)
    assert (tmp_path / "steps.csv").read_text() == "old" and not (tmp_path / ".lock").exists()


def test_settings_of_somebody_else_are_not_taken_for_a_run(tmp_path):
    (tmp_path / "settings.yaml").write_text("mine")
    with pytest.raises(UsageError, match="already holds"):
        RunDirectory(tmp_path).open(SETTINGS, resume=False)
    assert (tmp_path / "settings.yaml").read_text() == "mine"


def test_a_folder_whose_checkpoints_could_not_be_read_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(UsageError, match="no valid UTF-8"):
        RunDirectory(tmp_path / os.fsdecode(b"rim\xe4")).check(resume=False)
    assert not any(tmp_path.iterdir())


def test_a_damaged_checkpoint_lets_go_of_the_folder_and_says_what_may_be_done(tmp_path):
    run = RunDirectory(tmp_path)
    put_checkpoint(run)
    run.last.write_bytes(run.last.read_bytes()[:-100])
    with pytest.raises(CmidError, match=r"cut short.*copy it to last.ckpt.*begins anew"):
        run.open(SETTINGS, resume=True)
    assert not run.is_open
    run.last.unlink()
    with run:
        run.open(SETTINGS, resume=True)
        assert not run.goes_on


def test_differences_of_lists_and_depth():
    assert differing_settings({"a": {"b": [1, 2]}}, {"a": {"b": (1, 2)}}) == []
    assert differing_settings({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}) == ["a.b was [1, 2], is [1, 3]"]


def test_batches_may_be_divided_otherwise_where_a_step_has_as_many_images():
    def settings(batch_size, devices, accumulate):
        return {"batch_size": batch_size, "train": {"devices": devices, "accumulate": accumulate}}

    assert differing_settings(settings(64, 1, 4), settings(64, 4, 1)) == []
    assert differing_settings(settings(64, 1, 4), settings(32, 4, 2)) == []
    assert differing_settings(settings(64, 1, 4), settings(64, 2, 1)) == ["train.accumulate was 4, is 1"]


def test_one_process_cannot_open_a_run_twice(tmp_path):
    with RunDirectory(tmp_path / "r") as run:
        run.open(SETTINGS, resume=False)
        with pytest.raises(UsageError, match="already"):
            RunDirectory(tmp_path / "r").open(SETTINGS, resume=False)
        run.open(SETTINGS, resume=False)  # the one that holds it may ask again
        put_checkpoint(run)
        with pytest.raises(UsageError, match="is already being trained in by this process"):
            RunDirectory(tmp_path / "r").open(SETTINGS, resume=True)


HOLDER = """
import os, sys, time
from cmid.train.run_directory import RunDirectory
RunDirectory(sys.argv[1]).open({"seed": 0}, resume=True)
if os.fork() == 0:  # a loader's worker, which outlives the trainer for a while
    time.sleep(20)
    os._exit(0)
print("held", flush=True)
time.sleep(20)
"""


def test_two_processes_cannot_and_a_dead_one_holds_nothing(tmp_path):
    put_checkpoint(RunDirectory(tmp_path), {"seed": 0})
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as holder:
        try:
            assert holder.stdout.readline().strip() == "held"
            with pytest.raises(UsageError, match=rf"trained in by another process \(process {holder.pid} on "):
                RunDirectory(tmp_path).open({"seed": 0}, resume=True)
            holder.send_signal(signal.SIGKILL)
            time.sleep(0.2)  # until the kernel has reaped it
            with RunDirectory(tmp_path) as run:
                run.open({"seed": 0}, resume=True)
                assert run.is_open
        finally:
            os.killpg(holder.pid, signal.SIGKILL)
