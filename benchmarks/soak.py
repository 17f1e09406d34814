"""An hour of being killed: does a run that is killed again and again end as one that was left alone?

    python benchmarks/soak.py --minutes 60 --kills 24 --work DIR [--clock /usr/lib/.../libfaketime.so.1]

Two runs of the same command train side by side, the real command line with loader processes and a checkpoint every few
seconds. One is left alone. The other is killed with SIGKILL at random moments (the main process alone, all its
processes, or only a loader process), now and then asked to stop with SIGTERM, and resumed. With `--clock`
(libfaketime, from the package faketime) its date jumps by up to a year, back and forth, while it runs. After the given
time both are stopped, both resumed to the same step, and compared: every row of steps.csv and metrics.csv but for the
times, and every tensor of the last checkpoint, bit by bit. Both run a copy of the package, as it is at the beginning:
a resumed run would take up what has been changed meanwhile, and the other not.

Of the run that is left alone the memory (main and loader processes, other shared pages counted once) is taken every ten
seconds, without pages of files, which it shares with whoever reads the same libraries; its growth is the slope of a
line through all but the first ten minutes. Results go to `results/soak.json`.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from machine import processor

import cmid
from cmid.train import read_checkpoint

TIMES = {"images_per_s", "data_wait", "seconds"}
ENDED_BY = {"main": signal.SIGKILL, "all": signal.SIGKILL, "loader": signal.SIGKILL, "asked": signal.SIGTERM}
SETTINGS = [
    "--backbone", "test_resnet", "--views.size", "64", "--batch-size", "8", "--epochs", "2000", "--seed", "1",
    "--cmid.global-hidden", "128", "--cmid.local-hidden", "128", "--cmid.local-prototypes", "64",
    "--cmid.queue-size", "256", "--cmid.mask-cell-px", "16", "--train.log-every", "1", "--train.workers", "2",
    "--train.checkpoint-minutes", "0.1", "--report", "false", "--train.precision", "32",
]  # fmt: skip


class Run:
    """One run of the command line, with its processes in a session of their own."""

    def __init__(self, images: Path, out: Path, clock: str, code: Path) -> None:
        self.images, self.out, self.clock, self.log = images, out, clock, out.with_suffix(".log")
        self.code = code
        self.process: subprocess.Popen | None = None

    def start(self, *more: str) -> None:
        command = [sys.executable, "-m", "cmid", "pretrain", str(self.images), *SETTINGS, "--out", str(self.out), *more]
        if (self.out / "checkpoints" / "last.ckpt").exists():
            command.append("--resume")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.code)}
        if self.clock:
            environment |= {
                "LD_PRELOAD": self.clock, "FAKETIME_TIMESTAMP_FILE": str(self.out.with_suffix(".date")),
                "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }  # fmt: skip
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=self.code
            )

    def members(self) -> list[int]:
        """Its processes, the main one first."""
        own = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            if int(fields[3]) == self.process.pid and fields[0] != "Z":
                own.append(int(stat.parent.name))
        return sorted(own, key=lambda pid: (pid != self.process.pid, pid))

    def memory_mb(self) -> float:
        """Of all its processes, without pages of files; a page that several share is divided among them."""
        total = 0
        for pid in self.members():
            try:
                rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(row.split()[1]) for row in rows if row.startswith(("Pss_Anon:", "Pss_Shmem:")))
        return total / 1024

    def step(self) -> int:
        """The last step in its table."""
        rows = table(self.out / "steps.csv")
        return int(rows[-1]["step"]) if rows else 0

    def end(self, how: str, chance: random.Random) -> tuple[int, int]:
        """Ends it; gives its exit code, and how many of its processes were left after a minute."""
        members = self.members()
        if how == "all":
            for pid in members:
                os.kill(pid, signal.SIGKILL)
        elif how == "loader" and len(members) > 1:
            os.kill(chance.choice(members[1:]), signal.SIGKILL)
        else:
            self.process.send_signal(ENDED_BY["main" if how == "loader" else how])
        code = self.process.wait(300)
        until = time.monotonic() + 60
        while (left := self.members()) and time.monotonic() < until:
            time.sleep(0.2)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return code, len(left)


def table(path: Path) -> list[dict[str, str]]:
    """Rows without what depends on the clock; a last line that is being written is left out."""
    if not path.exists():
        return []
    text = path.read_text()
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def differences(a, b, where="checkpoint") -> list[str]:
    """Where two values of a checkpoint differ."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [where]
        return [each for key in a for each in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple):
        return [each for i, (x, y) in enumerate(zip(a, b, strict=True)) for each in differences(x, y, f"{where}.{i}")]
    return [] if a == b else [where]


def soak(alone: Run, killed: Run, minutes: float, kills: int, chance: random.Random):
    """Both runs for so long; gives what was done to the one and the memory of the other by seconds."""
    events, memory = [], []
    began = time.monotonic()
    pause = 60 * minutes / (kills * 1.25 + 1)
    next_event, next_look, next_jump = began + pause, began + 30, began + 5
    while time.monotonic() < began + 60 * minutes or sum(e["how"] != "asked" for e in events) < kills:
        time.sleep(0.2)
        now = time.monotonic()
        assert alone.process.poll() is None, f"the run that is left alone has ended: see {alone.log}"
        if now >= next_look:
            memory.append((round(now - began), round(alone.memory_mb(), 1)))
            next_look += 10
        if killed.clock and now >= next_jump:
            killed.out.with_suffix(".date").write_text(f"{chance.randint(-365, 365):+d}d\n")
            next_jump += chance.uniform(1, 10)
        if now >= next_event:
            how = chance.choice(["main", "main", "all", "all", "loader", "asked"])
            before = killed.step()
            code, left = killed.end(how, chance)
            events.append({"second": round(now - began), "how": how, "step": before, "exit": code, "left": left})
            print(f"{events[-1]['second']:6d} s  {how:6s} at step {before:6d}: exit {code}, {left} processes left")
            killed.start()
            next_event = time.monotonic() + chance.uniform(0.3, 1.7) * pause
    return events, memory


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=60)
    options.add_argument("--kills", type=int, default=24)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--work", type=Path, required=True, help="an empty folder")
    options.add_argument("--clock", default="", help="libfaketime, for dates that jump")
    given = options.parse_args()
    chance = random.Random(given.seed)
    given.work = given.work.resolve()
    given.work.mkdir(parents=True)
    code = given.work / "code"
    shutil.copytree(Path(cmid.__file__).parent, code / "cmid", ignore=shutil.ignore_patterns("__pycache__"))
    images = cmid.generate(out=str(given.work / "scenes"), count=200, size=96).images.resolve()
    alone, killed = Run(images, given.work / "alone", "", code), Run(images, given.work / "killed", given.clock, code)
    killed.out.with_suffix(".date").write_text("+0d\n")
    alone.start()
    killed.start()
    events, memory = soak(alone, killed, given.minutes, given.kills, chance)
    for run in (alone, killed):
        run.end("asked", chance)
    last = max(alone.step(), killed.step()) + 20
    killed.clock = ""  # the one behind has to catch up, and reading a false clock takes most of a small run's time
    for run in (alone, killed):
        run.start("--train.max-steps", str(last))
        assert run.process.wait(3600) == 0, f"see {run.log}"

    unlike = []
    for name in ("steps.csv", "metrics.csv"):
        ours, theirs = table(alone.out / name), table(killed.out / name)
        unlike += [f"{name} row {i}" for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b]
        unlike += [f"{name} has {len(ours)} and {len(theirs)} rows"] if len(ours) != len(theirs) else []
    one, two = (read_checkpoint(run.out, lazy=False).state for run in (alone, killed))
    for part in ("learner", "optimiser", "progress", "position", "loader", "best"):
        unlike += differences(one[part], two[part], part)
    late = np.array([row for row in memory if row[0] >= 600] or memory, float)
    slope = float(np.polyfit(late[:, 0] / 3600, late[:, 1], 1)[0]) if len(late) > 1 else float("nan")
    result = {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "torch": torch.__version__},
        "minutes": given.minutes,
        "seed": given.seed,
        "date_jumps": bool(given.clock),
        "kills": {how: sum(e["how"] == how for e in events) for how in ENDED_BY},
        "steps": last,
        "steps_compared": len(table(alone.out / "steps.csv")),
        "differences": unlike,
        "processes_left": sum(e["left"] for e in events),
        "memory_mb": {
            "at": memory[:: max(1, len(memory) // 30)],
            "least": float(late[:, 1].min()),
            "greatest": float(late[:, 1].max()),
            "growth_mb_per_hour": round(slope, 2),
        },
        "events": events,
    }
    (Path(__file__).parent / "results" / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "events"}, indent=1))
    shutil.rmtree(given.work)
    sys.exit(bool(unlike))


if __name__ == "__main__":
    main()
