"""What a sample costs in a loader process, and what the colours of a batch cost on the device.

    OMP_NUM_THREADS=1 python benchmarks/views.py                   # on generated scenes
    OMP_NUM_THREADS=1 python benchmarks/views.py --data FOLDER     # on the JPEGs of a folder, brought to 256 px

A sample is one 256 px JPEG decoded and two 224 px crops cut; the published pipeline takes 7.3 ms for one, and its
colours with it. Opponents in the same run: Pillow's decoder and resizing in place of torchvision's, and kornia's
augmentation in place of ours. Times are processor time of this process, the least of several repeats, taken in turn.
The yardstick, blurring a 256 px image with Pillow (Gaussian, radius 0.7), tells how busy or slow the machine was: 2.5
to 2.8 ms on our two cores while nothing else ran. `--write` records the times in `results/views.json`.
"""

import argparse
import json
import os
import platform
import resource
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL
import torch
import torchvision
from machine import processor
from PIL import Image, ImageFilter

from cmid.config import ViewConfig
from cmid.contracts import View, Views
from cmid.data.augment import BatchAugment
from cmid.data.crops import cut_crops, draw_crop, generator_for
from cmid.data.decode import decode
from cmid.data.folder import FolderSource
from cmid.data.views import ViewLoader

AIM_MS = 1.5
PUBLISHED_MS = 7.3
SIDE = 256
SETTINGS = ViewConfig()


def least_ms(works, repeats):
    """The least processor time of each of the works, called in turn."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            best[name] = min(best[name], 1e3 * (time.process_time() - start))
    return best


def write_jpegs(folder, data, count):
    """`count` JPEGs of 256 px and quality 90."""
    if data:
        source = FolderSource(data, limit=count)
        pictures = (Image.fromarray(source.read(i)).resize((SIDE, SIDE)) for i in range(len(source)))
    else:
        from cmid.data.generated import draw_scene

        pictures = (Image.fromarray(draw_scene(0, i, SIDE, second_date=False).image) for i in range(count))
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i:04d}.jpg", quality=90)


def pillow_pixels(path):
    with Image.open(path, formats=("JPEG",)) as image:
        return np.array(image)


def pillow_crops(image, crops):
    size = (SETTINGS.size, SETTINGS.size)
    for box, flipped in crops:
        piece = image.crop(box).resize(size, Image.Resampling.BILINEAR)
        pixels = np.asarray(piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else piece)
        np.ascontiguousarray(pixels.transpose(2, 0, 1))


def sample_times(folder, repeats):
    source = FolderSource(folder)
    count = len(source)
    paths = source.paths
    images = [decode(path) for path in paths]
    pillow = [Image.fromarray(image.pixels) for image in images]
    crops = [[draw_crop(generator_for(0, 0, i, k), SIDE, SIDE, SETTINGS) for k in range(2)] for i in range(count)]
    outs = list(torch.empty(2, 3, SETTINGS.size, SETTINGS.size, dtype=torch.uint8))
    loader = ViewLoader(source, SETTINGS, batch_size=16, seed=0, workers=0)
    orders = list(loader._plan)

    # by chunks of 16, so that one interruption does not spoil a whole sweep
    chunks = []
    for number, order in enumerate(orders):
        rows = slice(16 * number, 16 * number + 16)

        def each(work, *columns, rows=rows):
            return lambda: [work(*row) for row in zip(*(column[rows] for column in columns), strict=True)]

        works = {
            "sample": partial(loader._batches.__getitem__, order),
            "decode": each(decode, paths),
            "cut_both_crops": each(lambda image, drawn: cut_crops(image, drawn, SETTINGS, outs), images, crops),
            "decode_pillow": each(pillow_pixels, paths),
            "cut_both_crops_pillow": each(pillow_crops, pillow, crops),
        }
        chunks.append(least_ms(works, repeats))
    return {name: round(sum(chunk[name] for chunk in chunks) / (16 * len(chunks)), 3) for name in chunks[0]}


def worker_time(folder):
    """Processor time per sample of a whole loader process, sending included: three epochs less one, the least."""

    def spent(epochs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        loader = ViewLoader(FolderSource(folder), SETTINGS, batch_size=16, seed=0, workers=1)
        for _ in range(epochs):
            for _ in loader:
                pass
        loader.close()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 16 * len(loader)

    short, samples = min(spent(1) for _ in range(5))
    long, _ = min(spent(3) for _ in range(5))
    return round(1e3 * (long - short) / (2 * samples), 3)


def kornia_of(settings):
    """The nearest kornia has: one blur kernel of 7 px and one noise variance for all samples."""
    import kornia.augmentation as kornia

    deviation = (sum(settings.noise_var) / 2) ** 0.5 / 255
    return torch.nn.Sequential(
        kornia.ColorJitter(*settings.colour_jitter, p=settings.colour_jitter_p),
        kornia.RandomGaussianBlur((7, 7), settings.blur_sigma, p=settings.blur_p),
        kornia.RandomGaussianNoise(0.0, deviation, p=settings.noise_p),
        kornia.RandomSolarize(thresholds=(0.5, 0.5), additions=(0.0, 0.0), p=settings.solarize_p),
        kornia.RandomGrayscale(p=settings.grey_p),
        kornia.Normalize(torch.tensor(settings.mean), torch.tensor(settings.std)),
    )


def colour_times(batch_size, repeats):
    pixels = torch.randint(0, 256, (batch_size, 3, SETTINGS.size, SETTINGS.size), dtype=torch.uint8)
    view = View(pixels, torch.zeros(batch_size, 4), torch.zeros(batch_size, dtype=torch.bool))
    batch, ours, theirs = Views((view, view), torch.arange(batch_size)), BatchAugment(SETTINGS), kornia_of(SETTINGS)
    normalise = theirs[-1]

    def kornia():
        with torch.no_grad():
            normalise(pixels / 255)
            theirs(pixels / 255)

    times = least_ms({"ours": partial(ours, batch), "kornia": kornia}, repeats)
    return {name: round(ms, 1) for name, ms in times.items()}


def yardstick():
    grey = np.random.default_rng(0).normal(120, 20, (256, 256, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(grey)
    return round(least_ms({"blur": lambda: picture.filter(ImageFilter.GaussianBlur(0.7))}, 100)["blur"], 2)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", help="a folder of images to take the pictures from")
    options.add_argument("--count", type=int, default=96)
    options.add_argument("--repeats", type=int, default=15)
    options.add_argument("--write", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(1)

    quiet = [yardstick()]
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder, given.data, given.count)
        kilobytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e3 / given.count
        sample = sample_times(folder, given.repeats)
        in_worker = worker_time(folder)
    colours = {str(size): colour_times(size, max(3, given.repeats // 3)) for size in (16, 64)}
    quiet.append(yardstick())
    result = {
        "ms_per_sample": sample,
        "aim_ms_per_sample": AIM_MS,
        "published_ms_per_sample": PUBLISHED_MS,
        "ms_per_sample_in_a_worker_sending_included": in_worker,
        "colour_ms_per_batch": colours,
        "pictures": Path(given.data).name if given.data else "generated",
        "kilobytes_per_jpeg": round(kilobytes, 1),
        "yardstick_blur_ms": quiet,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": 1},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "pillow": PIL.__version__,
        },
    }
    for row, ms in sample.items():
        print(f"{row:24} {ms:7.3f} ms a sample")
    print(f"{'in a worker, sending too':24} {in_worker:7.3f} ms a sample   (aim {AIM_MS}, published {PUBLISHED_MS})")
    for size, row in colours.items():
        print(f"{'colours, batch ' + size:24} {row['ours']:7.1f} ms a batch    (kornia {row['kornia']})")
    print(f"{processor()}, {os.cpu_count()} cores, 1 thread; yardstick {quiet} ms")
    if given.write:
        path = Path(__file__).parent / "results" / "views.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
