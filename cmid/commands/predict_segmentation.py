"""`cmid predict segmentation`: georeferenced maps of scenes of any size."""

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from cmid.commands.map_progress import MapBar, map_bar
from cmid.commands.map_record import MapRecord
from cmid.commands.scene_files import open_scene
from cmid.commands.scene_list import Found, SceneFiles, find_scenes, look_at
from cmid.commands.sources import progress
from cmid.commands.terminal import terminal
from cmid.commands.window_model import WindowModel, digest_of
from cmid.config import PredictSegmentationConfig
from cmid.data.decode import BadImage
from cmid.errors import CmidError, NotFinite, UsageError
from cmid.predict.journal import forget
from cmid.predict.polygons import check_polygons
from cmid.predict.raster_output import Classes
from cmid.predict.scene import Scene
from cmid.predict.scene_to_map import Outputs, scene_to_map
from cmid.predict.windows import Tiling
from cmid.train import resolve_device, resolve_precision
from cmid.train.memory import keep_freed_memory
from cmid.whole_files import write_whole
from cmid.zoo.segmenter_files import load_segmenter

SKIPPED = "scenes_skipped.csv"
HEADER = ("scene", "reason")
"""Of that file: what has another first line was written by others, and is kept."""
LARGEST_WINDOW_PX = 16_384
TOLD_AT_MOST = 20
"""Maps, and notes, that are told one by one on a terminal."""


@dataclass(frozen=True)
class SceneMap:
    """One map.

    Attributes:
        scene: what was mapped.
        map: the file.
        pixels: of each class, by name.
        nodata: pixels without a class.
        unreadable: those of them that the scene's file could not give.
        polygons: how many.
        windows: how many were looked at.
        notes: what a person should know.
        kept: it was finished by an earlier call.
    """

    scene: str
    map: Path
    pixels: dict[str, int]
    nodata: int
    unreadable: int
    polygons: int
    windows: int
    notes: tuple[str, ...]
    kept: bool


@dataclass(frozen=True)
class MapsResult:
    """What was written.

    Attributes:
        out: the folder.
        maps: of each scene.
        skipped: path and reason of each scene that has no map.
        windows_per_s: how fast this call was, writing included; 0 where it computed nothing.
    """

    out: Path
    maps: tuple[SceneMap, ...]
    skipped: dict[str, str]
    windows_per_s: float


def predict_segmentation(config: PredictSegmentationConfig) -> MapsResult:
    """Map every scene; what an interrupted call has finished is kept.

    Raises:
        UsageError: no model, no scenes, a map that exists, settings that do not fit the model or what is begun.
        CmidError: no scene could be mapped, or a file cannot be written.
    """
    if not config.out:
        raise UsageError("name the folder to write: cmid predict segmentation MODEL SCENES --out FOLDER")
    out, path = Path(config.out), Path(config.model)
    path = path / "model.safetensors" if path.is_dir() else path
    segmenter, about = load_segmenter(path)
    device = resolve_device(config.accelerator)
    precision = resolve_precision(config.precision, device)
    if device.type == "cpu":
        keep_freed_memory()  # the same map took 0.8 of the time
    tiling = Tiling(
        window=window_for(config.window, about.window, segmenter.backbone), overlap=config.overlap,
        turns=config.turns, batch=config.batch_size,
    )  # fmt: skip
    console = terminal()
    scenes = find_scenes(config.data, out, remote=config.remote)
    with progress(console, "looking at scenes") as tick:
        found, skipped = look_at(scenes, config.bands, about.backbone.bands or (), tick, config.nodata)
    if len(scenes) == 1 and skipped:
        raise UsageError(f"{scenes[0][0]}: {skipped[scenes[0][0]]}")
    model = WindowModel(segmenter, about, device, precision)
    settings = {
        "model": digest_of(path), "precision": precision, "device": device.type, "window": tiling.window,
        "overlap": tiling.overlap, "turns": tiling.turns, "batch": tiling.batch, "probabilities": config.probabilities,
        "polygons": config.polygons, "min_area_px": config.min_area_px, "quicklook": config.quicklook,
        "nodata": config.nodata,
    }  # fmt: skip
    classes, files = Classes(about.classes, about.colours), SceneFiles([each for each, _ in scenes])
    work = _Work(config, out, model, classes, tiling, settings, len(scenes), files, console)
    _check_list(out / SKIPPED)
    with MapRecord(out) as record:
        try:
            return work.carry_out(found, skipped, record)
        except KeyboardInterrupt:
            console.print(f"what is finished is kept in {out}: the same command goes on")
            raise


def _check_list(path: Path) -> None:
    """Raises `UsageError` where a file of this name was written by others."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            ours = file.readline(80).rstrip("\r\n") == ",".join(HEADER)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): choose another --out for the maps") from error
    if not ours:
        raise UsageError(
            f"{path} is no list of scenes that could not be mapped, and would be written over: move it, or choose "
            "another --out"
        )


def window_for(asked: int, trained: int, backbone: Any) -> int:
    """The side of the windows in pixels; `UsageError` where the backbone cannot take it."""
    side, stride = asked or trained, int(backbone.strides[-1])
    if side > LARGEST_WINDOW_PX:
        raise UsageError(f"window is {side}: at most {LARGEST_WINDOW_PX:,} px are computed at once")
    fixed = getattr(backbone, "fixed_size", None)
    if fixed is not None and (side, side) != fixed:
        raise UsageError(f"window is {side}, and {backbone.name} takes {fixed[0]} px alone: leave --window out")
    if side % stride:
        fits = max(1, round(side / stride)) * stride
        raise UsageError(f"window is {side}, and {backbone.name} takes multiples of {stride} px: {fits} would fit")
    return side


@dataclass(frozen=True)
class _Job:
    """A scene that is to be mapped, or is."""

    found: Found
    name: str
    outputs: Outputs
    settings: dict[str, Any]
    finished: dict[str, Any] | None = None


@dataclass
class _Work:
    config: PredictSegmentationConfig
    out: Path
    model: WindowModel
    classes: Classes
    tiling: Tiling
    settings: Mapping[str, Any]
    scenes: int
    files: SceneFiles
    console: Console
    notes: dict[str, list[str]] = field(default_factory=dict)

    def carry_out(self, found: Sequence[Found], skipped: dict[str, str], record: MapRecord) -> MapsResult:
        """Maps what is not finished yet."""
        jobs = [self._job(each, record) for each in found]
        self._check_names(jobs)
        maps = {job.name: self._told(job, job.finished, kept=True) for job in jobs if job.finished is not None}
        rest = [job for job in jobs if job.finished is None]
        for job in jobs:
            self._note(job.found.note, job.found.path)
        if maps:
            self.console.print(f"{len(maps)} of {len(found)} maps are finished and kept")
        begin, windows = time.perf_counter(), 0
        try:
            with map_bar(self.console, sum(job.found.pixels for job in rest)) as bar:
                for job in rest:
                    bar.begin(job.found)
                    try:
                        maps[job.name], computed = self._mapped(job, record, bar)
                        windows += computed
                    except _Unfit as error:
                        if self.scenes == 1:
                            raise error.reason from None
                        skipped[job.found.path] = getattr(error.reason, "reason", None) or str(error.reason)
                        self.console.print(f"skipped: {error.reason}")
                    bar.end()
        finally:
            self._write_skipped(skipped)
        took = time.perf_counter() - begin
        result = MapsResult(
            self.out, tuple(maps[job.name] for job in jobs if job.name in maps), skipped, windows / took if took else 0
        )
        self._sum_up(result, windows)
        return result

    def _job(self, found: Found, record: MapRecord) -> _Job:
        """The scene's outputs, and whether they may be written; raises `UsageError`."""
        c, place = self.config, self.out / found.stem
        named = {"probabilities": "_probabilities.tif", "quicklook": ".png", "polygons": f".{c.polygons}"}
        asked = {"probabilities": c.probabilities, "quicklook": c.quicklook, "polygons": c.polygons != "none"}
        files = {kind: place.with_name(place.name + end) for kind, end in named.items() if asked[kind]}
        map_ = place.with_name(place.name + ".tif")
        name = map_.relative_to(self.out).as_posix()
        settings = {**self.settings, "bands": list(found.bands), "pixels": found.identity}
        plain = Outputs(map_, min_area_px=c.min_area_px, overwrite=c.overwrite, **files)
        self.files.keep(plain.paths)
        if not c.restart and (entry := record.finished(name, settings, plain.paths)) is not None:
            return _Job(found, name, plain, settings, entry)
        ours, changed = record.made(name, map_), record.differences(name, settings)
        if ours and changed and not (c.restart or c.overwrite):
            raise UsageError(
                f"{map_} was made with other settings: {'; '.join(changed)}. Give the former ones, another --out, or "
                "--overwrite to replace it"
            )
        allowed = c.overwrite or (ours and (c.restart or not changed))
        return _Job(found, name, Outputs(map_, min_area_px=c.min_area_px, overwrite=allowed, **files), settings)

    def _check_names(self, jobs: Sequence[_Job]) -> None:
        owner: dict[str, str] = {}
        for job in jobs:
            for path in job.outputs.paths:
                other = owner.setdefault(str(path).casefold(), job.found.path)
                if other != job.found.path:
                    raise UsageError(
                        f"{path} would be written for {other} and for {job.found.path}: rename one of them"
                    )
        for job in jobs:
            begun = job.outputs.map.with_name(job.outputs.map.name + ".partial").exists()
            there = [path for path in job.outputs.paths if path.exists()]
            if there and not (job.finished or job.outputs.overwrite or begun):
                raise UsageError(f"{there[0]} exists. Give another --out, or --overwrite to replace it.")

    def _mapped(self, job: _Job, record: MapRecord, bar: MapBar) -> tuple[SceneMap, int]:
        """Maps a scene, and notes it; gives how many windows the model was given, too."""
        c, found = self.config, job.found
        try:
            scene = open_scene(
                found.path, found.bands, max_bad_share=c.max_bad_share, pictures=self.model.pictures, nodata=c.nodata
            )  # fmt: skip
            self._check(scene, job.outputs)
        except (BadImage, UsageError) as error:
            raise _Unfit(error) from error
        record.begin(job.name, found.path, job.settings, job.outputs.paths)
        try:
            result = scene_to_map(
                scene, self.model, self.classes, job.outputs, tiling=self.tiling, device=self.model.device,
                fill=self.model.fill, model=f"{self.settings['model']} {self.settings['precision']}",
                restart=c.restart, tick=bar.tick,
            )  # fmt: skip
        except (BadImage, NotFinite) as error:
            forget(job.outputs.map)
            raise _Unfit(error) from error
        said = {
            "width": scene.width, "height": scene.height, "pixels": result.pixels, "nodata": result.nodata,
            "unreadable": result.unreadable, "polygons": result.polygons, "windows": result.windows,
            "notes": [*result.notes, *([found.note] if found.note else [])],
        }  # fmt: skip
        self._clear(job, record)
        entry = record.end(job.name, found.path, job.settings, job.outputs.paths, said)
        for note in result.notes:
            self._note(note, found.path)
        return self._told(job, entry, kept=False), result.computed

    def _clear(self, job: _Job, record: MapRecord) -> None:
        """Takes away what the map before had beside it and this one has not, and tells it."""
        for path, as_written in record.stale(job.name, job.outputs.paths):
            left = "it is a scene" if self.files.at(path) else "" if as_written else "it was changed since"
            left = left or ("" if job.outputs.overwrite else "without --overwrite nothing is removed")
            if not left:
                try:
                    path.unlink()
                except OSError as error:
                    left = str(error.strerror)
            what = f"NAME{path.name.removeprefix(job.found.stem.name)} of the map before"
            self._note(f"{what} is left there: {left}" if left else f"{what} was removed", job.found.path)

    def _check(self, scene: Scene, outputs: Outputs) -> None:
        self.model.trained.check(scene)
        if outputs.polygons is not None:
            check_polygons(outputs.polygons, scene.place, scene.width, scene.height)
        self.model.check(scene.name, scene.dtype)

    def _told(self, job: _Job, entry: Mapping[str, Any], *, kept: bool) -> SceneMap:
        r = entry["result"]
        told = SceneMap(
            job.found.path, job.outputs.map, r["pixels"], r["nodata"], r["unreadable"], r["polygons"], r["windows"],
            tuple(r["notes"]), kept,
        )  # fmt: skip
        if not kept and (self.scenes <= TOLD_AT_MOST or not self.console.is_terminal):
            size = f"{r['width']:,} x {r['height']:,} px"
            self.console.print(f"{told.scene} ({size}) -> {told.map}: {_shares(told)}")
        return told

    def _note(self, note: str, scene: str) -> None:
        if note:
            self.notes.setdefault(note, []).append(scene)

    def _write_skipped(self, skipped: Mapping[str, str]) -> None:
        path = self.out / SKIPPED
        if not skipped:
            path.unlink(missing_ok=True)
            return

        def write(part: Path) -> None:
            with part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file)
                writer.writerow(HEADER)
                writer.writerows(skipped.items())

        write_whole(path, write, advice="Make room, and repeat the command.")

    def _sum_up(self, result: MapsResult, windows: int) -> None:
        for note, scenes in list(self.notes.items())[:TOLD_AT_MOST]:
            more = f" (and {len(scenes) - 1} others)" if len(scenes) > 1 else ""
            self.console.print(f"note: {scenes[0]}{more}: {note}")
        if not result.maps:
            path, reason = next(iter(result.skipped.items()))
            raise CmidError(f"none of {self.scenes} scenes could be mapped, first {path}: {reason}")
        pace = f", {windows:,} windows, {result.windows_per_s:.1f} a second" if windows else ""
        told = f" (see {self.out / SKIPPED})" if result.skipped else ""
        self.console.print(f"{len(result.maps)} maps, {len(result.skipped)} scenes skipped{told}{pace} -> {self.out}")


class _Unfit(Exception):
    """A scene that cannot be mapped, while others may be."""

    def __init__(self, reason: CmidError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _shares(told: SceneMap) -> str:
    """The classes of a map by share of its valid pixels, the largest first."""
    valid = max(1, sum(told.pixels.values()))
    most = sorted((name for name in told.pixels if told.pixels[name]), key=lambda name: -told.pixels[name])
    words = [f"{name} {told.pixels[name] / valid:.0%}" for name in most[:4]]
    words += [f"{len(most) - 4} more"] if len(most) > 4 else []
    whole = valid + told.nodata
    words += [f"nodata {told.nodata / whole:.0%} of the scene"] if told.nodata else []
    return ", ".join(words) or "nothing but nodata"
