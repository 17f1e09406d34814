"""One look at every mask of a data set, and at the heads of its images: sizes, kinds, and which pixels hold what.

It is taken before anything is trained, so that a wrong colour shows now and not after a night.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from cmid.data.decode import FORMATS, BadImage, kind_of_image, orientation_of
from cmid.data.lasting_threads import lasting_threads
from cmid.data.mask_pairs import Pair
from cmid.data.masks import MaskHeader, Window, count_codes, is_raster, mask_header, read_mask
from cmid.data.palettes import Kind
from cmid.data.pixel_pairs import Item, windows_of
from cmid.data.rasters import OpenRasters, Raster, opened, read_header

THREADS = 4
"""That decode pictures; Pillow lets others run while it does."""


@dataclass(frozen=True)
class ImageHeader:
    """What an image says of itself.

    Attributes:
        width: in pixels, as the file stores them.
        height: in pixels.
        raster: its header, if it is one.
        place: of a raster, as `MaskHeader.place`.
        turn: of a picture, its EXIF orientation.
        picture: of a picture, what it holds before it is made three 8-bit colours; empty of a raster.
    """

    width: int
    height: int
    raster: Raster | None = None
    place: tuple[tuple[float, ...], str] | None = None
    turn: int = 1
    picture: str = ""


@dataclass(frozen=True)
class Scanned:
    """One pair.

    Attributes:
        pair: which.
        error: why image or mask cannot be read, with its path; empty where both can.
        image: its head.
        mask: its head.
        items: the images that the source has of it: one, or the windows of a raster.
        counts: of each item, how many pixels hold each code; nodata of the mask is not counted.
        nodata: pixels of the mask that are nodata.
    """

    pair: Pair
    error: str = ""
    image: ImageHeader | None = None
    mask: MaskHeader | None = None
    items: tuple[Item, ...] = ()
    counts: tuple[Counter[int], ...] = ()
    nodata: int = 0

    @property
    def differs(self) -> str:
        """How image and mask do not fit together, in words; empty where they do."""
        if self.image is None or self.mask is None:
            return ""
        sizes = [f"{each.width} x {each.height}" for each in (self.image, self.mask)]
        if sizes[0] != sizes[1] and not _is_turned(self.image, self.mask):
            return f"{self.pair.image} is {sizes[0]}, its mask {self.pair.mask} {sizes[1]}"
        if self.image.turn != self.mask.turn and not _size_tells(self.image, self.mask):
            return (
                f"{self.pair.image} has EXIF orientation {self.image.turn}, its mask {self.pair.mask} {self.mask.turn} "
                "(1 is none), and their size does not tell whether the mask is of the image as stored or as shown: "
                "write the image anew without the tag, turned or not, as its mask is"
            )
        if _elsewhere(self.image.place, self.mask.place):
            here, there = (_told(each) for each in (self.image.place, self.mask.place))
            return f"{self.pair.image} lies at {here}, its mask {self.pair.mask} at {there}"
        return ""


@dataclass(frozen=True)
class Scan:
    """All pairs of a folder.

    Attributes:
        folder: that was looked at.
        pairs: in their order.
    """

    folder: Path
    pairs: tuple[Scanned, ...]
    _totals: dict[Kind, Counter[int]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def unreadable(self) -> tuple[Scanned, ...]:
        """Pairs of which image or mask cannot be read."""
        return tuple(each for each in self.pairs if each.error)

    def total(self, kind: Kind) -> Counter[int]:
        """Pixels of each code over all masks of a kind."""
        if kind not in self._totals:
            self._totals[kind] = sum((c for s in self.of_kind(kind) for c in s.counts), Counter())
        return self._totals[kind]

    def of_kind(self, kind: Kind) -> tuple[Scanned, ...]:
        """Pairs whose masks are of a kind."""
        return tuple(each for each in self.pairs if each.mask and not each.error and each.mask.kind == kind)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """That occur."""
        kinds: tuple[Kind, ...] = ("value", "colour")
        return tuple(kind for kind in kinds if self.of_kind(kind))


def scan(
    folder: Path,
    pairs: Sequence[Pair],
    *,
    tile_px: int,
    own_palette: bool = False,
    tick: Callable[[int, int], object] | None = None,
) -> Scan:
    """Looks at all masks, and at the heads of all images.

    Args:
        folder: that the pairs' paths start from.
        pairs: images and masks.
        tile_px: greatest side of a raster's windows.
        own_palette: index pictures with palettes of their own are taken for colours.
        tick: is told how many are done, of how many.
    """
    rasters = OpenRasters()

    def look(pair: Pair) -> Scanned:
        try:
            return _look(folder, pair, tile_px, own_palette, rasters)
        except BadImage as error:
            return Scanned(pair, error=str(error))

    found = []
    for i, each in enumerate(lasting_threads("masks", THREADS).map(look, pairs), 1):
        found.append(each)
        if tick is not None:
            tick(i, len(pairs))
    return Scan(folder, tuple(found))


def image_header(path: str) -> ImageHeader:
    """Size of the image at `path`, without its pixels; raises `BadImage`."""
    if is_raster(path):
        header = read_header(path)
        with opened(path) as raster:
            place = (tuple(raster.transform)[:6], raster.crs.to_string() if raster.crs else "")
        return ImageHeader(header.width, header.height, header, place)
    try:
        with Image.open(path, formats=FORMATS) as image:
            size, turn, kind = image.size, orientation_of(image), kind_of_image(image)
            image.verify()  # a PNG's check sums to its end: one that is cut off is told before training, and left out
            return ImageHeader(*size, turn=turn, picture=kind)
    except FileNotFoundError:
        raise BadImage(path, "no such file") from None
    except Exception as error:  # readers raise anything at all on damaged bytes
        raise BadImage(path, " ".join(str(error).split())[:200] or type(error).__name__) from error


def _look(folder: Path, pair: Pair, tile_px: int, own_palette: bool, rasters: OpenRasters) -> Scanned:
    path = str(folder / pair.mask)
    image, mask = image_header(str(folder / pair.image)), mask_header(path, own_palette=own_palette)
    turned = _is_turned(image, mask)
    width, height = (image.height, image.width) if turned else (image.width, image.height)
    pair = pair.of_size(width, height)
    windows: list[Window | None] = [None]
    if image.raster is not None:
        windows = [*windows_of(width, height, tile_px)]
    items = tuple(Item(pair, mask.kind, width, height, window, turned) for window in windows)
    looked = Scanned(pair, "", image, mask, items)
    if looked.differs:
        return looked
    parts: list[Window | None] = [None]
    if is_raster(path):
        parts = windows if image.raster is not None else [*windows_of(mask.width, mask.height, tile_px)]
    counts, nodata, whole = [], 0, None
    for part in parts:
        codes, valid = read_mask(path, mask.kind, part, rasters)
        if valid is not None:
            nodata += int((~valid).sum())
            codes = codes[valid]
        counts.append(count_codes(codes))
        whole = codes
    if len(items) > len(parts) and whole is not None:  # a picture beside a raster: its parts, of what was read
        counts = [count_codes(whole[w[1] : w[3], w[0] : w[2]]) for w in windows if w is not None]
    elif len(parts) > len(items):
        counts = [sum(counts, Counter())]
    return Scanned(pair, "", image, mask, items, tuple(counts), nodata)


def _size_tells(image: ImageHeader, mask: MaskHeader) -> bool:
    """Whether a mask without EXIF orientation can be of one reading of its image alone: as stored, or as shown."""
    return mask.turn == 1 and image.turn >= 5 and image.width != image.height  # others keep width and height


def _is_turned(image: ImageHeader, mask: MaskHeader) -> bool:
    """Whether a mask is of its image as viewers show it, and not as it is stored."""
    return _size_tells(image, mask) and (mask.width, mask.height) == (image.height, image.width)


def _elsewhere(here: tuple[tuple[float, ...], str] | None, there: tuple[tuple[float, ...], str] | None) -> bool:
    """Whether two rasters of one size lie in different places; not where one of them has none."""
    if here is None or there is None:
        return False
    (one, crs), (other, other_crs) = here, there
    unplaced = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    if unplaced in (one, other):
        return False
    pixel = max(abs(one[0]), abs(one[1]), abs(one[3]), abs(one[4])) or 1.0
    if not np.allclose(one, other, rtol=1e-9, atol=0.01 * pixel):
        return True
    if not crs or not other_crs or crs == other_crs:
        return False
    from rasterio.crs import CRS

    return bool(CRS.from_string(crs) != CRS.from_string(other_crs))


def _told(place: tuple[tuple[float, ...], str] | None) -> str:
    (a, b, c, d, e, f), crs = place or ((0.0,) * 6, "")
    turned = f", turned by {b:g} {d:g}" if b or d else ""
    return f"x {c:.10g}, y {f:.10g} with pixels of {a:g} x {e:g}{turned}{f' in {crs[:60]}' * bool(crs)}"
