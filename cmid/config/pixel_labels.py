"""Settings shared by every verb that reads images with a class for each pixel."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class PixelLabelsConfig:
    """How images and the masks of their classes are read."""

    train_list: str | None = None
    """Text file of training images, as paths under the data's folder; unset: see `test_groups`."""
    test_list: str | None = None
    """The same for test images; unset: the rest."""
    test_groups: tuple[str, ...] = ()
    """Whole groups (tiles, scenes, folders of groups) to hold out for test; unset: folders called train and test (or
    val) if there are any, else a seeded 20 % of the groups."""
    palette: str | None = None
    """JSON or CSV file of classes with name, colour, value, ignore; unset: palette.json, palette.csv, classes.csv or
    classes.json in the data's folder, else the values found in the masks, shown as a table."""
    unknown: Literal["refuse", "ignore"] = "refuse"
    """Mask colours or values that are not in the palette: refuse them, or leave their pixels out."""
    unlabelled: tuple[str, ...] = ()
    """Classes to treat as unlabelled; the model has no output for them."""
    borders: Literal["eroded", "full"] = "eroded"
    """For a prepared ISPRS set: labels without the borders of objects, or with them."""
    tile_px: int = 1024
    """Largest side in pixels of the windows in which large rasters are read."""
    bands: tuple[str, ...] = ()
    """Bands to read from rasters, by number from 1 or by name; unset: all but transparency."""
