"""Which image of a folder belongs to which mask.

Images and masks lie in sibling folders with the usual names (`images` and `masks`, `img_dir` and `ann_dir`, `image` and
`label` ...), anywhere on the way: `Tile 1/images/x.jpg` goes with `Tile 1/masks/x.png`, `img_dir/train/x.jpg` with
`ann_dir/train/x.png`, `train/images/x.tif` with `train/labels/x_label.tif`. Where there are no such folders, the ends
of the names tell them apart: `x_sat.jpg` and `x_mask.png`.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cmid.data.decode import SUFFIXES
from cmid.data.folder import find_files, kind_of
from cmid.data.isprs import is_shipped
from cmid.errors import UsageError

IMAGES = {"image", "img", "imgs", "images", "photo", "photos", "sat", "top"}
MASKS = {
    "mask", "masks", "label", "labels", "lbl", "ann", "anns", "annotation", "annotations", "gt", "gts", "groundtruth",
    "seg", "segs", "segmentation", "segmentations",
}  # fmt: skip
FORMS = re.compile(r"[_-](dir|png|jpe?g|tiff?)$")
IMAGE_ENDS = re.compile(r"[_-](image|img|sat|rgb|irrg)$", re.IGNORECASE)
MASK_ENDS = re.compile(r"[_-](masks?|labels?|lbl|gt|seg|ann|annotation)$", re.IGNORECASE)
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
PATCH = re.compile(r"^(?P<of>.+)_(?P<x0>\d+)_(?P<y0>\d+)_(?P<x1>\d+)_(?P<y1>\d+)$")
"""A patch's name: what it was cut from, and its box there in pixels."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        image: path relative to the folder, with slashes.
        mask: likewise.
        split: train, val or test where a folder on the way is called so; else empty.
        group: what it was cut from: the folders around it, or the tile that a patch's name tells; its own name
            where there is neither.
        place: x and y of its first pixel there, 0, 0 where that is not known.
        patch: width and height as its name tells them, with its place in its group; None where it does not.
        around: the folders around it, where these are the groups of the data; else empty.
    """

    image: str
    mask: str
    split: str = ""
    group: str = ""
    place: tuple[int, int] = (0, 0)
    patch: tuple[int, int] | None = None
    around: str = ""

    def of_size(self, width: int, height: int) -> "Pair":
        """The same once the image's size is known: numbers in a name that are not its box are no place."""
        if self.patch in (None, (width, height)):
            return self
        return replace(self, group=self.around or self.own_name, place=(0, 0), patch=None)

    @property
    def own_name(self) -> str:
        """The image's path without its suffix."""
        return str(PurePosixPath(self.image).with_suffix(""))


@dataclass(frozen=True)
class Pairs:
    """What a folder holds.

    Attributes:
        folder: that was looked at.
        pairs: sorted by image.
        lonely_images: images without a mask.
        lonely_masks: masks without an image.
    """

    folder: Path
    pairs: tuple[Pair, ...]
    lonely_images: tuple[str, ...] = ()
    lonely_masks: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should hear of those without partner."""
        found = []
        for what, lacks, names in (("images", "mask", self.lonely_images), ("masks", "image", self.lonely_masks)):
            if names:
                found.append(f"{len(names)} {what} have no {lacks} and are left out: {_some(names)}")
        return tuple(found)


def find_pairs(folder: Path) -> Pairs:
    """The images of a folder and their masks.

    Raises:
        UsageError: no such folder, no pairs in it, or an image with two masks.
    """
    if kind_of(folder) != "folder":
        raise UsageError(f"no such folder: {folder}; expected a folder of images and masks")
    names = find_files(folder)
    images: dict[tuple[str, ...], list[str]] = defaultdict(list)
    masks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        if found := role_by_folder(name):
            (images if found[0] == "image" else masks)[found[1]].append(name)
    if not images or not masks:
        images, masks = _by_ends(names)
    pairs, lonely = _join(folder, images, masks)
    if not pairs:
        if shipped := next((n for n in names if is_shipped(PurePosixPath(n).name)), None):
            raise UsageError(
                f"{folder} holds an ISPRS benchmark as it is shipped ({shipped}): make windows of it with `cmid "
                "prepare potsdam|vaihingen`, and name what that wrote"
            )
        raise UsageError(
            f"no pairs of image and mask in {folder} ({len(names)} images of any kind): expected sibling folders such "
            f"as images/ and masks/ with files of the same names ending in {' '.join(SUFFIXES)}"
        )
    used = {pair.mask for pair in pairs}
    without = tuple(sorted(name for group in masks.values() for name in group if name not in used))
    return Pairs(folder, _grouped(pairs), tuple(lonely), without)


def _some(names: tuple[str, ...], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def role_by_folder(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Image or mask, and the path without the folder that tells; None where none does."""
    path = PurePosixPath(name)
    folders = path.parts[:-1]
    for i in range(len(folders) - 1, -1, -1):
        word = FORMS.sub("", folders[i].lower())
        role = "image" if word in IMAGES else "mask" if word in MASKS else ""
        if role:
            return role, (*folders[:i], *folders[i + 1 :], path.stem)
    return None


def _by_ends(names: list[str]) -> tuple[dict[tuple[str, ...], list[str]], dict[tuple[str, ...], list[str]]]:
    images: dict[tuple[str, ...], list[str]] = defaultdict(list)
    masks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        (masks if MASK_ENDS.search(path.stem) else images)[(*path.parts[:-1], path.stem)].append(name)
    return images, masks


def _join(
    folder: Path, images: dict[tuple[str, ...], list[str]], masks: dict[tuple[str, ...], list[str]]
) -> tuple[list[Pair], list[str]]:
    bare: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (*folders, stem), found in masks.items():
        bare[(*folders, MASK_ENDS.sub("", stem))] += found
    pairs, lonely = [], []
    for key, found in images.items():
        if len(found) > 1:
            raise UsageError(f"{folder} has several images of one name, {_some(tuple(found))}: keep one of them")
        without_end = (*key[:-1], IMAGE_ENDS.sub("", key[-1]))
        mine = masks.get(key) or bare.get(key) or masks.get(without_end) or bare.get(without_end) or []
        if len(mine) > 1:
            raise UsageError(f"{found[0]} in {folder} has several masks, {_some(tuple(mine))}: keep one of them")
        if mine:
            pairs.append(Pair(found[0], mine[0]))
        else:
            lonely.append(found[0])
    return sorted(pairs, key=lambda pair: pair.image), sorted(lonely)


def _grouped(pairs: list[Pair]) -> tuple[Pair, ...]:
    """With splits and groups, as the paths tell them."""
    keys = []
    for pair in pairs:
        role = role_by_folder(pair.image)
        folders = list(role[1][:-1] if role else PurePosixPath(pair.image).parts[:-1])
        split = next((SPLITS[part.lower()] for part in folders if part.lower() in SPLITS), "")
        keys.append((split, "/".join(part for part in folders if part.lower() not in SPLITS)))
    by_folder = not any(split for split, _ in keys) and len({around for _, around in keys}) > 1
    found = []
    for pair, (split, around) in zip(pairs, keys, strict=True):
        stem = PurePosixPath(pair.image).stem
        match, group, place, patch = PATCH.match(stem), pair.own_name, (0, 0), None
        x0, y0, x1, y1 = (int(match[name]) for name in ("x0", "y0", "x1", "y1")) if match else (0, 0, 0, 0)
        if match and x1 > x0 and y1 > y0:
            group = f"{around}/{match['of']}" if around else match["of"]
            place, patch = (x0, y0), (x1 - x0, y1 - y0)
        elif by_folder and around:
            group = around
        found.append(Pair(pair.image, pair.mask, split, group, place, patch, around if by_folder else ""))
    return tuple(found)
