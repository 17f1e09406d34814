"""torchgeo's data sets by name: `torchgeo:EuroSAT?root=DIR&split=train&bands=B04,B03,B02`.

After the question mark stand the arguments of torchgeo's class, each read as YAML; a list may be written with commas.
Nothing is downloaded unless `download=true` stands there. What the class gives as `image` (or under `key=`) is the
image, `label` its class. Data sets of large scenes (torchgeo's GeoDataset) have no images to count: their files are
read with `--source scenes`.
"""

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
import yaml
from torch import Tensor

from cmid.data.decode import BadImage, Decoded, Reduction
from cmid.data.labelled import draw_share
from cmid.data.reading import note_file
from cmid.data.statistics import Stretch, spread
from cmid.data.torchgeo_classes import class_names, of_one_list
from cmid.errors import CmidError, UsageError, did_you_mean

PREFIX = "torchgeo:"
LOOKED_AT = 8
"""Samples that decide how many bands a data set has, and whether they are 8-bit colours."""
TRIED = 4
"""Samples one after another of which the first that can be read is looked at."""


@dataclass(frozen=True)
class Named:
    """A data set as the user named it.

    Attributes:
        name: of torchgeo's class.
        arguments: of its constructor.
        key: of the sample that is the image.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    key: str = "image"

    def of_split(self, split: str) -> "Named":
        """The same data set, another split."""
        return replace(self, arguments={**self.arguments, "split": split})


def is_named(data: str) -> bool:
    """Whether `data` names one of torchgeo's data sets."""
    return data.startswith(PREFIX)


def parse_name(data: str) -> Named:
    """`torchgeo:NAME?argument=value&...` taken apart; `UsageError` where a value is no YAML."""
    name, _, query = data.removeprefix(PREFIX).partition("?")
    arguments: dict[str, Any] = {}
    for argument, text in parse_qsl(query, keep_blank_values=True):
        try:
            value = [yaml.safe_load(each) for each in text.split(",")] if "," in text else yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f"{data}: the value of {argument} cannot be read: {text!r}") from None
        arguments[argument] = tuple(value) if isinstance(value, list) else value
    key = str(arguments.pop("key", "image"))
    return Named(name, arguments, key)


def build_dataset(named: Named) -> Any:
    """Torchgeo's object.

    Raises:
        UsageError: no such data set (with the nearest), one of scenes, wrong arguments, or its files are not there.
    """
    import torchgeo.datasets as known

    kinds = {n: k for n in known.__all__ if inspect.isclass(k := getattr(known, n))}
    images = {n for n, kind in kinds.items() if issubclass(kind, known.NonGeoDataset)} - {
        "NonGeoDataset",
        "NonGeoClassificationDataset",
    }
    if named.name in kinds and issubclass(kinds[named.name], known.GeoDataset):
        raise UsageError(
            f"torchgeo's {named.name} is one of large scenes: name the folder of its files and read windows of them, "
            "with --source scenes"
        )
    if named.name not in images:
        raise UsageError(f"torchgeo has no data set of images called {named.name!r}.{did_you_mean(named.name, images)}")
    kind = kinds[named.name]
    if named.name == "SEN12MS":
        from cmid.data.sen12ms import SEN12MSScenes as kind
    elif named.name == "SeasonalContrastS2":
        from cmid.data.patch_folders import SeasonalContrastPatches as kind
    elif named.name == "SSL4EOS12":
        from cmid.data.patch_folders import SSL4EOS12Patches as kind
    taken = [name for name in inspect.signature(kind).parameters if name != "transforms"]
    for name in named.arguments:
        if name not in taken:
            raise UsageError(
                f"torchgeo's {named.name} takes no argument {name!r}.{did_you_mean(name, taken)} It takes "
                f"{', '.join(taken)}."
            )
    try:
        return kind(**named.arguments)
    except known.DatasetNotFoundError:
        root = named.arguments.get("root", "data")
        raise UsageError(
            f"torchgeo finds no files of {named.name} in root={root!r}: name where they are, as in "
            f"{PREFIX}{named.name}?root=DIR, or let torchgeo fetch them with &download=true"
        ) from None
    except (AssertionError, ValueError, TypeError, KeyError) as error:
        words = " ".join(str(error).split()) or "an argument is not allowed"
        raise UsageError(f"torchgeo's {named.name} refuses {named.arguments}: {words}") from error
    except ImportError as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"torchgeo's {named.name} needs a package that is not installed: {words}") from error
    except (OSError, RuntimeError) as error:
        raise CmidError(f"torchgeo's {named.name} cannot be opened: {' '.join(str(error).split())[:200]}") from error


def takes_split(named: Named) -> bool:
    """Whether the data set has splits of its own."""
    import torchgeo.datasets as known

    kind = getattr(known, named.name, None)
    return kind is not None and "split" in inspect.signature(kind).parameters


class TorchgeoSource:
    """Images of one of torchgeo's data sets, by position: in the order of their files' names, where it lists files.

    torchgeo finds some sets' files in whatever order the disk has them, which differs from copy to copy.

    Args:
        named: which, and its arguments.
        stretch: how values become pixels, where they are not 8-bit colours.

    Attributes:
        dataset: torchgeo's object.
        names: what the bands are called, as far as the data set says; else their numbers.

    Raises:
        UsageError: as `build_dataset`; or its samples hold no image of bands, height and width.
        CmidError: none of those looked at can be read.
    """

    fresh = False

    def __init__(self, named: Named, stretch: Stretch | None = None) -> None:
        self.named, self.stretch = named, stretch
        self.dataset = build_dataset(named)
        if len(self.dataset) < 2:
            raise UsageError(f"torchgeo's {named.name} with {named.arguments} has {len(self)} images, not 2 or more")
        self._files = _image_files(self.dataset)
        self._order = np.array(sorted(range(len(self)), key=self._files.__getitem__)) if self._files else None
        samples = self._looked_at()
        self.bands = Counter(len(each) for each in samples).most_common(1)[0][0]
        self.is_bytes = self.bands == 3 and all(_as_bytes(each) is not None for each in samples if len(each) == 3)
        self.dtype = torch.uint8 if self.is_bytes else torch.float32
        own: Any = getattr(self.dataset, "bands", None)
        told = isinstance(own, Sequence) and not isinstance(own, str) and len(own) == self.bands
        self.names = tuple(str(b) for b in own) if told else tuple(str(i + 1) for i in range(self.bands))

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, i: int) -> str:
        """The file, where the data set says it, else its name and the image's number."""
        images, file_of = getattr(self.dataset, "imgs", None), getattr(self.dataset, "file_of", None)
        if file_of is not None:
            return str(file_of(i))
        if self._files:
            return str(Path(self._files[self._place(i)]))
        return str(images[i][0]) if images else f"{PREFIX}{self.named.name}[{i}]"

    def _place(self, i: int) -> int:
        """Which of torchgeo's samples image i is."""
        return i if self._order is None else int(self._order[i])

    def patches(self) -> list[tuple[str, str]]:
        """Place and date of every image; empty where the data set does not say them."""
        patch = getattr(self.dataset, "patch", None)
        return [patch(i) for i in range(len(self))] if patch else []

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Image i, `(H, W, C)` uint8 or stretched float32; raises `BadImage`."""
        values = self._as_others(i)
        stretch = self.stretch or Stretch((), (), (0.0,) * self.bands)
        pixels = stretch.pixels(values, np.isfinite(values).all(0))
        return Decoded(pixels, width=pixels.shape[1], height=pixels.shape[0])

    def sample(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image i (counted round and round, spread over the set) in its own values `(C, h, w)`, and which are valid."""
        return self.sample_at(spread(i, len(self)))

    def sample_at(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """The image at `place` in its own values `(C, h, w)`, and which are valid; raises `BadImage`."""
        note_file(self.name(place))
        values = self._as_others(place)
        return values, np.isfinite(values).all(0)

    def label(self, i: int) -> int | np.ndarray:
        """The class of image i, or `(K,)` float32 of 0 and 1 where it may be of several.

        Raises:
            UsageError: it has none.
            BadImage: it cannot be read.
        """
        targets = getattr(self.dataset, "targets", None)
        alone = self.named.name.startswith("BigEarthNet")
        label = self.item(i, alone=alone).get("label") if targets is None else targets[self._place(i)]
        found = None if label is None else np.asarray(label)
        if found is not None and found.ndim == 1 and found.size > 1 and np.isin(found, (0, 1)).all():
            return found.astype(np.float32)
        if found is None or found.size != 1 or found.dtype.kind not in "iub":
            raise UsageError(f"torchgeo's {self.named.name} gives an image no class; scoring needs one, or several")
        if (number := int(found.item())) < 0:  # of whatever shape: MillionAID gives a list of one class
            raise UsageError(f"torchgeo's {self.named.name} gives no label to {self.name(i)}, the first of such images")
        return number

    def all_labels(self) -> np.ndarray:
        """`(N,)` int64 of all images, or `(N, K)` float32 where an image may be of several classes."""
        targets = getattr(self.dataset, "targets", None)
        if isinstance(targets, np.ndarray):
            found = targets if self._order is None else targets[self._order]
        else:
            found = np.stack([self.label(i) for i in range(len(self))])
        return found.astype(np.float32 if found.ndim == 2 else np.int64)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, where the data set has them."""
        sets = getattr(self.dataset, "class_sets", None)  # BigEarthNet has one of 19 and one of 43, its V2 one of 19
        own = sets.get(getattr(self.dataset, "num_classes", None)) if isinstance(sets, dict) else None
        own = own or getattr(self.dataset, "class_set", None)
        return tuple(str(name) for name in own or getattr(self.dataset, "classes", ()) or ())

    def item(self, i: int, *, alone: bool = False) -> dict[str, Any]:
        """Sample i, raises `BadImage`; its label `alone` where torchgeo can read it without the image."""
        try:
            place = self._place(i)
            item: dict[str, Any] = {"label": self.dataset._load_target(place)} if alone else self.dataset[place]
        except Exception as error:  # readers raise anything at all on damaged files
            raise BadImage(self.name(i), " ".join(str(error).split())[:200] or type(error).__name__) from error
        return item

    def _looked_at(self) -> list[np.ndarray]:
        """Images from all over the set; for one that cannot be read, the next one that can."""
        found, failed = list[np.ndarray](), dict[int, CmidError]()
        for first in np.linspace(0, len(self) - 1, min(LOOKED_AT, len(self))).astype(int).tolist():
            for place in (i % len(self) for i in range(first, first + TRIED) if i % len(self) not in failed):
                try:
                    found.append(self._values(place))
                    break
                except (BadImage, UsageError) as error:
                    failed[place] = error
        if found:
            return found
        reasons = list(failed.values())
        if isinstance(reasons[0], UsageError):  # what is asked for is not there, and that says what is
            raise reasons[0]
        raise CmidError(
            f"none of {len(failed)} images from all over torchgeo's {self.named.name} can be read, first "
            f"{'; '.join(map(str, reasons[:3]))}. Look whether the files in its root are whole, or fetch them again"
        )

    def _as_others(self, i: int) -> np.ndarray:
        """Image i in its own values `(C, h, w)`, uint8 of 8-bit colours; `BadImage` where those looked at differ."""
        try:
            values = self._values(i)
        except UsageError as error:  # it is this image's fault: the others hold what is asked for
            raise BadImage(self.name(i), str(error)) from None
        if len(values) != self.bands:
            raise BadImage(
                self.name(i), f"expected {self.bands} bands, as images looked at first have; found {len(values)}"
            )
        pixels = _as_bytes(values) if self.is_bytes else values
        if pixels is None:
            found = f"{values.min():g} to {values.max():g}"
            raise BadImage(
                self.name(i), f"expected whole numbers from 0 to 255, as those looked at first; found {found}"
            )
        return pixels

    def _values(self, i: int) -> np.ndarray:
        item = self.item(i)
        image = item.get(self.named.key)
        if not isinstance(image, Tensor) or image.ndim != 3:
            found = f"a shape of {tuple(image.shape)}" if isinstance(image, Tensor) else "nothing"
            raise UsageError(
                f"torchgeo's {self.named.name} gives {found} as {self.named.key!r}, where bands, height and width are "
                f"needed; its samples hold {', '.join(map(str, item))}: choose one with &key=NAME"
            )
        return image.numpy().astype(np.float32, copy=False)


def _as_bytes(values: np.ndarray) -> np.ndarray | None:
    """`values` as uint8; None where they are not all whole numbers from 0 to 255."""
    with np.errstate(invalid="ignore"):  # what no byte holds becomes some other number
        found = values.astype(np.uint8)
    return found if np.array_equal(found, values) else None


def _image_files(dataset: Any) -> list[str]:
    """The file of each sample, where torchgeo's object lists them; empty where it does not, or orders them itself."""
    listed = getattr(dataset, "files", None)
    if not isinstance(listed, list | tuple) or len(listed) != len(dataset) or hasattr(dataset, "imgs"):
        return []
    files = [each.get("image") if isinstance(each, dict) else each for each in listed]
    return [str(file) for file in files] if all(isinstance(file, str | Path) for file in files) else []


class TorchgeoSide:
    """Some labelled images of a torchgeo data set: what evaluation calls train or test.

    Attributes:
        labels: `(N,)` int64, or `(N, K)` float32 of 0 and 1 where an image may be of several.
        classes: names of all classes.
    """

    fresh = False

    def __init__(
        self, source: TorchgeoSource, places: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
    ) -> None:
        self.source, self.places, self.labels, self.classes = source, places, labels, classes
        self.bands, self.dtype = source.bands, source.dtype

    def __len__(self) -> int:
        return len(self.places)

    def name(self, i: int) -> str:
        """What image i is called."""
        return self.source.name(int(self.places[i]))

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Image i; raises `BadImage`."""
        return self.source.decode(int(self.places[i]), reduction)

    def sample(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """As `TorchgeoSource.sample`, of these images alone."""
        return self.source.sample_at(int(self.places[spread(i, len(self))]))


def labelled_whole(source: TorchgeoSource) -> TorchgeoSide:
    """All images of a data set, or of the split it was opened with, and their labels.

    Raises:
        UsageError: images without labels.
    """
    labels = source.all_labels()
    classes = class_names(source.classes, [labels])
    return TorchgeoSide(source, np.arange(len(source)), labels, classes)


def labelled_sides(named: Named, *, seed: int, stretch: Stretch | None = None) -> tuple[TorchgeoSide, TorchgeoSide]:
    """Train and test of a data set: its own splits of these names, else a seeded 80 % of each class and the rest.

    Splits that number their classes each by itself are matched by name; a class that only test has comes last.

    Raises:
        UsageError: an argument that fixes the split where both are needed, images without one class each, or splits
            whose classes cannot be matched.
    """
    if takes_split(named):
        if "split" in named.arguments:
            raise UsageError(f"leave split out of {PREFIX}{named.name}: scoring reads its train and its test split")
        sources = [TorchgeoSource(named.of_split(split), stretch) for split in ("train", "test")]
        found = [source.all_labels() for source in sources]
        classes, found = of_one_list(named.name, [source.classes for source in sources], found)
        train, test = (
            TorchgeoSide(source, np.arange(len(source)), labels, classes)
            for source, labels in zip(sources, found, strict=True)
        )
        return train, test
    source = TorchgeoSource(named, stretch)
    labels = source.all_labels()
    classes = class_names(source.classes, [labels])
    places = np.sort(draw_share(labels, classes, share=0.8, seed=seed))
    rest = np.setdiff1d(np.arange(len(source)), places)
    return TorchgeoSide(source, places, labels[places], classes), TorchgeoSide(source, rest, labels[rest], classes)


def labelled_to_score(named: Named) -> TorchgeoSide:
    """The split that is named, or the test split, or all images of a data set without splits.

    Raises:
        UsageError: images without a class.
    """
    if takes_split(named) and "split" not in named.arguments:
        named = named.of_split("test")
    return labelled_whole(TorchgeoSource(named))
