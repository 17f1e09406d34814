"""Pictures of where a classifier looked: each image beside its class activation maps, or its attention.

A map is laid over the part of the image that the model was shown, which is the central square that its test crop
leaves of the shorter side; what it was not shown is dark.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from cmid.backbones.attention import attention_map, has_attention
from cmid.commands.looking import Chosen
from cmid.commands.sources import progress
from cmid.config import PredictConfig
from cmid.data.crops import reduction_for
from cmid.data.decode import BadImage
from cmid.data.images import ImageLoader, kept_box
from cmid.data.sources import ImageSource
from cmid.errors import CmidError, UsageError, did_you_mean
from cmid.evaluation.activation import class_activation
from cmid.evaluation.features import AUTOCAST, evaluation_mode, memory_format_of
from cmid.ops.normalise import normalise
from cmid.ops.transfer import to_device
from cmid.report.heat import MOST, Panel, heat_over, panel_sized, side_by_side
from cmid.tasks.classification import Classifier
from cmid.whole_files import replace_whole, write_whole
from cmid.zoo.classifier_files import ClassifierMetadata

INDEX = "maps.json"
SEVERAL = 4
"""Of an image that is of several classes, at most so many are drawn unasked."""
LIKELY = 0.5


@dataclass(frozen=True)
class ClassMaps:
    """A request that can be carried out.

    Attributes:
        folder: where the pictures go.
        kind: class activation, or attention.
        named: classes drawn for every image, positions in `about.classes`.
        limit: pictures at most; 0 is all.
        task: the classifier, on its device.
        about: its file's account.
    """

    folder: Path
    kind: Literal["cam", "attention"]
    named: tuple[int, ...]
    limit: int
    task: Classifier
    about: ClassifierMetadata

    def draw(
        self, source: ImageSource, data: str, places: Sequence[int], rows: Tensor, config: PredictConfig,
        device: torch.device, precision: str, console: Console,
    ) -> int:  # fmt: skip
        """Writes the pictures and `maps.json`; returns how many images have a picture.

        Args:
            source: the images.
            data: the folder, list or image that they are from: names in the folder are relative to it.
            places: `(N,)` positions of the images that have probabilities.
            rows: `(N, K)` those.
            config: batch size and workers.
            device: where `task` is.
            precision: of the forward.
            console: shows progress.

        Raises:
            CmidError: a picture cannot be written.
        """
        taken = _spaced(len(places), self.limit)
        chosen = Chosen(source, [places[i] for i in taken])
        names = picture_names([source.name(i) for i in chosen.places], data)
        told: list[dict[str, Any]] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with progress(console, "drawing maps") as tick:
                for i, maps in self._maps(chosen, rows[taken], config, device, precision):
                    drawn = self._drawn(chosen, i, rows[taken[i]].tolist(), maps)
                    if drawn is not None:
                        _save(drawn[0], self.folder, names[i])
                        told.append({"image": chosen.name(i), "picture": str(names[i]), **drawn[1]})
                    if tick is not None:
                        tick(i + 1, len(chosen))
        except OSError as error:
            raise CmidError(
                f"{error.filename or self.folder} cannot be written: {error.strerror or error}. Choose another --maps."
            ) from error
        about = json.dumps({"kind": self.kind, "images": len(places), "pictures": told}, indent=1) + "\n"
        write_whole(self.folder / INDEX, lambda part: part.write_text(about), advice="Choose another --maps.")
        return len(told)

    def classes_of(self, row: Sequence[float]) -> list[int]:
        """What is drawn for an image with these probabilities `(K,)`: the likeliest (or all likely), then the named."""
        order = sorted(range(len(row)), key=lambda k: -row[k])
        own = [k for k in order[:SEVERAL] if row[k] > LIKELY] if self.about.multi_label else []
        return list(dict.fromkeys([*(own or order[:1]), *self.named]))

    @torch.no_grad()
    def _maps(
        self, chosen: Chosen, rows: Tensor, config: PredictConfig, device: torch.device, precision: str
    ) -> Iterator[tuple[int, dict[int | None, NDArray]]]:
        """Position among the chosen, and its maps `(h, w)` by class; None stands for all classes."""
        b = self.about.backbone
        assert b.size is not None and b.mean is not None and b.std is not None
        loader = ImageLoader(
            chosen, b.size, batch_size=config.batch_size, workers=config.workers, crop=self.about.test_crop
        )
        layout = memory_format_of(self.task.backbone)
        with evaluation_mode(self.task):
            for batch in loader:
                images = normalise(to_device(batch.images, device), b.mean, b.std).contiguous(memory_format=layout)
                with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
                    cam = self.kind == "cam"
                    found = class_activation(self.task, images) if cam else attention_map(self.task.backbone, images)
                for i, values in zip(batch.indices.tolist(), found.cpu().numpy(), strict=True):
                    yield i, {k: values[k] for k in self.classes_of(rows[i].tolist())} if cam else {None: values}

    def _drawn(
        self, chosen: Chosen, i: int, row: Sequence[float], maps: dict[int | None, NDArray]
    ) -> tuple[Any, dict[str, Any]] | None:
        """The picture of an image and what there is to say of it; None where it can no longer be read."""
        try:
            image = chosen.decode(i, lambda width, height: reduction_for(max(width, height), MOST))
        except BadImage:
            return None
        pixels = panel_sized(image.pixels)
        box = kept_box(image.width, image.height, self.about.test_crop)
        x, y = pixels.shape[1] / image.width, pixels.shape[0] / image.height
        here = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
        panels, told = [Panel(pixels, chosen.name(i))], list[dict[str, Any]]()
        for k, values in maps.items():
            low, mean, high = (float(f(values)) for f in (np.min, np.mean, np.max))
            over = heat_over(pixels, values, here)
            if k is None:
                panels.append(Panel(over, "attention, times an equal share", (f"{low:.2f}", f"{high:.2f}")))
                told.append({"low": low, "high": high})
            else:
                name = self.about.classes[k]
                panels.append(Panel(over, f"{name} {100 * row[k]:.0f} %", (f"{low:+.2f}", f"{high:+.2f}")))
                told.append({"class": name, "probability": row[k], "score": mean, "low": low, "high": high})
        return side_by_side(panels), {"seen": list(box), "maps": told}


def plan_maps(config: PredictConfig, task: Classifier, about: ClassifierMetadata) -> ClassMaps:
    """The pictures that `config` asks for, before anything is computed.

    Raises:
        UsageError: a folder that holds files or lies among the images, an unknown class, or attention of a backbone
            that has none to follow.
    """
    folder = Path(config.maps or "")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"maps is {folder}, which is a file: expected a folder to be made")
    if folder.is_dir() and not config.overwrite and next(folder.iterdir(), None) is not None:
        raise UsageError(f"the folder {folder} holds files. Give another --maps, or --overwrite to write into it.")
    data = Path(config.data)
    if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
        raise UsageError(
            f"the folder {folder} lies among the images of {data}, where the next run would take its pictures for "
            "images: give a --maps outside"
        )
    if config.map_kind == "attention":
        if config.map_classes:
            raise UsageError("attention is the same for all classes: leave out map_classes, or take --map-kind cam")
        if not has_attention(task.backbone):
            raise UsageError(
                f"the model's {about.backbone.backbone} has no attention to follow (ViT, Swin and SwinV2 have): leave "
                "out --map-kind"
            )
    unknown = [name for name in config.map_classes if name not in about.classes]
    if unknown:
        advice = did_you_mean(unknown[0], about.classes) or f" There are {', '.join(about.classes[:5])} ..."
        raise UsageError(f"the model knows no class {unknown[0]!r} (map_classes).{advice}")
    named = tuple(about.classes.index(name) for name in config.map_classes)
    return ClassMaps(folder, config.map_kind, named, config.map_limit, task, about)


def picture_names(images: Sequence[str], data: str) -> list[PurePosixPath]:
    """Where each image's picture goes: its path under `data`, with `.png` after its own suffix.

    The images of a list are named from the folder that holds them all. No name leads upwards, and two images have the
    same only where they are the same file.
    """
    if Path(data).is_dir():
        relative = [Path(name).relative_to(data).as_posix() for name in images]
    else:
        whole = [os.path.abspath(name) for name in images]  # noqa: PTH100 - without following links
        root = Path(os.path.commonpath([os.path.dirname(path) for path in whole]))  # noqa: PTH120
        relative = [Path(path).relative_to(root).as_posix() for path in whole]
    owner: dict[str, str] = {}
    found = []
    for image, name in zip(images, relative, strict=True):
        picture, count = f"{name}.png", 1
        while owner.setdefault(picture.casefold(), image) != image:  # some disks take A and a for the same
            count += 1
            picture = f"{name}.{count}.png"
        found.append(PurePosixPath(picture))
    return found


def _spaced(count: int, limit: int) -> list[int]:
    """Positions of `limit` of `count`, evenly spaced, from the first to the last; all where `limit` is 0."""
    if limit == 0 or limit >= count:
        return list(range(count))
    return sorted(set(np.linspace(0, count - 1, limit).round().astype(int).tolist()))


def _save(picture: Any, folder: Path, name: PurePosixPath) -> None:
    replace_whole(folder / name, lambda part: picture.save(part, "PNG"), sync=False)
