"""torchgeo's data sets with a class for each pixel: `torchgeo:LandCoverAI?root=DIR`.

As `torchgeo_datasets`, and `&mask=NAME` names the part of a sample that holds the classes where it is not `mask`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmid.data.decode import BadImage
from cmid.data.palettes import MOST_CLASSES, UNKNOWN, Colour, Entry, Palette, infer_palette
from cmid.data.pixel_labels import UNLABELLED, LabelledPixels
from cmid.data.statistics import Stretch, spread
from cmid.data.torchgeo_datasets import PREFIX, TRIED, Named, TorchgeoSource, takes_split
from cmid.errors import CmidError, UsageError

LOVEDA = "LoveDA"
NOT_OUR_ORDER = ("Potsdam2D", "Vaihingen2D")
TEST_SPLITS = ("test", "val", "validation")


class TorchgeoPixels:
    """Images and their classes of one of torchgeo's data sets, by position.

    Args:
        source: the images.
        mask: of a sample, what holds the classes: `(H, W)` or `(1, H, W)` whole numbers.
        palette: which number is which class.
        places: which images; None: all.
        ignore_unknown: pixels with another number have no label; else an image with one is bad.
    """

    fresh = False

    def __init__(
        self,
        source: TorchgeoSource,
        mask: str,
        palette: Palette,
        places: Sequence[int] | None = None,
        *,
        ignore_unknown: bool = False,
    ) -> None:
        self.source, self.mask, self.palette, self._ignore_unknown = source, mask, palette, ignore_unknown
        self.places = tuple(range(len(source)) if places is None else places)
        self.bands, self.dtype, self.names = source.bands, source.dtype, source.names
        self.stored_dtype = "uint8" if source.is_bytes else "float32"
        self.classes, self.colours = palette.classes, palette.colours

    @property
    def stretch(self) -> Stretch | None:
        """How values that are no 8-bit colours become pixels; of all sides of the data set."""
        return self.source.stretch

    @stretch.setter
    def stretch(self, stretch: Stretch | None) -> None:
        self.source.stretch = stretch

    def __len__(self) -> int:
        return len(self.places)

    def name(self, i: int) -> str:
        """The data set's name and the image's number, or its file."""
        return self.source.name(self.places[i])

    def group(self, i: int) -> str:
        """Its name: torchgeo does not tell what an image was cut from."""
        return self.name(i)

    def place(self, i: int) -> tuple[int, int]:
        """0, 0."""
        return 0, 0

    def read(self, i: int) -> LabelledPixels:
        """Image i and its labels; raises `BadImage`."""
        pixels = self.source.decode(self.places[i]).pixels
        try:
            codes = mask_of(self.source, self.places[i], self.mask)
        except UsageError as error:  # it is this sample's fault: others hold what is asked for
            raise BadImage(self.name(i), str(error)) from None
        if codes.shape != pixels.shape[:2]:
            raise BadImage(self.name(i), f"image {pixels.shape[1::-1]} and mask {codes.shape[::-1]} are of two sizes")
        labels = self.palette.encode(codes, "value")
        unknown = labels == UNKNOWN
        if unknown.any():
            if not self._ignore_unknown:
                found = ", ".join(map(str, np.unique(codes[unknown])[:3]))
                raise BadImage(self.name(i), f"{int(unknown.sum())} pixels of its mask are of no class: {found}")
            labels[unknown] = UNLABELLED
        return LabelledPixels(pixels, labels)

    def sample(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image i (counted round and round, spread over the set) in its own values `(C, h, w)`, and which are valid."""
        return self.source.sample_at(self.places[spread(i, len(self))])


def take_mask_argument(named: Named) -> tuple[Named, str]:
    """The data set without our own argument `mask`, and what that says."""
    arguments = dict(named.arguments)
    mask = str(arguments.pop("mask", "mask"))
    return replace(named, arguments=arguments), mask


def mask_of(source: TorchgeoSource, i: int, mask: str) -> np.ndarray:
    """Numbers `(H, W)` uint16 of image i's mask.

    Raises:
        UsageError: samples have no such mask.
        BadImage: it cannot be read, or holds what is no class's number.
    """
    item = source.item(i)
    found = item.get(mask)
    if isinstance(found, Tensor) and found.ndim == 3 and len(found) == 1:
        found = found[0]
    if not isinstance(found, Tensor) or found.ndim != 2:
        shape = f"a shape of {tuple(found.shape)}" if isinstance(found, Tensor) else "nothing"
        raise UsageError(
            f"torchgeo's {source.named.name} gives {shape} as {mask!r}, where height and width are needed; its samples "
            f"hold {', '.join(map(str, item))}: choose one with &mask=NAME"
        )
    if not found.numel():
        raise BadImage(source.name(i), "its mask is empty")
    if found.is_floating_point() and not bool((found.isfinite() & (found == found.floor())).all()):
        raise BadImage(source.name(i), "its mask holds numbers that are not whole")
    low, high = (int(each) for each in torch.aminmax(found))
    if low < 0 or high > 0xFFFF:
        raise BadImage(source.name(i), f"its mask holds numbers from {low} to {high}; expected 0 to 65535")
    return found.numpy().astype(np.uint16)


def check_masks(source: TorchgeoSource, mask: str) -> None:
    """Makes sure that samples have one: it is enough that one of those looked at does.

    Raises:
        UsageError: none of them has.
        BadImage: none of them can be read.
    """
    failed: list[CmidError] = []
    for i in range(min(TRIED, len(source))):
        try:
            mask_of(source, i, mask)
            return
        except (BadImage, UsageError) as error:
            failed.append(error)
    raise next((error for error in failed if isinstance(error, UsageError)), failed[0])


def has_mask(source: TorchgeoSource, mask: str) -> bool:
    """Whether samples have one; a test split often has not. Raises `BadImage` where none can be read."""
    try:
        check_masks(source, mask)
    except UsageError:
        return False
    return True


def sides_of(named: Named, mask: str) -> tuple[TorchgeoSource, TorchgeoSource | None, str]:
    """Train and test by the data set's own splits, and what test is called; no test where it has no splits.

    Raises:
        UsageError: the split is fixed in the name, or the data set cannot be opened.
    """
    if not takes_split(named):
        return TorchgeoSource(named), None, ""
    if "split" in named.arguments:
        raise UsageError(f"leave split out of {PREFIX}{named.name}: its train split and its test or val are both read")
    train = TorchgeoSource(named.of_split("train"))
    check_masks(train, mask)  # where it is called otherwise, that is said, not that there is no test split
    test, split = split_for_test(named, mask)
    return train, test, split


def split_for_test(named: Named, mask: str) -> tuple[TorchgeoSource, str]:
    """The split with masks that is not for training: test, or else val, and which.

    Raises:
        UsageError: there is none.
    """
    why: list[str] = []
    for split in TEST_SPLITS:
        try:
            source = TorchgeoSource(named.of_split(split))
        except UsageError as error:
            why.append(f"{split}: {error}")
            continue
        if has_mask(source, mask):
            return source, split
        why.append(f"{split}: its samples have no {mask!r}")
    raise UsageError(f"torchgeo's {named.name} has no split to test on. {'; '.join(why[:2])}")


def palette_of(source: TorchgeoSource, mask: str, tick: Callable[[int, int], object] | None = None) -> Palette:
    """The classes that the data set names, or, where it names none, those of all masks.

    Raises:
        UsageError: it names none, and the masks hold none.
    """
    dataset: Any = source.dataset
    names, colours = source.classes, _colours(dataset)
    if source.named.name == LOVEDA:  # its masks begin at 1, and 0 is what its last class is called
        entries = [Entry(name, None, value) for value, name in enumerate(names[:-1], 1)]
        return Palette((*entries, Entry(names[-1], None, 0, ignore=True)))
    if 2 <= len(names) <= MOST_CLASSES:
        return Palette(tuple(Entry(name, colours.get(i), i) for i, name in enumerate(names)))
    counts: Counter[int] = Counter()
    for i in range(len(source)):
        with suppress(BadImage, UsageError):  # those are skipped, and listed, where they are read for training
            values = np.bincount(mask_of(source, i, mask).reshape(-1))
            counts.update({int(value): int(values[value]) for value in np.flatnonzero(values)})
        if tick is not None:
            tick(i + 1, len(source))
    return infer_palette(counts, "value", lossy=0, colours=colours, names={}, data=f"{PREFIX}{source.named.name}")


def _colours(dataset: Any) -> dict[int, Colour]:
    """Colours by number, as far as the data set has them in one of two forms."""
    found = getattr(dataset, "colormap", None) or getattr(dataset, "cmap", None)
    pairs = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list | tuple) else ()
    colours = {}
    for value, colour in pairs:
        if isinstance(value, int) and isinstance(colour, list | tuple) and len(colour) in (3, 4):
            numbers = [int(part) for part in colour[:3]]
            if all(0 <= number <= 255 for number in numbers):
                colours[value] = (numbers[0], numbers[1], numbers[2])
    return colours if len(set(colours.values())) == len(colours) else {}
