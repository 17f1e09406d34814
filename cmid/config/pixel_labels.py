"""What every verb that reads images with a class for each pixel is told of them."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class PixelLabelsConfig:
    """How images and the masks of their classes are read."""

    train_list: str | None = None
    """Text file of images' paths under the data's folder to train on; unset: see `test_groups`."""
    test_list: str | None = None
    """The same for test; unset: the rest."""
    test_groups: tuple[str, ...] = ()
    """Groups (tiles, scenes, folders of groups) that are held out whole for test; unset: folders called train and test
    (or val) where there are some, else a seeded 20 % of the groups."""
    palette: str | None = None
    """JSON or CSV file of classes with name, colour, value, ignore; unset: palette.json, palette.csv or classes.csv in
    the data's folder, else what the masks hold, shown as a table."""
    unknown: Literal["refuse", "ignore"] = "refuse"
    """Colours or values of masks that the palette does not have: refuse them, or leave their pixels out."""
    unlabelled: tuple[str, ...] = ()
    """Names of classes whose pixels do not count, as if they had no label; the model does not know such a class."""
    borders: Literal["eroded", "full"] = "eroded"
    """Of a prepared ISPRS set: labels without the borders of objects, or all of them."""
    tile_px: int = 1024
    """Large rasters are read in windows of at most this side, in pixels."""
    bands: tuple[str, ...] = ()
    """Bands of rasters, by number from 1 or by name; unset: all but transparency."""
