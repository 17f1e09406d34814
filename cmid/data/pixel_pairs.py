"""Images with masks as a source: pictures read whole, rasters window by window."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from cmid.data.decode import BadImage, decode
from cmid.data.mask_pairs import Pair
from cmid.data.masks import Window, read_mask
from cmid.data.palettes import UNKNOWN, Kind, Palette, shown
from cmid.data.pixel_labels import UNLABELLED, LabelledPixels
from cmid.data.rasters import OpenRasters
from cmid.data.statistics import Stretch, spread


@dataclass(frozen=True)
class Item:
    """One image of the source.

    Attributes:
        pair: image and mask.
        kind: what the mask's codes are.
        width: in pixels, of the image as it is read.
        height: in pixels.
        window: x0, y0, x1, y1 of the part of a raster that this is; None: a picture, whole.
        turned: a picture is turned by its EXIF orientation, as its mask is of what viewers show; else both are read as
            their files store them.
    """

    pair: Pair
    kind: Kind
    width: int
    height: int
    window: Window | None = None
    turned: bool = False


class PixelPairs:
    """Images and masks of a folder, by position, with labels by a palette.

    Args:
        folder: that the pairs' paths start from.
        items: which images, in order.
        palette: classes; masks whose pixels it does not know are bad unless `ignore_unknown`.
        bands: of each raster by its path under `folder`, numbers from 1.
        stored_dtype: numpy's name of the files' type.
        names: what the bands are called.
        band_names: of each raster by its path, the names of all bands it has, empty where one has none.
        ignore_unknown: pixels that the palette does not know have no label.

    Attributes:
        stretch: how values deeper than 8 bits become pixels; unset: they stay as they are.
    """

    fresh = False

    def __init__(
        self,
        folder: Path,
        items: Sequence[Item],
        palette: Palette,
        *,
        bands: dict[str, tuple[int, ...]] | None = None,
        stored_dtype: str = "uint8",
        names: tuple[str, ...] = ("red", "green", "blue"),
        band_names: dict[str, tuple[str, ...]] | None = None,
        ignore_unknown: bool = False,
    ) -> None:
        self.folder, self.items, self.palette, self.names = folder, tuple(items), palette, names
        self.classes, self.colours = palette.classes, palette.colours
        self.bands, self.stored_dtype = len(names), stored_dtype
        self.dtype = torch.uint8 if stored_dtype == "uint8" else torch.float32
        self.stretch: Stretch | None = None
        self._bands, self._band_names, self._ignore_unknown = bands or {}, band_names or {}, ignore_unknown
        self._images, self._masks = OpenRasters(), OpenRasters()

    def __len__(self) -> int:
        return len(self.items)

    def take(self, places: Sequence[int]) -> "PixelPairs":
        """A source of some of the images."""
        return PixelPairs(
            self.folder, [self.items[i] for i in places], self.palette, bands=self._bands,
            stored_dtype=self.stored_dtype, names=self.names, band_names=self._band_names,
            ignore_unknown=self._ignore_unknown,
        )  # fmt: skip

    def has_bands(self, names: Sequence[str]) -> bool:
        """Whether all images are rasters that name all of these, in whatever case and order."""
        wanted = {name.casefold() for name in names}
        images = {item.pair.image for item in self.items}
        known = [{name.casefold() for name in self._band_names.get(image, ())} for image in images]
        return bool(wanted) and all(wanted <= each for each in known)

    def read_bands(self, names: Sequence[str]) -> None:
        """Read the bands of these names from now on, in this order; all images must have them."""
        read = dict(self._bands)  # which others share
        for path, known in self._band_names.items():
            folded = [name.casefold() for name in known]
            if all(name.casefold() in folded for name in names):
                read[path] = tuple(folded.index(name.casefold()) + 1 for name in names)
        self._bands = read
        self.names, self.bands = tuple(names), len(names)

    def name(self, i: int) -> str:
        """The image's path under the folder, with its window where it is a part of a scene."""
        item = self.items[i]
        whole = item.window in (None, (0, 0, item.width, item.height))
        return item.pair.image if whole else f"{item.pair.image}[{','.join(map(str, item.window or ()))}]"

    def group(self, i: int) -> str:
        """The tile, scene or folder it is of."""
        item = self.items[i]
        pair = item.pair
        return pair.group if item.window is None or pair.patch or pair.around else pair.own_name

    def place(self, i: int) -> tuple[int, int]:
        """Where it lies in its group."""
        item = self.items[i]
        x, y = item.pair.place
        return (x, y) if item.window is None else (x + item.window[0], y + item.window[1])

    def read(self, i: int) -> LabelledPixels:
        """Image i and its labels; raises `BadImage`."""
        pixels, valid = self._pixels(self.items[i])
        labels = self.labels(i)
        if labels.shape != pixels.shape[:2]:
            raise BadImage(
                self._path(self.items[i].pair.image),
                f"it is {pixels.shape[1]} x {pixels.shape[0]}, its mask {labels.shape[1]} x {labels.shape[0]}",
            )
        if valid is not None and not valid.all():
            labels = np.where(valid, labels, np.uint8(UNLABELLED))
        return LabelledPixels(pixels, labels)

    def image(self, i: int) -> np.ndarray:
        """Image i alone, as `read` gives it; raises `BadImage`."""
        return self._pixels(self.items[i])[0]

    def labels(self, i: int) -> np.ndarray:
        """The labels of image i as its mask has them, `(H, W)` uint8; raises `BadImage`."""
        item = self.items[i]
        path = self._path(item.pair.mask)
        codes, valid = read_mask(path, item.kind, item.window, self._masks)
        labels = self.palette.encode(codes, item.kind)
        if valid is not None:
            labels[~valid] = UNLABELLED
        unknown = labels == UNKNOWN
        if unknown.any():
            if not self._ignore_unknown:
                found = ", ".join(shown(int(code), item.kind) for code in np.unique(codes[unknown])[:3])
                raise BadImage(path, f"{int(unknown.sum())} of its pixels are of no class: {found}")
            labels[unknown] = UNLABELLED
        return labels

    def sample(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image i (counted round and round, spread over the set) in its own values `(C, h, w)`, and which are valid."""
        return self._values(self.items[spread(i, len(self))])

    def _pixels(self, item: Item) -> tuple[np.ndarray, np.ndarray | None]:
        if item.window is None:
            return self._picture(item), None
        values, valid = self._values(item)
        stretch = self.stretch or Stretch((), (), (0.0,) * self.bands)
        return stretch.pixels(values, valid), valid

    def _values(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        if item.window is None:
            pixels = self._picture(item)
            return np.moveaxis(pixels, -1, 0), np.ones(pixels.shape[:2], np.bool_)
        return self._images.read(self._path(item.pair.image), self._bands[item.pair.image], item.window)

    def _picture(self, item: Item) -> np.ndarray:
        return decode(self._path(item.pair.image), as_stored=not item.turned).pixels

    def _path(self, name: str) -> str:
        return str(self.folder / name)


def windows_of(width: int, height: int, most_px: int) -> list[Window]:
    """Windows of nearly equal sides of at most `most_px` that tile a scene without overlap."""
    xs, ys = (np.linspace(0, n, -(-n // most_px) + 1).round().astype(int).tolist() for n in (width, height))
    return [
        (x0, y0, x1, y1)
        for y0, y1 in pairwise(ys)
        for x0, x1 in pairwise(xs)
    ]  # fmt: skip
