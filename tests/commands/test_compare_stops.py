"""A comparison that is stopped, that others come upon, or whose files are not all there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import cmid
from cmid.backbones import create_backbone
from cmid.cli import main
from cmid.commands import compare_outsiders, compare_processes, compare_runs, prepare
from cmid.commands.compare_outsiders import check_outsiders
from cmid.commands.compare_plan import plan_cells, plan_rows
from cmid.commands.compare_processes import in_a_process
from cmid.commands.compare_runs import known, result_of, scored_by, scores_of, trained, why
from cmid.commands.compare_scores import CellScores, _rules, _write
from cmid.commands.out_folder import held
from cmid.errors import UsageError
from cmid.train import Interrupted
from cmid.zoo.backbone_files import BackboneMetadata, save_backbone
from tests.commands.test_compare import draw


@pytest.fixture
def data(tmp_path):
    for number, tint in enumerate((0, 120)):
        draw(tmp_path / "labelled" / f"class{number}", 8, number, tint)
    return str(draw(tmp_path / "images", 12, 9, 60)), str(tmp_path / "labelled")


@pytest.fixture
def signals():
    """Tells of signals that would have ended the tests."""
    unhandled = []
    before = {n: signal.signal(n, lambda number, _: unhandled.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    yield unhandled
    for number, handler in before.items():
        signal.signal(number, handler)


def backbone_file(path):
    torso = create_backbone("test_resnet", mask_stage=None)
    save_backbone(path, torso, BackboneMetadata("test_resnet", 3, which="unknown", size=32))
    return str(path)


def settings_of(data, out, **more):
    given = {"data": data[0], "labelled": data[1], "out": str(out), "methods": ("byol",), "labels": (1,)}
    return prepare("compare", given | {"pretrain.backbone": "test_resnet", "pretrain.views.size": 32} | more)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_it_scores_it_says_how_to_go_on(data, tmp_path, monkeypatch, capsys, signals, number):
    def stopped(*_):
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        raise RuntimeError("it went on")

    file = backbone_file(tmp_path / "elsewhere.safetensors")
    monkeypatch.setattr(compare_outsiders, "score", stopped)
    given = ["compare", "--labelled", data[1], "--methods", "", "--external", file, "--out", str(tmp_path / "out")]
    assert main(given) == 128 + number
    assert "the same command goes on where it stopped" in capsys.readouterr().err
    assert not signals and signal.getsignal(number) is not signal.SIG_DFL, "as it was before"
    assert not (tmp_path / "out" / ".lock").exists()


def test_random_weights_never_lie_among_the_cells(data, tmp_path, monkeypatch):
    def looked_at(weights, *_):
        assert Path(weights.weights).is_file() and tmp_path not in Path(weights.weights).parents
        raise KeyboardInterrupt

    monkeypatch.setattr(compare_outsiders, "score", looked_at)
    config = settings_of(data, tmp_path / "out")
    rows = plan_rows(config)
    [name] = compare_outsiders.outsiders_of(config, rows)
    with pytest.raises(KeyboardInterrupt):
        compare_outsiders.outside(name, config, "labelled", rows, tmp_path / "out", Console(quiet=True))


def test_a_signal_before_the_child_is_there_is_passed_on(tmp_path, monkeypatch, signals):
    begun, popen = [], subprocess.Popen

    def begin(_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        begun.append(popen([sys.executable, "-c", "import time; time.sleep(20)"]))
        return begun[0]

    monkeypatch.setattr(compare_processes.subprocess, "Popen", begin)
    start = time.monotonic()
    with pytest.raises(Interrupted, match="goes on where it stopped") as stopped:
        in_a_process("any", tmp_path / "settings.yaml", tmp_path / "result.json")
    assert begun[0].returncode == -signal.SIGTERM and time.monotonic() - start < 10 and not signals
    assert stopped.value.exit_code == 143


def test_who_is_stopped_as_a_run_ends_does_not_begin_the_next(tmp_path, monkeypatch, signals):
    popen = subprocess.Popen

    def begin(_):
        child = popen([sys.executable, "-c", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
        child.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        return child

    monkeypatch.setattr(compare_processes.subprocess, "Popen", begin)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(Interrupted):
        in_a_process("any", tmp_path / "settings.yaml", tmp_path / "result.json")


HOLD = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
)


def test_two_comparisons_do_not_write_into_one_folder(data, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    file = backbone_file(tmp_path / "elsewhere.safetensors")
    given = ["compare", "--labelled", data[1], "--methods", "", "--external", file, "--out", str(out), "--no-report"]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        assert main(given) == 2
        assert f"another comparison is at work in {out}" in capsys.readouterr().err
        assert not (out / "compare.yaml").exists(), "nothing of the other's is touched"
        other.communicate(b"\n")
    assert main(given) == 0, "what a killed one leaves is no lock"
    assert not (out / ".lock").exists()
    with held(out, "another comparison"):
        assert (out / ".lock").read_text().startswith(f"process {os.getpid()} on ")


@pytest.mark.parametrize("gone", ["other draws", "torn", "no status", "another note"])
def test_a_run_whose_scores_cannot_be_used_is_trained_anew(data, tmp_path, monkeypatch, gone):
    """Cells alone, as they are carried from another machine: neither the backbone nor scores by these rules."""
    config = settings_of(data, tmp_path)
    [cell] = plan_cells(plan_rows(config), config, {"byol": "images"})
    result_of(cell).parent.mkdir()
    result_of(cell).write_text('{"status": "trained"}')
    scores = CellScores({"kNN-5": np.ones(4)}, 3.0, {"protocol": {}, "file": []})
    _write(scores_of(cell), _rules(scored_by(cell, config), config, "labelled"), scores)
    assert known(cell, config, "labelled") == {"status": "trained"}
    if gone == "torn":
        scores_of(cell).write_bytes(scores_of(cell).read_bytes()[:200])
    elif gone == "another note":
        with np.load(scores_of(cell)) as file:
            np.savez(scores_of(cell), **{**file, "about": "[1]"})
    elif gone == "no status":
        result_of(cell).write_text("{}")
    else:
        config = settings_of(data, tmp_path, draws=9)
    assert known(cell, config, "labelled") is None
    asked = []

    def train(module, settings, result):
        asked.append(module)
        result.write_text('{"status": "trained", "epochs": 1}')

    monkeypatch.setattr(compare_runs, "in_a_process", train)
    ended = trained(cell, "1 of 1", config, "labelled", Console(quiet=True))
    assert asked == ["cmid.commands.compare_cell"] and ended["epochs"] == 1


def test_all_external_files_are_looked_at_before_the_first_is_scored(data, tmp_path):
    files = (backbone_file(tmp_path / "elsewhere.safetensors"), str(tmp_path / "nothere.pth"))
    config = prepare("compare", {"labelled": data[1], "methods": (), "external": files})
    with pytest.raises(UsageError, match=r"nothere\.pth"):
        check_outsiders(config, "labelled", [], tmp_path / "out", 3)
    with pytest.raises(UsageError, match=r"nothere\.pth"):
        cmid.compare(labelled=data[1], methods=(), external=files, out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_random_weights_may_be_the_reference(data, tmp_path):
    from cmid.commands.compare import _reference

    for said in ("Random weights, test_resnet", "random weights, test_resnet"):
        config = settings_of(data, tmp_path, reference=said)
        assert _reference(config, plan_rows(config)) == "random weights, test_resnet"
    config = settings_of(data, tmp_path, reference="random weights, test_resnet", untrained=False)
    with pytest.raises(UsageError, match="which is none of the rows: byol"):
        _reference(config, plan_rows(config))


def test_a_diverged_run_advises_settings_of_a_comparison():
    reason = "If they are sound, go on with --resume with a lower --optimizer.lr or --train.precision 32."
    told = why({"reason": reason}, "byol")
    assert "train with a lower --pretrain.optimizer.lr or --pretrain.train.precision 32." in told
    assert "byol?optimizer.lr=RATE" in told and "--resume" not in told
