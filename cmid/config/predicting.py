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
    """Replace the file if it exists."""
