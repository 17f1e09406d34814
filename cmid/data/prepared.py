"""A prepared set of windows: its manifest, whether all that it lists is there, and its images as sources.

FOLDER/manifest.json                       what it is; written last
FOLDER/train/images/2_10_0_0_512_512.png   tile, and x0, y0, x1, y1 in it
FOLDER/train/masks/...                     labels 0 to 5, 255 for none; eroded borders
FOLDER/train/masks_full/...                the same with borders
FOLDER/test/...                            likewise
FOLDER/tiles/images/2_13.tif               tiles for test, whole; masks and masks_full likewise
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cmid.data.folder import why
from cmid.data.isprs import Labels, palette
from cmid.data.mask_pairs import Pair
from cmid.data.palettes import Palette
from cmid.data.pixel_pairs import Item, PixelPairs, windows_of
from cmid.errors import UsageError

MANIFEST = "manifest.json"
FORMAT = "cmid ISPRS windows 1"
MASKS: dict[Labels, str] = {"eroded": "masks", "full": "masks_full"}


@dataclass(frozen=True)
class Tile:
    """One tile of the benchmark.

    Attributes:
        name: of it.
        split: train or test.
        width: in pixels.
        height: in pixels.
        places: x, y of each window's first pixel.
        pixels: of each kind of labels, pixels of each class in the whole tile, those without label last.
        unknown: of each kind of labels, pixels of colours that are none of the benchmark's, by colour.
        files: bytes and check sum of each file under the folder.
    """

    name: str
    split: str
    width: int
    height: int
    places: tuple[tuple[int, int], ...]
    pixels: dict[str, list[int]]
    unknown: dict[str, dict[str, int]]
    files: dict[str, tuple[int, str]]

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> "Tile":
        """From JSON's values; raises `KeyError`, `TypeError` or `ValueError` where they are of another form."""
        if not re.fullmatch(r"\w+", plain["name"]) or plain["split"] not in ("train", "test"):
            raise ValueError(f"a tile is called {plain['name']!r}, of {plain['split']!r}")
        places = tuple((int(x), int(y)) for x, y in plain["places"])
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in plain["files"].items()}
        for name in files:
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"{name} leads out of the folder")
        return cls(
            str(plain["name"]), str(plain["split"]), int(plain["width"]), int(plain["height"]), places,
            {str(k): [int(n) for n in v] for k, v in plain["pixels"].items()},
            {str(k): {str(c): int(n) for c, n in v.items()} for k, v in plain["unknown"].items()}, files,
        )  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """What a prepared set is.

    Attributes:
        dataset: Potsdam or Vaihingen.
        bands: RGB or IRRG.
        window_px: side of the windows.
        step_px: from one to the next.
        classes: names, in the order of the labels' numbers.
        labels: kinds of labels that were written.
        unknown: what was done with colours that are none of the benchmark's.
        tiles: all of them.
    """

    dataset: str
    bands: str
    window_px: int
    step_px: int
    classes: tuple[str, ...]
    labels: tuple[Labels, ...]
    unknown: str
    tiles: tuple[Tile, ...]

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest in a folder.

        Raises:
            UsageError: none, or of another form.
        """
        path = folder / MANIFEST
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain["format"] != FORMAT:
                raise ValueError(f"its format is {plain['format']!r}")
            labels = tuple(kind for kind in MASKS if kind in plain["labels"])
            if not labels or len(plain["classes"]) != len(palette(plain["classes"], values=True).entries):
                raise ValueError("its labels or classes are missing")
            return cls(
                str(plain["dataset"]), str(plain["bands"]), int(plain["window_px"]), int(plain["step_px"]),
                tuple(str(name) for name in plain["classes"]), labels, str(plain["unknown"]),
                tuple(Tile.of_plain(each) for each in plain["tiles"]),
            )  # fmt: skip
        except OSError as error:
            raise UsageError(f"cannot read {path}: {why(error)}; prepare the set again") from None
        # OverflowError of a number that is Infinity, RecursionError of lists in lists without end
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            told = f"{type(error).__name__}: {error}"
            raise UsageError(f"{path} is not of the form {FORMAT!r} ({told}); prepare the set again") from None

    def to_json(self) -> str:
        """As it is written."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @property
    def files(self) -> dict[str, tuple[int, str]]:
        """Bytes and check sum of every file under the folder."""
        return {name: told for tile in self.tiles for name, told in tile.files.items()}

    def of_split(self, split: str) -> tuple[Tile, ...]:
        """The tiles of train or test."""
        return tuple(tile for tile in self.tiles if tile.split == split)


def is_prepared(folder: Path) -> bool:
    """Whether a folder is, or says it is, a prepared set."""
    try:
        with (folder / MANIFEST).open(encoding="utf-8") as file:
            return "cmid ISPRS windows" in file.read(200)
    except (OSError, UnicodeDecodeError):
        return False


def what_is_wrong(
    folder: Path, manifest: Manifest, *, sums: bool, tick: Callable[[int, int], object] | None = None
) -> list[str]:
    """Files that are missing, of another size, or (with `sums`, which reads everything) of other content."""
    found = []
    files = manifest.files
    for i, (name, (size, digest)) in enumerate(files.items(), 1):
        path = folder / name
        try:
            have = path.stat().st_size
            if have != size:
                found.append(f"{name} has {have:,} bytes, where {size:,} were written")
            elif sums and sum_of(path) != digest:
                found.append(f"{name} is not as it was written")
        except FileNotFoundError:
            found.append(f"{name} is missing")
        except OSError as error:
            found.append(f"{name} cannot be read: {why(error)}")
        if tick is not None:
            tick(i, len(files))
    return found


def sum_of(path: Path) -> str:
    """Check sum of a file: 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def window_source(
    folder: Path, manifest: Manifest, split: str, labels: Labels, classes: Palette, tiles: Sequence[str] = ()
) -> PixelPairs:
    """The windows of train or test; `tiles` takes only those of some."""
    side, side_px = MASKS[labels], manifest.window_px
    items = []
    for tile in manifest.tiles:
        if tile.split != split or (tiles and tile.name not in tiles):
            continue
        for x, y in tile.places:
            name = window_name(tile.name, x, y, side_px)
            pair = Pair(
                f"{split}/images/{name}", f"{split}/{side}/{name}", split, tile.name, (x, y), (side_px, side_px)
            )
            items.append(Item(pair, "value", side_px, side_px))
    return PixelPairs(folder, items, classes, names=band_names(manifest.bands))


def tile_source(folder: Path, manifest: Manifest, labels: Labels, classes: Palette, tile_px: int) -> PixelPairs:
    """The tiles for test, whole: windows of at most `tile_px` that do not overlap, of group and place."""
    items: list[Item] = []
    bands: dict[str, tuple[int, ...]] = {}
    for tile in manifest.of_split("test"):
        pair = Pair(
            f"tiles/images/{tile.name}.tif",
            f"tiles/{MASKS[labels]}/{tile.name}.tif",
            "test",
            tile.name,
            patch=(tile.width, tile.height),
        )
        bands[pair.image] = (1, 2, 3)
        items += [
            Item(pair, "value", tile.width, tile.height, window)
            for window in windows_of(tile.width, tile.height, tile_px)
        ]
    return PixelPairs(folder, items, classes, bands=bands, names=band_names(manifest.bands))


def window_name(tile: str, x: int, y: int, window_px: int) -> str:
    """A window's file, as mmsegmentation names them."""
    return f"{tile}_{x}_{y}_{x + window_px}_{y + window_px}.png"


def band_names(bands: str) -> tuple[str, ...]:
    """Of RGB or IRRG."""
    return ("red", "green", "blue") if bands == "RGB" else ("nir", "red", "green")
