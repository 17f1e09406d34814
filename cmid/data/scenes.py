"""Windows of large scenes as images: drawn at random by area, nodata mostly avoided, no scene ever read whole."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmid.config import SceneConfig
from cmid.data.crops import Box, generator_for
from cmid.data.decode import BadImage, Decoded, Reduction
from cmid.data.folder import is_remote
from cmid.data.lasting_threads import lasting_threads
from cmid.data.nodata import hide_undeclared
from cmid.data.rasters import OpenRasters, Raster, choose_bands, find_rasters, read_header
from cmid.data.remote import RemoteRasters
from cmid.data.statistics import Stretch
from cmid.errors import UsageError

ATTEMPTS = (8, 64)
"""Windows drawn for one image before the best of them is taken, and before it is given up where none is valid."""
WINDOW = (1 << 32) - 2  # the crop number under which a window is drawn; no view has it
STATISTICS = (1 << 32) - 3
HEADERS_AT_ONCE = 16
NAMES_KEPT = 1024
"""Windows whose place a process remembers, so that naming them soon after does not read them again."""


@dataclass(frozen=True)
class Scenes:
    """Scenes that can be read together.

    Attributes:
        rasters: their headers, in the order found.
        bands: for each path, the numbers of the bands to read, from 1.
        names: what the bands are called, by description or number.
        bad: path and reason of each file that could not be opened.
        nodata: value that is none where a file does not say; None adds nothing to what the files declare.
    """

    rasters: tuple[Raster, ...]
    bands: dict[str, tuple[int, ...]]
    names: tuple[str, ...]
    bad: dict[str, str]
    nodata: float | None = None

    @property
    def dtype(self) -> np.dtype:
        """The number type of all of them."""
        return np.dtype(self.rasters[0].dtype)

    @property
    def area(self) -> int:
        """Pixels of all of them."""
        return sum(raster.width * raster.height for raster in self.rasters)


def open_scenes(
    path: Path | str,
    config: SceneConfig,
    *,
    max_bad_share: float = 0.05,
    tick: Callable[[int, int], None] | None = None,
) -> Scenes:
    """Reads the headers of all scenes under `path`; `tick` hears how many of how many are done.

    Raises:
        UsageError: no scenes, more unreadable ones than `max_bad_share`, or bands that do not fit together.
    """
    paths = find_rasters(path, remote=config.remote)
    found: list[Raster] = []
    bad: dict[str, str] = {}

    def header(each: str) -> Raster | BadImage:
        try:
            return read_header(each)
        except BadImage as error:
            return error

    threads = lasting_threads("headers of scenes", HEADERS_AT_ONCE)
    asked = [threads.submit(header, each) for each in paths]
    for done, future in enumerate(asked, 1):
        result = future.result()
        if isinstance(result, BadImage):
            bad[str(result.path)] = result.reason
        else:
            found.append(result)
        if tick is not None:
            tick(done, len(paths))
        if done >= HEADERS_AT_ONCE and is_remote(paths[done - 1]) and len(bad) > max_bad_share * len(paths):
            break  # else a silent server is waited for at each scene
    for future in asked:
        future.cancel()
    if not found or len(bad) > max_bad_share * len(paths):
        first = "; ".join(f"{name} ({reason})" for name, reason in list(bad.items())[:3])
        looked = f"{done}" if done == len(paths) else f"the first {done} of {len(paths)}"
        raise UsageError(
            f"{len(bad)} of {looked} scenes in {path} cannot be read, where at most {max_bad_share:.0%} may be "
            f"bad. First: {first}. Repair or remove them, or raise max_bad_share"
        )
    bands = choose_bands(found, config.bands)
    first_scene = found[0]
    for each, read in bands.items():  # by number and by name it may be one band in some scenes only
        if again := [wanted for wanted, band in zip(config.bands, read, strict=False) if read.count(band) > 1]:
            raise UsageError(f"scenes.bands names a band of {each} more than once ({', '.join(again)}): name each once")
    names = tuple(first_scene.names[band - 1] or str(band) for band in bands[first_scene.path])
    return Scenes(tuple(found), bands, names, bad, config.nodata)


class SceneSource:
    """Windows of scenes by number: window i is fixed by (seed, i), and any i from 0 may be asked for.

    A pass over the data is `windows` of them, and epoch e draws windows `e * windows` onwards, so that no two
    epochs see the same. A scene is chosen by its area, a place in it evenly; of at most eight draws the first
    with little enough nodata is taken, else the one with least. What is nodata all the same becomes the band's mean.

    Args:
        scenes: from `open_scenes`.
        window: side of a window in pixels; a scene that is smaller gives windows of its own size.
        windows: how many make an epoch.
        seed: fixes every window.
        max_nodata: share of a window's pixels that may be nodata.
        stretch: how values become pixels.

    Raises:
        UsageError: fewer than two windows, or a window smaller than one pixel.
    """

    fresh = True

    def __init__(
        self, scenes: Scenes, *, window: int, windows: int, seed: int, stretch: Stretch, max_nodata: float = 0.25
    ) -> None:  # fmt: skip
        if window < 1 or windows < 2:
            raise UsageError(f"expected windows of at least 1 px, and at least 2 of them; found {window} px, {windows}")
        self.scenes, self.window, self.windows, self.seed = scenes, window, windows, seed
        self.max_nodata, self.stretch = max_nodata, stretch
        areas = np.array([r.width * r.height for r in scenes.rasters], np.float64)
        self._until = np.cumsum(areas) / areas.sum()
        self._rasters = RemoteRasters() if any(is_remote(r.path) for r in scenes.rasters) else OpenRasters()
        self._recent: OrderedDict[int, str] = OrderedDict()
        self.bands = len(scenes.names)
        self.dtype = torch.uint8 if scenes.dtype == np.uint8 else torch.float32

    def __len__(self) -> int:
        return self.windows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recent": OrderedDict()}

    def name(self, i: int) -> str:
        """The scene of window i and where it lies, as x, y of its first pixel and its size; of a bad one the scene.

        Where the window was not read lately in this process it is now: only its pixels say whether it was taken.
        """
        if i not in self._recent:
            with suppress(BadImage):  # then it is remembered by its scene
                self._draw(i)
        return self._recent[i]

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Window i, `(H, W, C)` uint8 or float32; raises `BadImage`. Nothing is shrunk while decoding."""
        _, _, values, valid = self._draw(i)
        pixels = self.stretch.pixels(values, valid)
        return Decoded(pixels, width=pixels.shape[1], height=pixels.shape[0])

    def sample(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Window i in the scene's own values: `(C, h, w)`, and which are valid `(h, w)`; raises `BadImage`."""
        _, _, values, valid = self._first_good(i, STATISTICS)
        return values, valid

    def places(self, i: int, purpose: int = WINDOW) -> Iterator[tuple[Raster, Box]]:
        """Scene and box of each draw for window i, in turn; the first that is good enough is the window."""
        generator = generator_for(self.seed, 0, i, purpose)
        for _ in range(ATTEMPTS[1]):
            for_scene, for_x, for_y = generator.random(3).tolist()
            raster = self.scenes.rasters[
                min(int(np.searchsorted(self._until, for_scene, "right")), len(self._until) - 1)
            ]
            w, h = min(self.window, raster.width), min(self.window, raster.height)
            x, y = int(for_x * (raster.width - w + 1)), int(for_y * (raster.height - h + 1))
            yield raster, (x, y, x + w, y + h)

    def _draw(self, i: int) -> tuple[Raster, Box, np.ndarray, np.ndarray]:
        """Window i, whose name is remembered for a while."""
        try:
            raster, box, values, valid = self._first_good(i, WINDOW)
        except BadImage as error:
            self._remember(i, str(error.path))
            raise
        self._remember(i, f"{raster.path} [{box[0]}, {box[1]}, {box[2] - box[0]} x {box[3] - box[1]}]")
        return raster, box, values, valid

    def _remember(self, i: int, name: str) -> None:
        self._recent[i] = name
        self._recent.move_to_end(i)
        if len(self._recent) > NAMES_KEPT:
            self._recent.popitem(last=False)

    def _first_good(self, i: int, purpose: int) -> tuple[Raster, Box, np.ndarray, np.ndarray]:
        best: tuple[Raster, Box, np.ndarray, np.ndarray] | None = None
        share_of_best = 0.0
        for attempt, (raster, box) in enumerate(self.places(i, purpose)):
            if attempt >= ATTEMPTS[0] and share_of_best > 0:
                break
            values, valid = self._rasters.read(raster.path, self.scenes.bands[raster.path], box)
            if values.dtype != raster.dtype:
                raise BadImage(
                    raster.path, f"its values are {values.dtype}, but were {raster.dtype} when the run began"
                )
            if self.scenes.nodata is not None:
                hide_undeclared(values, valid, self.scenes.bands[raster.path], raster.declared, self.scenes.nodata)
            share = np.count_nonzero(valid) / valid.size  # an eighth of the time of valid.mean()
            if share >= 1 - self.max_nodata:
                return raster, box, values, valid
            if best is None or share > share_of_best:
                best, share_of_best = (raster, box, values, valid), share
        assert best is not None
        if not share_of_best:
            raise BadImage(best[0].path, f"{ATTEMPTS[1]} windows drawn, and none has a valid pixel")
        return best


def windows_per_epoch(scenes: Scenes, config: SceneConfig, window: int) -> int:
    """As many as asked for; else as many as would cover the scenes' area once."""
    return config.windows or max(2, round(scenes.area / window**2))
