"""What is wrong with a folder of images and masks."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from cmid.commands.diagnosis import Diagnosis, Level
from cmid.commands.pixel_folders import by_order, given_palette, inferred, source_of, unknown_codes
from cmid.commands.sources import progress
from cmid.config import DoctorConfig
from cmid.data.decode import BadImage
from cmid.data.mask_pairs import Pair, find_pairs
from cmid.data.mask_scan import Scan, Scanned, scan
from cmid.data.palettes import Palette, pack, unpack
from cmid.data.pixel_pairs import PixelPairs
from cmid.data.pixel_splits import Split, split_pairs
from cmid.data.prepared import sum_of
from cmid.errors import UsageError

THREADS = 4


def look_at_folder(config: DoctorConfig, console: Console) -> Diagnosis:
    """All findings of a folder; raises `UsageError` where it holds no pairs at all, or its palette is none."""
    folder, labels, found = Path(config.data), config.labels, Diagnosis(config.data)
    pairs = find_pairs(folder)
    _partners(found, "images", "mask", pairs.lonely_images)
    _partners(found, "masks", "image", pairs.lonely_masks)
    if not found.findings:
        found.add("fine", "pairs", f"{len(pairs.pairs)} images, each with a mask")
    palette, told = given_palette(folder, labels)
    for note in told:
        found.add("fine", "palette", note)
    own = bool(palette and palette.by_colour_alone)
    with progress(console, "looking at masks") as tick:
        looked = scan(folder, pairs.pairs, tile_px=labels.tile_px, own_palette=own, tick=tick)
    _sizes(found, looked)
    usable = [each for each in looked.pairs if not each.error and not each.differs]
    palette = _palette(found, looked, palette, config)
    split = _split(found, [each.pair for each in usable], config)
    source = _source(found, folder, usable, palette, config)
    unread = _read(found, folder, looked, source, console)
    if palette is not None:
        found.classes = palette.classes
        sides = {"all": range(len(usable))} if split is None else {"train": split.train, "test": split.test}
        for side, places in sides.items():
            found.pixels[side] = _pixels([usable[i] for i in places], palette)
            found.images[side] = len(places)
        found.weigh_classes()
    if split is not None:
        _overlap(found, folder, [each.pair for each in usable], split, unread, console)
    return found


def _partners(found: Diagnosis, what: str, lacks: str, names: Sequence[str]) -> None:
    if names:
        found.add("wrong", "pairs", f"{len(names)} {what} without {lacks}", names)


def _sizes(found: Diagnosis, looked: Scan) -> None:
    differs = [each.differs for each in looked.pairs if each.differs]
    if differs:
        found.add("wrong", "sizes", f"{len(differs)} masks do not fit their images", differs)
    else:
        found.add("fine", "sizes", "masks are of the size of their images")


def _palette(found: Diagnosis, looked: Scan, palette: Palette | None, config: DoctorConfig) -> Palette | None:
    """The palette given or inferred, once what the masks hold has been compared with it; None where there is none."""
    labels = config.labels
    if not looked.kinds:
        return None
    if palette is None:
        try:
            palette = inferred(looked, config.data)
        except UsageError as error:
            found.add("wrong", "colours" if "colour" in looked.kinds else "values", str(error))
            return None
        told = f"no palette was given: {len(palette.classes)} classes are taken from the masks"
        found.add("look", "palette", told)
    else:
        try:
            if said := by_order(looked, palette):
                found.add("look", "palette", said)
        except UsageError as error:
            found.add("wrong", "palette", str(error))
            return None
        _unknown(found, looked, palette, config)
    _swapped(found, looked, palette)
    return palette.without(labels.unlabelled) if labels.unlabelled else palette


def _unknown(found: Diagnosis, looked: Scan, palette: Palette, config: DoctorConfig) -> None:
    if unknown := unknown_codes(looked, palette):
        level: Level = "wrong" if config.labels.unknown == "refuse" else "look"
        what = "values" if looked.kinds == ("value",) else "colours"
        found.add(level, what, f"masks hold what the palette does not: {'; '.join(unknown)}")
    else:
        found.add("fine", "colours", "masks hold what the palette has")


def _swapped(found: Diagnosis, looked: Scan, palette: Palette) -> None:
    """Whether red and blue of colour masks are exchanged, as OpenCV writes an RGB array."""
    if "colour" not in looked.kinds:
        return
    known = palette.codes("colour")
    swapped = {pack(unpack(code)[::-1]) for code in known}
    total = looked.total("colour")
    pixels = sum(total.values()) or 1
    as_is, exchanged = (sum(n for c, n in total.items() if c in codes) / pixels for codes in (known, swapped))
    twins = [
        f"{palette.entries[place].name} and {palette.entries[known[other]].name}"
        for code, place in known.items()
        if (other := pack(unpack(code)[::-1])) in known and other > code
    ]
    if exchanged > as_is:
        found.add(
            "wrong", "BGR swap",
            f"{as_is:.1%} of the pixels match the palette as they are, {exchanged:.1%} with red and blue exchanged: "
            "the masks, or the palette, are in BGR",
        )  # fmt: skip
    elif twins:
        found.add(
            "look", "BGR swap",
            "colours alone cannot tell whether red and blue are exchanged, as the palette has both of "
            f"{', '.join(twins)}: compare their shares below with what you expect",
        )  # fmt: skip
    else:
        found.add("fine", "BGR swap", "red and blue of the masks are not exchanged")


def _split(found: Diagnosis, pairs: Sequence[Pair], config: DoctorConfig) -> Split | None:
    labels = config.labels
    try:
        split = split_pairs(
            pairs, data=config.data, train_list=labels.train_list, test_list=labels.test_list,
            test_groups=labels.test_groups, seed=config.seed,
        )  # fmt: skip
    except UsageError as error:
        asked = labels.train_list or labels.test_list or labels.test_groups
        found.add("wrong" if asked else "look", "split", str(error))  # one image can still be scored on
        return None
    found.add("fine", "split", f"{len(split.train)} images to train on, {len(split.test)} for test, {split.how}")
    return split


def _source(
    found: Diagnosis, folder: Path, usable: list[Scanned], palette: Palette | None, config: DoctorConfig
) -> PixelPairs | None:
    if palette is None or not usable:
        return None
    notes: list[str] = []
    try:
        source = source_of(folder, usable, palette, config.labels, notes)
    except UsageError as error:
        found.add("wrong", "images", str(error))
        return None
    for note in notes:
        found.add("look", "images", note)
    found.add("fine", "images", f"{len(source)} of {source.bands} bands of {source.stored_dtype}")
    return source


def _read(found: Diagnosis, folder: Path, looked: Scan, source: PixelPairs | None, console: Console) -> set[str]:
    """Reads every image; gives the names of those that cannot be read."""
    bad = {each.pair.image: each.error for each in looked.unreadable}
    if source is not None:

        def read(i: int) -> str:
            try:
                source.image(i)
            except BadImage as error:
                return str(error)
            return ""

        for i, error in enumerate(_with_threads(read, len(source), console, "reading images")):
            if error:
                bad.setdefault(source.items[i].pair.image, error)
    if bad:
        told = [error.replace(f"{folder}/", "") for error in bad.values()]
        found.add("wrong", "unreadable", f"{len(bad)} images or masks cannot be read", told)
    elif source is not None:
        found.add("fine", "unreadable", "every image and mask can be read")
    return set(bad)


def _pixels(pairs: Sequence[Scanned], palette: Palette) -> dict[str, int]:
    pixels = dict.fromkeys(palette.classes, 0) | {"": 0}
    for each in pairs:
        known = palette.codes(each.mask.kind if each.mask else "value")
        pixels[""] += each.nodata
        for code, count in sum(each.counts, Counter[int]()).items():
            entry = palette.entries[known[code]] if code in known else None
            pixels["" if entry is None or entry.ignore else entry.name] += count
    return pixels


def _overlap(
    found: Diagnosis, folder: Path, pairs: Sequence[Pair], split: Split, unread: set[str], console: Console
) -> None:
    """Groups and identical files that are in train and in test."""
    sides = [{pairs[i].group for i in places} for places in (split.train, split.test)]
    shared = sorted(sides[0] & sides[1])
    if shared:
        patches = any(pair.patch is not None for pair in pairs if pair.group in shared)
        told = f"parts of {len(shared)} of {len(sides[0] | sides[1])} groups are in train and in test"
        touch = "" if patches else ", which may touch where a folder is one scene"
        found.add("wrong" if patches else "look", "overlap", told + touch, shared)

    def file_sum(i: int) -> str:
        return "" if pairs[i].image in unread else sum_of(folder / pairs[i].image)

    sums = _with_threads(file_sum, len(pairs), console, "comparing files")
    of_sum: dict[str, list[int]] = defaultdict(list)
    for i, each in enumerate(sums):
        if each:
            of_sum[each].append(i)
    train, test = set(split.train), set(split.test)
    same = [places for places in of_sum.values() if len(places) > 1]
    both = [places for places in same if train & set(places) and test & set(places)]
    if both:
        told = f"{len(both)} images are in train and in test as identical files"
        found.add("wrong", "overlap", told, [" = ".join(pairs[i].image for i in places) for places in both])
    if within := [places for places in same if places not in both]:
        told = f"{len(within)} images are there more than once"
        found.add("look", "twice", told, [" = ".join(pairs[i].image for i in places) for places in within])
    if not shared and not both:
        found.add("fine", "overlap", "no group and no file is in train and in test")


def _with_threads(work: Callable[[int], str], count: int, console: Console, words: str) -> list[str]:
    results = []
    with progress(console, words) as tick, ThreadPoolExecutor(THREADS) as pool:
        for i, each in enumerate(pool.map(work, range(count)), 1):
            results.append(each)
            if tick is not None:
                tick(i, count)
    return results
