import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cmid.config import TrainConfig
from cmid.errors import CmidError, UsageError
from cmid.train import gather_team
from cmid.train.team import Team, _may_start, asked_processes, start_team

TASK = {
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "1",
    "SLURM_STEP_ID": "0",
}
"""What SLURM tells a task of `srun --nodes 2 --ntasks-per-node 2`, of all that it does."""


@pytest.fixture
def slurm(monkeypatch):
    """Puts this process into SLURM's hands; a variable that is None is not there."""
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)

    def put(**changed):
        for name, value in (TASK | {f"SLURM_{name}": value for name, value in changed.items()}).items():
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)

    return put


def test_two_processes_agree(two_processes):
    two_processes("tests.train.team_in_two_processes")


def test_two_tasks_of_slurm_find_each_other_without_a_word_in_the_settings():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    root = Path(__file__).resolve().parents[2]
    shared = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    shared |= {"SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.team_in_two_processes"], cwd=root, text=True, stderr=subprocess.PIPE,
            env=os.environ | shared | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}, start_new_session=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        for task in tasks:
            _, errors = task.communicate(timeout=120)
            assert task.returncode == 0, errors
    finally:
        for task in tasks:
            if task.poll() is None:
                os.killpg(task.pid, signal.SIGKILL)


@pytest.mark.parametrize("settings", [{}, {"devices": 2, "nodes": 2}])
def test_slurm_says_how_many_processes_there_are(slurm, settings):
    slurm()
    assert asked_processes(TrainConfig(**settings)) == (2, 2) and _may_start()
    slurm(NNODES=None, JOB_NUM_NODES="2")
    assert asked_processes(TrainConfig(**settings)) == (2, 2)


@pytest.mark.parametrize(
    ("changed", "settings", "words"),
    [
        (
            {},
            {"devices": 4},
            r"SLURM has started 2 x 2 processes, but .* is 1 x 4: .* srun --nodes 1 --ntasks-per-node 4",
        ),
        ({"NTASKS": "1", "NNODES": "1"}, {"devices": 2}, "SLURM has started 1 x 1 processes"),
        ({"NTASKS": "2", "NTASKS_PER_NODE": None}, {}, r"2 processes by --ntasks alone: give srun --ntasks-per-node"),
        ({"NTASKS": "3"}, {}, "3 processes, which is not 2 nodes x 2"),
        ({"STEP_ID": None}, {}, "this is none of them: put srun before the command"),
        ({"PROCID": None}, {}, "this is none of them: put srun before the command"),
    ],
)
def test_what_slurm_and_the_settings_cannot_agree_on_is_said(slurm, changed, settings, words):
    slurm(**changed)
    with pytest.raises(UsageError, match=words):
        gather_team(TrainConfig(accelerator="cpu", **settings))


def test_tasks_that_see_a_gpu_each_are_told_to_see_all_of_them(slurm, monkeypatch):
    slurm()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"is 2, but there are 1 GPUs here; let each task see all .*--gpus-per-node"):
        start_team(TrainConfig(), "cuda", "32")


def test_one_task_of_slurm_is_alone_and_a_shell_in_it_starts_its_own(slurm):
    slurm(NTASKS="1")  # srun --ntasks 1 in a larger job
    assert asked_processes(TrainConfig()) == (1, 1)
    for name in ("bash", "interactive"):
        slurm(JOB_NAME=name)
        assert asked_processes(TrainConfig(devices=3)) == (3, 1) and not _may_start()


def test_what_lightning_cannot_launch_is_one_line(monkeypatch):
    from lightning.fabric import Fabric

    def launch(fabric):
        raise RuntimeError("no free port")

    monkeypatch.setattr(Fabric, "launch", launch)
    with pytest.raises(CmidError, match="could not be brought together: no free port"):
        gather_team(TrainConfig(accelerator="cpu"))


def test_alone_everything_is_ones_own():
    team = Team()
    assert (team.rank, team.size, team.leads) == (0, 1, True)
    assert team.any(True, False) == (True, False) and team.gather(3) == [3] and team.of_leader("a") == "a"
    values = torch.ones(2)
    assert team.mean(values) is values
    with pytest.raises(CmidError, match="mine"), team.as_one():
        raise CmidError("mine")


LEAVES = """
import os, subprocess, sys, time
import torch.distributed as dist
from cmid.errors import CmidError
from cmid.train import team as rooms

waits = [sys.executable, "-c", "import time; time.sleep(600)"]  # in a collective, as it were
children = [subprocess.Popen(waits) for _ in range(3)]
class Launcher: procs = children
class Strategy: launcher = Launcher()
class Fabric: global_rank, world_size, strategy = 0, 1, Strategy()

os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[2]}
dist.init_process_group("gloo", rank=0, world_size=1)
dist.get_backend = lambda: "nccl"
dist.destroy_process_group = lambda: time.sleep(600)  # as nccl waits for the others
rooms.GRACE_S = 6.0  # longer than Lightning's watch over what it has started takes to look
from lightning.fabric.strategies.launchers.subprocess_script import _launch_process_observer
if sys.argv[1] == "fails":
    _launch_process_observer(children)
import atexit
team = rooms.Team(Fabric())
atexit.register(lambda: dist.destroy_process_group() if sys.argv[1] == "fails" else None)  # Lightning's comes first
atexit.register(rooms._part, team)
print(*(child.pid for child in children), flush=True)
if sys.argv[1] == "fails":
    team.note_failure(CmidError("memory was short"))
    sys.exit(1)
for child in children:
    child.kill()
"""


@pytest.mark.parametrize(("how", "code"), [("fails", 1), ("ends", 0)])
def test_with_nccl_who_fails_does_not_wait_for_the_others(how, code):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, how, port], capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    for left in (Path(f"/proc/{process}/stat") for process in done.stdout.split()):
        assert not left.exists() or " Z " in left.read_text(), "whom it has started must not go on without it"


def test_the_exit_code_of_a_failure_is_kept():
    codes = []
    for error in (None, CmidError("x"), UsageError("x"), KeyboardInterrupt(), ZeroDivisionError()):
        Team().note_failure(error)
        codes.append(Team().failed_with)
    assert codes == [None, 1, 2, 130, 1]
    Team().note_failure(None)  # a later run went well
    assert Team().failed_with is None
