"""Whether two sources hold the same images and labels: by name and order, wherever they lie, without reading them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cmid.data.artificial_dates import ArtificialDates
from cmid.data.few_labels import LabelledSubset
from cmid.data.folder import FolderSource
from cmid.data.labelled import LabelledImages
from cmid.data.places import Places
from cmid.data.scenes import SceneSource
from cmid.data.shards import ShardSource
from cmid.data.sources import ImageSource, LabelledSource
from cmid.data.torchgeo_datasets import TorchgeoSide, TorchgeoSource


def fingerprint(source: ImageSource) -> str:
    """16 hexadecimal digits that another order, another name, or a scene of another size change.

    A folder may be moved: names are taken relative to it. Pixels are not looked at.
    """
    digest = hashlib.blake2b(digest_size=8)
    for words in _named(source):
        digest.update(os.fsencode(words) + b"\0")
    return digest.hexdigest()


def label_fingerprint(*sources: LabelledSource) -> str:
    """16 hexadecimal digits that another label of any image, or another name, number or order of classes change.

    The images' names are `fingerprint`'s to look at.
    """
    digest = hashlib.blake2b(digest_size=8)
    for source in sources:
        labels = source.labels.astype("<i8" if source.labels.ndim == 1 else "<f4")  # the same bytes on every machine
        for name in (*source.classes, str(labels.shape)):
            digest.update(os.fsencode(name) + b"\0")
        digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()


def _named(source: ImageSource) -> Iterator[str]:
    if isinstance(source, ArtificialDates):
        source = source.source
    yield f"{len(source)} of {source.bands}"
    if isinstance(source, SceneSource):  # a window's name is known only when it has been read
        yield str(source.window)
        for raster in source.scenes.rasters:
            yield f"{os.path.basename(raster.path)} {raster.width} {raster.height} {raster.dtype}"  # noqa: PTH119
        return
    called = source.original if isinstance(source, ShardSource) else source.name  # packed otherwise, the same images
    names = source.all_names() if isinstance(source, Places) else (called(i) for i in range(len(source)))
    root = _root(source)
    for name in names:
        yield name.removeprefix(root)


def _root(source: ImageSource) -> str:
    """What the names of a source begin with because of where it lies."""
    if isinstance(source, LabelledSubset | TorchgeoSide | Places):
        return _root(source.source)
    if isinstance(source, FolderSource):
        return str(source.path if source.path.is_dir() else source.path.parent)
    if isinstance(source, LabelledImages):
        return str(source.root)
    if isinstance(source, TorchgeoSource):
        return str(Path(source.named.arguments.get("root", "data")))
    return ""
