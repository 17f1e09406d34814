"""`cmid predict classification`: a model's classes and probabilities for images without labels."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from rich.console import Console
from torch import Tensor

from cmid.commands.out_folder import checked_file
from cmid.commands.sources import progress
from cmid.commands.terminal import terminal
from cmid.config import EvaluateConfig, PredictConfig
from cmid.data.decode import SUFFIXES, Decoded, Reduction, decode
from cmid.data.folder import find_files, read_list
from cmid.data.image_notes import NEW, image_notes
from cmid.data.images import ImageLoader
from cmid.data.sources import ImageSource
from cmid.errors import UsageError
from cmid.evaluation.features import placed
from cmid.evaluation.probabilities import likely_classes, predict_probabilities
from cmid.ops.normalise import normalise
from cmid.ops.transfer import to_device
from cmid.tasks.classification import Classifier
from cmid.train import resolve_device, resolve_precision
from cmid.whole_files import write_whole
from cmid.zoo.classifier_files import ClassifierMetadata, load_classifier

if TYPE_CHECKING:
    from cmid.commands.class_maps import ClassMaps

FORMATS = (".csv", ".json")


@dataclass(frozen=True)
class PredictResult:
    """What was written.

    Attributes:
        out: the file.
        images: how many images have a row.
        skipped: file and reason of each that could not be read.
        maps: the folder of the pictures, where some were asked for.
    """

    out: Path
    images: int
    skipped: dict[str, str]
    maps: Path | None = None


class Files:
    """Images on disk by position: one, a folder's, or those that a list names."""

    bands, dtype, fresh = 3, torch.uint8, False

    def __init__(self, data: str) -> None:
        path = Path(data)
        if path.is_dir():
            self.names = [str(path / name) for name in find_files(path)]
        elif path.is_file() and path.suffix.lower() in SUFFIXES:
            self.names = [data]
        elif path.is_file():
            self.names = [str(path.parent / name) for name in read_list(path)]
        else:
            raise UsageError(f"no such image, folder or list file: {data}")
        if not self.names:
            raise UsageError(
                f"no images in {data}; looked for files ending in {' '.join(SUFFIXES)}, or one path a line"
            )

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        """The path of image i."""
        return self.names[i]

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Image i, shrunk as `reduction` allows; raises `BadImage`."""
        return decode(self.names[i], reduction)


def predict(kind: Literal["classification"], config: PredictConfig) -> PredictResult:
    """Write a row for each image: its most probable class, and the probabilities of all.

    Raises:
        UsageError: no model, no images, a file that exists, or bands that are not read.
        CmidError: no readable image, or the file cannot be written.
    """
    out = Path(config.out)
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"out is {config.out}; expected a file ending in {' or '.join(FORMATS)}")
    checked_file(config.out, overwrite=config.overwrite)
    path = Path(config.model)
    task, about = load_classifier(path / "model.safetensors" if path.is_dir() else path)
    if about.backbone.in_chans != Files.bands or about.backbone.low:
        raise UsageError(
            f"{config.model} is for {about.backbone.in_chans} bands"
            f"{' of deeper values' if about.backbone.low else ''}; image files are read as three 8-bit colours"
        )
    files, device = Files(config.data), resolve_device(config.accelerator)
    precision, skipped = resolve_precision(config.precision, device), dict[str, str]()
    console = terminal()
    for note in image_notes(files, NEW):
        console.print(f"note: {note}")
    maps = _planned(config, task, about)
    batches = prepared_batches(files, about, config, skipped, console)
    rows, places = predict_probabilities(placed(task, device), batches, device, precision)
    names = [files.name(i) for i in places.tolist()]
    _write(out, names, rows, about)
    for name, reason in list(skipped.items())[:5]:
        console.print(f"note: {name} could not be read ({reason})")
    console.print(f"{len(names)} images, {len(skipped)} skipped -> {out}")
    if maps is not None:
        drawn = maps.draw(files, config.data, places.tolist(), rows, config, device, precision, console)
        more = "" if drawn == len(names) else f" of {len(names)} images (map_limit)"
        console.print(f"{drawn} pictures{more} -> {maps.folder}")
    return PredictResult(out, len(names), skipped, maps.folder if maps else None)


def _planned(config: PredictConfig, task: Classifier, about: ClassifierMetadata) -> "ClassMaps | None":
    if not config.maps:
        return None
    from cmid.commands.class_maps import plan_maps  # figures are slow to import

    return plan_maps(config, task, about)


def prepared_batches(
    files: ImageSource,
    about: ClassifierMetadata,
    config: PredictConfig | EvaluateConfig,
    skipped: dict[str, str],
    console: Console,
    words: str = "predicting",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images prepared as a classifier's file says, and their positions `(B,)`; unreadable ones go to `skipped`."""
    b = about.backbone
    assert b.size is not None and b.mean is not None and b.std is not None
    loader = ImageLoader(files, b.size, batch_size=config.batch_size, workers=config.workers, crop=about.test_crop)
    device = resolve_device(config.accelerator)
    with progress(console, words) as tick:
        for done, batch in enumerate(loader, 1):
            yield normalise(to_device(batch.images, device), b.mean, b.std), batch.indices
            if tick is not None:
                tick(min(done * config.batch_size, len(files)), len(files))
    skipped.update({files.name(i): reason for i, reason in loader.skipped.items()})


def columns(first: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Names of the columns of a table, each once: a class that is called as one of the first has `class ` before it."""
    names = list(first)
    for name in classes:
        column = name
        while column in first or (column != name and column in classes):
            column = f"class {column}"
        names.append(column)
    return names


def _write(out: Path, names: list[str], rows: Tensor, about: ClassifierMetadata) -> None:
    top = rows.argmax(1).tolist()

    def named(best: int, row: list[float]) -> str:
        return ";".join(likely_classes(row, about.classes)) if about.multi_label else about.classes[best]

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            if out.suffix.lower() == ".json":
                found: list[dict[str, Any]] = [
                    {
                        "image": name,
                        "class": named(best, row),
                        "probabilities": dict(zip(about.classes, row, strict=True)),
                    }
                    for name, best, row in zip(names, top, rows.tolist(), strict=True)
                ]
                json.dump(found, file, indent=1)
                return
            writer = csv.writer(file)
            writer.writerow(columns(("image", "class", "probability"), about.classes))
            for name, best, row in zip(names, top, rows.tolist(), strict=True):
                shown = (f"{p:.6f}" for p in row)
                writer.writerow((name, named(best, row), f"{row[best]:.6f}", *shown))

    write_whole(out, write, advice="Choose another --out.")
