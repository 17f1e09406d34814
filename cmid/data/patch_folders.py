"""torchgeo's data sets of places seen at several dates, image by image.

torchgeo's own classes give of each place some dates that they draw from Python's global generator: a run could not be
repeated, nor told which date it saw. Here each date of each place is an image, in the order of place and date, and
only what lies in the folder counts, so that a part of a data set can be used. Other arguments are torchgeo's; there is
no `seasons`.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torchgeo.datasets import SSL4EOS12, SeasonalContrastS2

from cmid.data.rasters import opened

Transforms = Callable[[dict[str, Any]], dict[str, Any]]


class PatchFolders:
    """Images `PLACE/DATE/` of a folder, by position.

    Attributes:
        folder: where the places are.
        patches: `(N,)` bytes, `PLACE/DATE` of each image, sorted.
    """

    folder: Path
    patches: np.ndarray

    def list_patches(self, folder: Path) -> None:
        """Looks for all dates of all places, once."""
        found = []
        for place in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if place.is_dir():
                dates = sorted(date.name for date in os.scandir(place.path) if date.is_dir())
                found += [f"{place.name}/{date}" for date in dates]
        self.folder, self.patches = folder, np.array([os.fsencode(name) for name in found])

    def __len__(self) -> int:
        return len(self.patches)

    def patch(self, i: int) -> tuple[str, str]:
        """Place and date of image i."""
        place, _, date = os.fsdecode(bytes(self.patches[i])).partition("/")
        return place, date

    def file_of(self, i: int) -> str:
        """The folder of image i's bands."""
        return str(self.folder / "/".join(self.patch(i)))


class SeasonalContrastPatches(PatchFolders, SeasonalContrastS2):
    """SeCo's own data (Sentinel-2; arXiv 2103.16607).

    Args:
        root: as torchgeo's class.
        version: likewise.
        bands: likewise.
        transforms: likewise.
        download: likewise.
        checksum: likewise.
    """

    def __init__(
        self,
        root: Path | str = "data",
        version: str = "100k",
        bands: Sequence[str] = SeasonalContrastS2.rgb_bands,
        transforms: Transforms | None = None,
        download: bool = False,
        checksum: bool = False,
    ) -> None:
        super().__init__(root, version, 1, bands, transforms, download, checksum)
        self.list_patches(Path(root, self.metadata[version]["directory"]))

    def __getitem__(self, index: int) -> dict[str, Any]:
        place, date = self.patch(index)
        sample: dict[str, Any] = {"image": self._load_patch(str(self.folder / place), date)}
        return sample if self.transforms is None else self.transforms(sample)


class SSL4EOS12Patches(PatchFolders, SSL4EOS12):
    """SSL4EO-S12 (Sentinel-1 and 2; arXiv 2211.07044).

    Args:
        root: as torchgeo's class.
        split: likewise.
        transforms: likewise.
        download: likewise.
        checksum: likewise.
    """

    def __init__(
        self,
        root: Path | str = "data",
        split: Literal["s1", "s2c", "s2a"] = "s2c",
        transforms: Transforms | None = None,
        download: bool = False,
        checksum: bool = False,
    ) -> None:
        super().__init__(root, split, 1, transforms, download, checksum)
        self.list_patches(Path(root, split))

    def __getitem__(self, index: int) -> dict[str, Any]:
        planes = []
        for band in self.bands:
            with opened(str(Path(self.file_of(index), f"{band}.tif"))) as file:
                planes.append(file.read(1, out_shape=(self.size, self.size)).astype(np.float32))
        sample: dict[str, Any] = {"image": torch.from_numpy(np.stack(planes))}
        return sample if self.transforms is None else self.transforms(sample)
