"""`cmid evaluate segmentation`: a finished segmenter on labelled images other than those of its own run.

Classes are matched by name. Nothing is chosen and nothing is trained: each image is looked at once.
"""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cmid.commands.out_folder import checked_folder, make_folder, trained_on
from cmid.commands.pixel_scale import bring_to_scale, read_by_name
from cmid.commands.pixel_sources import ToScore, open_prepared_tiles, open_to_score
from cmid.commands.segment_images import HowToLook
from cmid.commands.segmentation_scores import WRITTEN, SegmentationResult, protocols_of, score
from cmid.commands.terminal import terminal
from cmid.config import EvaluateSegmentationConfig, as_plain
from cmid.data.pixel_labels import UNLABELLED, LabelledPixels, PixelSource
from cmid.data.pixel_subsets import PixelSubset
from cmid.errors import UsageError, did_you_mean
from cmid.evaluation.features import placed
from cmid.train import resolve_device, resolve_precision
from cmid.zoo.segmenter_files import SegmenterMetadata, load_segmenter

WHOLE_PX = 1 << 20
"""No tile is larger."""


class Renumbered(PixelSubset):
    """Images whose classes have the numbers that a model knows them by.

    Args:
        source: the images.
        classes: the model's.
        colours: of those.

    Raises:
        UsageError: a class that the model does not know.
    """

    def __init__(
        self, source: PixelSource, classes: tuple[str, ...], colours: tuple[tuple[int, int, int], ...]
    ) -> None:
        super().__init__(source, list(range(len(source))))
        strangers = [name for name in source.classes if name not in classes]
        if strangers:
            raise UsageError(
                f"the model does not know {', '.join(strangers[:5])}.{did_you_mean(strangers[0], classes)} It knows "
                f"{', '.join(classes)}: name the classes so (labels.palette), or leave their pixels out by "
                f"--labels.unlabelled {','.join(strangers)}"
            )
        self._classes, self._colours = classes, colours or source.colours
        self._becomes = np.full(256, UNLABELLED, np.uint8)
        for i, name in enumerate(source.classes):
            self._becomes[i] = classes.index(name)

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's."""
        return self._classes

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """The model's."""
        return self._colours

    def read(self, i: int) -> LabelledPixels:
        """Image i and its labels; raises `BadImage`."""
        image = super().read(i)
        return LabelledPixels(image.pixels, self._becomes[image.labels])


def evaluate_segmentation(config: EvaluateSegmentationConfig) -> SegmentationResult:
    """Score a segmenter, print the figures with their protocols, write them where `out` says.

    Raises:
        UsageError: no segmenter, data of other bands or types or with classes it does not know, or a folder that
            holds files.
        CmidError: no readable image, scores that are not finite, or a file that cannot be written.
    """
    path = Path(config.weights)
    model = path / "model.safetensors" if path.is_dir() else path
    out = checked_folder(config.out, model, WRITTEN, overwrite=config.overwrite)
    segmenter, about = load_segmenter(model)
    console = terminal()
    if config.over == "tiles":
        tiles, isprs = open_prepared_tiles(config.data, replace(config.labels, tile_px=WHOLE_PX))
        source, account, notes = ToScore(tiles, {"isprs": isprs | {"over": "tiles"}}, ())
    else:
        source, account, notes = open_to_score(config.data, config.labels, config.part, config.seed, console)
    trained, before = about.backbone.bands or (), source.names
    if not config.labels.bands and read_by_name((source,), trained) and source.names != before:
        notes = (*notes, f"bands are read by the model's names, {', '.join(trained)}")
    test, here = _checked(source, about, config.data), source.names
    for note in notes:
        console.print(f"note: {note}")
    if trained and [name.casefold() for name in trained] != [name.casefold() for name in here]:
        console.print(f"caution: the model was trained on the bands {', '.join(trained)}; these are {', '.join(here)}")
    learned = {_whole(name) for name in trained_on(model)}  # windows of a scene may be others now
    seen = sum(_whole(os.path.realpath(Path(config.data) / test.name(i))) in learned for i in range(len(test)))
    if seen:
        console.print(f"caution: {seen} of these images are among those the model was trained on")
    absent = [name for name in about.classes if name not in source.classes]
    if absent:
        console.print(f"note: the images have no labels of {', '.join(absent)}")
    device, b = resolve_device(config.accelerator), about.backbone
    assert b.mean is not None and b.std is not None
    look = HowToLook(
        b.mean, b.std, about.window, config.window or about.test_window, config.turns, config.batch_size,
        config.workers, resolve_precision(config.precision, device),
    )  # fmt: skip
    console.print(f"segmentation of {len(about.classes)} classes: {len(test)} images of {config.data}; {b.backbone}")
    if out is not None:
        make_folder(out, WRITTEN)
    facts = [("data", config.data), ("model", str(model)), ("backbone", b.backbone)]
    told = {"model": str(model), "data": config.data, "trained_on": seen, "classes_without_labels": absent}
    placed(segmenter, device)
    result = score(
        segmenter, test, look, protocols_of(account, about.classes, (), source.classes), console, folder=out,
        seed=config.seed, about=told, facts=facts, settings=as_plain(config), report=config.report and out is not None,
        resamples=config.bootstrap,
    )  # fmt: skip
    return replace(result, model=model)


def _whole(name: str) -> str:
    """An image's name without the window that was cut of it."""
    return re.sub(r"\[[0-9,]+\]$", "", name)


def _checked(source: PixelSource, about: SegmenterMetadata, data: str) -> PixelSource:
    b = about.backbone
    if about.dtypes and source.stored_dtype not in about.dtypes and (source.dtype != torch.uint8 or b.low):
        raise UsageError(
            f"the images of {data} hold {source.stored_dtype} values, and the model was trained on "
            f"{' or '.join(about.dtypes)}: bring them to the same type and units"
        )
    bring_to_scale((source,), b, data)
    return Renumbered(source, about.classes, about.colours)
