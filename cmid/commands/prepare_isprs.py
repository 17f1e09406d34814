"""`cmid prepare potsdam|vaihingen`: the tiles of the ISPRS benchmarks become windows, with a manifest that is checked.

Everything is made in a folder beside the output, tile by tile, each with a note when it is whole; the last step gives
the folder its name. So what has the name is complete, and a run that was stopped goes on with the tile it was at.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cmid.commands.out_folder import held
from cmid.commands.sources import progress
from cmid.commands.terminal import terminal
from cmid.commands.tile_files import read_image, read_labels, write_tile
from cmid.config import PrepareConfig
from cmid.data.archives import Member, find_members, take_out
from cmid.data.isprs import BENCHMARKS, COLOURS, LABELS, Benchmark, Found, Labels, find_tiles, windows
from cmid.data.pixel_labels import UNLABELLED
from cmid.data.prepared import MANIFEST, MASKS, Manifest, Tile, sum_of, window_name
from cmid.errors import CmidError, UsageError
from cmid.evaluation.segmentation import ISPRS_CLASSES
from cmid.whole_files import write_whole

THREADS = 4
"""That write PNGs; Pillow lets others run while it packs."""
BEGUN = "begun.json"
TREATED = "unknown_as"
"""In a tile's note: what was done with colours that are none of the benchmark's."""
ADVICE = "Make room, or choose another --out; the same command goes on where it stopped"


@dataclass(frozen=True)
class PrepareResult:
    """What was prepared.

    Attributes:
        folder: it lies in.
        train: windows to train on.
        test: windows to test on.
        labels: kinds that were there: eroded, full.
        notes: what the user should hear.
    """

    folder: Path
    train: int
    test: int
    labels: tuple[Labels, ...]
    notes: tuple[str, ...]


def prepare(kind: str, config: PrepareConfig) -> PrepareResult:
    """Writes the windows of one benchmark under `config.out`.

    Raises:
        UsageError: an output that exists, files that are missing or damaged, sizes that differ, colours that are none
            of the benchmark's.
        CmidError: the disk is full.
    """
    console = terminal()
    benchmark, out = BENCHMARKS[kind], _check_out(config, kind)
    bands = _bands(benchmark, config)
    if config.step_px > config.window_px:
        raise UsageError(f"step_px {config.step_px} is above window_px {config.window_px}: pixels would be left out")
    part = out.with_name(f".{out.name}.part")
    settings = {"kind": kind, "bands": bands, "window_px": config.window_px, "step_px": config.step_px}
    _begin(part, settings)
    with held(part, "another `cmid prepare`"), _scratch(part) as scratch:
        console.print(f"looking for tiles in {config.source}")
        members = find_members(Path(config.source), scratch, lambda name: benchmark.opens(name, bands))
        found = find_tiles(members, benchmark, bands)
        tiles, labels, notes = _choose(found, benchmark, bands, config)
        beside = {each.name: each for each in members if each.name.lower().endswith(".tfw")}
        made = []
        with progress(console, f"cutting {len(tiles)} tiles") as tick, ThreadPoolExecutor(THREADS) as pool:
            for i, name in enumerate(tiles):
                work = _Work(benchmark, name, part, scratch, labels, config, beside, pool)
                made.append(work.done() or work.make(found))
                if tick is not None:
                    tick(i + 1, len(tiles))
    manifest = Manifest(
        benchmark.name, bands, config.window_px, config.step_px, ISPRS_CLASSES, labels, config.unknown, tuple(made)
    )
    _finish(part, out, manifest)
    notes += _afterthoughts(manifest)
    train, test = (sum(len(tile.places) for tile in manifest.of_split(side)) for side in ("train", "test"))
    for note in notes:
        console.print(f"note: {note}")
    console.print(
        f"{train:,} windows to train on and {test:,} to test on, with {' and '.join(labels)} labels, in {out}"
    )
    return PrepareResult(out, train, test, labels, tuple(notes))


@dataclass
class _Work:
    """One tile on its way."""

    benchmark: Benchmark
    name: str
    part: Path
    scratch: Path
    labels: tuple[Labels, ...]
    config: PrepareConfig
    beside: dict[str, Member]
    pool: ThreadPoolExecutor

    @property
    def note(self) -> Path:
        return self.part / "done" / f"{self.name}.json"

    def done(self) -> Tile | None:
        """The tile, if an earlier run finished it with these labels, and did the same with unknown colours."""
        try:
            noted = json.loads(self.note.read_text(encoding="utf-8"))
            tile = Tile.of_plain(noted)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = all(
            (self.part / name).is_file() and (self.part / name).stat().st_size == size
            for name, (size, _) in tile.files.items()
        )
        settled = not any(tile.unknown.values()) or noted.get(TREATED) == self.config.unknown
        ours = tile.name == self.name and tile.files and set(tile.pixels) == set(tile.unknown) == set(self.labels)
        return tile if whole and settled and ours else None

    def make(self, found: Found) -> Tile:
        """Reads image and labels, writes windows and, for test, the whole tile."""
        split = self.benchmark.split(self.name)
        image = read_image(self._file(found.images[self.name], "image"), found.images[self.name].told)
        height, width = image.pixels.shape[:2]
        if min(height, width) < self.config.window_px:
            raise UsageError(
                f"tile {self.name} is {width} x {height}, smaller than a window of {self.config.window_px}: is this "
                "the benchmark as it was shipped?"
            )
        places = windows(width, height, self.config.window_px, self.config.step_px)
        arrays: dict[str, np.ndarray] = {"images": image.pixels}
        pixels: dict[str, list[int]] = {}
        unknown: dict[str, dict[str, int]] = {}
        for kind in self.labels:
            member = found.labels[kind][self.name]
            read, strangers = read_labels(
                self._file(member, kind), member.told, (width, height), ISPRS_CLASSES, self.config.unknown
            )
            arrays[MASKS[kind]], unknown[kind] = read, strangers
            numbers = (*range(len(ISPRS_CLASSES)), UNLABELLED)
            # bincount would need eight times the memory of the tile
            pixels[kind] = [int(np.count_nonzero(read == number)) for number in numbers]
        try:
            files = self._write(arrays, split, places)
            if split == "test":
                for side, array in arrays.items():
                    path = self.part / "tiles" / side / f"{self.name}.tif"
                    write_tile(path, array, image, ISPRS_CLASSES if side != "images" else ())
                    files.append(path)
            sums = self.pool.map(lambda path: (path.stat().st_size, sum_of(path)), files)
            told = {str(path.relative_to(self.part).as_posix()): s for path, s in zip(files, sums, strict=True)}
        except OSError as error:
            raise CmidError(
                f"writing tile {self.name} to {self.part} failed: {error.strerror or error}. {ADVICE}"
            ) from error
        tile = Tile(self.name, split, width, height, tuple(places), pixels, unknown, told)
        noted = json.dumps(asdict(tile) | {TREATED: self.config.unknown})
        write_whole(self.note, lambda path: path.write_text(noted, encoding="utf-8"), advice=ADVICE)
        for taken in self.scratch.glob("taken-*"):
            taken.unlink()
        return tile

    def _file(self, member: Member, what: str) -> Path:
        """The member as a file, with its world file beside it."""
        path = take_out(member, self.scratch / f"taken-{what}.tif")
        world = self.beside.get(str(Path(member.name).with_suffix(".tfw").as_posix()))
        if world is not None and member.inner:
            take_out(world, path.with_suffix(".tfw"))
        return path

    def _write(self, arrays: dict[str, np.ndarray], split: str, places: list[tuple[int, int]]) -> list[Path]:
        side = self.config.window_px

        def write(folder: str, x: int, y: int) -> Path:
            path = self.part / split / folder / window_name(self.name, x, y, side)
            picture = Image.fromarray(np.ascontiguousarray(arrays[folder][y : y + side, x : x + side]))
            if folder != "images":
                picture.putpalette([part for colour in COLOURS for part in colour] + [0] * 3 * (256 - len(COLOURS)))
            picture.save(path, compress_level=1 if folder == "images" else 6)
            return path

        for folder in arrays:
            (self.part / split / folder).mkdir(parents=True, exist_ok=True)
            if split == "test":
                (self.part / "tiles" / folder).mkdir(parents=True, exist_ok=True)
        return list(self.pool.map(lambda job: write(*job), [(folder, x, y) for folder in arrays for x, y in places]))


def _check_out(config: PrepareConfig, kind: str) -> Path:
    if not config.out:
        raise UsageError(f"name the folder to write: cmid prepare {kind} {config.source} --out FOLDER")
    out = Path(config.out)
    if out.name in ("", ".."):  # it is given its name when all is done
        out = Path(os.path.abspath(out))  # noqa: PTH100 - as it is written, links not followed
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists; choose another --out, or delete it")
    return out


def _bands(benchmark: Benchmark, config: PrepareConfig) -> str:
    bands = benchmark.bands[0] if config.bands == "auto" else config.bands
    if bands not in benchmark.bands:
        raise UsageError(
            f"{benchmark.name} is shipped as {' and '.join(benchmark.bands)}, not as {bands}: leave bands out"
        )
    return bands


def _begin(part: Path, settings: dict[str, Any]) -> None:
    """The folder to work in, new, or of an earlier run with the same settings."""
    try:
        part.mkdir(parents=True, exist_ok=True)
        begun = part / BEGUN
        if begun.is_file():
            theirs = json.loads(begun.read_text(encoding="utf-8"))
            if not isinstance(theirs, dict):
                raise UsageError(f"{begun} was not written here: delete {part}")
            if theirs != settings:
                told = ", ".join(
                    f"{name} {theirs.get(name)}" for name in settings if theirs.get(name) != settings[name]
                )
                raise UsageError(f"{part} was begun with other settings ({told}): repeat those, or delete it")
        elif any(part.iterdir()):
            raise UsageError(f"{part} holds something that was not begun here: delete it")
        write_whole(begun, lambda path: path.write_text(json.dumps(settings), encoding="utf-8"), advice=ADVICE)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"cannot write to {part}: {reason}; choose another --out") from error


class _scratch:
    """A folder for what is taken out of zips, gone after the `with`."""

    def __init__(self, part: Path) -> None:
        self._path = Path(tempfile.mkdtemp(prefix="scratch-", dir=part))

    def __enter__(self) -> Path:
        for old in self._path.parent.glob("scratch-*"):  # of a run that was killed
            if old != self._path:
                shutil.rmtree(old, ignore_errors=True)
        return self._path

    def __exit__(self, *error: object) -> None:
        part = self._path.parent
        begun = any((part / "done").glob("*.json"))
        shutil.rmtree(self._path if begun else part, ignore_errors=True)  # nothing done: nothing to go on with


def _choose(
    found: Found, benchmark: Benchmark, bands: str, config: PrepareConfig
) -> tuple[list[str], tuple[Labels, ...], list[str]]:
    """Tiles and kinds of labels that are there, and what is to be told of those that are not."""
    notes = []
    if not found.images and not any(found.labels.values()):
        raise UsageError(
            f"no tile of {benchmark.name} in {config.source}: expected files such as "
            + ("top_potsdam_2_10_RGB.tif and top_potsdam_2_10_label.tif" if benchmark.name == "Potsdam" else
               "top/top_mosaic_09cm_area1.tif and top_mosaic_09cm_area1_noBoundary.tif")
            + ", in folders or in the zips that ISPRS ships"
        )  # fmt: skip
    images = [tile for tile in benchmark.tiles if tile in found.images]
    have = {kind: [tile for tile in images if tile in found.labels[kind]] for kind in LABELS}
    most = max(len(tiles) for tiles in have.values())
    labels = tuple(kind for kind in LABELS if have[kind] and len(have[kind]) == most)
    tiles = have[labels[0]] if labels else []
    if len(labels) == 2 and have["eroded"] != have["full"]:
        labels, tiles = ("eroded",), have["eroded"]
    for kind in LABELS:
        if kind not in labels and have[kind]:
            notes.append(f"{kind} labels are there for {len(have[kind])} of {len(tiles)} tiles alone and are left out")
    if missing := [tile for tile in benchmark.tiles if tile not in tiles]:
        without = [tile for tile in missing if tile not in found.images]
        unlabelled = [tile for tile in missing if tile in found.images]
        told = "; ".join(
            f"{what} of {len(names)}: {', '.join(names[:6])}{' ...' * (len(names) > 6)}"
            for what, names in ((f"no {bands} image", without), ("no label", unlabelled))
            if names
        )
        if not config.allow_missing or not any(benchmark.split(tile) == "train" for tile in tiles):
            raise UsageError(
                f"{len(missing)} of the {len(benchmark.tiles)} tiles of {benchmark.name} are not in {config.source} "
                f"({told}). Fetch them, or go on without with --allow-missing"
            )
        notes.append(f"{len(missing)} tiles are missing ({told}): figures are not comparable with published ones")
    if found.strangers:
        notes.append(f"tiles that are in no list of the benchmark are left out: {', '.join(sorted(found.strangers))}")
    return tiles, labels, notes


def _finish(part: Path, out: Path, manifest: Manifest) -> None:
    """The manifest, then the name; what was noted on the way goes last, since a run that stops here goes on with it."""
    write_whole(part / MANIFEST, lambda path: path.write_text(manifest.to_json(), encoding="utf-8"), advice=ADVICE)
    try:
        if out.exists():
            out.rmdir()
        part.rename(out)
    except OSError as error:
        raise CmidError(f"{part} is whole but cannot be named {out}: {error.strerror or error}") from error
    shutil.rmtree(out / "done", ignore_errors=True)
    (out / BEGUN).unlink(missing_ok=True)


def _afterthoughts(manifest: Manifest) -> list[str]:
    notes = []
    for kind in manifest.labels:
        strangers: Counter[str] = Counter()
        for tile in manifest.tiles:
            strangers.update(tile.unknown[kind])
        if strangers:
            where = [tile.name for tile in manifest.tiles if tile.unknown[kind]]
            done = "took the nearest class" if manifest.unknown == "nearest" else "have no label"
            pixels = f"{sum(strangers.values()):,} pixels of {kind} labels"
            notes.append(f"{pixels} had other colours and {done}, in {', '.join(where)}")
    return notes
