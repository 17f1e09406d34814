"""A folder of images and masks, looked at as a whole and refused where its parts do not fit together."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cmid.commands.sources import progress
from cmid.config import PixelLabelsConfig
from cmid.data.mask_pairs import Pair, find_pairs
from cmid.data.mask_scan import Scan, Scanned, scan
from cmid.data.palettes import Kind, Palette, infer_palette, palette_beside, read_palette, shown
from cmid.data.pixel_pairs import PixelPairs
from cmid.data.rasters import Raster, choose_bands, unlike_names
from cmid.errors import UsageError

RGB: tuple[str, ...] = ("red", "green", "blue")


@dataclass(frozen=True)
class OpenedFolder:
    """What a folder holds.

    Attributes:
        source: all images, those of one pair after another.
        pairs: all images with masks, in the source's order, without those that were left out.
        account: classes, colours, palette, counts and the kinds of pictures, plain values.
        notes: what the user should hear.
    """

    source: PixelPairs
    pairs: tuple[Pair, ...]
    account: dict[str, Any]
    notes: tuple[str, ...]

    def source_of(self, places: Iterable[int]) -> PixelPairs:
        """The images of some pairs, pair by pair."""
        of_pair: dict[str, list[int]] = {}
        for i, item in enumerate(self.source.items):
            of_pair.setdefault(item.pair.image, []).append(i)
        return self.source.take([i for place in places for i in of_pair[self.pairs[place].image]])


def open_folder(data: str, labels: PixelLabelsConfig, console: Console | None = None) -> OpenedFolder:
    """All images and masks of a folder.

    Args:
        data: the folder.
        labels: how masks are read.
        console: where progress and the table of the classes are shown; None keeps quiet.

    Raises:
        UsageError: no pairs; sizes or places that differ; colours or values that the palette does not have; images
            of several band counts or number types.
    """
    folder = Path(data)
    found = find_pairs(folder)
    palette, told = given_palette(folder, labels)
    with progress(console, "looking at masks") as tick:
        looked = scan(
            folder,
            found.pairs,
            tile_px=labels.tile_px,
            own_palette=bool(palette and palette.by_colour_alone),
            tick=tick,
        )
    if differs := [each.differs for each in looked.pairs if each.differs]:
        raise UsageError(f"{len(differs)} masks do not fit their images: {_some(differs)}; mend or remove them")
    usable = [each for each in looked.pairs if not each.error]
    if not usable:
        raise UsageError(f"none of the {len(looked.pairs)} pairs in {data} can be read, first {looked.pairs[0].error}")
    notes = [*found.notes, *told]
    if bad := looked.unreadable:
        notes.append(f"{len(bad)} pairs cannot be read and are left out: {_some([each.error for each in bad])}")
    if palette is None:
        palette = inferred(looked, data)
        notes.append(
            f"no palette was given: {len(palette.classes)} classes are taken from the masks; name them with "
            "--labels.palette FILE"
        )
    elif said := by_order(looked, palette):
        notes.append(said)
    palette = palette.without(labels.unlabelled) if labels.unlabelled else palette
    if unknown := unknown_codes(looked, palette):
        if labels.unknown == "refuse":
            raise UsageError(
                f"the masks of {data} hold what the palette does not: {'; '.join(unknown)}. Add it to the palette, or "
                "leave these pixels out with --labels.unknown ignore"
            )
        notes.append(f"pixels that the palette does not know are left out: {'; '.join(unknown)}")
    pixels = pixels_of_classes(looked, palette)
    notes += [f"no pixel is of {name}" for name in palette.classes if not pixels[name]]
    source = source_of(folder, usable, palette, labels, notes)
    if console is not None:
        console.print(class_table(palette, pixels))
    account = {
        "classes": list(palette.classes),
        "colours": [list(colour) for colour in palette.colours],
        "palette": palette.to_plain(),
        "pixels": pixels,
        "images": len(source),
        "pictures": sorted({each.image.picture for each in usable if each.image and each.image.picture}),
        "unreadable": [each.error for each in looked.unreadable],
    }
    kept = {item.pair.image for item in source.items}
    pairs = tuple(each.pair for each in usable if each.pair.image in kept)
    return OpenedFolder(source, pairs, account, tuple(notes))


def given_palette(folder: Path, labels: PixelLabelsConfig) -> tuple[Palette | None, list[str]]:
    """The palette that is named, or lies in the folder, and a note where it does; None where there is none."""
    if labels.palette:
        return read_palette(Path(labels.palette)), []
    beside = palette_beside(folder)
    return (read_palette(beside), [f"classes are those of {beside}"]) if beside else (None, [])


def inferred(looked: Scan, data: str) -> Palette:
    """The classes that the masks hold.

    Raises:
        UsageError: masks of several kinds, or that hold no classes.
    """
    if len(looked.kinds) > 1:
        first = [looked.of_kind(kind)[0].pair.mask for kind in looked.kinds]
        raise UsageError(
            f"some masks of {data} hold numbers ({first[0]}) and some colours ({first[1]}): say which is which in a "
            "palette with both, --labels.palette FILE"
        )
    kind = looked.kinds[0]
    headers = [each.mask for each in looked.of_kind(kind) if each.mask]
    merge = lambda parts: reduce(lambda all_, part: {**part, **all_}, parts, dict[int, Any]())  # noqa: E731
    return infer_palette(
        looked.total(kind), kind, lossy=sum(each.lossy for each in headers), data=data,
        colours=merge([each.colours for each in headers]), names=merge([each.names for each in headers]),
    )  # fmt: skip


def by_order(looked: Scan, palette: Palette) -> str:
    """What the user should hear where masks hold numbers and the palette gives colours alone; else empty.

    Raises:
        UsageError: the masks are rasters with colour tables of their own, so that the numbers need not be the order.
    """
    numbered = looked.of_kind("value")
    if not numbered or not palette.by_colour_alone:
        return ""
    tables = [each.pair.mask for each in numbered if each.mask and each.mask.colours]
    if tables:
        raise UsageError(
            f"the masks of {looked.folder} hold numbers with a colour table, as {tables[0]}, and the palette gives "
            "colours alone: give each class its value in the palette"
        )
    told = ", ".join(f"{code} {palette.entries[i].name}" for code, i in sorted(palette.codes("value").items()))
    return f"masks hold numbers and the palette gives colours alone: its order is taken for the numbers, {told}"


def unknown_codes(looked: Scan, palette: Palette) -> list[str]:
    """What masks hold that the palette does not: each with its pixels and an example."""
    found = []
    for kind in looked.kinds:
        known = palette.codes(kind)
        strangers = Counter({code: n for code, n in looked.total(kind).items() if not _is_known(code, kind, known)})
        for code, pixels in strangers.most_common(6):
            where = [each.pair.mask for each in looked.of_kind(kind) if any(code in c for c in each.counts)]
            masks = f"{len(where)} mask{'s' * (len(where) > 1)}, as in {where[0]}"
            found.append(f"{kind} {shown(code, kind)} in {pixels:,} pixels of {masks}")
        if len(strangers) > 6:
            rest = sum(n for _, n in strangers.most_common()[6:])
            found.append(f"{len(strangers) - 6} other {kind}s in {rest:,} pixels")
    return found


def _is_known(code: int, kind: Kind, known: dict[int, int]) -> bool:
    return code in known or (kind == "value" and code == 255)


def pixels_of_classes(looked: Scan, palette: Palette) -> dict[str, int]:
    """Pixels of each class, over all masks; those that have no label under the empty name."""
    pixels = dict.fromkeys(palette.classes, 0) | {"": 0}
    for kind in looked.kinds:
        known = palette.codes(kind)
        for code, count in looked.total(kind).items():
            entry = palette.entries[known[code]] if code in known else None
            pixels["" if entry is None or entry.ignore else entry.name] += count
    pixels[""] += sum(each.nodata for each in looked.pairs)
    return pixels


def class_table(palette: Palette, pixels: dict[str, int]) -> Table:
    """The classes with colours, values and shares, for people."""
    total = sum(pixels.values()) or 1
    table = Table("", "class", "colour", "value", "pixels", "share", title="classes of the masks", title_justify="left")
    numbers = iter(range(len(palette.entries)))
    for entry in palette.entries:
        colour = "" if entry.colour is None else f"#{entry.colour[0]:02X}{entry.colour[1]:02X}{entry.colour[2]:02X}"
        count = pixels.get(entry.name, 0)
        row = ("-", "", "") if entry.ignore else (str(next(numbers)), f"{count:,}", f"{count / total:.2%}")
        name = f"{entry.name} (no label)" if entry.ignore else entry.name
        table.add_row(row[0], name, colour, "" if entry.value is None else str(entry.value), row[1], row[2])
    table.add_row("-", "no label", "", "", f"{pixels['']:,}", f"{pixels[''] / total:.2%}")
    return table


def source_of(
    folder: Path, usable: list[Scanned], palette: Palette, labels: PixelLabelsConfig, notes: list[str]
) -> PixelPairs:
    """All images of pairs that can be read and fit together; adds to `notes` what was left out.

    Raises:
        UsageError: they are of several band counts or number types, or none has a label.
    """
    rasters = [each.image.raster for each in usable if each.image and each.image.raster]
    pictures = len(usable) - len(rasters)
    bands: dict[str, tuple[int, ...]] = {}
    dtype, names = "uint8", RGB
    if rasters:
        bands, dtype, names = _bands_of(folder, rasters, labels, notes)
        if pictures and (dtype != "uint8" or len(names) != 3):
            raise UsageError(
                f"{pictures} images of {folder} are pictures of three 8-bit colours, {len(rasters)} are rasters of "
                f"{len(names)} bands of {dtype}: give images of one kind"
            )
    elif labels.bands:
        raise UsageError(f"bands are chosen of rasters (.tif, .jp2); the images of {folder} are pictures")
    items, empty = [], 0
    for each in usable:
        for item, counts in zip(each.items, each.counts, strict=True):
            if item.window is not None and not _labelled(counts, each, palette):
                empty += 1
            else:
                items.append(item)
    if empty:
        notes.append(f"{empty} windows of rasters have no labelled pixel and are left out")
    if not items:
        raise UsageError(f"no image of {folder} has a pixel with a label")
    return PixelPairs(
        folder, items, palette, bands=bands, stored_dtype=dtype, names=names,
        band_names={str(Path(r.path).relative_to(folder).as_posix()): r.names for r in rasters},
        ignore_unknown=labels.unknown == "ignore",
    )  # fmt: skip


def _labelled(counts: Counter[int], each: Scanned, palette: Palette) -> bool:
    kind: Kind = each.mask.kind if each.mask else "value"
    known = palette.codes(kind)
    return any(code in known and not palette.entries[known[code]].ignore for code in counts)


def _bands_of(
    folder: Path, rasters: list[Raster], labels: PixelLabelsConfig, notes: list[str]
) -> tuple[dict[str, tuple[int, ...]], str, tuple[str, ...]]:
    try:
        chosen = choose_bands(rasters, labels.bands)
    except UsageError as error:
        said = str(error).replace("scenes.bands", "labels.bands")
        raise UsageError(said.replace("the scenes", f"the images of {folder}")) from None
    if said := unlike_names(rasters, chosen):
        notes.append(said.replace("scenes.bands", "labels.bands"))
    first = rasters[0]
    read = chosen[first.path]
    names = tuple(first.names[band - 1] or str(band) for band in read)
    return {str(Path(path).relative_to(folder).as_posix()): b for path, b in chosen.items()}, first.dtype, names


def _some(words: list[str], most: int = 3) -> str:
    return "; ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
