"""`cmid predict`."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class PredictConfig:
    """Let a fine-tuned model name what is in new images."""

    model: str = ""
    """A run of `cmid finetune`, or its model.safetensors."""
    data: str = ""
    """An image, a folder of images (any depth), or a text file listing images."""
    out: str = "predictions.csv"
    """The file to write, .csv or .json; must not exist."""
    batch_size: int = 64
    """Images at once."""
    workers: int = -1
    """Loader processes; -1 chooses from the cores."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """As for training."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Which device; auto takes a GPU where there is one."""
    overwrite: bool = False
    """Replace the file if it exists, and pictures of the same name in the folder of `maps`."""
    maps: str | None = None
    """A folder for pictures of where the model looked, one an image, under the images' own names, and a maps.json that
    says which is whose; must not hold files. Unset: no pictures."""
    map_kind: Literal["cam", "attention"] = "cam"
    """Class activation map of the class (any backbone), or attention for all classes alike (ViT, Swin)."""
    map_classes: tuple[str, ...] = ()
    """Classes that are drawn for every image, beside the one it was given (cam)."""
    map_limit: int = 100
    """Pictures at most, of images evenly spaced among all; 0 is all."""


@dataclass
class PredictSegmentationConfig:
    """Map scenes of any size with a fine-tuned segmenter: a class for every pixel, where it lies on the ground."""

    model: str = ""
    """A run of `cmid finetune segmentation`, or its model.safetensors."""
    data: str = ""
    """A scene (GeoTIFF, JPEG 2000 or any image, of any size), a folder of scenes (any depth), or a text file listing
    scenes."""
    out: str = "maps"
    """Folder of the maps: NAME.tif for each scene, a Cloud-Optimised GeoTIFF that lies where the scene does, at the
    scene's path below `data`. The same call goes on with what was interrupted."""
    probabilities: bool = False
    """NAME_probabilities.tif as well, a band a class, value / 254."""
    polygons: Literal["none", "gpkg", "geojson"] = "none"
    """Areas of each class as well: GeoPackage, or GeoJSON in longitude and latitude."""
    min_area_px: int = 0
    """Polygons smaller than this are left out."""
    quicklook: bool = True
    """NAME.png as well: scene and map side by side, with a legend."""
    bands: tuple[str, ...] = ()
    """Which bands are read, by number from 1 or by name, in the model's order. Unset: the model's by name where the
    raster names them, else all."""
    window: int = 0
    """Pixels a side of what the model sees at once; 0 is as it was trained."""
    overlap: int = -1
    """Pixels that neighbouring windows share, at most half a window; -1 is a quarter."""
    turns: Literal["none", "flips", "d4"] = "none"
    """Averages over mirror images (4 times the work), or over all mirrored quarter turns (8 times)."""
    batch_size: int = 4
    """Windows at once."""
    max_bad_share: float = 0.05
    """Share of a scene's pixels that may be unreadable (a corrupt block): they become nodata, which is told. A scene
    with more is skipped, or ends the call where it is the only one."""
    remote: bool = False
    """Addresses of scenes may be read over the network."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """As for training."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Which device; auto takes a GPU where there is one."""
    overwrite: bool = False
    """Replace maps that exist."""
    restart: bool = False
    """Forget what an interrupted call has finished, and make its maps anew."""
