"""A scene and a model for windows: the map, its probabilities, polygons and a quick look, each written whole."""

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmid.errors import CmidError, NotFinite, UsageError, is_out_of_memory
from cmid.ops.transfer import to_device
from cmid.predict.blend import NODATA, Scores
from cmid.predict.journal import Journal
from cmid.predict.polygons import check_polygons, write_polygons
from cmid.predict.prefetch import Batch, Picture, ReadAhead, batches
from cmid.predict.quicklook import SIDE, natural_colours, write_quicklook
from cmid.predict.raster_output import (
    Classes,
    TiledFile,
    as_cog,
    check_outputs,
    describe_map,
    describe_probabilities,
    gdal_for_maps,
    write_category_names,
    writing,
)
from cmid.predict.scene import Scene, Trained, Window
from cmid.predict.turns import Predict, predict_in_turns
from cmid.predict.windows import SCORES_BYTES, Block, Layout, Tiling

Tick = Callable[[int, int], object]
"""Windows done, windows in all."""
TIFF = (".tif", ".tiff")


@dataclass(frozen=True)
class Outputs:
    """What is to be written.

    Attributes:
        map: the classes, a Cloud-Optimised GeoTIFF, uint8, 255 where the scene has no measurement.
        probabilities: of each class, another with a band for each, `value / 254`.
        polygons: of the classes, `.gpkg` or `.geojson`.
        quicklook: a PNG of scene and map side by side.
        min_area_px: polygons smaller than this are left out.
        overwrite: replace what is there.
    """

    map: Path
    probabilities: Path | None = None
    polygons: Path | None = None
    quicklook: Path | None = None
    min_area_px: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        for path, suffixes in ((self.map, TIFF), (self.probabilities, TIFF), (self.quicklook, (".png",))):
            if path is not None and path.suffix.lower() not in suffixes:
                raise UsageError(f"{path}: expected a file ending in {' or '.join(suffixes)}")

    @property
    def paths(self) -> list[Path]:
        """All that is asked for, and the names of the classes beside the map."""
        asked = (self.map, self.names, self.probabilities, self.polygons, self.quicklook)
        return [path for path in asked if path is not None]

    @property
    def names(self) -> Path:
        """Where GDAL looks for the names of the map's classes."""
        return self.map.with_name(self.map.name + ".aux.xml")


@dataclass(frozen=True)
class MapResult:
    """What was written.

    Attributes:
        outputs: where.
        pixels: of each class, by name.
        nodata: pixels without a class.
        polygons: how many.
        windows: how many were looked at, over all calls; some of them may have held nodata only.
        computed: how many the model was given in this call.
        unreadable: pixels that the scene could not read; they are among `nodata`.
        notes: what a person should know, a line each.
    """

    outputs: Outputs
    pixels: dict[str, int]
    nodata: int
    polygons: int = 0
    windows: int = 0
    computed: int = 0
    unreadable: int = 0
    notes: list[str] = field(default_factory=list)


def scene_to_map(
    scene: Scene,
    predict: Predict,
    classes: Classes,
    outputs: Outputs,
    *,
    tiling: Tiling | None = None,
    trained: Trained | None = None,
    device: torch.device | str = "cpu",
    fill: tuple[float, ...] | None = None,
    model: str = "",
    restart: bool = False,
    scores_bytes: int = SCORES_BYTES,
    tick: Tick | None = None,
) -> MapResult:
    """Map `scene`. A call that was interrupted, or killed, goes on when it is repeated, and gives the same files.

    Args:
        scene: what is mapped.
        predict: `(B, C, S, S)` float32 on `device`, the values that `scene` reads, to `(B, K, S, S)` probabilities
            there; its own eval mode, precision and normalisation. B is at most `tiling.batch`.
        classes: K names.
        outputs: what is written.
        tiling: windows, overlap, averaging.
        trained: refuses scenes of other bands or types.
        device: where `predict` works; the scores are added up there.
        fill: value of each band put where there is no measurement; None leaves what the scene reads, where it is
            a number.
        model: says which weights these are; a map begun with others is not gone on with.
        restart: forget what an interrupted call has finished.
        scores_bytes: what the scores held at once may take on the device; a wide scene is mapped in panels of columns.
        tick: is told of progress.

    Raises:
        UsageError: the scene is not what the model was trained on, an output exists, or an unfinished map was made
            with other settings.
        CmidError: a file that cannot be read or written, or scores of another shape; NotFinite is one of them.
    """
    tiling, device = tiling or Tiling(), torch.device(device)
    if trained is not None:
        trained.check(scene)
    if outputs.polygons is not None:
        check_polygons(outputs.polygons, scene.place, scene.width, scene.height)
    layout = Layout(scene.width, scene.height, len(classes), tiling, scores_bytes)
    journal = Journal(outputs.map)
    if restart or not journal.path.exists():
        check_outputs(outputs.paths, allowed=outputs.overwrite)
    settings = _settings(scene, classes, outputs, layout, device, fill, model)
    with gdal_for_maps():
        journal.open(settings, restart=restart)
        try:
            check_outputs(outputs.paths, allowed=outputs.overwrite or journal.finishing)
            work = _Work(scene, predict, classes, outputs, layout, device, fill, journal, tick)
            try:
                computed = work.compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise CmidError(
                    f"{tiling.batch} windows of {tiling.window} px at once do not fit the memory: lower batch or window"
                ) from error
            result = work.write(computed)
        finally:
            if journal.done:
                journal.close()
            else:
                journal.remove()  # nothing to go on with
    return result


def _settings(
    scene: Scene, classes: Classes, outputs: Outputs, layout: Layout, device: torch.device,
    fill: tuple[float, ...] | None, model: str,
) -> dict[str, Any]:  # fmt: skip
    """All that the finished blocks depend on."""
    return {
        "scene": f"{scene.width} x {scene.height}, {scene.bands} bands, {scene.dtype}",
        "pixels": scene.identity,
        "place": asdict(scene.place),
        "colours": list(scene.colours),
        "classes": list(classes.names),
        "probabilities": outputs.probabilities is not None,
        "model": model,
        "device": device.type,
        "fill": None if fill is None else list(fill),
        "panels": sorted({block.x0 for block in layout.blocks}),
        **asdict(layout.tiling),
    }


@dataclass
class _Work:
    scene: Scene
    predict: Predict
    classes: Classes
    outputs: Outputs
    layout: Layout
    device: torch.device
    fill: tuple[float, ...] | None
    journal: Journal
    tick: Tick | None

    def __post_init__(self) -> None:
        self.picture = Picture(self.scene.width, self.scene.height, len(self.scene.colours), SIDE)
        self._told = 0  # of the scene's unreadable parts

    def compute(self) -> int:
        """Computes the blocks that are not in the journal yet; gives how many windows the model was given."""
        blocks = self.layout.blocks
        first, done = self.journal.done, 0
        if first == len(blocks):
            return 0
        panels: dict[int, list[Block]] = {}
        for block in blocks[self.layout.rerun(first) :]:
            panels.setdefault(block.x0, []).append(block)
        with ThreadPoolExecutor(1, "journal") as writer:
            for panel in panels.values():
                done += self._panel(panel, first, writer)
        return done

    def _panel(self, blocks: list[Block], first: int, writer: ThreadPoolExecutor) -> int:
        """The blocks of one panel; those before `first` only for what they add to the rows of later ones."""
        begin = next(block for block in blocks if block.number >= first)
        scores = Scores(self.layout, begin, self.layout.held, len(self.classes), self.device)
        valid = np.zeros((self.layout.held, begin.x1 - begin.x0), np.bool_)  # of the rows from `top`
        top, computed = begin.y0, 0
        kept: Future[None] | None = None
        total = sum(block.size for block in self.layout.blocks)
        source = batches(self.scene, self.layout, blocks, self.picture, self.fill)
        with ReadAhead(source) as ahead, torch.inference_mode():
            for batch in ahead:
                block = batch.block
                if len(batch.images):
                    for (i, j), each in zip(batch.places, self._scores(batch), strict=True):
                        scores.add(each, i, j)
                    computed += len(batch.images)
                for (x0, y0, x1, y1), sampled, measured in batch.seen:
                    self.picture.put((x0, y0, x1, y1), sampled)
                    a, b, c, d = max(y0, top), min(y1, top + len(valid)), max(x0, block.x0), min(x1, block.x1)
                    if a < b and c < d:
                        valid[a - top : b - top, c - block.x0 : d - block.x0] = measured[
                            a - y0 : b - y0, c - x0 : d - x0
                        ]
                if self.tick is not None and block.number >= first:
                    before = sum(each.size for each in self.layout.blocks[: block.number])
                    self.tick(before + batch.read, total)
                if not batch.last or block.number < first:
                    continue
                arrays = self._finished(scores, block, valid[: block.y1 - top])
                left = valid[block.y1 - top :].copy()
                valid[: len(left)], valid[len(left) :], top = left, False, block.y1
                if kept is not None:
                    kept.result()  # one block waits for the disk at most
                kept = writer.submit(self.journal.append, block.number, arrays)
        if kept is not None:
            kept.result()
        return computed

    def _scores(self, batch: Batch) -> Tensor:
        images = torch.from_numpy(batch.images)
        if self.device.type == "cuda":
            images = images.pin_memory()
        images = to_device(images, self.device).float()
        scores = predict_in_turns(self.predict, images, self.layout.tiling.turns)
        expected = (len(images), len(self.classes), *images.shape[-2:])
        if tuple(scores.shape) != expected:
            raise CmidError(
                f"the model gives scores {tuple(scores.shape)} for images {tuple(images.shape)} and "
                f"{len(self.classes)} classes; expected {expected}"
            )
        return scores

    def _finished(self, scores: Scores, block: Block, valid: np.ndarray) -> dict[str, np.ndarray]:
        """What is kept of a block whose windows have all been added."""
        asked = self.outputs.probabilities is not None
        found, shares, finite = scores.finish(block.y1, probabilities=asked)
        if not finite:
            raise NotFinite(
                f"the model gives scores that are not finite in rows {block.y0} to {block.y1} of {self.scene.name}: "
                "try precision 32, or look at the values there"
            )
        map_ = found.cpu().numpy()
        map_[~valid] = NODATA
        rows, columns = self.picture.rows(block.y0, block.y1), self.picture.rows(block.x0, block.x1)
        arrays = {"classes": map_, "picture": self.picture.values[:, rows, columns].copy()}
        if lost := self.scene.unreadable[self._told :]:  # perhaps of later blocks, which are read ahead
            self._told += len(lost)
            arrays["unreadable"] = np.array(lost, np.int64)
        if shares is not None:
            arrays["probabilities"] = shares.cpu().numpy()
            arrays["probabilities"][:, ~valid] = NODATA
        return arrays

    def write(self, computed: int) -> MapResult:
        """Makes the outputs of the journal's blocks, and puts them in their places."""
        out, scene, place_for = self.outputs, self.scene, self._written_at
        tiled, tiled_shares = (self.journal.temporary(name) for name in ("tiled.tif", "tiled-probabilities.tif"))
        small = np.full(self.picture.values.shape[1:], NODATA, np.uint8)
        counts, polygons, lost = np.zeros(256, np.int64), 0, set[Window]()
        with writing(out.map):
            map_ = TiledFile(tiled, scene.width, scene.height, 1, scene.place)
            with map_.raster:
                describe_map(map_.raster, self.classes)
                if out.probabilities is None:
                    self._fill(map_, None, small, counts, lost)
                else:
                    shares = TiledFile(tiled_shares, scene.width, scene.height, len(self.classes), scene.place)
                    with shares.raster:
                        describe_probabilities(shares.raster, self.classes)
                        self._fill(map_, shares, small, counts, lost)
            as_cog(tiled, place_for(out.map), overviews="mode")
            write_category_names(place_for(out.names), self.classes)
        if out.probabilities is not None:
            with writing(out.probabilities):
                as_cog(tiled_shares, place_for(out.probabilities), overviews="average")
        if out.polygons is not None:
            with writing(out.polygons):
                polygons = write_polygons(
                    tiled, place_for(out.polygons), self.classes, scene.place, min_area_px=out.min_area_px
                )
        if out.quicklook is not None:
            with writing(out.quicklook):
                colours = natural_colours(self.picture.values, eight_bit=scene.dtype == "uint8")
                write_quicklook(place_for(out.quicklook), colours, small, self.classes, counts)
        with writing(out.map):
            self.journal.note_finishing()
            for path in reversed(out.paths):  # the map last: where it is, all is
                path.parent.mkdir(parents=True, exist_ok=True)
                _move(place_for(path), path)
        self.journal.remove()
        pixels = {name: int(counts[i]) for i, name in enumerate(self.classes.names)}
        windows = sum(block.size for block in self.layout.blocks)
        away, notes = _lost_pixels(lost), scene.place.notes()
        if lost:
            x, y = min(lost, key=lambda part: part[1::-1])[:2]
            notes.append(
                f"{away:,} px ({away / (scene.width * scene.height):.1%}) of the scene cannot be read and are nodata "
                f"in the map, first at column {x}, row {y}"
            )
        return MapResult(out, pixels, int(counts[NODATA]), polygons, windows, computed, away, notes)

    def _written_at(self, path: Path) -> Path:
        """Where an output is written before it is moved; two may have the same name in other folders."""
        return self.journal.temporary(f"{self.outputs.paths.index(path)}-{path.name}")

    def _fill(
        self, map_: TiledFile, shares: TiledFile | None, small: np.ndarray, counts: np.ndarray, lost: set[Window]
    ) -> None:
        """Puts the journal's blocks into the tiled files, the picture, the counts of each class, and what was lost."""
        for block, arrays in zip(self.layout.blocks, self.journal.blocks(), strict=True):
            found = arrays["classes"]
            map_.put(block, found[None])
            if shares is not None:
                shares.put(block, arrays["probabilities"])
            counts += torch.bincount(torch.from_numpy(found.ravel().copy()), minlength=256).numpy()  # numpy's takes 4 x
            lost.update(tuple(part) for part in arrays.get("unreadable", np.empty((0, 4), np.int64)).tolist())
            window = (block.x0, block.y0, block.x1, block.y1)
            self.picture.put(window, arrays["picture"])
            rows, columns = self.picture.rows(block.y0, block.y1), self.picture.rows(block.x0, block.x1)
            small[rows, columns] = self.picture.sample(window, found)


def _lost_pixels(parts: set[Window]) -> int:
    """How many pixels the parts, which do not overlap, cover."""
    return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in parts)


def _move(file: Path, to: Path) -> None:
    """Over what is there, whole or not at all, also where `to` is on another disk."""
    try:
        file.replace(to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = to.with_name(f".{to.name}.part")
        shutil.copyfile(file, beside)
        beside.replace(to)
