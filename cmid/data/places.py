"""Places seen at several dates: images of one source, put together by place.

A folder of dated images is read like this: an image's date stands in its file's name and its place is its folder, or
the date is the name of its folder and its place is the folder above:

    fields/2019-05-01.tif           coast/2019-05-01/rgb.png
    fields/S2_20190812T101031.tif   coast/2020-01-30/rgb.png

A date is YYYY-MM-DD, YYYY_MM_DD or YYYYMMDD, with or without a time THHMMSS after it. Images of a place need not be of
one size, as each crop is drawn in its own image, but should show the same ground.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import PurePath

import numpy as np

from cmid.data.decode import Decoded, Reduction
from cmid.data.folder import FolderSource
from cmid.data.reading import note_file
from cmid.data.sources import ImageSource
from cmid.errors import UsageError

DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(\d\d)\2(\d\d)(?:T(\d\d)[-:]?(\d\d)[-:]?(\d\d))?(?!\d)")


@dataclass(frozen=True)
class Found:
    """What of a source is seen when and where.

    Attributes:
        names: of places with two dates or more.
        groups: positions of each place's images in the source, by date.
        alone: places with one date only, which are left out.
        undated: names of images that say no date, which are left out.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    alone: tuple[str, ...] = ()
    undated: tuple[str, ...] = ()


def date_in(name: str) -> str | None:
    """The first date in a file's name, as `20190501`, with a time as `20190501T101031`; None where there is none."""
    for match in DATE.finditer(name):
        year, _, month, day, *time = match.groups()
        try:
            date(int(year), int(month), int(day))
        except ValueError:
            continue
        return f"{year}{month}{day}" + (f"T{''.join(time)}" if time[0] else "")
    return None


def places_of_folder(source: FolderSource) -> Found:
    """The places of a folder tree, or of a list file.

    Raises:
        UsageError: a place with two images of one date.
    """
    root = str(source.path if source.path.is_dir() else source.path.parent)
    dated, undated = [], []
    for i in range(len(source)):
        path = PurePath(source.name(i).removeprefix(f"{root}/"))
        place, when = path.parent, date_in(path.stem)
        if when is None:
            place, when = path.parent.parent, date_in(path.parent.name)
        if when is None:
            undated.append(source.name(i))
        else:
            dated.append((str(place), when, i))
    return group(dated, source.name, tuple(undated))


def group(dated: Sequence[tuple[str, str, int]], name_of: Callable[[int], str], undated: tuple[str, ...] = ()) -> Found:
    """Puts (place, date, position) together by place.

    Raises:
        UsageError: a place with two images of one date; `name_of` gives their names.
    """
    together: dict[str, list[tuple[str, int]]] = {}
    for place, when, i in dated:
        together.setdefault(place, []).append((when, i))
    for place, images in together.items():
        images.sort()
        for (when, one), (later, other) in pairwise(images):
            if when == later:
                raise UsageError(
                    f"{name_of(one)} and {name_of(other)} are of one date ({when}) and, as they lie in one folder, of "
                    f"one place ({place}): put each place into a folder of its own, with one image a date"
                )
    several = {place: images for place, images in together.items() if len(images) > 1}
    return Found(
        tuple(several),
        tuple(tuple(i for _, i in images) for images in several.values()),
        tuple(place for place, images in together.items() if len(images) == 1),
        undated,
    )


class Places:
    """Places by position, each with two dates or more; on its own a place is its first image.

    Args:
        source: whose images they are.
        found: which of them show which place.
        limit: use only so many places, drawn by `seed`; 0 is all.
        seed: fixes the draw of `limit`.

    Raises:
        UsageError: fewer than two places.
    """

    fresh = False

    def __init__(self, source: ImageSource, found: Found, *, limit: int = 0, seed: int = 0) -> None:
        chosen = list(range(len(found.groups)))
        if 0 < limit < len(found.groups):
            drawn = np.random.default_rng([seed & (1 << 64) - 1, limit]).permutation(len(found.groups))[:limit]
            chosen = sorted(drawn.tolist())
        if len(chosen) < 2:
            only = f"only one place is seen at several dates, {found.names[0]}" if found.names else "no place is"
            raise UsageError(f"{only}; pre-training needs at least 2")
        groups = [found.groups[i] for i in chosen]
        self.source, self.bands, self.dtype = source, source.bands, source.dtype
        # blocks of numbers and bytes, not a million objects: forked workers then share their memory
        self._names = np.array([found.names[i].encode("utf-8", "surrogateescape") for i in chosen])
        self._images = np.concatenate([np.array(images, dtype=np.int64) for images in groups])
        self._starts = np.cumsum([0, *(len(images) for images in groups)])

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        """The place's own name."""
        return bytes(self._names[i]).decode("utf-8", "surrogateescape")

    def images(self, i: int) -> np.ndarray:
        """Positions of place i's images in the source, by date."""
        return self._images[self._starts[i] : self._starts[i + 1]]

    def date_count(self, i: int) -> int:
        """At how many dates place i is seen."""
        return int(self._starts[i + 1] - self._starts[i])

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Place i at its first date; raises `BadImage`."""
        return self.decode_date(i, 0, reduction)

    def decode_date(self, i: int, date: int, reduction: Reduction | None = None) -> Decoded:
        """Place i at one of its dates, from 0; raises `BadImage` with the name of that image."""
        image = int(self.images(i)[date])
        note_file(self.source.name(image))
        return self.source.decode(image, reduction)

    def all_names(self) -> Iterator[str]:
        """The names of the images of all places, in order."""
        return (self.source.name(int(image)) for image in self._images)
