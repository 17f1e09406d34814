"""What mapping a scene costs beside the model's bare forward on the same windows, and what memory it takes.

    python benchmarks/predict_scene.py --work DIR                                   # 8,192 px, ResNet-18
    python benchmarks/predict_scene.py --work DIR --model segmenter --head upernet  # a real one, as in use
    python benchmarks/predict_scene.py --work DIR --side 32768 --model pixel --bare 20    # memory alone, in less time

Opponent: the model called on the windows that `scene_to_map` gave it (batches of the same sizes, in memory, nothing
read, blended or written), at the same precision and on the same device, in the same process: a few batches before the
map, and after it all of them, or with `--bare N` about N evenly spaced.

The stand-in for a segmentation model is a backbone of `create_backbone`, a 1 x 1 convolution on its last map, and
bilinear enlarging; `pixel` is a 1 x 1 convolution of the image. `segmenter` is what `cmid predict segmentation`
loads from a file, on `--backbone`, with random weights; its bare forward is the scores of images that are normalised
already, so that normalisation and softmax count as mapping. The scene is 3 bands, uint8, tiles of 256, deflate, and
is written first. The map is with its quick look; `--probabilities` and `--polygons` add those.

`ratio` is windows a second over the bare forward's, all of `scene_to_map` counted; `ratio_computing` counts up to the
last window only, without the writing of the GeoTIFF at the end. `ratio_cpu` compares seconds of all cores and threads
instead, for a machine that others use too. Memory is the process's resident set, read every 5 ms;
`above_model_mb` is its peak during the map less its peak during the bare forward.
"""

import argparse
import json
import resource
import statistics
import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import rasterio
import torch
from machine import processor
from rasterio.windows import Window
from torch import nn

from cmid.backbones import create_backbone
from cmid.commands.scene_files import open_scene
from cmid.commands.window_model import WindowModel
from cmid.predict.raster_output import Classes
from cmid.predict.scene_to_map import Outputs, scene_to_map
from cmid.predict.windows import Tiling
from cmid.tasks.segmentation import Segmenter
from cmid.train.hardware import resolve_device, resolve_precision
from cmid.train.memory import keep_freed_memory
from cmid.zoo.backbone_files import BackboneMetadata
from cmid.zoo.segmenter_files import SegmenterMetadata, load_segmenter, save_segmenter

RESULTS = Path(__file__).parent / "results"
STRIPE = 1024


class StandIn(nn.Module):
    """`(B, 3, S, S)` grey levels to `(B, K, S, S)` probabilities."""

    def __init__(self, name, classes, size, device, precision):
        super().__init__()
        self.backbone = None if name == "pixel" else create_backbone(name, mask_stage=None, img_size=size)
        self.head = nn.Conv2d(3 if self.backbone is None else self.backbone.channels[-1], classes, 1)
        self.dtype = {"bf16": torch.bfloat16, "16": torch.float16}.get(precision)
        self.kind = device.type

    @torch.inference_mode()
    def forward(self, images):
        with torch.autocast(self.kind, dtype=self.dtype, enabled=self.dtype is not None):
            images = images / 127.5 - 1
            scores = self.head(images if self.backbone is None else self.backbone(images).last)
            scores = nn.functional.interpolate(scores.float(), images.shape[-2:], mode="bilinear")
        return scores.softmax(1)


class Mapping:
    """The segmenter as the command calls it, and its bare forward."""

    def __init__(self, backbone, head, width, classes, size, device, precision):
        task = Segmenter(create_backbone(backbone, mask_stage=None, img_size=size), classes, head=head, width=width)
        about = SegmenterMetadata(
            BackboneMetadata(backbone, mean=(0.5,) * 3, std=(0.5,) * 3), tuple(f"class {k}" for k in range(classes)),
            (), head, int(task.decoder.width), False, ("uint8",), size,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            save_segmenter(Path(folder) / "model.safetensors", task, about)
            task, about = load_segmenter(Path(folder) / "model.safetensors")
        self.windows = WindowModel(task, about, device, precision)

    def __call__(self, images):
        return self.windows(images)

    def prepared(self, images):
        return self.windows.normalised(images)

    @torch.inference_mode()
    def bare(self, images):
        return self.windows.logits(images)


class Peak:
    """The highest resident set of this process within a `with`, in bytes."""

    def __enter__(self):
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.is_set():
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.bytes = max(self.bytes, pages * resource.getpagesize())
            self._stop.wait(0.005)

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def write_scene(path, side):
    """Hills, fields and noise, in stripes."""
    if path.exists():
        return
    generator = np.random.default_rng(0)
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "bigtiff": "if_safer"}
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs="EPSG:32632",
        transform=rasterio.Affine(1, 0, 500_000, 0, -1, 5_000_000), **options,
    ) as raster:  # fmt: skip
        columns = np.arange(side, dtype=np.float32)
        for y in range(0, side, STRIPE):
            rows = np.arange(y, min(y + STRIPE, side), dtype=np.float32)[:, None]
            ground = 120 + 50 * np.sin(columns / 911) * np.cos(rows / 703) + 20 * ((columns // 83 + rows // 61) % 3)
            for band in range(3):
                noise = generator.standard_normal(ground.shape, dtype=np.float32) * 6
                values = (ground * (0.7 + 0.15 * band) + noise).clip(0, 255).astype(np.uint8)
                raster.write(values, band + 1, window=Window(0, y, side, len(rows)))


def settle(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def bare(model, sizes, size, device):
    """Seconds of the forward alone for batches of `sizes` windows: of the clock, and of the cores."""
    generator = np.random.default_rng(1)
    seconds = cores = 0.0
    forward = getattr(model, "bare", model)
    for count in sizes:
        images = torch.from_numpy(generator.integers(0, 255, (count, 3, size, size), np.uint8)).to(device).float()
        images = model.prepared(images) if hasattr(model, "prepared") else images
        settle(device)
        begin, busy = time.perf_counter(), time.process_time()
        forward(images)
        settle(device)
        seconds, cores = seconds + time.perf_counter() - begin, cores + time.process_time() - busy
    return seconds, cores


def main():
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--backbone", default="resnet18", help="of --model segmenter")
    parser.add_argument("--head", default="upernet", choices=["upernet", "lateral_sum"])
    parser.add_argument("--width", type=int)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--bare", type=int, default=0)
    parser.add_argument("--precision", default="auto", choices=["auto", "32", "bf16", "16"])
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--probabilities", action="store_true")
    parser.add_argument("--polygons", action="store_true")
    parser.add_argument("--write", action="store_true", help="record it in results/")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = resolve_device(arguments.accelerator)
    precision = resolve_precision(arguments.precision, device)
    if device.type == "cpu":
        keep_freed_memory()  # as the command does
    arguments.work.mkdir(parents=True, exist_ok=True)
    # in a process of its own, whose memory would be taken for the model's
    writer = get_context("spawn").Process(
        target=write_scene, args=(arguments.work / f"scene_{arguments.side}.tif", arguments.side)
    )
    writer.start()
    writer.join()
    if arguments.model == "segmenter":
        model = Mapping(
            arguments.backbone, arguments.head, arguments.width, arguments.classes, arguments.window, device, precision
        )
    else:
        model = StandIn(arguments.model, arguments.classes, arguments.window, device, precision).eval().to(device)
    tiling = Tiling(window=arguments.window, batch=arguments.batch)
    bare(model, [tiling.batch] * 2, tiling.window, device)  # warm

    scene = open_scene(str(arguments.work / f"scene_{arguments.side}.tif"))
    few = min(10, arguments.bare or 10)
    with Peak() as peak:
        before = (*bare(model, [tiling.batch] * few, tiling.window, device), few * tiling.batch)
    own = peak.bytes

    sizes, last = [], [0.0]

    def given(images):
        sizes.append(len(images))
        return model(images)

    def tick(done, total):
        last[0] = time.perf_counter()

    out = Outputs(
        arguments.work / "map.tif", quicklook=arguments.work / "map.png", overwrite=True,
        probabilities=arguments.work / "probabilities.tif" if arguments.probabilities else None,
        polygons=arguments.work / "map.gpkg" if arguments.polygons else None,
    )  # fmt: skip
    names = Classes(tuple(f"class {k}" for k in range(arguments.classes)))
    with Peak() as peak:
        begin, busy = time.perf_counter(), time.process_time()
        result = scene_to_map(scene, given, names, out, tiling=tiling, device=device, restart=True, tick=tick)
        took, computing, cores = time.perf_counter() - begin, last[0] - begin, time.process_time() - busy
    step = max(1, len(sizes) // arguments.bare) if arguments.bare else 1
    timed = sizes[::step]
    after = (*bare(model, timed, tiling.window, device), sum(timed))
    rates = [windows / seconds for seconds, _, windows in (before, after)]
    rate = (before[2] + after[2]) / (before[0] + after[0])
    rate_cores = (before[2] + after[2]) / (before[1] + after[1])
    called = arguments.model
    if called == "segmenter":
        called = f"{arguments.head}_{arguments.backbone}"
    found = {
        "side_px": arguments.side, "model": called, "window_px": tiling.window, "overlap_px": tiling.overlap,
        "batch": tiling.batch, "classes": arguments.classes, "precision": precision, "device": device.type,
        "probabilities": arguments.probabilities, "polygons": result.polygons if arguments.polygons else None,
        "windows": result.windows, "seconds": took, "seconds_computing": computing,
        "windows_per_s": result.computed / took, "bare_windows_per_s": rate, "bare_range": [min(rates), max(rates)],
        "ratio": result.computed / took / rate, "ratio_computing": result.computed / computing / rate,
        "ratio_cpu": result.computed / cores / rate_cores,
        "above_model_mb": (peak.bytes - own) / 1e6, "peak_mb": peak.bytes / 1e6,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "cpu": processor(),
        "median_batch": statistics.median(sizes),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if arguments.write:
        name = f"predict_scene_{called}_{arguments.side}_{precision}.json"
        (RESULTS / name).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
