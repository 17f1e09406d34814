"""What batch-norm over several CPU processes costs beside torch's own layer, in bf16, forward and backward.

Opponent: `torch.nn.functional.batch_norm` on the same bf16 maps, alone. Beside it the layer as it was, which casts to
float32 and back. Nothing is exchanged here, so that this is the arithmetic alone; the sides take turns. The maps are
those of a ResNet-18 at 96 px.

    OMP_NUM_THREADS=1 python benchmarks/batch_norm.py --batch 64
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from machine import processor, seconds
from torch.nn import functional as F

from cmid.layers.batch_norm import _OverAll
from cmid.train.memory import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "batch_norm.json"
MAPS = ((64, 48), (64, 24), (128, 12), (256, 6), (512, 3))
"""Channels and side."""


def sides(channels, side, batch):
    """The three ways to take one map forward and backward."""
    shape = (batch, channels, side, side)
    x, gradient = (torch.randn(shape).to(memory_format=torch.channels_last).bfloat16() for _ in range(2))
    x.requires_grad_()
    weight, bias = torch.ones(channels, requires_grad=True), torch.zeros(channels, requires_grad=True)
    mean, variance = torch.zeros(channels), torch.ones(channels)

    def through(forward):
        def act():
            x.grad = weight.grad = bias.grad = None
            forward().backward(gradient)

        return act

    return {
        "torch": through(lambda: F.batch_norm(x, mean, variance, weight, bias, True, 0.1, 1e-5)),
        "ours": through(lambda: _OverAll.apply(x, weight, bias, 1e-5)[0]),
        "ours in float32": through(lambda: _OverAll.apply(x.float(), weight, bias, 1e-5)[0].bfloat16()),
    }


def main():
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    keep_freed_memory()  # as the trainer does
    found = []
    for channels, side in MAPS:
        acts = sides(channels, side, arguments.batch)
        for act in acts.values():
            act()
        times = [{name: seconds(act) for name, act in acts.items()} for _ in range(arguments.repeats)]
        row = {"channels": channels, "side_px": side, "torch_ms": 1e3 * statistics.median(t["torch"] for t in times)}
        for name in ("ours", "ours in float32"):
            ratios = sorted(t[name] / t["torch"] for t in times)
            row[f"{name} over torch"] = statistics.median(ratios)
            row[f"{name} over torch, quartiles"] = [ratios[len(ratios) // 4], ratios[-len(ratios) // 4]]
        found.append(row)
        print(json.dumps(row), flush=True)
    about = {
        "batch": arguments.batch, "threads": torch.get_num_threads(), "torch": torch.__version__, "cpu": processor(),
        "repeats": arguments.repeats,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(about | {"maps": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
