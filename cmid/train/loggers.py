"""Loggers besides the CSV files: TensorBoard, W&B and MLflow, through Lightning's."""

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from cmid.errors import UsageError
from cmid.train.hardware import quiet_lightning
from cmid.train.run_directory import RunDirectory

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


def require_loggers(names: Sequence[str]) -> None:
    """Raises UsageError if a logger is unknown or its package is not installed."""
    for name in names:
        if name not in PACKAGES:
            raise UsageError(f"train.loggers may name {', '.join(PACKAGES)}, found '{name}'.")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UsageError(
                f"The logger '{name}' needs a package that is not installed. Install it with: "
                "pip install 'cmid[loggers]', or leave it out of --train.loggers."
            )


class Loggers:
    """All loggers of a run as one.

    Args:
        names: any of tensorboard, wandb, mlflow.
        run: TensorBoard's and W&B's files go below it; its folder's name is the run's name.
        settings: recorded as the run's hyperparameters.
        step: optimiser steps done; TensorBoard drops what a resumed run had logged beyond.
        say: prints a line.

    Raises:
        UsageError: one of them cannot start.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: RunDirectory,
        settings: Mapping[str, Any],
        step: int,
        say: Callable[[str], object] = print,
    ) -> None:
        self._say = say
        self._loggers = [_build(name, run, step) for name in names]
        self._each(lambda logger: logger.log_hyperparams(dict(settings)))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Writes one curve point per value."""
        self._each(lambda logger: logger.log_metrics(dict(values), step))

    def close(self, status: str) -> None:
        """Ends the run there; `status` is success, failed or aborted."""
        self._each(lambda logger: logger.save())
        self._each(lambda logger: logger.finalize(status))

    def _each(self, act: Callable[[Any], object]) -> None:
        """A service that fails is left out from then on: the run matters more."""
        for logger in tuple(self._loggers):
            try:
                act(logger)
            except Exception as error:
                self._loggers.remove(logger)
                _let_go(logger)
                self._say(f"Warning: {type(logger).__name__} failed and gets nothing more: {error}")


def _let_go(logger: Any) -> None:
    """Ends the thread by which TensorBoard writes, with what it has been given before.

    Else it would live on with the run, and end by a traceback of its own where the run's folder has gone. The others
    write by processes or requests of their own, and a service that does not answer is not asked again.
    """
    if type(logger).__name__ == "TensorBoardLogger":
        with suppress(Exception):
            logger.finalize("failed")


def _build(name: str, run: RunDirectory, step: int) -> Any:
    quiet_lightning()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}[name](run, step)
    except Exception as error:  # a service may fail in any way it likes
        raise UsageError(
            f"The logger '{name}' could not start: {error}. Set it up (W&B: `wandb login`, or WANDB_MODE=offline; "
            "MLflow: MLFLOW_TRACKING_URI), or leave it out of --train.loggers."
        ) from error


def _tensorboard(run: RunDirectory, step: int) -> Any:
    from lightning.fabric.loggers import TensorBoardLogger

    return TensorBoardLogger(run.path, name="", version="tensorboard", purge_step=step + 1 if step else None)


def _wandb(run: RunDirectory, step: int) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(name=run.path.name, project="cmid", save_dir=run.path, version=_known_id(run, "wandb"))
    _keep_id(run, "wandb", logger.experiment.id)
    return logger


def _mlflow(run: RunDirectory, step: int) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # without a server, a folder in the run will do
    known, folder = _known_id(run, "mlflow"), str(run.path / "mlruns")
    logger = MLFlowLogger(experiment_name="cmid", run_name=run.path.name, run_id=known, save_dir=folder)
    _keep_id(run, "mlflow", logger.run_id)
    return logger


def _known_id(run: RunDirectory, name: str) -> str | None:
    """The id under which the service knows the run that is being resumed."""
    file = run.path / f".{name}_id"
    return file.read_text().strip() if file.is_file() else None


def _keep_id(run: RunDirectory, name: str, known_as: str | None) -> None:
    (run.path / f".{name}_id").write_text(f"{known_as}\n")
