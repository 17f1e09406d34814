"""Loggers besides the CSV files: TensorBoard, W&B and MLflow, through Lightning's."""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
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
    """

    def __init__(self, names: Sequence[str], run: RunDirectory, settings: Mapping[str, Any], step: int) -> None:
        self._loggers = [_build(name, run, step) for name in names]
        for logger in self._loggers:
            logger.log_hyperparams(dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Writes one curve point per value."""
        for logger in self._loggers:
            logger.log_metrics(dict(values), step)

    def close(self, status: str) -> None:
        """Ends the run there; `status` is success, failed or aborted."""
        for logger in self._loggers:
            logger.save()
            logger.finalize(status)


def _build(name: str, run: RunDirectory, step: int) -> Any:
    quiet_lightning()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "tensorboard":
            from lightning.fabric.loggers import TensorBoardLogger

            return TensorBoardLogger(run.path, name="", version="tensorboard", purge_step=step + 1 if step else None)
        if name == "wandb":
            from lightning.pytorch.loggers import WandbLogger

            return WandbLogger(name=run.path.name, project="cmid", save_dir=run.path)
        from lightning.pytorch.loggers import MLFlowLogger

        return MLFlowLogger(experiment_name="cmid", run_name=run.path.name)
