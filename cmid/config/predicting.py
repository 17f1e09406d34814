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
