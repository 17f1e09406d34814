"""What is wrong with a prepared ISPRS set."""

from collections import defaultdict
from pathlib import Path

from rich.console import Console

from cmid.commands.diagnosis import Diagnosis
from cmid.commands.sources import progress
from cmid.config import DoctorConfig
from cmid.data.isprs import BENCHMARKS, STEP_PX, WINDOW_PX
from cmid.data.prepared import Manifest, what_is_wrong

SWAPS = (("building", "clutter"), ("low vegetation", "car"))
"""Classes that take each other's colour where red and blue are exchanged; the first is far more frequent in both."""
FAR_MORE = 2


def look_at_prepared(config: DoctorConfig, console: Console) -> Diagnosis:
    """All findings of a prepared set, after reading all of it; raises `UsageError` where its manifest is none."""
    folder, found = Path(config.data), Diagnosis(config.data)
    manifest = Manifest.read(folder)
    with progress(console, "comparing check sums") as tick:
        wrong = what_is_wrong(folder, manifest, sums=True, tick=tick)
    if wrong:
        found.add("wrong", "files", f"{len(wrong)} of {len(manifest.files)} are not as they were prepared", wrong)
    else:
        found.add("fine", "files", f"all {len(manifest.files):,} are as they were prepared")
    _tiles(found, manifest)
    if (manifest.window_px, manifest.step_px) == (WINDOW_PX, STEP_PX):
        found.add("fine", "windows", f"{WINDOW_PX} px every {STEP_PX} px, as published figures are had by")
    else:
        told = f"{manifest.window_px} px every {manifest.step_px} px, not the published {WINDOW_PX} every {STEP_PX}"
        found.add("look", "windows", told)
    borders = config.labels.borders
    if borders not in manifest.labels:
        borders = manifest.labels[0]
        found.add("look", "labels", f"{borders} labels alone were prepared")
    _colours(found, manifest)
    found.classes = manifest.classes
    for side in ("train", "test"):
        tiles = manifest.of_split(side)
        found.images[side] = sum(len(tile.places) for tile in tiles)
        sums = [sum(tile.pixels[borders][i] for tile in tiles) for i in range(len(manifest.classes) + 1)]
        found.pixels[side] = dict(zip((*manifest.classes, ""), sums, strict=True))
    _swapped(found)
    found.weigh_classes()
    _overlap(found, manifest)
    return found


def _tiles(found: Diagnosis, manifest: Manifest) -> None:
    benchmark = BENCHMARKS.get(manifest.dataset.lower())
    if benchmark is None:
        found.add("wrong", "tiles", f"{manifest.dataset} is no benchmark that is known here")
        return
    have = {tile.name: tile.split for tile in manifest.tiles}
    missing = [tile for tile in benchmark.tiles if tile not in have]
    misplaced = [tile for tile, split in have.items() if tile in benchmark.tiles and split != benchmark.split(tile)]
    if missing:
        found.add("wrong", "tiles", f"{len(missing)} of {len(benchmark.tiles)} are missing", missing)
    if misplaced:
        found.add("wrong", "tiles", f"{len(misplaced)} are not on the benchmark's side", misplaced)
    if not missing and not misplaced:
        found.add("fine", "tiles", f"all {len(benchmark.tiles)}, {len(benchmark.train)} of them to train on")


def _colours(found: Diagnosis, manifest: Manifest) -> None:
    odd = [tile.name for tile in manifest.tiles if any(tile.unknown.values())]
    if odd:
        pixels = sum(n for tile in manifest.tiles for kind in tile.unknown.values() for n in kind.values())
        done = "took the nearest class" if manifest.unknown == "nearest" else "have no label"
        found.add(
            "look", "colours", f"{pixels:,} pixels of labels had other colours and {done}, in {len(odd)} tiles", odd
        )
    else:
        found.add("fine", "colours", "labels as shipped had the benchmark's colours alone")


def _swapped(found: Diagnosis) -> None:
    """Red and blue exchanged give colours that all are the benchmark's own; only the shares tell."""
    pixels = {name: sum(side.get(name, 0) for side in found.pixels.values()) for name in found.classes}
    if all(FAR_MORE * pixels.get(often, 0) < pixels.get(seldom, 0) for often, seldom in SWAPS):
        found.add(
            "wrong", "BGR swap",
            "there is far more clutter than building and far more car than low vegetation: red and blue of the labels "
            "are exchanged, as by a tool that writes BGR; prepare the set from the files as they are shipped",
        )  # fmt: skip
    else:
        found.add("fine", "BGR swap", "shares of building and clutter, low vegetation and car are not exchanged")


def _overlap(found: Diagnosis, manifest: Manifest) -> None:
    where: dict[str, set[str]] = defaultdict(set)
    names: dict[str, list[str]] = defaultdict(list)
    for tile in manifest.tiles:
        for name, (_, digest) in tile.files.items():
            if name.startswith((f"{tile.split}/images/", "tiles/images/")):
                where[digest].add(tile.split)
                names[digest].append(name)
    both = [" = ".join(names[digest]) for digest, splits in where.items() if len(splits) > 1]
    if both:
        found.add("wrong", "overlap", f"{len(both)} windows are in train and in test as identical files", both)
    else:
        found.add("fine", "overlap", "no tile and no file is in train and in test")
