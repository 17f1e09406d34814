"""The manifest of a set of shards (`shards.json`): what was packed, and by which sizes and sums it is known again.

It may be damaged, or anybody's: no field is believed before its type is known.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cmid.errors import UsageError

MANIFEST, INDEX, NAMES = "shards.json", "index.npy", "names.txt"
FORMAT = 1
MOST = (1 << 63) - 1
"""Of what a whole number may be: the index holds int64."""


@dataclass(frozen=True)
class Shard:
    """One tar file, as the manifest has it.

    Attributes:
        file: its name in the folder.
        images: how many it holds.
        bytes: its size.
        sha256: of all of it.
    """

    file: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a set of shards holds.

    Attributes:
        images: of all shards.
        stored: files, each image's own bytes; or pixels, as npy.
        dtype: of the pixels, `uint8` or `float32`.
        numbers: of the views, where pixels are stored: mean, std, low, high, bands, colours; else empty.
        shards: in order.
        sums: SHA-256 of the index and of the names, by file; empty where an earlier version wrote none.
    """

    images: int
    stored: str
    dtype: str
    numbers: dict[str, Any]
    shards: tuple[Shard, ...]
    sums: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes it into `folder`."""
        plain = {"format": FORMAT, **asdict(self)}
        (folder / MANIFEST).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads it from `folder`; raises `UsageError` where it is missing, damaged, or of a later format."""
        path = folder / MANIFEST
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            written = plain.pop("format")
            _must(_is_whole(written), "format", "a whole number", written)
            if written != FORMAT:
                raise UsageError(f"{path} is of a later version of cmid: this one reads format {FORMAT}")
            shards = tuple(Shard(**each) for each in plain.pop("shards"))
            manifest = cls(**plain, shards=shards)
            for number, shard in enumerate(shards):
                _check_shard(shard, f"shards[{number}].")
                if Path(shard.file).name != shard.file:
                    raise UsageError(f"{path} names a shard outside its folder: {shard.file!r}")
            _check(manifest)
            return manifest
        except UsageError:
            raise
        except FileNotFoundError as error:
            raise UsageError(f"{path} is not there: {path.parent} was not written by `cmid pack`") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{path} is no manifest of shards: {' '.join(str(error).split())[:200]}; copy it from where it was "
                "written, or pack the images anew"
            ) from error


def checksum(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_shard(shard: Shard, where: str) -> None:
    _must(isinstance(shard.file, str) and shard.file not in ("", ".."), f"{where}file", "a file's name", shard.file)
    _must(_is_whole(shard.images), f"{where}images", "a whole number", shard.images)
    _must(_is_whole(shard.bytes), f"{where}bytes", "a whole number", shard.bytes)
    _must(isinstance(shard.sha256, str), f"{where}sha256", "a check sum", shard.sha256)


def _check(m: Manifest) -> None:
    held = sum(shard.images for shard in m.shards)
    _must(_is_whole(m.images) and m.images == held, "images", f"{held}, as the shards have", m.images)
    _must(m.stored in ("files", "pixels"), "stored", "files or pixels", m.stored)
    kinds = ("uint8",) if m.stored == "files" else ("uint8", "float32")
    _must(m.dtype in kinds, "dtype", " or ".join(kinds), m.dtype)
    _must(isinstance(m.numbers, dict), "numbers", "names with their values", m.numbers)
    for name in ("mean", "std", "low", "high"):
        values = m.numbers.get(name, [])
        fits = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        _must(fits, f"numbers.{name}", "a list of numbers", values)
    _must(m.numbers.get("mean", [0]) != [], "numbers.mean", "a number for each band", [])
    names = m.numbers.get("bands", [])
    fits = isinstance(names, list) and all(isinstance(name, str) for name in names)
    _must(fits, "numbers.bands", "a list of names", names)
    colours = m.numbers.get("colours", "")
    _must(isinstance(colours, str), "numbers.colours", "a word", colours)
    fits = isinstance(m.sums, dict) and all(isinstance(value, str) for value in m.sums.values())
    _must(fits, "sums", "files with their check sums", m.sums)


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def _must(fits: bool, name: str, wanted: str, found: Any) -> None:
    if not fits:
        raise ValueError(f"{name} should be {wanted}, found {repr(found)[:60]}")
