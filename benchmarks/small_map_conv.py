"""What convolutions on small maps gain as matrix products, on a CPU that multiplies bfloat16 in tiles (AMX).

Opponent: torch's own convolution (oneDNN) of the same shape in the same format, in turn, in one process. Prints
milliseconds for forward, gradient of the input and of the weights; then whole backbones, forward and backward.

    OMP_NUM_THREADS=1 python benchmarks/small_map_conv.py
"""

import argparse
import copy
import json
import statistics
from pathlib import Path

import torch
from machine import processor, seconds
from torch.nn import functional as F

from cmid.backbones import create_backbone
from cmid.layers import small_map_conv as ours
from cmid.train.hardware import cpu_has_tiles
from cmid.train.memory import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "small_map_conv.json"
SHAPES = (  # batch, in, out, kernel, stride, side of the input
    (32, 64, 128, 3, 2, 24), (32, 128, 128, 3, 1, 12), (32, 128, 256, 3, 2, 12), (32, 256, 256, 3, 1, 6),
    (32, 256, 512, 3, 2, 6), (32, 512, 512, 3, 1, 3), (32, 256, 512, 1, 2, 6), (64, 256, 256, 3, 1, 6),
    (64, 512, 512, 3, 1, 3), (16, 256, 256, 3, 1, 14), (16, 512, 512, 3, 2, 14), (16, 1024, 2048, 1, 2, 14),
    (16, 2048, 512, 1, 1, 7), (16, 512, 512, 3, 1, 7), (16, 512, 2048, 1, 1, 7),
)  # fmt: skip
BACKBONES = (("resnet18", 32, 96), ("resnet18", 32, 64), ("resnet50", 16, 224))


def in_turn(one, other, repeats):
    """Median milliseconds of both."""
    pairs = [(seconds(one), seconds(other)) for _ in range(repeats + 2)][2:]
    return [round(1000 * statistics.median(side), 2) for side in zip(*pairs)]  # noqa: B905


def channels_last(*shape):
    """Random numbers in bfloat16."""
    return torch.randn(*shape, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)


def single(shape, repeats):
    """The three parts of one convolution, torch's milliseconds and ours."""
    batch, inputs, outputs, kernel, stride, side = shape
    x, weight = channels_last(batch, inputs, side, side), channels_last(outputs, inputs, kernel, kernel)
    padding = kernel // 2
    gradient = torch.randn_like(F.conv2d(x, weight, stride=stride, padding=padding))
    strides, paddings, size = (stride, stride), (padding, padding), gradient.shape[-2:]
    rows = gradient.movedim(1, -1).reshape(-1, outputs)

    def backward(*wanted):
        return torch.ops.aten.convolution_backward(
            gradient, x, weight, [0], strides, paddings, [1, 1], False, [0, 0], 1, wanted
        )

    def patches():
        return ours._patches(x, weight.shape[-2:], strides, paddings).flatten(0, 2).flatten(1)

    matrix = ours._as_matrix(weight)
    return {
        "batch, in, out, kernel, stride, side_px": shape, "positions": size.numel(), "weights": weight.numel(),
        "forward_ms": in_turn(
            lambda: F.conv2d(x, weight, stride=strides, padding=paddings), lambda: patches() @ matrix.t(), repeats
        ),
        "of_input_ms": in_turn(
            lambda: backward(True, False, False),
            lambda: ours._fold(rows @ matrix, x.shape, size, weight.shape[-2:], strides, paddings), repeats,
        ),
        "of_weights_ms": in_turn(lambda: backward(False, True, False), lambda: rows.t() @ patches(), repeats),
    }  # fmt: skip


def whole(name, batch, side, repeats):
    """A backbone's forward and backward in train mode, plain and with products."""
    plain = create_backbone(name, mask_stage=None).to(memory_format=torch.channels_last).train()
    product = copy.deepcopy(plain)
    ours.use_matrix_products(product)
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)

    def step(backbone):
        with torch.autocast("cpu", torch.bfloat16):
            loss = backbone(images).last.float().mean()
        loss.backward()
        backbone.zero_grad()

    torchs, found = in_turn(lambda: step(plain), lambda: step(product), repeats)
    return {"backbone": name, "batch": batch, "size_px": side, "plain_ms": torchs, "ms": found, "ratio": found / torchs}


def main():
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    if not cpu_has_tiles():
        raise SystemExit("This CPU has no AMX tiles for bfloat16: cmid leaves its convolutions to torch.")
    torch.manual_seed(0)
    keep_freed_memory()
    found = {
        "cpu": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__, "repeats": repeats,
        "backbones": [whole(*row, repeats) for row in BACKBONES], "shapes": [single(row, repeats) for row in SHAPES],
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
