"""A small learner, a real in-memory loader and one call of `fit`, for the tests of this room and its subprocesses."""

import copy
import csv

import torch
from torch import nn
from torch.nn import functional

from cmid.config import OptimizerConfig, TrainConfig
from cmid.contracts import Backbone, Learner, Pyramid, View, Views
from cmid.errors import CmidError
from cmid.train import RunDirectory, fit


class SmallBackbone(Backbone):
    """Two convolutions; with batch norm unless told otherwise."""

    def __init__(self, norm="batch", width=6):
        super().__init__()
        self.name, self.in_chans, self.channels, self.strides, self.norm = "small", 3, (width,), (4,), norm
        self.conv = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(1, width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, images, mask=None):
        return Pyramid((self.conv2(functional.relu(self.norm1(self.conv(images)))),), (4,))

    def weights(self):
        return self.state_dict()


class SmallLearner(Learner):
    """A student, an EMA teacher, a queue, a random mask: everything of a method that a resume could lose."""

    def __init__(self, norm="batch", width=6, hidden=True):
        super().__init__()
        self.backbone = SmallBackbone(norm, width)
        self.teacher = copy.deepcopy(self.backbone).requires_grad_(False)
        self.head = nn.Linear(width, 4)
        self.hidden = hidden
        self.register_buffer("queue", torch.randn(4, 8))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.temperature, self.steps_seen, self.forwards, self.seen_fractions = 1.0, [], 0, []
        self.fail_at = None

    def before_step(self, progress):
        self.temperature = 0.2 + 0.3 * progress.epoch / progress.total_epochs
        self.seen_fractions.append(progress.epoch)

    def forward(self, batch):
        self.forwards += 1
        images = batch[0].images
        if self.hidden:
            images = images * (torch.rand(images.shape[0], 1, 1, 1, device=images.device) > 0.3)
        student = self.head(self.backbone(images).last.mean((2, 3)))
        with torch.no_grad():
            self.key = self.head(self.teacher(batch[1].images).last.mean((2, 3)))
        contrast = functional.cross_entropy(student @ self.queue / self.temperature, torch.zeros(len(images)).long())
        terms = {"agreement": (student - self.key).pow(2).mean(), "contrast": 0.1 * contrast}
        if self.fail_at is not None and self.forwards == self.fail_at[0]:
            terms["contrast"] = terms["contrast"] * self.fail_at[1]
        return terms

    def after_step(self, progress):
        self.steps_seen.append(progress.step)
        self.follow(0.9 + 0.1 * progress.fraction)
        self.queue[:, self.pointer % 8] = self.key[0]
        self.pointer += 1

    @torch.no_grad()
    def follow(self, momentum):
        for mine, theirs in zip(self.teacher.parameters(), self.backbone.parameters(), strict=True):
            mine.lerp_(theirs, 1 - momentum)

    def extra_logs(self):
        return {"temperature": torch.tensor(self.temperature)}


class MemoryLoader:
    """Views of stored images; the content of a batch is a function of (seed, epoch, batch)."""

    bad_allowed = 9

    def __init__(self, batches=5, batch_size=4, seed=0, size=16):
        self.images = torch.randint(0, 256, (batches * batch_size, 3, size, size), generator=_generator(7)).byte()
        self.batches, self.batch_size, self.seed = batches, batch_size, seed
        self.epoch, self.first, self.skipped = 0, 0, {}

    def __len__(self):
        return self.batches

    def resume_at(self, epoch, batch):
        self.epoch, self.first = epoch, batch

    def __iter__(self):
        order = torch.randperm(len(self.images), generator=_generator(1000 * self.seed + self.epoch))
        first, self.first = self.first, 0
        for batch in range(first, self.batches):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            n = len(indices)
            crops = [View(self.images[indices].flip(s), torch.zeros(n, 4), torch.zeros(n).bool()) for s in ((), (3,))]
            yield Views(tuple(crops), indices, self.epoch)

    def names(self, indices):
        return [f"image{int(i):03d}.png" for i in indices]

    def state_dict(self):
        return {"images": len(self.images), "skipped": dict(self.skipped)}

    def load_state_dict(self, state):
        self.skipped = dict(state["skipped"])

    def require_readable(self):
        if len(self.skipped) > self.bad_allowed:
            raise CmidError(f"too many unreadable images: {len(self.skipped)}")

    def write_skipped(self, path):
        path.write_text("file,reason\n" + "".join(f"{file},{why}\n" for file, why in self.skipped.items()))


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def prepare(views):
    """Noise of the default generator, as the real augmentation draws it."""
    crops = [v.with_images(v.images.float() / 255 - 0.5) for v in views]
    crops = [v.with_images(v.images + 0.1 * torch.randn_like(v.images)) for v in crops]
    return Views(tuple(crops), views.indices, views.epoch)


class Probe:
    """Counts itself and leaves the learner in eval mode, as a careless probe does."""

    name, every_epochs = "probe", 1

    def __init__(self, **values):
        self.values, self.calls = values, 0

    def __call__(self, learner, device):
        learner.eval()
        torch.rand(3)
        self.calls += 1
        return {k: v[min(self.calls, len(v)) - 1] if isinstance(v, list) else v for k, v in self.values.items()}


SETTINGS = {"method": "small", "backbone": "small", "train": {"workers": 0, "accumulate": 1}, "out": "x"}


def small_learner(**how):
    torch.manual_seed(5)
    return SmallLearner(**how)


def run_fit(out, *, epochs=2, batches=5, resume=False, learner=None, loader=None, **how):
    """One small run with log_every 1; `train` and `optimizer` update the configs."""
    train = TrainConfig(**{"log_every": 1, "checkpoint_minutes": 0.0, "precision": "32"} | how.pop("train", {}))
    optimizer = OptimizerConfig(
        **{"lr": 0.01, "lr_reference_batch": 0, "warmup_epochs": 1, "clip_norm": 1.0} | how.pop("optimizer", {})
    )
    rest = {"seed": 3, "images_per_batch": 4, "settings": SETTINGS, "prepare": prepare} | how
    return fit(
        learner or small_learner(), loader or MemoryLoader(batches), run=RunDirectory(out), epochs=epochs,
        optimizer=optimizer, train=train, resume=resume, **rest,
    )  # fmt: skip


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


TIMES = {"images_per_s", "data_wait", "seconds"}


def numbers(path):
    """The rows of a table without what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows(path)]
