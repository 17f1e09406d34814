"""One small run by as many processes as torchrun starts, or alone: the numbers must be the same.

The learner draws nothing, and each process takes its share of the same batches of eight images.

    python -m tests.train.fit_in_processes OUT [resume] [steps=N] [nan=RANK] [die=RANK] [drop=RANK] [bad=RANK] [slow]
        [full] [broken=EPOCH] [halted=EPOCH] [allowed=IMAGES] [fsdp] [accumulate=N] [clip=NORM] [precision=P]
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from cmid.config import TrainConfig
from cmid.contracts import Views
from cmid.errors import CmidError
from cmid.ops import gather
from cmid.train import gather_team, saving
from tests.train.small_run import MemoryLoader, Probe, SmallLearner, run_fit


class SharedLearner(SmallLearner):
    """Its queue takes a key that every process knows."""

    def forward(self, batch):
        self.brightness = batch[0].images.mean()  # of this process's images
        return super().forward(batch)

    def before_step(self, progress):
        if self.drops and progress.step == 3:  # amid a step, when the others are about to talk to it
            os.kill(os.getpid(), signal.SIGKILL)
        if self.seen_fractions and self.seen_fractions[-1] == progress.epoch:  # a further batch that is added up
            assert self.head.weight.grad is not None, "gradients that are divided must not wait, whole, to be so"
        super().before_step(progress)

    def extra_logs(self):
        return super().extra_logs() | {"brightness": self.brightness}

    def after_step(self, progress):
        self.key = gather.rows(self.key)
        super().after_step(progress)


class SharedLoader(MemoryLoader):
    """This process's part of each batch; breaks at a batch where it is told to."""

    def __init__(self, team, events):
        super().__init__(batches=5, batch_size=8)
        self.team, self.events = team, events
        self.bad_allowed = int(events.get("allowed", 9))

    def __iter__(self):
        each = 8 // self.team.size
        rows = slice(self.team.rank * each, (self.team.rank + 1) * each)
        for number, views in enumerate(super().__iter__()):
            crops = [v.rows(rows) for v in views]
            if number == 3 and self.events.get("die") == str(self.team.rank):
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 3 and self.events.get("bad") == str(self.team.rank):
                raise CmidError("the disk has gone")
            if "slow" in self.events:
                time.sleep(0.3)
            self.skipped[self.team.rank] = "a reason"  # in two processes, two images
            yield Views(tuple(crops), views.indices[rows], views.epoch)


class ProbeOfWhole(Probe):
    """The leading process runs student and teacher alone; what it tells of them is free of biases before batch-norm."""

    def __init__(self, events, **values):
        super().__init__(**values)
        self.events = events

    def __call__(self, learner, device):
        found = super().__call__(learner, device)
        if self.events.get("broken") == str(self.calls):
            raise CmidError("no image can be read")
        if self.events.get("halted") == str(self.calls):  # by a signal to the group, of which its loader has died
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")
        for name, backbone in {"student": learner.backbone, "teacher": learner.teacher}.items():
            assert backbone(torch.ones(2, 3, 16, 16)).last.isfinite().all()
            found[f"{name}_size"] = backbone.conv2.weight.square().sum().item()
        return found


def prepare(views):
    return Views(tuple(v.with_images(v.images.float() / 255 - 0.5) for v in views), views.indices, views.epoch)


def watch_saving(team, full):
    """Tells of every checkpoint that is written, which fails where `full`; the others' clocks always say it is time."""
    write = saving.write_checkpoint

    def written(path, state):
        if full:
            raise OSError(28, "No space left on device")
        print("WROTE", state["progress"]["step"], flush=True)
        write(path, state)

    saving.write_checkpoint = written
    if not team.leads:
        saving.Saver.is_due = lambda saver: True


def main():
    out, *words = sys.argv[1:]
    events = dict(word.partition("=")[::2] for word in words)
    torch.set_num_threads(1)
    how = {
        "accelerator": "cpu", "precision": events.get("precision", "32"),
        "strategy": "fsdp" if "fsdp" in events else "ddp", "accumulate": int(events.get("accumulate", 1)),
    }  # fmt: skip
    team = gather_team(TrainConfig(**how))
    watch_saving(team, "full" in events)
    torch.manual_seed(5)
    learner = SharedLearner(hidden=False)
    learner.drops = events.get("drop") == str(team.rank)
    if events.get("nan") == str(team.rank):
        learner.fail_at = (4, float("nan"))
    try:
        run_fit(
            Path(out), learner=learner, loader=SharedLoader(team, events), prepare=prepare, team=team, epochs=3,
            images_per_batch=8 // team.size, resume="resume" in events,
            probes=[ProbeOfWhole(events, knn_top1=[1.0, 3.0, 2.0])],
            optimizer={"clip_norm": float(events.get("clip", 1))},
            train={
                **how, "max_steps": int(events.get("steps", 0)),
                "checkpoint_minutes": 1e-9 if {"resume", "slow", "die", "drop", "full"} & events.keys() else 0.0,
            },
        )  # fmt: skip
    except CmidError as error:
        if not error.quiet:
            print("SAID", type(error).__name__, " ".join(str(error).split()), flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
