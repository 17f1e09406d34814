"""Names to sources of images, unlabelled or labelled: the one place where the kinds of source are known."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cmid.commands.band_settings import check_bands, check_given, check_names, check_numbers, is_own
from cmid.commands.band_table import account_of, band_table, nodata_notes
from cmid.commands.image_scale import put_on_scale
from cmid.commands.scene_settings import refuse_idle_scenes
from cmid.commands.settings import stored
from cmid.config import PretrainConfig, ViewConfig
from cmid.data.few_labels import check_tells_apart
from cmid.data.folder import FolderSource
from cmid.data.labelled import LabelledFolder
from cmid.data.listed import has_lists, is_table, open_lists, open_table
from cmid.data.nodata import can_hold
from cmid.data.rasters import unlike_names
from cmid.data.scenes import Scenes, SceneSource, open_scenes, windows_per_epoch
from cmid.data.shards import ShardSource, is_sharded
from cmid.data.sources import ImageSource, LabelledSource, is_multi_label
from cmid.data.statistics import BandStatistics, Stretch, measure
from cmid.data.torchgeo_datasets import TorchgeoSource, is_named, labelled_sides, parse_name
from cmid.errors import UsageError

RGB_NAMES = ({"red", "green", "blue"}, {"r", "g", "b"})
BANDS_NOTE = (
    "these are not three 8-bit colours: jitter of hue and saturation, solarisation and grey are off; gain, offset, "
    "blur, noise and a dropped band stand in (views.colours)"
)
SENTINEL_2_RGB = ("b04", "b03", "b02")


@dataclass(frozen=True)
class Opened:
    """A source, and the settings with what the data decide filled in.

    Attributes:
        source: images by position.
        config: for scenes with bands, window, mean, std and stretch as they turned out.
        account: what the data are, plain values, for the run's folder; empty where there is nothing to say.
        notes: what the user should hear, one sentence each.
    """

    source: ImageSource
    config: PretrainConfig
    account: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_source(config: PretrainConfig, *, known: bool = False, console: Console | None = None) -> Opened:
    """The images that `config` names.

    Args:
        config: settings of a run.
        known: the settings are those of a run, and their numbers (mean, std, stretch) hold: nothing is measured.
        console: where progress and the table of the bands are shown; None keeps quiet.

    Raises:
        UsageError: nothing there, or data and settings that do not fit together.
    """
    if not known:  # what a run has written down is no wish that could be taken back
        refuse_idle_scenes(config)
    if is_named(config.data):
        opened = _torchgeo(config, known, console)
    elif config.source == "scenes":
        opened = _scenes(config, known, console)
    elif is_sharded(config.data):
        opened = _shards(config, known)
    else:
        opened = Opened(FolderSource(config.data, limit=config.limit, seed=config.seed), config)
    check_bands(opened.source, config.in_chans, opened.config.views)
    return opened


def reads_files(config: PretrainConfig) -> bool:
    """Whether each image is a file that is read as 8-bit RGB."""
    return config.source == "images" and not is_named(config.data) and not is_sharded(config.data)


def open_labelled(
    data: str, train_list: str | None = None, test_list: str | None = None, seed: int = 0
) -> tuple[LabelledSource, LabelledSource]:
    """Train and test of a labelled folder, of lists or a table of labels, or of one of torchgeo's data sets.

    Raises:
        UsageError: nothing there, or lists that do not fit.
    """
    listed = not is_named(data) and (is_table(Path(data)) or has_lists(Path(data)))
    if not is_named(data) and not listed:
        return LabelledFolder(data).split(train_list, test_list, seed=seed)
    if train_list or test_list:
        raise UsageError(
            f"train_list and test_list are for folders with a folder per class: {data} has a split of its own"
        )
    if listed:
        return open_table(Path(data), seed=seed) if is_table(Path(data)) else open_lists(Path(data))
    return labelled_sides(parse_name(data), seed=seed)


def open_one_class_each(
    data: str, train_list: str | None = None, test_list: str | None = None, seed: int = 0
) -> tuple[LabelledSource, LabelledSource]:
    """As `open_labelled`, for what tells one class an image from others; `UsageError` of several each, or one only."""
    sides = open_labelled(data, train_list, test_list, seed)
    if is_multi_label(sides[0]):
        raise UsageError(
            f"the images of {data} may be of several classes, and kNN and linear probes name one: fine-tune on them, "
            "as in `cmid finetune classification WEIGHTS DATA --frozen`"
        )
    check_tells_apart(sides[0], data)
    return sides


def open_labelled_whole(data: str, settings: PretrainConfig) -> LabelledSource:
    """All images of a labelled folder, or the test images of a data set, as the run with these settings sees them."""
    if not is_named(data) and not is_table(Path(data)) and not has_lists(Path(data)):
        whole = LabelledFolder(data).all()
        put_on_scale([whole], settings.views, data)
        return whole
    sides = open_one_class_each(data)
    put_on_scale(sides, settings.views, data)
    return sides[1]


def _torchgeo(config: PretrainConfig, known: bool, console: Console | None) -> Opened:
    if config.source != "images":
        raise UsageError(f"source is {config.source}, but {config.data} names a data set: leave --source out")
    if config.limit:
        raise UsageError("limit is for image files: torchgeo's data sets are used whole")
    source = TorchgeoSource(parse_name(config.data))
    if source.is_bytes:
        names = _names(source.names)
        if known:
            check_numbers(config.views, source.bands, names, config.data, deep=False)
        check_names(config.views, names)
        views = replace(config.views, bands=names or config.views.bands)
        return Opened(source, replace(config, in_chans=3, views=views))
    if config.views.squash:
        raise UsageError("parity mode (views.squash) is for 8-bit RGB images")
    statistics, views = None, config.views
    if not known:
        check_given(views, source.bands, source.names, deep=True)
        with progress(console, "measuring bands") as tick:
            count = min(len(source), config.scenes.statistics)
            statistics = measure(source, source.names, images=count, tick=tick, **_how(config))
        views = _measured_views(views, source.names, statistics)
    else:
        check_numbers(views, source.bands, source.names, config.data, deep=True)
    config = replace(config, in_chans=source.bands, views=views)
    source.stretch = Stretch(views.low, views.high, views.mean)
    if console and statistics:
        console.print(band_table(statistics))
    notes = (BANDS_NOTE,) if views.colours == "bands" else ()
    return Opened(source, config, {"bands": asdict(statistics)} if statistics else {}, notes)


def _how(config: PretrainConfig) -> dict[str, Any]:
    """How `measure` reads, and the scale of what it finds: mean and deviation are of the stretch that is used."""
    views, workers = config.views, config.train.workers
    return {
        "seed": config.seed, "low": views.low, "high": views.high, "workers": workers,
        "read_timeout_s": config.read_timeout_s,
    }  # fmt: skip


def _shards(config: PretrainConfig, known: bool) -> Opened:
    if config.limit:
        raise UsageError("limit is for image files: shards are used whole")
    source = ShardSource(config.data)
    bad = sum(s.images for s in source.manifest.shards if s.file in source.torn)
    notes = [f"shard {name} is left out with all its images: {reason}" for name, reason in source.torn.items()]
    if bad > config.max_bad_share * source.manifest.images:
        raise UsageError(
            f"{len(source.torn)} of {len(source.manifest.shards)} shards of {config.data} are torn, with {bad} of "
            f"{source.manifest.images} images, where at most {config.max_bad_share:.0%} may be bad: {notes[0]}. Copy "
            "them again, or raise max_bad_share"
        )
    account = {"torn": source.torn} if source.torn else {}
    if source.manifest.stored == "files" or known:
        if source.manifest.stored != "files":
            check_numbers(config.views, source.bands, (), config.data, deep=source.dtype != torch.uint8)
        return Opened(source, config, account, tuple(notes))
    if config.views.squash:
        raise UsageError("parity mode (views.squash) is for image files")
    given, deep = config.views, source.dtype != torch.uint8
    stored_as, _ = stored(ViewConfig, source.manifest.numbers, config.data)  # checked: the manifest may be anybody's
    if (given.low or given.high) and (given.low, given.high) != (stored_as.low, stored_as.high):
        raise UsageError(f"the pixels of {config.data} are stored on their scale: leave views.low and views.high out")
    check_numbers(stored_as, source.bands, (), config.data, deep=deep)
    check_given(given, source.bands, stored_as.bands, deep=deep)
    own = is_own(given, "mean")
    views = replace(
        given,
        mean=given.mean if own else stored_as.mean,
        std=given.std if own else stored_as.std,
        low=stored_as.low,
        high=stored_as.high,
        bands=stored_as.bands or given.bands,
        colours=stored_as.colours if given.colours == "auto" else given.colours,
    )
    notes += [BANDS_NOTE] if views.colours == "bands" else []
    return Opened(source, replace(config, in_chans=source.bands, views=views), account, tuple(notes))


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names worth keeping: numbers say nothing."""
    return () if all(name.isdigit() for name in names) else names


def _scenes(config: PretrainConfig, known: bool, console: Console | None) -> Opened:
    if config.limit:
        raise UsageError("limit is for images: with scenes, scenes.windows says how many windows make an epoch")
    if config.views.squash:
        raise UsageError("views.squash (and parity mode, which needs it) is for images: windows of scenes are square")
    s = config.scenes
    with progress(console, "opening scenes") as tick:
        scenes = open_scenes(config.data, s, max_bad_share=config.max_bad_share, tick=tick)
    if config.in_chans not in (PretrainConfig().in_chans, len(scenes.names)):
        raise UsageError(
            f"in_chans is {config.in_chans}, but {len(scenes.names)} bands are read ({', '.join(scenes.names)}): leave "
            "in_chans out, or choose bands with --scenes.bands"
        )
    window = s.window_px or round(1.5 * config.views.size)
    count = windows_per_epoch(scenes, s, window)
    if count < config.batch_size:
        raise UsageError(
            f"an epoch of {count} windows of {window} px is smaller than a batch of {config.batch_size}: raise "
            "--scenes.windows"
        )

    def source_of(stretch: Stretch) -> SceneSource:
        return SceneSource(
            scenes, window=window, windows=count, seed=config.seed, stretch=stretch, max_nodata=s.max_nodata
        )

    statistics = None
    views = config.views
    if not known:
        check_given(views, len(scenes.names), scenes.names, deep=scenes.dtype != np.uint8)
        with progress(console, "measuring bands") as tick:
            unmeasured = source_of(Stretch((), (), (0.0,) * len(scenes.names)))
            statistics = measure(unmeasured, scenes.names, images=s.statistics, tick=tick, **_how(config))
        views = _measured_views(views, scenes.names, statistics)
    else:
        check_numbers(views, len(scenes.names), scenes.names, config.data, deep=scenes.dtype != np.uint8)
    config = replace(
        config,
        in_chans=len(scenes.names),
        views=views,
        scenes=replace(s, windows=count, window_px=window),
    )
    account = account_of(scenes, statistics) if statistics else {}
    if console and statistics:
        console.print(band_table(statistics))
    source = source_of(Stretch(views.low, views.high, views.mean))
    return Opened(source, config, account, tuple(_notes(scenes, config, statistics)))


def _measured_views(views: ViewConfig, names: tuple[str, ...], measured: BandStatistics) -> ViewConfig:
    """Mean and deviation as measured, unless the user gave his own; the stretch where values are no bytes."""
    own, deep = is_own(views, "mean"), measured.dtype != "uint8"
    colours = views.colours if views.colours != "auto" else "bands" if deep or not _is_rgb(names) else "rgb"
    return replace(
        views,
        mean=views.mean if own else measured.mean,
        std=views.std if own else measured.std,
        low=views.low or (measured.low if deep else ()),
        high=views.high or (measured.high if deep else ()),
        bands=names,
        colours=colours,
    )


def _is_rgb(names: tuple[str, ...]) -> bool:
    """Whether three bands are red, green and blue, by name; three without names are taken for it."""
    return len(names) == 3 and (all(name.isdigit() for name in names) or {n.casefold() for n in names} in RGB_NAMES)


def shown_bands(names: tuple[str, ...]) -> tuple[int, ...]:
    """Positions of the three bands to draw as red, green and blue: by name, else the first three, else the first."""
    folded = [name.casefold() for name in names]
    for triple in (("red", "green", "blue"), ("r", "g", "b"), SENTINEL_2_RGB):
        if all(name in folded for name in triple):
            return tuple(folded.index(name) for name in triple)
    return (0, 1, 2) if len(names) >= 3 or not names else (0,)


def _notes(scenes: Scenes, config: PretrainConfig, statistics: BandStatistics | None) -> Iterator[str]:
    if scenes.bad:
        first = next(iter(scenes.bad.items()))
        yield f"{len(scenes.bad)} scenes cannot be read and are left out, first {first[0]}: {first[1]}"
    if config.views.colours == "bands":
        yield BANDS_NOTE
    if said := unlike_names(scenes.rasters, scenes.bands, config.scenes.bands):
        yield said
    marked = [r for r in scenes.rasters if r.alpha and not set(r.alpha) & set(scenes.bands[r.path])]
    if marked:
        whole = ",".join(str(band + 1) for band in range(marked[0].bands))
        yield (
            f"band {marked[0].alpha[0]} is marked as transparency in {len(marked)} scenes and hides pixels; if it was "
            f"measured (near infrared often is), read it with --scenes.bands {whole}"
        )
    small = [r for r in scenes.rasters if min(r.width, r.height) < config.scenes.window_px]
    if small:
        yield f"{len(small)} of {len(scenes.rasters)} scenes are smaller than a window of {config.scenes.window_px} px"
    crs = {raster.crs or "none" for raster in scenes.rasters}
    if len(crs) > 1:
        yield f"the scenes are in {len(crs)} coordinate systems; windows are cut in each scene's own pixels"
    types = sorted({raster.dtype for raster in scenes.rasters})
    if scenes.nodata is not None and not any(can_hold(dtype, scenes.nodata) for dtype in types):
        yield f"the scenes hold {' and '.join(types)}, never {scenes.nodata:.15g}: --scenes.nodata hides nothing"
    if statistics and statistics.nodata > 0.5:
        yield f"{statistics.nodata:.0%} of the pixels looked at are nodata"
    if statistics:
        yield from nodata_notes(scenes, statistics)


@contextmanager
def progress(console: Console | None, words: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar with the time left, moved by what it gives: how many of how many are done; None, and no bar, unseen."""
    if console is None:
        yield None
        return
    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
