import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from cmid.errors import UsageError
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
    with pytest.raises(UsageError, match=r"already holds files \(notes.txt\).*another --out.*--resume"):
        RunDirectory(tmp_path).open(SETTINGS, resume=False)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    run = RunDirectory(tmp_path / "run")
    put_checkpoint(run)
    run.settings.write_text("seed: 0\n")
    with pytest.raises(UsageError, match=r"already holds a run"):
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


def test_differences_of_lists_and_depth():
    assert differing_settings({"a": {"b": [1, 2]}}, {"a": {"b": (1, 2)}}) == []
    assert differing_settings({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}) == ["a.b was [1, 2], is [1, 3]"]


def test_one_process_cannot_open_a_run_twice(tmp_path):
    with RunDirectory(tmp_path / "r") as run:
        run.open(SETTINGS, resume=False)
        with pytest.raises(UsageError, match="already"):
            RunDirectory(tmp_path / "r").open(SETTINGS, resume=False)
        run.open(SETTINGS, resume=False)  # the one that holds it may ask again
        put_checkpoint(run)
        with pytest.raises(UsageError, match="This process already trains"):
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
            with pytest.raises(UsageError, match=rf"process \(process {holder.pid} on .*\) is training"):
                RunDirectory(tmp_path).open({"seed": 0}, resume=True)
            holder.send_signal(signal.SIGKILL)
            time.sleep(0.2)  # until the kernel has reaped it
            with RunDirectory(tmp_path) as run:
                run.open({"seed": 0}, resume=True)
                assert run.is_open
        finally:
            os.killpg(holder.pid, signal.SIGKILL)
