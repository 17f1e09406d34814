"""What convolutions on small maps gain as matrix products: bfloat16 in tiles (AMX), float32 on AVX-512.

Opponent: torch's own convolution (oneDNN) of the same shape in the same format, in turn, in one process. Writes down
milliseconds for forward, gradient of the input and of the weights; and whole backbones, forward and backward.

    OMP_NUM_THREADS=1 python benchmarks/small_map_conv.py --precision 32
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
from cmid.train.hardware import products_are_faster
from cmid.train.memory import keep_freed_memory

RESULTS = Path(__file__).parent / "results"
DTYPES = {"bf16": torch.bfloat16, "32": torch.float32}
SHAPES = (  # batch, in, out, kernel, stride, side of the input
    (32, 64, 128, 3, 2, 24), (32, 128, 128, 3, 1, 12), (32, 128, 256, 3, 2, 12), (32, 256, 256, 3, 1, 6),
    (32, 256, 512, 3, 2, 6), (32, 512, 512, 3, 1, 3), (32, 256, 512, 1, 2, 6), (64, 256, 256, 3, 1, 6),
    (64, 512, 512, 3, 1, 3), (16, 256, 256, 3, 1, 14), (16, 512, 512, 3, 2, 14), (16, 1024, 2048, 1, 2, 14),
    (16, 2048, 512, 1, 1, 7), (16, 512, 512, 3, 1, 7), (16, 512, 2048, 1, 1, 7), (16, 2048, 3072, 1, 1, 7),
    (32, 512, 512, 3, 1, 2), (32, 512, 512, 3, 1, 4), (32, 512, 512, 3, 1, 5), (32, 2048, 512, 1, 1, 8),
)  # fmt: skip
BACKBONES = (("resnet18", 32, 96), ("resnet18", 32, 64), ("resnet50", 16, 224))


def in_turn(one, other, repeats):
    """Median milliseconds of both."""
    pairs = [(seconds(one), seconds(other)) for _ in range(repeats + 2)][2:]
    return [round(1000 * statistics.median(side), 2) for side in zip(*pairs)]  # noqa: B905


def single(shape, dtype, repeats):
    """The three parts of one convolution, torch's milliseconds and ours."""
    batch, inputs, outputs, kernel, stride, side = shape
    x, weight = (
        torch.randn(*size, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for size in ((batch, inputs, side, side), (outputs, inputs, kernel, kernel))
    )
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


def whole(name, batch, side, dtype, repeats):
    """A backbone's forward and backward in train mode, plain and with products."""
    plain = create_backbone(name, mask_stage=None).to(memory_format=torch.channels_last).train()
    product = copy.deepcopy(plain)
    ours.use_matrix_products(product)
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)

    def step(backbone):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = backbone(images).last.float().mean()
        loss.backward()
        backbone.zero_grad()

    torchs, found = in_turn(lambda: step(plain), lambda: step(product), repeats)
    return {"backbone": name, "batch": batch, "size_px": side, "plain_ms": torchs, "ms": found, "ratio": found / torchs}


def main():
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    arguments = parser.parse_args()
    repeats, dtype = arguments.repeats, DTYPES[arguments.precision]
    if not products_are_faster(arguments.precision):
        raise SystemExit(f"On this CPU cmid leaves convolutions in {arguments.precision} to torch.")
    torch.manual_seed(0)
    keep_freed_memory()
    found = {
        "cpu": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__, "repeats": repeats,
        "precision": arguments.precision, "backbones": [whole(*row, dtype, repeats) for row in BACKBONES],
        "shapes": [single(row, dtype, repeats) for row in SHAPES],
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    (RESULTS / f"small_map_conv_{arguments.precision}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
