"""`cmid pretrain --train.devices 2`: the command line starts its second process itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from cmid.commands import prepare
from cmid.commands.learners import build_learner
from cmid.commands.pretrain import check_queue
from cmid.config import CMIDConfig, PretrainConfig, TrainConfig, ViewConfig, as_plain
from cmid.errors import UsageError
from cmid.ops import gather
from cmid.train import read_checkpoint
from cmid.train.team import asked_processes
from tests.commands.test_pretrain import draw


def run_two(folder, *more):
    words = ["--recipe", "cmid-tiny", "--no-report", "--train.devices", "2", "--train.accelerator", "cpu", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "cmid", "pretrain", "images", *words, "--out", "run"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


def test_the_command_line_starts_two_processes_and_one_of_them_tells(tmp_path):
    draw(tmp_path / "images", 16)
    done = run_two(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 2/2") == 1 and "(8 images a step)" in done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["train"]["devices"] == 2
    assert read_checkpoint(tmp_path / "run").progress.step == 2
    assert (tmp_path / "run" / "backbone.safetensors").is_file()


def test_a_run_with_divided_parameters_goes_on_in_one_process(tmp_path):
    draw(tmp_path / "images", 16)
    done = run_two(tmp_path, "--train.strategy", "fsdp", "--train.max_steps", "1")
    assert done.returncode == 0, done.stderr
    assert "parameters divided among them" in done.stderr and "Warning" not in done.stderr
    first = {path.name for path in (tmp_path / "run").iterdir()}
    words = ["--recipe", "cmid-tiny", "--no-report", "--resume", "--batch_size", "8", "--train.max_steps", "0"]
    alone = subprocess.run(
        [sys.executable, "-m", "cmid", "pretrain", "images", *words, "--train.accelerator", "cpu", "--out", "run"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    assert "no image is seen twice" in alone.stderr and alone.stderr.count("step 2/2") == 1
    assert first <= {path.name for path in (tmp_path / "run").iterdir()}


def test_a_run_goes_on_with_as_many_processes_where_they_can_be_had(tmp_path, monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    asked = {"data": "images", "out": str(tmp_path), "resume": True}

    def goes_on(accelerator):
        train = TrainConfig(devices=4, nodes=2, accumulate=1, accelerator=accelerator)
        settings = yaml.safe_dump(as_plain(PretrainConfig(data="images", train=train)))
        (tmp_path / "settings.yaml").write_text(settings)
        return prepare("pretrain", asked).train

    assert goes_on("cpu").devices == 1, "a Python program could not start them"
    monkeypatch.setattr(sys, "argv", ["cmid"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert goes_on("auto").devices == 1, "on GPUs, and none is here"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert goes_on("auto").devices == 4
    found = goes_on("cpu")
    assert (found.devices, found.nodes, found.accumulate) == (4, 1, 1)
    assert prepare("pretrain", {**asked, "train.devices": 1}).train.devices == 1
    for name, value in (("LOCAL_WORLD_SIZE", "8"), ("WORLD_SIZE", "8"), ("TORCHELASTIC_RUN_ID", "x")):
        monkeypatch.setenv(name, value)
    train = prepare("pretrain", asked).train
    assert train.devices == 1 and asked_processes(train) == (8, 1)


def failure_of(call, *arguments):
    try:
        call(*arguments)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_queue_is_refused_where_parity_mode_itself_would_fail(processes, monkeypatch):
    """The check before the training and the method's own must be of one mind."""
    monkeypatch.setattr(gather, "processes", lambda: processes)
    monkeypatch.setattr(gather, "rows", lambda keys: keys.repeat(processes, 1))
    small = {"global_hidden": 8, "global_dim": 4, "local_weight": 0.0, "reconstruction_weight": 0.0}
    fits = []
    for queue_size in (2, 6, 8, 12, 18, 24, 36):
        numbers = CMIDConfig(mode="parity", queue_size=queue_size, **small)
        config = PretrainConfig(batch_size=2, backbone="resnet18", cmid=numbers, views=ViewConfig(size=64))
        answers = [failure_of(check_queue, config, processes)]
        answers.append(failure_of(build_learner(config)._remember, [torch.randn(2, 4), torch.randn(2, 4)]))
        assert bool(answers[0]) == bool(answers[1]), (queue_size, answers)
        fits.append(not answers[0])
    assert True in fits and (processes == 1) == (False not in fits)
    with pytest.raises(UsageError, match=r"none of 8, which is batch_size 2 x 2 processes x 2;"):
        check_queue(config, processes=2)


def test_a_queue_that_does_not_fit_two_processes_is_one_line_before_the_training(tmp_path):
    draw(tmp_path / "images", 16)
    done = run_two(tmp_path, "--cmid.mode", "parity", "--cmid.queue-size", "24")  # six batches of 4, not of 16 keys
    assert done.returncode == 2
    assert done.stderr.count("cmid: error:") == 1 and "batch_size 4 x 2 processes x 2" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()
