import importlib.util
import threading

import pytest
import yaml

from cmid.errors import UsageError
from cmid.train import RunDirectory
from cmid.train.loggers import PACKAGES, Loggers, require_loggers

from .small_run import Probe, rows, run_fit


def test_tensorboard_has_every_row_once_also_after_a_resume(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train = {"loggers": ("tensorboard",)}
    run_fit(tmp_path / "r", epochs=2, train=train | {"max_steps": 7}, probes=[Probe(knn_top1=5.0)])
    run_fit(tmp_path / "r", epochs=2, train=train, probes=[Probe(knn_top1=5.0)], resume=True)
    events = reader.EventAccumulator(str(tmp_path / "r" / "tensorboard")).Reload()
    steps = rows(tmp_path / "r" / "steps.csv")
    got = events.Scalars("total")
    assert [e.step for e in got] == list(range(1, 11))
    assert [e.value for e in got] == pytest.approx([float(row["total"]) for row in steps], rel=1e-6)
    assert {"agreement", "contrast", "lr", "grad_norm", "per_epoch/knn_top1", "per_epoch/total"} <= set(
        events.Tags()["scalars"]
    )
    assert [e.step for e in events.Scalars("per_epoch/knn_top1")] == [5, 10]
    hparams = tmp_path / "r" / "tensorboard" / "hparams.yaml"
    if hparams.exists():
        assert yaml.safe_load(hparams.read_text())["method"] == "small"


def test_a_missing_package_says_how_to_install_it(tmp_path):
    missing = [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is None]
    if not missing:
        pytest.skip("every logger is installed")
    with pytest.raises(UsageError, match=r"pip install 'cmid\[loggers\]'"):
        run_fit(tmp_path / "r", train={"loggers": (missing[0],)})
    assert not (tmp_path / "r").exists()


def test_unknown_loggers_are_named():
    with pytest.raises(UsageError, match="may name tensorboard, wandb, mlflow, found 'csv'"):
        require_loggers(["csv"])
    require_loggers([])


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_each_service_follows_a_run_and_its_resumption(tmp_path, monkeypatch, name):
    pytest.importorskip(PACKAGES[name])
    for variable, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    known = []
    for resume in (False, True):
        steps = 0 if resume else 3
        run_fit(tmp_path / "r", epochs=1, train={"loggers": (name,), "max_steps": steps}, resume=resume)
        known.append((tmp_path / "r" / f".{name}_id").read_text())
    assert known[0] == known[1]
    assert len(list(tmp_path.glob("r/mlruns/*/*/metrics/total" if name == "mlflow" else "r/wandb/offline-run-*"))) >= 1


def test_a_logger_that_fails_is_left_out_and_the_run_goes_on(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    told, before = [], set(threading.enumerate())
    loggers = Loggers(["tensorboard"], RunDirectory(tmp_path), {"a": 1}, 0, told.append)
    loggers.log({"total": 1.0}, 1)
    assert set(threading.enumerate()) - before, "TensorBoard writes by a thread of its own"
    loggers.log({"total": ["not", "a", "number"]}, 2)
    assert not set(threading.enumerate()) - before, "which would outlive the run, and its folder"
    loggers.log({"total": 1.0}, 3)
    loggers.close("success")
    assert len(told) == 1
    assert "TensorBoardLogger failed and gets nothing more" in told[0]
    events = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("total")] == [(1, 1.0)], "what it was given before is kept"
