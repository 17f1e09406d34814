"""`cmid predict`."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class PredictConfig:
    """Classify new images, or map scenes, with a fine-tuned model."""

    model: str = ""
    """A run of `cmid finetune`, or its model.safetensors."""
    data: str = ""
    """An image, a folder of images (any depth), or a text file that lists images."""
    out: str = "predictions.csv"
    """The file to write, .csv or .json; must not exist."""
    batch_size: int = 64
    """Images per batch."""
    workers: int = -1
    """Loader processes; -1: chosen from the number of cores."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """auto: bf16 where the device computes it fast (GPU, CPU with bf16 matrix units), else 32."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Device; auto: a GPU if there is one."""
    overwrite: bool = False
    """Replace the file if it exists, and pictures of the same name in the `maps` folder."""
    maps: str | None = None
    """Folder for pictures of where the model looked, one per image under the image's own name, and a maps.json that
    links them; must be empty or not exist. Unset: no pictures."""
    map_kind: Literal["cam", "attention"] = "cam"
    """cam: class activation map (any backbone); attention: attention rollout, the same for all classes (ViT, Swin)."""
    map_classes: tuple[str, ...] = ()
    """Classes to draw for every image besides the predicted one (cam)."""
    map_limit: int = 100
    """Largest number of pictures, of evenly spaced images; 0: all."""


@dataclass
class PredictSegmentationConfig:
    """Map scenes of any size with a fine-tuned segmenter: a georeferenced class for every pixel."""

    model: str = ""
    """A run of `cmid finetune segmentation`, or its model.safetensors."""
    data: str = ""
    """A scene (GeoTIFF, JPEG 2000 or any image, of any size), a folder of scenes (any depth), or a text file that lists
    scenes."""
    out: str = "maps"
    """Folder for the maps: NAME.tif for each scene, a Cloud-Optimised GeoTIFF with the scene's position, at the scene's
    path below `data`. The same call resumes what was interrupted."""
    probabilities: bool = False
    """Also write NAME_probabilities.tif: one band per class, value / 254."""
    polygons: Literal["none", "gpkg", "geojson"] = "none"
    """Also write polygons of each class: GeoPackage, or GeoJSON in longitude and latitude."""
    min_area_px: int = 0
    """Leave out polygons smaller than this."""
    quicklook: bool = True
    """Also write NAME.png: scene and map side by side, with a legend."""
    bands: tuple[str, ...] = ()
    """Bands to read, by number from 1 or by name, in the model's order. Unset: the model's bands by name if the raster
    names them, else all."""
    nodata: float | None = None
    """Value that means no data in rasters that do not say; unset: what each declares."""
    window: int = 0
    """Side in pixels of the windows the model sees; 0: as in training."""
    overlap: int = -1
    """Overlap of neighbouring windows in pixels, at most half a window; -1: a quarter."""
    turns: Literal["none", "flips", "d4"] = "none"
    """Average over mirror images (flips, 4 times the work), or over all mirrored quarter turns (d4, 8 times)."""
    batch_size: int = 4
    """Windows per batch."""
    max_bad_share: float = 0.05
    """Share of a scene's pixels that may be unreadable (corrupt blocks); they become nodata and are reported. A scene
    with more is skipped; if it is the only one, the call fails."""
    remote: bool = False
    """Allow reading addresses of scenes over the network."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """auto: bf16 where the device computes it fast (GPU, CPU with bf16 matrix units), else 32."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Device; auto: a GPU if there is one."""
    overwrite: bool = False
    """Replace maps that exist."""
    restart: bool = False
    """Discard what an interrupted call has finished, and make its maps again."""
