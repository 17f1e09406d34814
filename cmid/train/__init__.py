"""The trainer: turns any Learner, writes its run, and goes on where a run was left.

`fit` trains, `RunDirectory` guards a run's folder, `read_checkpoint` reads what a run saved.
"""

from cmid.train.checkpoints import Checkpoint, load_learner, read_checkpoint
from cmid.train.collapse import collapse_warning
from cmid.train.hardware import gather_team, resolve_device, resolve_precision
from cmid.train.interrupts import Interrupted
from cmid.train.loop import fit
from cmid.train.protocols import Loader, Probe
from cmid.train.result import FitResult
from cmid.train.run_directory import RunDirectory
from cmid.train.team import Team, asked_processes

__all__ = [
    "Checkpoint",
    "FitResult",
    "Interrupted",
    "Loader",
    "Probe",
    "RunDirectory",
    "Team",
    "asked_processes",
    "collapse_warning",
    "fit",
    "gather_team",
    "load_learner",
    "read_checkpoint",
    "resolve_device",
    "resolve_precision",
]
