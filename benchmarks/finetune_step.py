"""What a fine-tuning step costs beside timm's own training step for the same model, augmentation and precision.

Opponent: the training step of timm's train script, built here of timm's parts: `timm.create_model` with its head,
normalisation as timm's loader does it on the device, RandomErasing, Mixup with CutMix and smoothing,
SoftTargetCrossEntropy, Adan with timm's parameter groups. Ours: `TrainingBatch`, `Classifier`, its loss, the same
optimiser over our groups. Both begin with a uint8 batch that is ready, in one process, in turn.

    python benchmarks/finetune_step.py --backbone resnet50 --batch 64
"""

import argparse
import json
import statistics
from pathlib import Path

import timm
import torch
from machine import processor, seconds
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2

from cmid.backbones import create_backbone
from cmid.config import MixingConfig, OptimizerConfig
from cmid.contracts import View, Views
from cmid.data.mixing import TrainingBatch
from cmid.tasks.classification import Classifier
from cmid.train.hardware import cpu_multiplies_bf16, resolve_precision
from cmid.train.memory import keep_freed_memory
from cmid.train.optimisers import build_optimiser

RESULTS = Path(__file__).parent / "results"
CLASSES, SMOOTHING, DECAY, LR = 21, 0.1, 0.02, 1e-4
MEAN, STD = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD


class Sides:
    """The two steps, each on a model of its own."""

    def __init__(self, arguments):
        keep_freed_memory()  # both sides gain
        self.precision = resolve_precision(arguments.precision, torch.device("cpu"))
        size, batch = arguments.size, arguments.batch
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, CLASSES, (batch,), generator=generator)
        backbone = create_backbone(arguments.backbone, mask_stage=None, img_size=size)
        self.format = torch.channels_last if backbone.norm == "batch" else torch.contiguous_format

        self.ours = Classifier(backbone, CLASSES, smoothing=SMOOTHING).train().to(memory_format=self.format)
        mixing = MixingConfig()
        self.prepare = TrainingBatch(MEAN, STD, mixing, classes=CLASSES, smoothing=SMOOTHING)
        self.our_optimiser = build_optimiser(self.ours, OptimizerConfig(weight_decay=DECAY), LR)
        corners = torch.tensor([[0.0, 0.0, size, size]]).expand(batch, 4)
        view = View(self.images, corners, torch.zeros(batch, dtype=torch.bool))
        self.batch = Views((view,), torch.arange(batch), labels=self.labels)

        self.theirs = timm.create_model(arguments.backbone, num_classes=CLASSES).train().to(memory_format=self.format)
        self.their_optimiser = create_optimizer_v2(
            self.theirs, opt="adan", lr=LR, weight_decay=DECAY, betas=(0.98, 0.92, 0.99)
        )
        self.mean, self.std = (255 * torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
        self.erase = RandomErasing(mixing.erasing, mode="pixel", device="cpu")
        self.mix = Mixup(
            mixup_alpha=mixing.mixup, cutmix_alpha=mixing.cutmix, prob=mixing.mix_p, switch_prob=mixing.switch_p,
            label_smoothing=SMOOTHING, num_classes=CLASSES,
        )  # fmt: skip
        self.loss = SoftTargetCrossEntropy()

    def autocast(self):
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def step_of_ours(self):
        batch = self.prepare(self.batch)
        view = batch[0].with_images(batch[0].images.contiguous(memory_format=self.format))
        self.our_optimiser.zero_grad(set_to_none=True)
        with self.autocast():
            loss = sum(self.ours(Views((view,), batch.indices, labels=batch.labels)).values())
        loss.backward()
        self.our_optimiser.step()

    def step_of_timm(self):
        with torch.no_grad():
            images = self.erase(self.images.float().sub_(self.mean).div_(self.std))
            images, labels = self.mix(images, self.labels)
        images = images.contiguous(memory_format=self.format)
        with self.autocast():
            loss = self.loss(self.theirs(images), labels)
        loss.backward()
        self.their_optimiser.step()
        self.their_optimiser.zero_grad()


def main():
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", default="auto", choices=["auto", "32", "bf16"])
    arguments = parser.parse_args()
    torch.manual_seed(0)
    sides = Sides(arguments)
    sides.step_of_ours()
    sides.step_of_timm()
    pairs = [(seconds(sides.step_of_ours), seconds(sides.step_of_timm)) for _ in range(arguments.repeats)]
    ratios = sorted(a / b for a, b in pairs)
    found = {
        "backbone": arguments.backbone, "batch": arguments.batch, "size_px": arguments.size,
        "precision": sides.precision, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "timm": timm.__version__, "cpu": processor(), "bf16_units": cpu_multiplies_bf16(),
        "step_s": statistics.median(a for a, _ in pairs), "timm_step_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios), "ratio_range": [ratios[0], ratios[-1]], "repeats": arguments.repeats,
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    name = f"finetune_step_{arguments.backbone}_b{arguments.batch}_{sides.precision}.json"
    (RESULTS / name).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
