"""torchgeo's data sets by name: `torchgeo:EuroSAT?root=DIR&split=train&bands=B04,B03,B02`.

After the question mark stand the arguments of torchgeo's class, each read as YAML; a list may be written with commas.
A plus is a plus, as in `root=/data/c++`; what an address cannot hold may be written as `%26`.
Nothing is downloaded unless `download=true` stands there. What the class gives as `image` (or under `key=`) is the
image, `label` its class. Data sets of large scenes (torchgeo's GeoDataset) have no images to count: their files are
read with `--source scenes`.
"""

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
import yaml
from torch import Tensor

from cmid.data import torchgeo_classes
from cmid.data.decode import BadImage, Decoded, Reduction
from cmid.data.labelled import draw_share
from cmid.data.reading import note_file
from cmid.data.statistics import Stretch, spread
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
    for argument, text in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):  # + would become a blank
        try:
            value = [_value(each) for each in text.split(",")] if "," in text else _value(text)
        except (yaml.YAMLError, RecursionError):
            raise UsageError(f"{data}: the value of {argument} cannot be read: {text!r}") from None
        arguments[argument] = tuple(value) if isinstance(value, list) else value
    key = str(arguments.pop("key", "image"))
    return Named(name, arguments, key)


def _value(text: str) -> Any:
    """What `text` says as YAML; a date, even one that no calendar has, is text: folders are called so."""
    try:
        value = yaml.safe_load(text)
    except ValueError:
        return text
    return text if isinstance(value, date) else value


def build_dataset(named: Named) -> Any:
    """Torchgeo's object.

    Raises:
        UsageError: no such data set (with the nearest), one of scenes, wrong arguments, or its files are not there.
    """
    import torchgeo.datasets as known

    kind = torchgeo_classes.class_called(named.name)
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
        self._files = torchgeo_classes.image_files(self.dataset)
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
        label = self._label(i)
        if isinstance(label, int) and label < 0:
            raise UsageError(f"torchgeo's {self.named.name} gives no label to {self.name(i)}, the first of such images")
        return label

    def all_labels(self, bad: dict[int, str] | None = None) -> np.ndarray:
        """`(N,)` int64 of all images, or `(N, K)` float32 where one may be of several; -1 of those without a class.

        Args:
            bad: gains position and reason of each image that cannot be read, whose label is -1, too.

        Raises:
            UsageError: the data set has no classes.
            BadImage: an image cannot be read, without `bad`.
        """
        targets = getattr(self.dataset, "targets", None)
        if isinstance(targets, np.ndarray):
            found = targets if self._order is None else targets[self._order]
        else:
            found = torchgeo_classes.stacked([self._label(i, bad) for i in range(len(self))])
        return found.astype(np.float32 if found.ndim == 2 else np.int64)

    def _label(self, i: int, bad: dict[int, str] | None = None) -> int | np.ndarray:
        """As `label`, but -1 where the data set says so; and where it cannot be read, which is noted in `bad`."""
        targets = getattr(self.dataset, "targets", None)
        if targets is not None:
            return torchgeo_classes.as_label(targets[self._place(i)], self.named.name)
        try:
            item = self.item(i, alone=self.named.name.startswith("BigEarthNet"))
        except BadImage as error:
            if bad is None:
                raise
            bad[i] = error.reason
            return -1
        return torchgeo_classes.as_label(item.get("label"), self.named.name)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, where the data set has them."""
        return torchgeo_classes.classes_of(self.dataset)

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


class TorchgeoSide:
    """Some labelled images of a torchgeo data set: what evaluation calls train or test.

    Attributes:
        labels: `(N,)` int64, or `(N, K)` float32 of 0 and 1 where an image may be of several.
        classes: names of all classes.
        left_out: name and reason of each image that is on no side: it cannot be read or has no class.
    """

    fresh = False

    def __init__(
        self, source: TorchgeoSource, places: np.ndarray, labels: np.ndarray, classes: tuple[str, ...],
        left_out: Sequence[tuple[str, str]] = (),
    ) -> None:  # fmt: skip
        self.source, self.places, self.labels, self.classes = source, places, labels, classes
        self.left_out = tuple(left_out)
        self.bands, self.dtype = source.bands, source.dtype

    def __len__(self) -> int:
        return len(self.places)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should hear of images that are left out."""
        return torchgeo_classes.left_out_notes(self.left_out)

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
    """All images of a data set, or of the split it was opened with, and their labels; those without are `left_out`.

    Raises:
        UsageError: no image has a label that can be read.
    """
    places, labels, left_out = torchgeo_classes.with_labels(source)
    return TorchgeoSide(source, places, labels, torchgeo_classes.class_names(source.classes, [labels]), left_out)


def labelled_sides(named: Named, *, seed: int, stretch: Stretch | None = None) -> tuple[TorchgeoSide, TorchgeoSide]:
    """Train and test of a data set: its own splits of these names, else a seeded 80 % of each class and the rest.

    Splits that number their classes each by itself are matched by name; a class that only test has comes last. Images
    that cannot be labelled are on neither side, and are the `left_out` of both.

    Raises:
        UsageError: an argument that fixes the split where both are needed, a split without any label that can be read,
            or splits whose classes cannot be matched.
    """
    if takes_split(named):
        if "split" in named.arguments:
            raise UsageError(f"leave split out of {PREFIX}{named.name}: scoring reads its train and its test split")
        sources = [TorchgeoSource(named.of_split(split), stretch) for split in ("train", "test")]
        places, own, missing = zip(*map(torchgeo_classes.with_labels, sources), strict=True)
        classes, found = torchgeo_classes.of_one_list(named.name, [source.classes for source in sources], list(own))
        left_out = [each for part in missing for each in part]
        sides = zip(sources, places, found, strict=True)
        pair = [TorchgeoSide(source, at, labels, classes, left_out) for source, at, labels in sides]
        return pair[0], pair[1]
    whole = labelled_whole(TorchgeoSource(named, stretch))
    taken = np.sort(draw_share(whole.labels, whole.classes, share=0.8, seed=seed))
    chosen = taken, np.setdiff1d(np.arange(len(whole)), taken)
    pair = [TorchgeoSide(whole.source, whole.places[i], whole.labels[i], whole.classes, whole.left_out) for i in chosen]
    return pair[0], pair[1]


def labelled_to_score(named: Named) -> TorchgeoSide:
    """The split that is named, or the test split, or all images of a data set without splits.

    Raises:
        UsageError: as `labelled_whole`.
    """
    if takes_split(named) and "split" not in named.arguments:
        named = named.of_split("test")
    return labelled_whole(TorchgeoSource(named))
