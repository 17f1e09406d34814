"""What a segmenter says of labelled images, one confusion matrix each: for validation, and for the scores."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from cmid.data.decode import BadImage
from cmid.data.images import in_order
from cmid.data.pixel_labels import UNLABELLED, LabelledPixels, PixelSource
from cmid.data.reading import Reading
from cmid.data.sources import choose_workers
from cmid.errors import CmidError, NotFinite
from cmid.evaluation.features import AUTOCAST, evaluation_mode, memory_format_of
from cmid.evaluation.segmentation import ConfusionMatrix
from cmid.ops.normalise import normalise
from cmid.ops.transfer import to_device
from cmid.predict.image_to_map import image_to_map
from cmid.predict.turns import predict_in_turns
from cmid.predict.windows import Tiling
from cmid.tasks.segmentation import Segmenter

Tick = Callable[[int, int], object]
"""Images done, images in all."""


@dataclass(frozen=True)
class HowToLook:
    """How images are given to a segmenter.

    Attributes:
        mean, std: per band, on 0..1.
        size: side in pixels of the crops it was trained on.
        window: side of the windows; 0: whole images where their sides are at most twice `size`, else windows of it.
        turns: averages over mirror images and quarter turns.
        batch_size: windows at once.
        workers: loader processes.
        precision: of the forward.
        read_timeout_s: an image that takes longer to read is skipped, where there are loader processes.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    window: int = 0
    turns: Literal["none", "flips", "d4"] = "none"
    batch_size: int = 8
    workers: int = 0
    precision: Any = "32"
    read_timeout_s: float = 300.0

    def windowed(self, height: int, width: int) -> bool:
        """Whether an image is looked at in windows, not whole."""
        return self.window > 0 or max(height, width) > 2 * self.size

    def in_words(self) -> str:
        """For scores.json."""
        side = self.window or self.size
        windows = f"windows of {side} px that overlap by a quarter"
        turned = {"none": "", "flips": ", averaged over mirror images", "d4": ", averaged over turns and mirrors"}
        whole = "" if self.window else f"whole images up to {2 * self.size} px a side, larger ones in "
        return f"{whole}{windows}{turned[self.turns]}"


@dataclass
class Found:
    """What was found in images.

    Attributes:
        indices: positions in the source, of those that could be read.
        counts: `(N, K, K)` int64, of each the pixels by truth and prediction.
        skipped: name and reason of the others.
    """

    indices: list[int] = field(default_factory=list)
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    skipped: dict[str, str] = field(default_factory=dict)


class _Read(Dataset[tuple[int, LabelledPixels | str]]):
    def __init__(self, source: PixelSource, workers: int, hung: dict[int, tuple[str, str]]) -> None:
        self.source, self.hung = source, hung
        self.reading = Reading(workers)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[int, LabelledPixels | str]:
        if i in self.hung:
            return i, self.hung[i][1]
        self.reading.begin(i)
        try:
            return i, self.source.read(i)
        except BadImage as error:
            return i, error.reason
        finally:
            self.reading.end()


def segment_images(
    segmenter: Segmenter,
    source: PixelSource,
    look: HowToLook,
    device: torch.device,
    tick: Tick | None = None,
    hung: dict[int, tuple[str, str]] | None = None,
) -> Found:
    """The confusion matrix of each image of `source`, looked at in evaluation mode and without gradient.

    Images whose reading never ended are added to `hung`; those in it are not tried.

    Raises:
        CmidError: no image can be read; NotFinite, which is one, where scores are not finite.
    """
    found, counts = Found(), []
    seen = classes_of(segmenter, source, look, device, found.skipped, hung)
    for done, (i, image, classes) in enumerate(seen, 1):
        found.indices.append(i)
        matrix = ConfusionMatrix(segmenter.classes, UNLABELLED)
        matrix.add(torch.from_numpy(classes), torch.from_numpy(image.labels))
        counts.append(matrix.counts.numpy())
        if tick is not None:
            tick(done, len(source))
    if not counts:
        first = next(iter(found.skipped.items()), ("no images", ""))
        raise CmidError(f"none of {len(source)} images can be read; the first: {first[0]}: {first[1]}")
    found.counts = np.stack(counts)
    return found


def classes_of(
    segmenter: Segmenter,
    source: PixelSource,
    look: HowToLook,
    device: torch.device,
    skipped: dict[str, str],
    hung: dict[int, tuple[str, str]] | None = None,
) -> Iterator[tuple[int, LabelledPixels, np.ndarray]]:
    """Position, image, and the class `(H, W)` uint8 of each pixel; unreadable images go to `skipped`."""
    layout, stride = memory_format_of(segmenter.backbone), segmenter.backbone.strides[-1]
    fixed = getattr(segmenter.backbone, "fixed_size", None)  # of backbones that take images of one size only

    def predict(images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=layout)
        with torch.autocast(device.type, AUTOCAST.get(look.precision), enabled=look.precision in AUTOCAST):
            return segmenter.probabilities(images)

    def of_any_size(images: Tensor) -> Tensor:
        """Without cuDNN's trials of its algorithms, which each new size would have anew."""
        cudnn = torch.backends.cudnn
        with cudnn.flags(enabled=cudnn.enabled, deterministic=cudnn.deterministic, allow_tf32=False):
            return of_windows(images)

    def of_windows(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % stride, 0, -height % stride))
        return predict(images)[..., :height, :width]

    waiting: list[tuple[int, LabelledPixels]] = []

    def whole() -> Iterator[tuple[int, LabelledPixels, np.ndarray]]:
        """What waits, which is all of one size, at once."""
        images = torch.stack([_prepared(image, look, device) for _, image in waiting])
        shares = predict_in_turns(of_any_size, images, look.turns)
        if not bool(torch.isfinite(shares.sum())):
            names = ", ".join(source.name(i) for i, _ in waiting[:3])
            raise NotFinite(f"the segmenter gives scores that are not finite for {names}: try precision 32")
        for (i, image), classes in zip(waiting, shares.argmax(1).to(torch.uint8).cpu().numpy(), strict=True):
            yield i, image, classes
        waiting.clear()

    with evaluation_mode(segmenter), torch.inference_mode():
        for i, image in _read_all(source, look, {} if hung is None else hung):
            if isinstance(image, str):
                skipped[source.name(i)] = image
                continue
            shape = image.labels.shape
            if waiting and (waiting[0][1].labels.shape != shape or len(waiting) == look.batch_size):
                yield from whole()
            if fixed is None and not look.windowed(*shape):
                waiting.append((i, image))
                continue
            side = look.window or look.size if fixed is None else fixed[0]
            tiling = Tiling(window=side, turns=look.turns, batch=look.batch_size)
            classes = image_to_map(_prepared(image, look, device), of_windows, segmenter.classes, tiling)
            yield i, image, classes.numpy()
        if waiting:
            yield from whole()


def _read_all(
    source: PixelSource, look: HowToLook, hung: dict[int, tuple[str, str]]
) -> Iterator[tuple[int, LabelledPixels | str]]:
    """Each image, or why it could not be read."""
    workers = min(choose_workers(look.workers), len(source))
    yield from in_order(_Read(source, workers, hung), source.name, workers, look.read_timeout_s)


def _prepared(image: LabelledPixels, look: HowToLook, device: torch.device) -> Tensor:
    return normalise(to_device(torch.from_numpy(image.pixels).permute(2, 0, 1), device), look.mean, look.std)
