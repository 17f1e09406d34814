"""SEN12MS with labels of whole scenes, which torchgeo's class does not have: it gives the land cover of each pixel.

The labels are derived as the data set's authors do (`classification/dataset.py` of github.com/schmitt-muc/SEN12MS): the
shares of MODIS' 17 IGBP classes in a patch are added up to 10 simplified ones; a scene is of the class with the largest
share, or of all that cover a tenth or more.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from torchgeo.datasets import SEN12MS

from cmid.data.decode import BadImage
from cmid.data.lasting_threads import lasting_threads
from cmid.data.rasters import opened
from cmid.errors import UsageError

SIMPLIFIED = {
    "forest": (1, 2, 3, 4, 5),
    "shrubland": (6, 7),
    "savanna": (8, 9),
    "grassland": (10,),
    "wetlands": (11,),
    "croplands": (12, 14),
    "urban": (13,),
    "snow and ice": (15,),
    "barren": (16,),
    "water": (17,),
}
"""Which IGBP classes make each simplified one."""

COVERS = 0.1
"""Share of a scene that makes it one of a class, where it may be of several."""
READERS = 8


class SEN12MSScenes(SEN12MS):
    """torchgeo's data set, with `classes` and the labels of its scenes as `targets`.

    Args:
        root: as torchgeo's class.
        split: likewise.
        bands: likewise.
        transforms: likewise.
        checksum: likewise.
        labels: single: the class of the largest share; several: every class of `COVERS` or more.
    """

    classes: ClassVar[tuple[str, ...]] = tuple(SIMPLIFIED)

    def __init__(
        self,
        root: Path | str = "data",
        split: str = "train",
        bands: Sequence[str] = SEN12MS.BAND_SETS["all"],
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        checksum: bool = False,
        labels: Literal["single", "several"] = "single",
    ) -> None:
        if labels not in ("single", "several"):
            raise ValueError(f"labels must be single or several, found {labels!r}")
        super().__init__(root, split, bands, transforms, checksum)
        self.labels = labels

    @cached_property
    def targets(self) -> np.ndarray:
        """`(N,)` int64, -1 where no pixel has a class; or `(N, 10)` bool. Reads the land cover of every scene once.

        Raises:
            UsageError: a land cover cannot be read.
        """
        readers = lasting_threads("land cover", READERS)
        shares = np.stack(list(readers.map(self._shares, self.ids)))
        if self.labels == "several":
            return shares >= COVERS
        return np.where(shares.any(1), shares.argmax(1), -1)

    def _shares(self, name: str) -> np.ndarray:
        """Share of each simplified class among the pixels of a scene that have one."""
        season, part, _, scene, patch = name.split("_")
        path = Path(self.root, f"{season}_{part}", f"lc_{scene}", f"{season}_{part}_lc_{scene}_{patch}")
        try:
            with opened(str(path)) as file:
                cover = file.read(1)
        except BadImage as error:
            raise UsageError(f"the land cover of SEN12MS cannot be read: {error}. Fetch it again") from None
        counts = np.bincount(cover.clip(0, 18).ravel(), minlength=19)  # 0 and what is above 17 is no class
        found = np.array([counts[list(igbp)].sum() for igbp in SIMPLIFIED.values()])
        return found / max(1, found.sum())
