"""The images of a run with the labels that a supervised method learns from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cmid.commands.image_scale import check_readable, labelled_notes, put_on_scale
from cmid.commands.sources import Opened, open_labelled
from cmid.config import PretrainConfig
from cmid.data.few_labels import LabelledSubset
from cmid.data.folder import FolderSource
from cmid.data.labelled import LabelledFolder, root_of_classes
from cmid.data.listed import has_lists, is_table, open_to_learn
from cmid.data.sources import ImageSource, LabelledSource
from cmid.data.torchgeo_datasets import Named, TorchgeoSource, is_named, labelled_whole, parse_name
from cmid.errors import UsageError


def with_labels(opened: Opened) -> Opened:
    """The same data with labels, and the number of classes filled in.

    All labelled images are learned from, but for those that lists or a table keep for test; a data set with splits of
    its own gives the one that its name asks for, else torchgeo's default. Where the run's kNN looks at the same data,
    what it classifies is left out.

    Raises:
        UsageError: data without labels, or of one class, or of another number of classes than the settings say.
    """
    config = opened.config
    source, notes = _labelled(opened.source, config)
    images = check_labels(source, config.data)
    classes = len(source.classes)
    if config.supervised.classes not in (0, classes):
        raise UsageError(
            f"supervised.classes is {config.supervised.classes}, but {config.data} has {classes} classes: leave it "
            "out, or give the data of the run that goes on"
        )
    kind = "several an image" if source.labels.ndim == 2 else "one an image"
    notes = [f"labels of {classes} classes, {kind}: {images}", *notes]
    config = replace(config, supervised=replace(config.supervised, classes=classes))
    return replace(opened, source=source, config=config, notes=(*opened.notes, *notes))


def _labelled(source: ImageSource, config: PretrainConfig) -> tuple[LabelledSource, list[str]]:
    """The labelled images, and what is to be said of them."""
    if config.knn.data and _same_place(config.knn.data, config.data):
        train, test = open_labelled(config.data, config.knn.train_list, config.knn.test_list)
        check_readable((train, test), config.max_bad_share, config.data)
        put_on_scale((train, test), config.views, config.data)
        own = f"{len(test)} images that the run's kNN classifies are not learned from (knn.data)"
        labelled, notes = train, [*labelled_notes(train, config.data), own]
    elif isinstance(source, LabelledSource):
        labelled, notes = source, []
    elif isinstance(source, FolderSource) and (is_table(Path(config.data)) or has_lists(Path(config.data))):
        labelled, left = open_to_learn(Path(config.data))
        notes = [f"{left} images that are for test are not learned from"] if left else []
    elif isinstance(source, FolderSource):
        labelled, notes = LabelledFolder(config.data).all(), []
    elif isinstance(source, TorchgeoSource):
        whole = labelled_whole(source)
        check_readable((whole,), config.max_bad_share, config.data)
        labelled, notes = whole, list(whole.notes)
    else:
        what = "windows of scenes" if config.source == "scenes" else "shards"
        raise UsageError(
            f"supervised pre-training learns from labels, and {what} have none: give a folder with one folder per "
            "class, a table of labels, or one of torchgeo's labelled data sets"
        )
    if config.limit and config.limit < len(labelled):
        places = np.random.default_rng(config.seed).permutation(len(labelled))[: config.limit]
        labelled = LabelledSubset(labelled, np.sort(places))
    return labelled, notes


def _same_place(one: str, other: str) -> bool:
    if is_named(one) and is_named(other):
        first, second = (parse_name(each) for each in (one, other))
        return first.name == second.name and _rooted(first) == _rooted(second)
    if is_named(one) or is_named(other):
        return False
    places = [Path(each) for each in (one, other)]
    roots = [root_of_classes(place) if place.is_dir() else place for place in places]
    return roots[0].resolve() == roots[1].resolve()


def _rooted(named: Named) -> dict[str, Any]:
    """Its arguments, its folder by the one name that it has."""
    root = named.arguments.get("root")
    return named.arguments | ({"root": Path(root).resolve()} if isinstance(root, str) else {})


def check_labels(source: LabelledSource, data: str) -> str:
    """That there is something to learn: two classes or more, and a label for every image; the count of each in words.

    Raises:
        UsageError: there is not.
    """
    labels, classes = source.labels, source.classes
    if labels.ndim == 1 and ((labels < 0) | (labels >= len(classes))).any():
        lacking = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        raise UsageError(
            f"{len(lacking)} of {len(labels)} images of {data} have no label, {source.name(int(lacking[0]))} the "
            "first: label them or take them out"
        )
    counts = labels.sum(0).astype(np.int64) if labels.ndim == 2 else np.bincount(labels, minlength=len(classes))
    there = np.flatnonzero(counts)
    if len(there) < 2:
        found = f"all images of {data} are of one class, {classes[there[0]]}" if len(there) else f"{data} has no labels"
        raise UsageError(f"{found}: supervised pre-training tells classes apart and needs two or more")
    said = ", ".join(f"{classes[i]} {counts[i]:,}" for i in there[:8])
    return said + (f" and {len(there) - 8} more" if len(there) > 8 else "")
