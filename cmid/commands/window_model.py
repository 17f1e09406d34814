"""A segmenter as `cmid.predict` calls a model: values as a scene reads them in, probabilities out."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from cmid.errors import UsageError
from cmid.evaluation.features import AUTOCAST
from cmid.predict.scene import Trained
from cmid.tasks.segmentation import Segmenter
from cmid.zoo.segmenter_files import SegmenterMetadata

BYTES = "uint8"


class WindowModel:
    """`(B, C, S, S)` float32 on `device`, a scene's own values, to `(B, K, S, S)` float32 probabilities there.

    Normalises as in training: bytes are divided by 255, deeper values stretched so that `low` is 0 and `high` 1, then
    `mean` is subtracted and `std` divided by; all on the device, where it costs least.

    Args:
        segmenter: is moved to `device`.
        metadata: what its file says of it.
        device: where it works.
        precision: of the forward: 32, bf16 or 16.

    Attributes:
        trained: refuses scenes of other bands or types.
        pictures: kinds of image files that training took for three 8-bit colours.
        fill: what is put where a scene has no measurement, in its own units: what normalisation makes 0.

    Raises:
        UsageError: the file does not say how images are normalised.
    """

    def __init__(self, segmenter: Segmenter, metadata: SegmenterMetadata, device: torch.device, precision: str) -> None:
        b = metadata.backbone
        if b.mean is None or b.std is None:
            raise UsageError("the model's file does not say mean and std of its bands: write it again by fine-tuning")
        self.device, self._precision = device, precision
        channels_last = device.type == "cuda" or segmenter.backbone.norm == "batch"
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._task = segmenter.eval().to(device).to(memory_format=self._format)
        low = torch.tensor(b.low or (0.0,) * b.in_chans, dtype=torch.float64)
        high = torch.tensor(b.high or (255.0,) * b.in_chans, dtype=torch.float64)
        mean, std = (torch.tensor(each, dtype=torch.float64) for each in (b.mean, b.std))
        centre, spread = low + mean * (high - low), std * (high - low)
        self.fill = tuple(centre.tolist())
        self._centre, self._scale = (each.float().view(-1, 1, 1).to(device) for each in (centre, 1 / spread))
        self._deep = bool(b.low)
        self.pictures = metadata.pictures
        # without a stretch it was trained on bytes, whatever the images were decoded from
        self.trained = Trained(b.in_chans, metadata.dtypes if self._deep else (BYTES,), b.bands or ())

    def check(self, name: str, dtype: str) -> None:
        """Raises `UsageError` where the values of the scene `name` are bytes and those of training were not."""
        if self._deep and dtype == BYTES and not self.trained.dtypes:
            raise UsageError(f"{name} holds {dtype} values, and the model was trained on deeper ones")

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.logits(self.normalised(images)).softmax(1)

    def normalised(self, images: Tensor) -> Tensor:
        """A scene's own values as the segmenter takes them, in its memory format."""
        return (images - self._centre).mul_(self._scale).contiguous(memory_format=self._format)

    def logits(self, images: Tensor) -> Tensor:
        """Scores `(B, K, S, S)` float32 of normalised images, in the precision that was asked for."""
        with torch.autocast(self.device.type, AUTOCAST.get(self._precision), enabled=self._precision in AUTOCAST):
            return self._task.logits(images)


def digest_of(path: Path) -> str:
    """16 hexadecimal digits that another file's content changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
