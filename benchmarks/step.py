"""What a CMID step costs beyond the backbone work it contains, and how much memory it takes.

Opponent: the bare backbone work of the same step, which is also its physical limit: two masked student forwards and
backwards and two teacher forwards, in the same precision and memory format, in the same process, in turn. `ratio` is
the median of the turns', `ratio_fastest` that of each side's fastest turn: neighbours only ever slow a side down.
`multiplications_ratio` is what the step would take if nothing but products and convolutions took time.

    python benchmarks/step.py --backbone resnet50 --batch 16          # overhead
    python benchmarks/step.py --backbone resnet50 --batch 16 --memory # peak memory, in a process of its own

The published code's step was 1.28 times its bare work at batch 16 and 1.15 at batch 8 (float32, two cores). Where
`auto` means bf16, the bare float32 work takes its turns, too, and with it the speed over the published step is told.
"""

import argparse
import json
import resource
import statistics
from pathlib import Path

import torch
from machine import processor, seconds
from torch.utils.flop_counter import FlopCounterMode

from cmid.backbones import create_backbone
from cmid.config import CMIDConfig, OptimizerConfig, ViewConfig
from cmid.contracts import Progress, View, Views
from cmid.data.augment import BatchAugment
from cmid.layers.small_map_conv import use_matrix_products
from cmid.methods.cmid import CMID
from cmid.ops.masking import fill_with_mean, to_pixels
from cmid.train.hardware import cpu_multiplies_bf16, products_are_faster, resolve_precision
from cmid.train.memory import keep_freed_memory
from cmid.train.optimisers import build_optimiser

PUBLISHED_OVERHEAD = 1.28
RESULTS = Path(__file__).parent / "results"


def uint8_batch(batch, size):
    """A batch as the workers cut it; two crops that overlap."""
    generator = torch.Generator().manual_seed(0)
    crops = []
    for _ in range(2):
        start = torch.rand(batch, 2, generator=generator) * 60
        images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
        crops.append(View(images, torch.cat((start, start + 180), 1), torch.rand(batch, generator=generator) < 0.5))
    return Views(tuple(crops), torch.arange(batch))


class Steps:
    """The two sides, on one set of weights."""

    def __init__(self, arguments):
        keep_freed_memory()  # as the trainer does; both sides gain
        self.precision = resolve_precision(arguments.precision, torch.device("cpu"))
        self.learner = CMID(create_backbone(arguments.backbone, img_size=arguments.size), CMIDConfig()).train()
        self.format = torch.channels_last if self.learner.backbone.norm == "batch" else torch.contiguous_format
        self.learner.to(memory_format=self.format)
        if products_are_faster(self.precision):  # as the trainer does; both sides gain
            use_matrix_products(self.learner)
        self.optimiser = build_optimiser(self.learner, OptimizerConfig(), lr=1e-4)
        self.raw = uint8_batch(arguments.batch, arguments.size)
        self.augment = BatchAugment(ViewConfig(size=arguments.size))
        self.views = self.in_format(self.augment(self.raw))
        self.count = 0

    def in_format(self, views):
        return Views(tuple(v.with_images(v.images.contiguous(memory_format=self.format)) for v in views), views.indices)

    def autocast(self, precision=None):
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=(precision or self.precision) == "bf16")

    def method(self):
        """All that the trainer does with a batch that is ready, optimiser and teacher included."""
        self.learner.before_step(Progress(self.count, 1000))
        self.optimiser.zero_grad(set_to_none=True)
        for part in range(self.learner.parts):
            with self.autocast():
                loss = sum(self.learner(self.views, part).values())
            loss.backward()
        self.optimiser.step()
        self.count += 1
        self.learner.after_step(Progress(self.count, 1000))

    def bare(self, precision=None):
        """The backbone's share of it, in the same precision or in another."""
        student, teacher = self.learner.backbone, self.learner.teacher_backbone
        student.zero_grad(set_to_none=True)
        with self.autocast(precision):
            masks = [self.learner._draw_mask(v) for v in self.views]
            hidden = [fill_with_mean(v.images, to_pixels(m, v.images.shape[-2:])) for v, m in zip(self.views, masks)]  # noqa: B905
            with torch.no_grad():
                for view in self.views:
                    teacher(view.images)
        for images, mask in zip(hidden, masks):  # noqa: B905
            with self.autocast(precision):
                output = student(images, mask).last
            output.float().mean().backward()

    def float32(self):
        """Seconds of the bare work in float32, in the memory format it is faster in on a CPU, as published."""
        ours = self.format
        self.change_format(torch.contiguous_format)
        taken = seconds(lambda: self.bare("32"))
        self.change_format(ours)
        return taken

    def change_format(self, to):
        self.format = to
        self.learner.to(memory_format=to)
        self.views = self.in_format(self.views)

    def augmentation(self):
        """The colours of a batch, on the device."""
        self.in_format(self.augment(self.raw))


def multiplications(act):
    """Of matrix products and convolutions, forward and backward, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()


def main():
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="auto", choices=["auto", "32", "bf16"])
    parser.add_argument("--memory", action="store_true", help="only two whole steps, and this process's peak memory")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    steps = Steps(arguments)
    found = {
        "backbone": arguments.backbone, "batch": arguments.batch, "size_px": arguments.size,
        "precision": steps.precision, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "cpu": processor(), "bf16_units": cpu_multiplies_bf16(),
    }  # fmt: skip
    if arguments.memory:
        steps.method()
        steps.method()
        found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    else:
        # warms up, too
        found["multiplications_ratio"] = multiplications(steps.method) / multiplications(steps.bare)
        reduced = steps.precision == "bf16"
        if reduced:
            steps.float32()
        turns = [
            (seconds(steps.method), seconds(steps.bare), steps.float32() if reduced else 0.0)
            for _ in range(arguments.repeats)
        ]
        ratios = sorted(a / b for a, b, _ in turns)
        colours = statistics.median(seconds(steps.augmentation) for _ in range(arguments.repeats))
        whole = statistics.median(a for a, _, _ in turns)
        found |= {
            "step_s": whole, "bare_s": statistics.median(b for _, b, _ in turns),
            "ratio": statistics.median(ratios), "ratio_range": [ratios[0], ratios[-1]], "repeats": arguments.repeats,
            "ratio_fastest": min(a for a, _, _ in turns) / min(b for _, b, _ in turns),
            "augmentation_share": colours / whole,
        }  # fmt: skip
        if reduced:
            gains = sorted(PUBLISHED_OVERHEAD * c / a for a, _, c in turns)
            fastest = PUBLISHED_OVERHEAD * min(c for _, _, c in turns) / min(a for a, _, _ in turns)
            found |= {
                "bare_float32_s": statistics.median(c for _, _, c in turns),
                "speed_over_published_step": statistics.median(gains),
                "speed_over_published_step_range": [gains[0], gains[-1]],
                "speed_over_published_step_fastest": fastest,
            }
    print(json.dumps(found, indent=1))
    RESULTS.mkdir(exist_ok=True)
    name = f"step_{arguments.backbone}_b{arguments.batch}_{steps.precision}{'_memory' * arguments.memory}.json"
    (RESULTS / name).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
