"""Windows a second from large GeoTIFFs, and images a second from shards that are not in memory yet.

    python benchmarks/scenes.py windows --work DIR           # opponent: a bare rasterio loop over the same windows
    python benchmarks/scenes.py shards --work DIR --images FOLDER    # opponent: the same images as files in a folder
    python benchmarks/scenes.py make --work DIR --images FOLDER      # only write the files, which takes minutes

`windows`: 256 px of 4 bands, uint16, from three kinds of GeoTIFF that are written first: one COG of 20,000 px a side
(tiles of 512, deflate, 1.7 GB; 3.3 GB while it is written), four files with tiles of 256 and deflate, and the same
without compression. All values are valid, but nodata is declared, so that it must be looked for. `decode` is all that
a loader process does for a window before it cuts crops: the draw, the read, which pixels are valid, the stretch to
float32; `read` is the read and the validity. The bare loop is `dataset.read(bands, window=...)` with places known and
data sets kept open. Each has data sets of its own and GDAL's cache of blocks is 64 MB for all, as in a run; windows
come in passes that are all different, each pass is read by all in turn, and fills the cache several times over. The
system's page cache is warm: with it cold all would wait for the same disk, and the ratio would say less.

`shards`: `cmid pack` on a copy of the folder, on the same disk. Before each pass the page cache is dropped (as root
with drop_caches, directories and inodes too; else file by file with POSIX_FADV_DONTNEED) and mincore says whether it
was. Files are read in the order of an epoch, a permutation; shards in theirs, blocks of neighbours mixed. `raw` is the
bytes alone; `loader` is an epoch of the view loader without workers: read, decode, two crops of 96 px. The physical
limit is a file of its own read in strokes of 4 MB, cold too. What lies under the disk (a host, a controller) may
cache as well: nothing here can drop that, and both sides gain from it.

Wall time; ratios are taken pass by pass and given as median (least to greatest). `--write` records them in
`results/scenes.json`, each part in its own place.
"""

import argparse
import ctypes
import json
import mmap
import os
import platform
import shutil
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import rasterio.shutil
import torch
from machine import processor
from rasterio.windows import Window

from cmid.commands.pack import pack
from cmid.config import PackConfig, SceneConfig, ViewConfig
from cmid.data.folder import FolderSource
from cmid.data.order import epoch_order
from cmid.data.rasters import CACHE_BYTES, GDAL, OpenRasters
from cmid.data.scenes import SceneSource, open_scenes
from cmid.data.shards import ShardSource
from cmid.data.statistics import Stretch, measure
from cmid.data.views import ViewLoader

RESULTS = Path(__file__).parent / "results" / "scenes.json"
WINDOW_PX, BANDS = 256, 4
COG_PX, FILE_PX, FILES = 20_000, 3_072, 4
AIMS = {"windows": 0.7, "shards": 2.0}
KINDS = {
    "cog": "COG, tiles of 512, deflate",
    "deflated": "tiles of 256, deflate",
    "plain": "tiles of 256, no compression",
}
STROKE_BYTES = 4 << 20
DROP = Path("/proc/sys/vm/drop_caches")


def scenery(generator, x, y, width, height):
    """`(4, height, width)` uint16 around 1500: hills and fields that run on from window to window, and noise."""
    columns, rows = np.arange(x, x + width, dtype=np.float32), np.arange(y, y + height, dtype=np.float32)[:, None]
    hills = 400 * np.sin(columns / 911 + 1) * np.cos(rows / 703) + 150 * np.sin(columns / 97 + rows / 131)
    fields = 120 * ((columns // 83 * 7 + rows // 61 * 5) % 4)
    noise = generator.standard_normal((BANDS, height, width), dtype=np.float32) * 12
    gain = np.array([0.6, 0.8, 1.0, 1.7], np.float32)[:, None, None]
    return (1500 + gain * (hills + fields) + noise).astype(np.uint16)


def write_tiled(path, side, block, **options):
    """A GeoTIFF of noise and scenery, a row of tiles in memory at a time."""
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": BANDS, "dtype": "uint16", "nodata": 0,
        "crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), "interleave": "pixel",
        "tiled": True, "blockxsize": block, "blockysize": block, "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    generator = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile, **options) as raster:
        for y in range(0, side, block):
            for x in range(0, side, 8 * block):
                w, h = min(8 * block, side - x), min(block, side - y)
                raster.write(scenery(generator, x, y, w, h), window=Window(x, y, w, h))


def make_scenes(work, cog_px):
    """A folder for each kind, written unless it is there; gives the folders."""
    folders = {kind: work / f"{kind}_{cog_px}" if kind == "cog" else work / kind for kind in KINDS}
    for kind, folder in folders.items():
        if folder.is_dir():
            continue
        making = work / "making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        with rasterio.Env(**GDAL, GDAL_CACHEMAX=CACHE_BYTES):
            if kind == "cog":
                write_tiled(making / "tiled.tif", cog_px, 512, compress="deflate", predictor=2, zlevel=1)
                options = {"compress": "deflate", "predictor": "yes", "blocksize": 512, "overviews": "none"}
                rasterio.shutil.copy(making / "tiled.tif", making / "scene.tif", driver="COG", **options)
                (making / "tiled.tif").unlink()
            else:
                options = {"compress": "deflate", "predictor": 2} if kind == "deflated" else {}
                for i in range(FILES):
                    write_tiled(making / f"{i}.tif", FILE_PX, 256, **options)
        making.rename(folder)
    return folders


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(numbers, digits=2):
    """Median, least, greatest."""
    return [round(each, digits) for each in (statistics.median(numbers), min(numbers), max(numbers))]


def said(three):
    return f"{three[0]:g} ({three[1]:g} to {three[2]:g})"


def window_times(folder, windows, repeats):
    """Seconds of each pass over windows of the scenes in `folder`, for the source, its reading, and bare rasterio."""
    for path in folder.iterdir():  # into the page cache
        with path.open("rb") as file:
            while file.read(STROKE_BYTES):
                pass
    scenes = open_scenes(folder, SceneConfig())
    settings = {"window": WINDOW_PX, "windows": windows, "seed": 0}
    unmeasured = SceneSource(scenes, **settings, stretch=Stretch((), (), (0.0,) * BANDS))
    found = measure(unmeasured, scenes.names, images=32, seed=0)
    assert found.nodata == 0, "the first draw of each window must be the window"
    source = SceneSource(scenes, **settings, stretch=Stretch(found.low, found.high, found.mean))
    rasters, bands = OpenRasters(), tuple(range(1, BANDS + 1))
    times = {"decode": [], "read": [], "bare": []}
    with rasterio.Env(**GDAL, GDAL_CACHEMAX=CACHE_BYTES):
        bare = {raster.path: rasterio.open(raster.path) for raster in scenes.rasters}

        def passes(first):
            """What each of the three does with the windows from `first` on."""
            numbers = range(first, first + windows)
            places = [next(source.places(i)) for i in numbers]
            boxes = [(raster.path, box) for raster, box in places]
            return {
                "decode": lambda: [source.decode(i) and None for i in numbers],
                "read": lambda: [rasters.read_here(path, bands, box) and None for path, box in boxes],
                "bare": lambda: [
                    bare[path].read(bands, window=Window(x0, y0, x1 - x0, y1 - y0)) is None
                    for path, (x0, y0, x1, y1) in boxes
                ],
            }

        for repeat in range(-1, repeats):  # the first opens the files and is not counted
            works = list(passes((repeat + 1) * windows).items())
            turn = repeat % len(works)
            for name, work in works[turn:] + works[:turn]:
                took = seconds(work)
                if repeat >= 0:
                    times[name].append(took)
        for raster in bare.values():
            raster.close()
    return times


def measure_windows(work, given):
    rows = {}
    for kind, folder in make_scenes(work, given.cog_px).items():
        times = window_times(folder, given.windows, given.repeats)
        row = {
            "what": KINDS[kind],
            "megabytes_on_disk": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6),
            "windows_per_second": {name: spread([given.windows / t for t in each], 1) for name, each in times.items()},
            "over_bare": {
                name: spread([b / t for b, t in zip(times["bare"], times[name], strict=True)])
                for name in ("decode", "read")
            },
        }
        rows[kind] = row
        print(f"{row['what']}, {row['megabytes_on_disk']:,} MB; aim {AIMS['windows']} of the bare loop")
        for name, three in row["windows_per_second"].items():
            ratio = f"   {said(row['over_bare'][name])} of bare" if name in row["over_bare"] else ""
            print(f"  {name:8} {said(three):>28} windows/s{ratio}")
    return {"window_px": WINDOW_PX, "bands": BANDS, "windows_a_pass": given.windows, "passes": given.repeats,
            "aim_over_bare": AIMS["windows"], "page_cache": "warm", "kinds": rows}  # fmt: skip


def drop_page_cache(paths):
    """Takes the files out of memory; says by what means."""
    os.sync()
    try:
        DROP.write_text("3\n")
    except OSError:
        for path in paths:
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
        return "POSIX_FADV_DONTNEED on each file"
    return "drop_caches 3"


def share_in_memory(paths):
    """The share of the files' pages that the page cache holds, by mincore."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    held = pages = 0
    for path in paths:
        size = path.stat().st_size
        count = -(-size // mmap.PAGESIZE)
        handle = os.open(path, os.O_RDONLY)
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
        states = ctypes.create_string_buffer(count)
        if libc.mincore(address, size, states):
            raise OSError(ctypes.get_errno(), "mincore")
        libc.munmap(address, size)
        os.close(handle)
        held, pages = held + sum(state & 1 for state in states.raw[:count]), pages + count
    return held / pages


def make_images(work, images):
    """A copy of the folder and its shards, written unless they are there."""
    files, shards = work / "files", work / "shards"
    if not files.is_dir():
        shutil.copytree(images, work / "copying")
        (work / "copying").rename(files)
    if not shards.is_dir():
        pack(PackConfig(data=str(files), out=str(work / "packing")))
        (work / "packing").rename(shards)
    return files, shards


def read_file(name):
    """All bytes of a file with the fewest calls."""
    handle = os.open(name, os.O_RDONLY)
    data = os.read(handle, 1 << 24)
    os.close(handle)
    return len(data)


def read_whole(path):
    with path.open("rb", buffering=0) as file:
        while file.read(STROKE_BYTES):
            pass


def measure_shards(work, given):
    files, shards = make_images(work, given.images)
    sides = {"files": FolderSource(files), "shards": ShardSource(shards)}
    count, stored = len(sides["files"]), sum(path.stat().st_size for path in sides["files"].paths)
    assert len(sides["shards"]) == count
    blocks = {name: getattr(source, "block", 1) for name, source in sides.items()}
    big = work / "strokes.bin"
    if not big.is_file():
        with big.open("wb") as file:
            for _ in range(512 // 4):
                file.write(os.urandom(STROKE_BYTES))
    everything = [big, *sides["files"].paths, *sorted(shards.iterdir())]

    def fresh(name):
        """A source that has read nothing yet, like that of a new process."""
        return ShardSource(shards) if name == "shards" else sides[name]

    def raw(name, epoch):
        order, source = epoch_order(count, 0, epoch, blocks[name]).tolist(), fresh(name)
        if name == "shards":
            return lambda: sum(len(source.read(i)) for i in order)
        return lambda: sum(read_file(source.name(i)) for i in order)

    def epoch_of(name, epoch):
        views = ViewConfig(size=96)
        loader = ViewLoader(fresh(name), views, batch_size=64, seed=0, workers=0, drop_last=False)
        loader.resume_at(epoch, 0)
        return lambda: sum(len(batch.indices) for batch in loader)

    whats = {"raw": raw, "loader": epoch_of}
    for name in sides:  # what is loaded once, and a first look at all the bytes
        raw(name, 0)()
    warm_share = share_in_memory(everything[1:])
    means = drop_page_cache(everything)
    cold_share = share_in_memory(everything)
    times = {cache: {what: {name: [] for name in sides} for what in whats} for cache in ("cold", "warm")}
    limit = []
    for repeat in range(given.repeats):
        drop_page_cache(everything)
        limit.append(big.stat().st_size / seconds(lambda: read_whole(big)))
        print(f"pass {repeat}: limit {limit[-1] / 1e6:.0f} MB/s", end="", flush=True)
        for what, make in whats.items():
            if what == "loader" and repeat >= given.loader_repeats:
                continue
            for name in list(sides)[:: 1 if repeat % 2 else -1]:
                work_of = make(name, repeat)
                drop_page_cache(everything)
                times["cold"][what][name].append(seconds(work_of))
                print(f", {what} {name} {times['cold'][what][name][-1]:.2f} s", end="", flush=True)
                if repeat < given.warm_repeats:
                    times["warm"][what][name].append(seconds(make(name, repeat)))
        print()
    rows = {}
    for cache, by_what in times.items():
        for what, by_side in by_what.items():
            ratios = [f / s for f, s in zip(by_side["files"], by_side["shards"], strict=True)]
            rows[f"{what}_{cache}"] = {
                "images_per_second": {name: spread([count / t for t in each], 0) for name, each in by_side.items()},
                "megabytes_per_second": {n: spread([stored / 1e6 / t for t in each], 1) for n, each in by_side.items()},
                "shards_over_files": spread(ratios),
                "passes": len(ratios),
            }
    result = {
        "images": count, "pictures": Path(given.images).name, "kilobytes_per_image": round(stored / 1e3 / count, 1),
        "images_a_block": blocks["shards"], "aim_over_files": AIMS["shards"],
        "cache_dropped_by": means, "share_in_memory_after_reading": round(warm_share, 4),
        "share_in_memory_after_dropping": round(cold_share, 4), "read_ahead_kb": read_ahead_kb(work),
        "limit_megabytes_per_second": spread([each / 1e6 for each in limit], 0), "measured": rows,
    }  # fmt: skip
    print(
        f"{count:,} images of {result['kilobytes_per_image']} kB; cache dropped by {means}: {100 * cold_share:.1f} % "
        f"of the pages in memory afterwards, {100 * warm_share:.1f} % after reading; the disk's limit, in strokes of "
        f"4 MB: {said(result['limit_megabytes_per_second'])} MB/s; aim {AIMS['shards']} times the files"
    )
    for what, row in rows.items():
        print(f"  {what:12} shards over files {said(row['shards_over_files'])}")
        for name in sides:
            rates = said(row["images_per_second"][name]), said(row["megabytes_per_second"][name])
            print(f"    {name:8} {rates[0]:>28} images/s, {rates[1]} MB/s")
    return result


def read_ahead_kb(folder):
    """How far the system reads ahead on the disk of `folder`; None where it does not say."""
    number = folder.stat().st_dev
    path = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/queue/read_ahead_kb")
    return int(path.read_text()) if path.is_file() else None


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("part", choices=("windows", "shards", "make"))
    options.add_argument("--work", type=Path, help="where files are written and kept; else a temporary folder")
    options.add_argument("--images", type=Path, help="a folder of images, for shards")
    options.add_argument("--cog-px", type=int, default=COG_PX, help="side of the large COG")
    options.add_argument("--windows", type=int, default=200, help="in a pass")
    options.add_argument("--repeats", type=int, default=9, help="passes")
    options.add_argument("--loader-repeats", type=int, default=3, help="passes of shards with the loader")
    options.add_argument("--warm-repeats", type=int, default=3, help="passes of shards with the cache warm")
    options.add_argument("--write", action="store_true")
    given = options.parse_args()
    if given.part == "shards" and not given.images:
        options.error("shards needs --images, a folder of images")
    torch.set_num_threads(1)
    with nullcontext(given.work) if given.work else TemporaryDirectory() as folder:
        work = Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        if given.part == "make":
            make_scenes(work, given.cog_px)
            if given.images:
                make_images(work, given.images)
            return
        result = (measure_windows if given.part == "windows" else measure_shards)(work, given)
    result["machine"] = {"processor": processor(), "cores": os.cpu_count(), "threads": 1}
    result["versions"] = {
        "python": platform.python_version(), "rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__,
        "torch": torch.__version__,
    }  # fmt: skip
    if given.write:
        RESULTS.parent.mkdir(exist_ok=True)
        both = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        RESULTS.write_text(json.dumps({**both, given.part: result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
