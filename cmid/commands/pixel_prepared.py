"""A prepared ISPRS set, opened by the settings of labels."""

from pathlib import Path
from typing import Any

from cmid.config import PixelLabelsConfig
from cmid.data.isprs import BENCHMARKS, palette
from cmid.data.palettes import Palette
from cmid.data.pixel_pairs import PixelPairs
from cmid.data.prepared import Manifest, tile_source, what_is_wrong, window_source
from cmid.errors import UsageError

USUAL_BANDS = {"Potsdam": "RGB", "Vaihingen": "IRRG"}
USUAL_WINDOWS = (512, 512)
"""Side and step of the published windows."""
OF_FOLDERS = ("train_list", "test_list", "test_groups", "palette", "bands")


def prepared_sides(
    data: str, labels: PixelLabelsConfig
) -> tuple[PixelPairs, PixelPairs, dict[str, Any], tuple[str, ...]]:
    """Windows to train on and to test on, what they are, and notes.

    Raises:
        UsageError: files that are missing or of another size, labels of a kind that was not prepared, settings that
            are for folders.
    """
    folder, manifest, classes = _opened(data, labels)
    train, test = (window_source(folder, manifest, split, labels.borders, classes) for split in ("train", "test"))
    for side, found in (("train", train), ("test", test)):
        if not len(found):
            raise UsageError(f"{data} was prepared without tiles for {side}: prepare it from all tiles")
    counts = [sum(tile.pixels[labels.borders][i] for tile in manifest.tiles) for i in range(len(manifest.classes) + 1)]
    pixels = {name: n for name, n in zip(manifest.classes, counts, strict=False) if name in classes.classes}
    account = {
        "classes": list(classes.classes),
        "colours": [list(colour) for colour in classes.colours],
        "palette": classes.to_plain(),
        "pixels": pixels | {"": sum(counts) - sum(pixels.values())},
        "isprs": facts(manifest, labels),
        "split": {"how": "by the tiles of the benchmark"}
        | {split: [tile.name for tile in manifest.of_split(split)] for split in ("train", "test")},
        "counts": {"train": len(train), "test": len(test)},
    }
    return train, test, account, _notes(manifest, labels)


def prepared_tiles(data: str, labels: PixelLabelsConfig) -> tuple[PixelPairs, dict[str, Any]]:
    """The tiles to test on, whole, in windows of at most `labels.tile_px` that do not overlap, and what they are."""
    folder, manifest, classes = _opened(data, labels)
    return tile_source(folder, manifest, labels.borders, classes, labels.tile_px), facts(manifest, labels)


def facts(manifest: Manifest, labels: PixelLabelsConfig) -> dict[str, Any]:
    """What the name of a protocol needs."""
    departures = []
    if manifest.bands != USUAL_BANDS[manifest.dataset]:
        departures.append(manifest.bands)
    if (manifest.window_px, manifest.step_px) != USUAL_WINDOWS:
        departures.append(f"windows of {manifest.window_px} px every {manifest.step_px} px")
    official = BENCHMARKS[manifest.dataset.lower()].test
    if missing := len(official) - len(manifest.of_split("test")):
        departures.append(f"{missing} of {len(official)} test tiles missing")
    facts = {"dataset": manifest.dataset, "bands": manifest.bands, "labels": labels.borders}
    return {**facts, "departures": departures}


def _opened(data: str, labels: PixelLabelsConfig) -> tuple[Path, Manifest, Palette]:
    for name in OF_FOLDERS:
        if getattr(labels, name):
            raise UsageError(
                f"labels.{name} is for other data: {data} has the classes and the split of the benchmark; leave it out"
            )
    folder = Path(data)
    manifest = Manifest.read(folder)
    if labels.borders not in manifest.labels:
        other = next(kind for kind in manifest.labels if kind != labels.borders)
        raise UsageError(
            f"{data} has no {labels.borders} labels, as they were not all there when it was prepared: take the others "
            f"with --labels.borders {other}, or prepare it again"
        )
    if wrong := what_is_wrong(folder, manifest, sums=False):
        raise UsageError(
            f"{len(wrong)} of {len(manifest.files)} files of {data} are not as they were prepared, first: {wrong[0]}. "
            f"Prepare it again; `cmid doctor {data}` tells all of them"
        )
    classes = palette(manifest.classes, values=True)
    return folder, manifest, classes.without(labels.unlabelled) if labels.unlabelled else classes


def _notes(manifest: Manifest, labels: PixelLabelsConfig) -> tuple[str, ...]:
    return (
        f"ISPRS {manifest.dataset}, {manifest.bands}, {labels.borders} labels, windows of {manifest.window_px} px, one "
        f"every {manifest.step_px} px",
    )
