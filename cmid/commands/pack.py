"""`cmid pack`: many images become few large shards, for disks and object stores; or shards are checked."""

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from stat import S_ISREG
from typing import Any

from rich.console import Console

from cmid.commands.out_folder import held
from cmid.commands.sources import open_source, progress, reads_files
from cmid.commands.terminal import terminal
from cmid.config import PackConfig, PretrainConfig
from cmid.data.decode import UNKNOWN_TO_PILLOW, BadImage, decode, look_at_header
from cmid.data.folder import FolderSource, why
from cmid.data.image_notes import image_notes
from cmid.data.shard_manifest import INDEX, MANIFEST, NAMES, Manifest
from cmid.data.shards import is_sharded, refuse_oversized, verify, write_shards
from cmid.data.sources import ImageSource
from cmid.errors import CmidError, UsageError
from cmid.folder_lock import LOCK


@dataclass(frozen=True)
class PackResult:
    """What was packed.

    Attributes:
        folder: of the shards.
        images: in all shards.
        shards: how many.
        bytes: of all shards.
        skipped: name and reason of each image that was left out.
    """

    folder: Path
    images: int
    shards: int
    bytes: int
    skipped: dict[str, str] = field(default_factory=dict)


def pack(config: PackConfig) -> PackResult:
    """Packs `config.data` into `config.out`, or with `check` reads shards again and holds them to their sums.

    Raises:
        UsageError: nothing to pack, a folder that holds files, or with `check` settings that it does not read.
        CmidError: too many images cannot be read, the disk is full, or with `check` a file is not as it was.
    """
    console = terminal()
    if not config.check:
        return _pack(config, console)
    unset = PackConfig(data=config.data, check=True)
    if idle := [each.name for each in fields(config) if getattr(config, each.name) != getattr(unset, each.name)]:
        raise UsageError(
            f"with check the shards in {config.data} are read and nothing is written: leave out {', '.join(idle)}"
        )
    return _check(Path(config.data), console)


def _check(folder: Path, console: Console) -> PackResult:
    manifest = Manifest.read(folder)
    with progress(console, "checking shards") as tick:
        wrong = verify(folder, tick)
    if wrong:
        told = "; ".join(f"{name}: {reason}" for name, reason in list(wrong.items())[:5])
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CmidError(
            f"{len(wrong)} of {len(manifest.shards) + 2} files in {folder} are not as packed: {told}{more}. Copy them "
            "again, or pack the images anew"
        )
    if not manifest.sums.keys() >= {INDEX, NAMES}:
        console.print(
            f"note: of {INDEX} and {NAMES} an earlier version of cmid kept no check sums: they fit the shards, but may "
            "have changed"
        )
    console.print(f"{len(manifest.shards)} shards in {folder} with {manifest.images:,} images are as they were packed")
    return _result(folder, manifest, {})


def _pack(config: PackConfig, console: Console) -> PackResult:
    out = Path(config.out)
    if not config.out:
        raise UsageError("name the folder to write: cmid pack IMAGES --out SHARDS")
    if is_sharded(config.data):
        raise UsageError(f"{config.data} is packed already; --check reads it again and compares the sums")
    wanted = PretrainConfig(
        data=config.data, source=config.source, scenes=config.scenes, seed=config.seed, batch_size=2,
        max_bad_share=config.max_bad_share,
    )  # fmt: skip
    opened = open_source(wanted, console=console)
    notes = opened.notes
    if isinstance(opened.source, FolderSource):  # in shards nobody looks at their headers again
        notes += image_notes(opened.source)
    for note in notes:
        console.print(f"note: {note}")
    _make(out)
    views = opened.config.views
    numbers: dict[str, Any] = {}
    if not reads_files(wanted):
        names = ("mean", "std", "low", "high", "bands", "colours")
        numbers = {name: getattr(views, name) for name in names}
    try:
        with held(out, "another `cmid pack`"), progress(console, "packing") as tick:
            manifest, bad = write_shards(
                opened.source,
                out,
                shard_bytes=config.shard_mb * 1_000_000,
                read=_bytes_of(opened.source) if reads_files(wanted) else None,
                numbers=numbers,
                tick=tick,
            )
    except OSError as error:
        raise CmidError(
            f"writing shards to {out} failed: {error.strerror or error}; free the disk or choose another folder, and "
            f"delete {out}, which is not whole"
        ) from error
    if len(bad) > config.max_bad_share * len(opened.source):
        (out / MANIFEST).unlink()
        first = "; ".join(f"{name} ({reason})" for name, reason in list(bad.items())[:3])
        raise CmidError(
            f"{len(bad)} of {len(opened.source)} images cannot be read, where at most {config.max_bad_share:.0%} may "
            f"be bad. First: {first}. Delete {out}, repair or remove the images, or raise max_bad_share"
        )
    if bad:
        first_name, reason = next(iter(bad.items()))
        console.print(f"note: {len(bad)} images cannot be read and are left out, first {first_name}: {reason}")
    result = _result(out, manifest, bad)
    console.print(
        f"{result.images:,} images in {result.shards} shards, {result.bytes / 1e6:,.0f} MB, under {out}; pre-train "
        f"with: {shlex.join(('cmid', 'pretrain', str(out)))}"
    )
    return result


def _result(folder: Path, manifest: Manifest, bad: dict[str, str]) -> PackResult:
    return PackResult(folder, manifest.images, len(manifest.shards), sum(s.bytes for s in manifest.shards), bad)


def _bytes_of(source: ImageSource) -> Any:
    """Suffix and bytes of image i of a folder, once it is known that they can be decoded."""

    def read(i: int) -> tuple[str, bytes]:
        path = Path(source.name(i))
        return path.suffix.lower(), _decodable(path)

    return read


def _decodable(path: Path) -> bytes:
    """All of an image file; raises `BadImage`, where it can by the header: the file may not fit into memory."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise BadImage(path, why(error)) from error
    if not S_ISREG(status.st_mode):  # a pipe that nobody writes to would never open
        raise BadImage(path, "it is no file")
    decoded = False
    try:
        look_at_header(path)
    except BadImage:
        if path.suffix.lower() not in UNKNOWN_TO_PILLOW:
            raise
        decode(path)  # which counts its pixels before it reads them
        decoded = True
    refuse_oversized(path, status.st_size)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(path, why(error)) from error
    if not decoded:
        decode(path, data=data)
    return data


def _make(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(entry.name != LOCK for entry in out.iterdir())):
        raise UsageError(f"expected a new or empty folder for the shards, but {out} holds something; choose another")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
