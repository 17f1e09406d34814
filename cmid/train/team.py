"""The processes of a run, and how they agree: on errors, on stopping, on what only one of them does.

Lightning starts them (or finds those that torchrun or SLURM have started) and makes the group that gradients travel in.
What is agreed on here is small and travels between the CPUs, so that no GPU is waited for.
"""

import atexit
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from cmid.config import TrainConfig
from cmid.errors import LEADER, CmidError, UsageError, exit_code
from cmid.train.failures import told_of_loss
from cmid.train.sharding import shard

if TYPE_CHECKING:
    from lightning.fabric import Fabric

T = TypeVar("T")
PATIENCE = timedelta(hours=6)
"""How long the others wait for one that measures or saves; one that has died is noticed at once."""
GRACE_S = 20.0
"""What processes that this one has started have for their last words."""


class Elsewhere(CmidError):
    """What another process of the run has failed with."""


class Team:
    """One process among those of a run; alone where there is one.

    Args:
        fabric: launched; None is a process by itself.
        nodes: on how many nodes.

    Attributes:
        rank: from 0.
        size: how many processes there are.
        nodes: on how many nodes.
        failed_with: of this process, whichever its team, the exit code where its newest run has failed.
    """

    failed_with: ClassVar[int | None] = None

    def __init__(self, fabric: "Fabric | None" = None, nodes: int = 1) -> None:
        self.fabric = fabric
        self.rank = fabric.global_rank if fabric is not None else 0
        self.size = fabric.world_size if fabric is not None else 1
        self.nodes = nodes
        # Never the group of the gradients, even where that is gloo, too: its patience is that of a step.
        self._group: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if self.size > 1 else None

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def note_failure(self, error: BaseException | None) -> None:
        """Takes down what has ended this process's newest run; None where nothing has."""
        code = None if error is None else 130 if isinstance(error, KeyboardInterrupt) else 1
        Team.failed_with = exit_code(error) if isinstance(error, CmidError) else code

    def any(self, *facts: bool) -> tuple[bool, ...]:
        """Which of `facts` are true in at least one process."""
        if self.size == 1:
            return facts
        flags = torch.tensor(facts, dtype=torch.int32)
        with _lost():
            dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._group)
        return tuple(bool(flag) for flag in flags.tolist())

    def gather(self, value: T) -> list[T]:
        """What every process has, in order of rank; plain values."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _lost():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def require_alike(self, setting: str, value: str) -> None:
        """Refuses processes that `auto` has led to different values, as GPUs of two kinds may."""
        found = sorted(set(self.gather(value)))
        if len(found) > 1:
            error = UsageError(
                f"{setting} auto means {' and '.join(found)} on the devices of this run: name one of them"
            )
            error.quiet = not self.leads
            raise error

    def of_leader(self, value: T) -> T:
        """What the leading process has; plain values."""
        if self.size == 1:
            return value
        values = [value]
        with _lost():
            dist.broadcast_object_list(values, 0, group=self._group)
        return values[0]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of small numbers on the device, without gradient."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def make_alike(self, tensors: Iterable[Tensor]) -> None:
        """Gives the tensors of all processes, of the same shapes in the same order, the values of the leading one's."""
        with _lost(), torch.no_grad():
            for tensor in tensors if self.size > 1 else ():
                values = tensor.contiguous()
                dist.broadcast(values, 0, group=self._group)
                tensor.copy_(values)

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """What fails inside in one process fails in all; nothing inside may talk to the other processes.

        Raises:
            Elsewhere: in those that did not fail themselves.
        """
        if self.size == 1:
            yield
            return
        mine: Exception | None = None
        try:
            yield
        except Exception as error:
            mine = error
        if not self.any(mine is not None)[0]:
            return
        reasons = self.gather(None if mine is None else (type(mine).__name__, str(mine), _exit_code(mine)))
        if mine is not None:
            if isinstance(mine, CmidError):
                mine.quiet = not self.leads  # the leading process tells it
            raise mine
        rank, (kind, words, code) = next((r, reason) for r, reason in enumerate(reasons) if reason is not None)
        elsewhere = Elsewhere(f"Process {rank} of {self.size} has stopped: {words or kind}")
        elsewhere.exit_code, elsewhere.quiet = code, not self.leads
        raise elsewhere


def _exit_code(error: Exception) -> int:
    return error.exit_code if isinstance(error, CmidError) else 1


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise told_of_loss(error) from error


def start_team(train: TrainConfig, device_type: str, precision: str) -> Team:
    """The processes that `train` asks for, started unless torchrun or SLURM have done so.

    Raises:
        UsageError: more devices than there are, or other numbers than the launcher's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightning.fabric import Fabric
        from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy
    devices, nodes = asked_processes(train)
    if device_type == "cuda" and devices > torch.cuda.device_count():
        hint = "let each task see all GPUs of its node (srun --gpus-per-node)" if _of_slurm() else "give --devices"
        raise UsageError(f"train.devices is {devices}, but there are {torch.cuda.device_count()} GPUs here; {hint}")
    if device_type == "mps" and devices * nodes > 1:
        raise UsageError(f"train.devices is {devices}, but an Apple GPU is one; use 1, or --train.accelerator cpu")
    if train.strategy == "fsdp" and precision == "16":
        raise UsageError("train.strategy fsdp computes in bf16 or 32: choose one of them as train.precision")
    strategy: Any = "auto"
    if devices * nodes > 1:
        if not _may_start():
            raise UsageError(
                f"train.devices x train.nodes is {devices} x {nodes}: the command line starts so many processes by "
                "itself, but a Python program of yours would be run once more for each; start it with torchrun "
                f"--nproc-per-node {devices}, and leave train.devices out"
            )
        os.environ.setdefault(LEADER, str(os.getpid()))  # what Lightning starts inherits it
        # Said of 1 x 1 convolutions in channels-last, whose two layouts are the same bytes.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        # Queue, centre and batch-norm are the same in all processes by themselves; sending them would cost a step more.
        # Amid a step; on a CPU one that has failed is noticed at once, on GPUs when this has passed.
        patience = timedelta(minutes=10 if device_type == "cuda" else 30)
        strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True, timeout=patience)
        if train.strategy == "fsdp":
            strategy = ModelParallelStrategy(shard, devices * nodes, tensor_parallel_size=1, timeout=patience)
    names: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fabric = Fabric(
                accelerator=device_type, devices=devices, num_nodes=nodes, strategy=strategy, precision=names[precision]
            )
            fabric.launch()
            team = Team(fabric, nodes)
        except ValueError as error:
            raise UsageError(f"the launcher and the settings disagree on the processes: {error}") from error
        except RuntimeError as error:
            advice = (
                ". Where the nodes have several networks, or names that lead to 127.0.0.1, set GLOO_SOCKET_IFNAME (and "
                "NCCL_SOCKET_IFNAME) on all of them to the interface that they share, such as eth0"
            )
            raise CmidError(
                f"The processes of the run could not be brought together: {error}{advice if nodes > 1 else ''}"
            ) from error
    if devices * nodes > 1:
        atexit.register(_part, team)
    team.require_alike("train.precision", precision)
    return team


def _part(team: Team) -> None:
    """Takes leave of the other processes, at the end of this one.

    Ends gloo's threads in an orderly way: one that is left may abort the process. Of nccl Lightning does so, which
    waits for all processes of a node; where this one has failed they may never come, and it leaves without: whatever
    started it then sees that it has ended, and ends the others.
    """
    if not dist.is_initialized():
        return
    if dist.get_backend() == "gloo":
        with suppress(RuntimeError):  # the others may be gone
            dist.destroy_process_group()
    elif team.failed_with is not None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        strategy: Any = team.fabric and team.fabric.strategy
        started = getattr(getattr(strategy, "launcher", None), "procs", None) or ()
        until = time.monotonic() + GRACE_S
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        for process in started:  # all at once: Lightning kills this process, too, where it sees one of them killed
            process.kill()
        os._exit(team.failed_with)


def _may_start() -> bool:
    """Whether processes have been started already, or this is our own command line, which may be run again."""
    if any(name in os.environ for name in ("LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK")):
        return True
    if _of_slurm() is not None:
        return True
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    return (main is not None and main.name.split(".")[0] == "cmid") or Path(sys.argv[0]).stem == "cmid"


def asked_processes(train: TrainConfig) -> tuple[int, int]:
    """Processes of a node, and nodes: those of torchrun or SLURM where they have started this one, else the settings'.

    Raises:
        UsageError: the settings ask for others than have been started.
    """
    asked, launcher, started = (train.devices, train.nodes), "torchrun", _of_torchrun()
    if started is None:
        launcher, started = "SLURM", _of_slurm()
    if started is None:
        return asked
    if asked not in ((1, 1), started):
        or_else = f", or srun --nodes {train.nodes} --ntasks-per-node {train.devices}" if launcher == "SLURM" else ""
        raise UsageError(
            f"{launcher} has started {started[1]} x {started[0]} processes, but train.nodes x train.devices is "
            f"{train.nodes} x {train.devices}: leave them out{or_else}"
        )
    return started


def devices_again(train: TrainConfig) -> int:
    """With how many processes on this machine a run with these settings goes on, where nobody says.

    With as many as it had, or with one: where torchrun or SLURM have started them, a Python program could not start
    them, or GPUs had trained and none is here.
    """
    may = _may_start() and _of_torchrun() is None and _of_slurm() is None
    return train.devices if may and (train.accelerator == "cpu" or torch.cuda.is_available()) else 1


def _of_torchrun() -> tuple[int, int] | None:
    """Processes of a node, and nodes, where torchrun has started this one."""
    here, everywhere = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
    if here and everywhere and "TORCHELASTIC_RUN_ID" in os.environ:
        return int(here), int(everywhere) // int(here)
    return None


def _of_slurm() -> tuple[int, int] | None:
    """Processes of a node, and nodes, where SLURM has started this one.

    By the variables that Lightning goes by; a job with the name of a shell starts its processes itself, as there.

    Raises:
        UsageError: there are several, and how they lie on the nodes cannot be told, or srun has not started them.
    """
    has = os.environ
    if "SLURM_NTASKS" not in has or has.get("SLURM_JOB_NAME") in {"bash", "interactive"}:
        return None
    tasks = int(has["SLURM_NTASKS"])
    if tasks == 1:
        return 1, 1
    if "SLURM_PROCID" not in has or "SLURM_STEP_ID" not in has:  # the batch script itself, whom nobody would join
        raise UsageError(f"SLURM is to start {tasks} processes, but this is none of them: put srun before the command")
    each, nodes = has.get("SLURM_NTASKS_PER_NODE"), has.get("SLURM_NNODES", has.get("SLURM_JOB_NUM_NODES", "1"))
    if each is None:
        raise UsageError(f"SLURM has started {tasks} processes by --ntasks alone: give srun --ntasks-per-node instead")
    if int(each) * int(nodes) != tasks:
        raise UsageError(
            f"SLURM has started {tasks} processes, which is not {nodes} nodes x {each} (--ntasks-per-node): give srun "
            "--nodes and --ntasks-per-node, and no --ntasks"
        )
    return int(each), int(nodes)
