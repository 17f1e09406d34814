"""How images with a class for every pixel are found and read."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class PixelLabelsConfig:
    """Which images, and what the numbers or colours of their masks mean."""

    train_list: str | None = None
    """Text file of paths under the data."""
    test_list: str | None = None
    """Text file of paths under the data."""
    test_groups: tuple[str, ...] = ()
    """Tiles or scenes held out whole, by name."""
    palette: str | None = None
    """A file that says what the masks' numbers or colours mean."""
    unknown: Literal["refuse", "ignore"] = "refuse"
    """What is done with numbers or colours that the palette does not have."""
    unlabelled: tuple[str, ...] = ()
    """Classes whose pixels do not count."""
    tile_px: int = 1024
    """Larger rasters are cut into windows of at most this."""
    bands: tuple[str, ...] = ()
    """Which bands are read, by number from 1 or by name; empty reads all but alpha."""
