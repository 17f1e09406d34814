"""What reading image files as 8-bit RGB will do to them, told before it is done to a million."""

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmid.data.decode import UNKNOWN_TO_PILLOW, BadImage, look_at_header
from cmid.data.folder import FolderSource
from cmid.data.mask_pairs import role_by_folder
from cmid.data.rasters import read_header
from cmid.data.sources import ImageSource

LOOKED_AT = 32
"""Images whose headers are read, spread evenly over the source."""
LOOKS_LIKE_A_SCENE_PX = 2048


@dataclass(frozen=True)
class _Header:
    """Of one file: the longer side in pixels, bands without alpha, and whether it has alpha, or more than 8 bits."""

    side: int
    bands: int
    transparent: bool
    deep: bool
    raster: bool


@dataclass(frozen=True)
class Advice:
    """What to do where images hold more than 8-bit RGB; empty where there is nothing else to do.

    Attributes:
        large: about images that look like scenes.
        bands: about those of more than three bands.
        deep: about those of more than 8 bits.
    """

    large: str
    bands: str
    deep: str


UNLABELLED = Advice(
    "--source scenes draws windows from them instead of shrinking them",
    "--source scenes uses all, or those of --scenes.bands",
    "--source scenes puts all of them on one scale",
)
LABELLED = Advice(
    "each is shrunk to one small picture",
    "all bands are read of torchgeo's labelled sets (torchgeo:NAME?root=DIR), and of GeoTIFFs with label rasters for "
    "segmentation",
    "of torchgeo's labelled sets (torchgeo:NAME?root=DIR) all are on one scale",
)
NEW = Advice("each is shrunk to one small picture, and `cmid predict segmentation` maps scenes", "", "")
"""For images that a classifier of 8-bit RGB is to name."""


def image_notes(source: ImageSource, advice: Advice = UNLABELLED) -> tuple[str, ...]:
    """A line on each thing that is lost or changed in some images; none for photographs of 8 bits.

    Files that cannot be read are passed over: training tells of them.

    Args:
        source: of image files, named by their paths.
        advice: what else can be done with such images.
    """
    places = np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).astype(int)).tolist()
    seen = [header for header in (_header(source.name(i)) for i in places) if header is not None]
    notes = []

    def tell(found: list[_Header], what: str, instead: str = "") -> None:
        if found:
            notes.append(f"{len(found)} of {len(seen)} images looked at {what}{f': {instead}' if instead else ''}")

    if seen and seen[0].raster and seen[0].side > LOOKS_LIKE_A_SCENE_PX:
        notes.append(f"these look like large scenes: {advice.large}")
    tell(
        [h for h in seen if h.bands > 3],
        "have more than 3 bands, of which only the first three are used, as red, green and blue",
        advice.bands,
    )
    tell(
        [h for h in seen if h.deep],
        "have more than 8 bits, and each is stretched by its own 2nd to 98th percentile",
        advice.deep,
    )
    tell([h for h in seen if h.transparent], "are transparent in places: that is left out, what lies under it is used")
    return tuple(notes)


def list_notes(source: FolderSource) -> tuple[str, ...]:
    """What is odd in a list of images: entries that name one once more, which is an image of its own each time."""
    if not source.path.is_file():
        return ()
    again = len(source) - len({os.path.normpath(source.name(i)) for i in range(len(source))})
    if not again:
        return ()
    return (f"{again} of {len(source)} entries of {source.path} name an image once more: it counts each time",)


def mask_notes(source: FolderSource) -> tuple[str, ...]:
    """That some images of a folder are masks by the folders they are in, as of a labelled set that is named whole."""
    if source.path.is_file():
        return ()
    whole = Counter(os.path.dirname(source.name(i)) for i in range(len(source)))  # noqa: PTH120 - of a million names
    folders = {os.path.relpath(folder, source.path): count for folder, count in whole.items()}
    roles: dict[str, list[str]] = {"image": [], "mask": []}
    for folder in sorted(folders):
        if found := role_by_folder(f"{folder}/an image"):
            roles[found[0]].append(folder)
    if not roles["image"] or not roles["mask"]:
        return ()
    count = sum(folders[folder] for folder in roles["mask"])
    return (
        f"at least {count} of {len(source)} images look like masks, as they lie in {roles['mask'][0]}/ and the like "
        f"beside {roles['image'][0]}/, and are used as images: else name the folder of the images, or a list",
    )


def _header(path: str) -> _Header | None:
    if not Path(path).is_file():  # a pipe that nobody writes to would never open
        return None
    raster = path.lower().endswith(tuple(UNKNOWN_TO_PILLOW))
    with suppress(BadImage):
        side, bands, kind, transparent = look_at_header(path)
        return _Header(side, bands, transparent, kind.startswith("deep"), raster)
    if raster:
        with suppress(BadImage):
            found = read_header(path)
            side, bands = max(found.width, found.height), found.bands - len(found.alpha)
            return _Header(side, bands, bool(found.alpha), found.dtype != "uint8", raster)
    return None
