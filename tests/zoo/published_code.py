"""Full checkpoints as the published code leaves them, written while a stand-in for that code can be imported.

`metric_storage` is there a dict of its own class, filled with buffers of further classes, and refers to itself.
"""

import sys
from collections import OrderedDict, deque
from types import ModuleType

import numpy as np
import torch

MODULE = "Exploring.utils.metric"


def save_full_checkpoint(path, model, *, epoch=199, extra=None, **torch_save):
    """Write `{epoch, num_gpus, model, optimizer, metric_storage, hooks}`; its classes cannot be imported afterwards.

    Args:
        path: the file.
        model: tensors by the published names.
        epoch: the last that was finished, from 0.
        extra: put into the metric storage.
        torch_save: passed on.
    """
    parts = MODULE.split(".")
    modules = {name: ModuleType(name) for name in (".".join(parts[: i + 1]) for i in range(len(parts)))}
    storage = type("MetricStroge", (dict,), {"__module__": MODULE})
    buffer = type("HistoryBuffer", (), {"__module__": MODULE})
    modules[MODULE].MetricStroge, modules[MODULE].HistoryBuffer = storage, buffer
    sys.modules.update(modules)
    try:
        loss = buffer()
        loss.history, loss.sum, loss.tensor = deque([1.0, 2.0], maxlen=20), np.float64(3.0), torch.ones(2)
        metrics = storage(loss=loss)
        metrics._history, metrics.extra = metrics, extra
        moments = {0: {"exp_avg": torch.zeros(3), "step": 7}}
        checkpoint = {
            "epoch": epoch,
            "num_gpus": 4,
            "model": OrderedDict(model),
            "optimizer": {"state": moments, "param_groups": [{"lr": 1e-3, "betas": (0.98, 0.92, 0.99)}]},
            "metric_storage": metrics,
            "hooks": {},
        }
        checkpoint["model"]._metadata = OrderedDict({"": {"version": 1}})  # as Module.state_dict() has it
        torch.save(checkpoint, path, **torch_save)
    finally:
        for name in modules:
            del sys.modules[name]
    return path


def full_model(student, teacher):
    """Two backbones' states under the names of a full checkpoint, among some of its other tensors."""
    return {
        "queue": torch.zeros(8, 4),
        "queue_ptr": torch.zeros(1, dtype=torch.int64),
        "online_encoder.mask_token": torch.zeros(1, 4, 1, 1),
        **{f"online_encoder.model.{key}": value for key, value in student.items()},
        **{f"branch_encoder.{key}": value for key, value in teacher.items()},
        "class_loss.center": torch.zeros(1, 4, 1),
    }
