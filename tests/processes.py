"""Real processes for tests, forked from one that has the imports behind it: those take longer than what is tested.

They find each other by the variables that torchrun sets. Torchrun itself would end the others where one dies:
here those whose partner has gone must end by themselves, or they are killed and the test fails.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import distributed as dist

LOADED = [
    "cmid.commands.predict_segmentation", "cmid.commands.pretrain", "cmid.tasks.segmentation", "lightning.fabric",
    "timm.optim",
]  # fmt: skip


def fork_server():
    """The context of `multiprocessing` whose processes are forked from one with `LOADED`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)  # whoever comes first starts it
    return context


def begin(module, arguments, environment, told):
    """Starts what `python -m module arguments` would be; it writes to `told`.out and `told`.err."""
    process = fork_server().Process(target=_become, args=(module, arguments, environment, str(told)))
    process.start()
    return process


def run_together(count, module, *arguments, timeout=150):
    """Runs `python -m module arguments` in `count` processes of a team, or alone.

    Returns:
        Each one's exit code, what all wrote to stdout, and what they wrote to stderr.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TORCHELASTIC_"))}
    store, environments = None, [plain]
    if count > 1:
        store = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
        shared = {
            "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": store.port, "TORCHELASTIC_RUN_ID": "tests", "TORCHELASTIC_RESTART_COUNT": 0,
            "TORCHELASTIC_USE_AGENT_STORE": True,
        }  # fmt: skip
        each = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(count)]
        environments = [plain | {name: str(value) for name, value in mine.items()} for mine in each]
    with TemporaryDirectory() as folder:
        told = [Path(folder) / str(rank) for rank in range(count)]
        processes = [begin(module, arguments, *each) for each in zip(environments, told, strict=True)]
        deadline = time.monotonic() + timeout
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [rank for rank, process in enumerate(processes) if process.is_alive()]
        for rank in late:
            os.killpg(processes[rank].pid, signal.SIGKILL)  # with its loader processes
            processes[rank].join()
        said, errors = ("".join(Path(f"{out}.{kind}").read_text() for out in told) for kind in ("out", "err"))
    del store
    assert not late, f"processes {late} of {count} did not end in {timeout} s\n{said[-2000:]}{errors[-6000:]}"
    return [process.exitcode for process in processes], said, errors


def _become(module, arguments, environment, told):
    """What a new interpreter would be by now."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{told}.{name}", os.O_WRONLY | os.O_CREAT), number)
    torch.set_num_threads(1)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which processes of multiprocessing leave out
