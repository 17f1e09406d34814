"""Two processes of one thread against one of one thread, on two cores: training steps of a recipe through `fit`.

    python benchmarks/scaling.py                  # 1 x 32 images against 2 x 16: the recipe's step, shared
    python benchmarks/scaling.py --batch 32       # 1 x 64 against 2 x 32
    python benchmarks/scaling.py --batch 64 --precision bf16
    python benchmarks/scaling.py --recipe cmid-millionaid-resnet50 --batch 32 --precision bf16 --rounds 4 --steps 1 \
        --sides two,limit,one_half            # the published network and images; five of them take 20 GB
    for side in two one_all; do               # what does not fit beside another is measured after it
        python benchmarks/scaling.py --recipe cmid-millionaid-resnet50 --batch 64 --steps 1 --rounds 3 --sides $side
    done

Efficiency is the rate (images/s) of two over twice the rate of one; with the same total batch, and with the same
batch for each process; once more without batch-norm over the processes (`train.sync_batch_norm false`), which tells
what its exchanges cost. Physical limit, in the same run: two processes side by side that know nothing of each other.
What two cores lose by sharing clock, cache and memory is in the limit; what is lost to the batch-norm sums, the
gradients and the waiting for one another is not.

All sides are started once (recipe `cmid-small`, ResNet-18, 96 px, float32 unless told, exact mode) and then take turns
in an order that moves on each round, one block of steps at a time, while the others wait at a batch boundary. Every
process is pinned to a core; the lone one changes cores from block to block. Batches are random uint8 crops made
beforehand, so that no loader competes for the two cores; colours, journal and all else of a step are the trainer's. The
first block of each side is not counted. Two that wait for one another are as fast as the slower core, so that where
neighbours slow now one core, now another, the ratios of each side's fastest quarter of rounds say more. Processor time
over wall time tells whether the machine was quiet: a lone process should be near 1. Results go to
`results/scaling_resnet18_b16.json` (`_b64_bf16` and so on; a side alone has its name at the end).
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from machine import processor

from cmid.commands.learners import build_learner
from cmid.commands.settings import resolve
from cmid.config import PretrainConfig, as_plain
from cmid.contracts import View, Views
from cmid.data.augment import BatchAugment
from cmid.train import RunDirectory, fit, gather_team

RESULTS = Path(__file__).parent / "results"
UNSYNCED = "two_unsynced"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


class Turns:
    """A loader of ready batches that lets `steps` of them go whenever it is the side's turn, and tells the times.

    It waits for a word of the measuring process without looking at a clock: one that looks 50 times a second slows the
    side whose turn it is by 2 %. After a block it sends back begin and end (seconds of a clock that all processes
    share) and the processor time between them.
    """

    def __init__(self, side, rank, given, size):
        self.skipped = {}
        self.side, self.rank, self.given = side, rank, given
        self.measurer = Connection(socket.create_connection(("127.0.0.1", given.train)).detach())
        self.measurer.send_bytes(json.dumps([side, rank]).encode())
        generator = torch.Generator().manual_seed(rank)
        batch, count = given.images, 3
        self.ready = []
        for number in range(count):
            crops = []
            for _ in range(2):
                start = torch.rand(batch, 2, generator=generator) * 60
                pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
                flipped = torch.rand(batch, generator=generator) < 0.5
                crops.append(View(pixels, torch.cat((start, start + 90), 1), flipped))
            self.ready.append(Views(tuple(crops), torch.arange(batch) + number * batch))

    def __len__(self):
        return self.given.blocks * self.given.steps + 1  # the last one only ends the last block

    def __iter__(self):
        began = busy = 0.0
        for number in range(len(self)):
            block, step = divmod(number, self.given.steps)
            if step == 0:
                if block:
                    times = [began, time.perf_counter(), time.process_time() - busy]
                    self.measurer.send_bytes(json.dumps(times).encode())
                if self.side.startswith("one"):
                    os.sched_setaffinity(0, {block % 2})
                try:
                    self.measurer.recv_bytes()
                except EOFError:
                    raise SystemExit("whoever measures is gone") from None
                began, busy = time.perf_counter(), time.process_time()
            yield self.ready[number % len(self.ready)]

    def resume_at(self, epoch, batch):
        """Always from the start."""

    def names(self, indices):
        return [str(int(i)) for i in indices]

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        raise NotImplementedError

    def require_readable(self):
        """Nothing is read."""

    def write_skipped(self, path):
        raise NotImplementedError


def train(given):
    """One process of a side: real steps, a block at a time."""
    train = {
        "train.precision": given.precision,
        "train.accelerator": "cpu",
        "train.sync_batch_norm": given.side != UNSYNCED,
        "train.accumulate": 1,
    }
    config = resolve(PretrainConfig, {"batch_size": given.images, **train}, recipe=given.recipe)
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", 0))
    core = rank if given.core is None else given.core
    os.sched_setaffinity(0, {core})  # before gloo's threads, which inherit it
    team = gather_team(config.train)
    config = replace(config, train=replace(config.train, checkpoint_minutes=0.0))
    torch.manual_seed(0)
    with TemporaryDirectory() as out:
        fit(
            build_learner(config), Turns(given.side, team.rank, given, config.views.size),
            prepare=BatchAugment(config.views), run=RunDirectory(Path(out) / "run"), epochs=1, seed=0,
            optimizer=config.optimizer, train=config.train, images_per_batch=given.images, settings=as_plain(config),
            team=team,
        )  # fmt: skip


class Side:
    """Processes that train at the same time, `images` each; `together` as one run, else each by itself."""

    def __init__(self, name, folder, port, given, images, processes, together):
        self.name, self.images, self.processes, self.together = name, images, processes, together
        self.rates, self.busy = [], []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        words = ["--train", str(port), "--images", str(images), "--steps", str(given.steps)]
        words += ["--blocks", str(given.rounds + 1), "--precision", given.precision]
        words += ["--recipe", given.recipe]
        self.running, self.logs = [], []
        for place in range(1 if together else processes):
            side, core = (name, []) if together else (f"{name}{place}", ["--core", str(place)])
            command = [sys.executable, *(TORCHRUN if together else []), __file__, *words, "--side", side, *core]
            self.logs.append(folder / f"log_{side}")
            with self.logs[-1].open("w") as log:
                self.running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        self.workers = [(name, rank) if together else (f"{name}{rank}", 0) for rank in range(processes)]

    def release(self, connections):
        """Lets the processes train a block."""
        for worker in self.workers:
            connections[worker].send_bytes(b"go")

    def turn(self, connections):
        """One block of steps; gives the rate, images a second, of all its processes together."""
        self.release(connections)
        try:
            times = [json.loads(connections[worker].recv_bytes()) for worker in self.workers]
        except (EOFError, OSError):
            raise SystemExit(self.last_words()) from None
        self.busy.append(sum(busy / (end - begin) for begin, end, busy in times) / len(times))
        if self.together:
            times = [[min(t[0] for t in times), max(t[1] for t in times), 0.0]] * self.processes
        return sum(self.images / (end - begin) for begin, end, _ in times)

    def last_words(self):
        """The ends of what the processes have written."""
        return "\n".join(log.read_text()[-3000:] for log in self.logs)


def meet(server, sides):
    """The connection to each process of the sides, by side and rank."""
    connections = {}
    server.settimeout(1)  # and then see whether all are still there
    while len(connections) < sum(len(side.workers) for side in sides):
        for side in sides:
            if any(process.poll() for process in side.running):
                raise SystemExit(side.last_words())
        try:
            accepted, _ = server.accept()
        except TimeoutError:
            continue
        accepted.setblocking(True)
        connection = Connection(accepted.detach())
        connections[tuple(json.loads(connection.recv_bytes()))] = connection
    return connections


def measure(given):
    """Rates of each side by round, images a second."""
    with TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        each = {"one_all": (2, 1, False), "two": (1, 2, True), UNSYNCED: (1, 2, True)}
        each |= {"limit": (1, 2, False), "one_half": (1, 1, False)}
        sides = [
            Side(name_, Path(name), port, given, times * given.batch, processes, together=together)
            for name_, (times, processes, together) in each.items()
            if name_ in given.sides.split(",")
        ]
        try:
            connections = meet(server, sides)
            for block in range(given.rounds + 1):
                first = block % len(sides)
                for side in sides[first:] + sides[:first]:
                    rate = given.steps * side.turn(connections)
                    if block:
                        side.rates.append(rate)
                shown = "  ".join(f"{s.name} {s.rates[-1]:.2f}" for s in sides) if block else "warm"
                print(f"round {block}/{given.rounds}: {shown}", flush=True)
            for side in sides:
                side.release(connections)  # only now, so that no side's end falls into another's last turn
            for side in sides:
                for process in side.running:
                    process.wait(600)
        finally:
            for side in sides:
                for process in side.running:
                    if process.poll() is None:
                        process.terminate()
        return {side.name: side.rates for side in sides}, {side.name: side.busy[1:] for side in sides}


def of(values):
    """Median and range, rounded."""
    return {"median": round(statistics.median(values), 3), "range": [round(min(values), 3), round(max(values), 3)]}


def ratios(above, below, factor=1.0):
    """Ratio round by round: both sides were measured within the same minute."""
    return of([a / (factor * b) for a, b in zip(above, below, strict=True)])


def main():
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="images of each of two processes")
    parser.add_argument("--steps", type=int, default=3, help="of a block")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--recipe", default="cmid-small")
    parser.add_argument("--sides", default=f"one_all,two,{UNSYNCED},limit,one_half", help="comma-separated")
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    for inner in ("--train", "--images", "--blocks", "--core"):
        parser.add_argument(inner, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.sides.split(",")) - set(parser.get_default("sides").split(",")):
        parser.error(f"--sides has {', '.join(sorted(unknown))}; there are {parser.get_default('sides')}")
    if given.train:
        return train(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the sides are ended, too
    began = time.perf_counter()
    config = resolve(PretrainConfig, {}, recipe=given.recipe)
    rates, busy = measure(given)
    wanted = {
        "efficiency_same_total_batch": ("two", "one_all", 2),
        "efficiency_same_batch_each": ("two", "one_half", 2),
        "efficiency_same_total_batch_unsynced": (UNSYNCED, "one_all", 2),
        "efficiency_same_batch_each_unsynced": (UNSYNCED, "one_half", 2),
        "limit_same_total_batch": ("limit", "one_all", 2),
        "limit_same_batch_each": ("limit", "one_half", 2),
        "share_of_limit": ("two", "limit", 1),
    }
    fast = {name: statistics.mean(sorted(v)[-max(1, len(v) // 4) :]) for name, v in rates.items()}
    given_sides = {name: w for name, w in wanted.items() if w[0] in rates and w[1] in rates}
    found = {
        "images_per_s": {name: of(values) for name, values in rates.items()},
        **{name: ratios(rates[above], rates[below], factor) for name, (above, below, factor) in given_sides.items()},
        "of_each_sides_fastest_quarter": {
            name: round(fast[above] / (factor * fast[below]), 3)
            for name, (above, below, factor) in given_sides.items()
        },
        "processor_time_over_wall_time": {name: of(values) for name, values in busy.items()},
        "recipe": given.recipe, "backbone": config.backbone, "size_px": config.views.size,
        "batch_each_of_two": given.batch,
        "precision": given.precision, "steps_a_block": given.steps, "rounds": given.rounds, "rates_by_round": rates,
        "seconds": round(time.perf_counter() - began), "torch": torch.__version__, "cpu": processor(),
        "cores": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if not given.no_write:
        RESULTS.mkdir(exist_ok=True)
        kind = "" if given.precision == "32" else f"_{given.precision}"
        kind += f"_{given.sides}" if "," not in given.sides else ""
        (RESULTS / f"scaling_{config.backbone}_b{given.batch}{kind}.json").write_text(
            json.dumps(found, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
