"""Shards: many images in few large files, for disks and object stores where opening a million files is what costs.

A set of shards is a folder:

    shards.json        the manifest: how many images, what they are, every file's SHA-256; written last
    shard-00000.tar    plain tar, one member an image (`000000042.jpg`), readable by tar, WebDataset and the like
    index.npy          `(N, 3)` int64: shard, offset and length of each image's bytes
    names.txt          what each image was called before, a line an image

Image files keep their own bytes. Other sources (windows of scenes, torchgeo's data sets) are stored as the pixels they
give, in npy. Images are read by position like files, in an order that stays near the disk's: blocks of neighbours
in a random order, and the images of several blocks mixed.
"""

import errno
import io
import os
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from cmid.data.decode import SUFFIXES, BadImage, Decoded, Reduction, decode
from cmid.data.shard_manifest import INDEX, MANIFEST, NAMES, Manifest, Shard, checksum
from cmid.data.sources import ImageSource
from cmid.errors import CmidError, UsageError

BLOCK_BYTES = 4 << 20
"""What is read in one go."""
ANNOUNCED_AT_ONCE = 64
"""Blocks a process remembers to have announced: more than an epoch's order mixes, twice over."""
PIECE_BYTES = 128 << 10
"""What is announced in one call: Linux cuts a call to the disk's read-ahead, which is as little as this."""
OPEN_AT_ONCE = 64
"""Shards that a process keeps open: many more than an epoch's order mixes, and few where a process may open 1,024."""
MOST_IMAGE_BYTES = 0x7FFFF000
"""Of one image: Linux reads no more in one call."""


def is_sharded(data: str) -> bool:
    """Whether `data` is a folder of shards."""
    return os.path.isfile(os.path.join(data, MANIFEST))  # noqa: PTH113, PTH118 - False where it cannot be looked up


def refuse_lone_shards(folder: Path) -> None:
    """Raises `UsageError` where a folder, in which nothing else was found, holds shards, with or without manifest."""
    if is_sharded(str(folder)):
        raise UsageError(f"{folder} holds shards, which are recognised by themselves: leave --source out")
    if not folder.is_dir():
        return
    if lone := sorted(each.name for each in folder.glob("shard-*.tar")):
        raise UsageError(
            f"{folder} holds {len(lone)} shards, first {lone[0]}, but not their manifest {MANIFEST}: copy it, {INDEX} "
            f"and {NAMES} from where they were written, or pack the images anew (where `cmid pack` was interrupted it "
            "is missing, too)"
        )


class _Writer:
    """Fills one tar after the other."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.folder, self.shard_bytes = folder, shard_bytes
        self.shards: list[Shard] = []
        self.index: list[tuple[int, int, int]] = []
        self._tar: tarfile.TarFile | None = None
        self._count = 0

    def add(self, suffix: str, data: bytes) -> None:
        """Writes an image's bytes as the next member, with its suffix where that is an image's."""
        if self._tar is not None and self._tar.offset + len(data) > self.shard_bytes and self._count:
            self.close()
        if self._tar is None:
            name = f"shard-{len(self.shards):05d}.tar"
            self._tar = tarfile.open(self.folder / name, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        # a list may name any file, and tar's names are short
        kept = suffix if suffix.lower() in (*SUFFIXES, ".npy") else ""
        member = tarfile.TarInfo(f"{len(self.index):09d}{kept}")
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        self.index.append((len(self.shards), self._tar.offset - padded, len(data)))
        self._count += 1

    def close(self) -> None:
        """Ends the tar being filled and puts it on disk."""
        if self._tar is None:
            return
        path = Path(str(self._tar.name))
        self._tar.close()
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        self.shards.append(Shard(path.name, self._count, path.stat().st_size, checksum(path)))
        self._tar, self._count = None, 0

    def abandon(self) -> None:
        """Lets go of the tar being filled, as far as it came."""
        if self._tar is not None and self._tar.fileobj is not None:
            with suppress(OSError):  # what is left in the buffer has no room on a full disk
                self._tar.fileobj.close()


def write_shards(
    source: ImageSource,
    folder: Path,
    *,
    shard_bytes: int,
    read: Callable[[int], tuple[str, bytes]] | None,
    numbers: dict[str, Any] | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> tuple[Manifest, dict[str, str]]:
    """Packs images of `source`; one that cannot be read is left out.

    Args:
        source: images by position.
        folder: empty, made by the caller.
        shard_bytes: a shard is closed before it would grow beyond this.
        read: suffix and bytes of image i, where files keep their own; None stores the pixels.
        numbers: of the views, for pixels.
        tick: hears how many of how many are done.

    Returns:
        The manifest, and name and reason of each image left out.

    Raises:
        CmidError: nothing could be read.
        OSError: the disk is full, or the folder cannot be written.
    """
    writer, names, bad = _Writer(folder, shard_bytes), list[str](), dict[str, str]()
    total = len(source)
    try:
        for i in range(total):
            try:
                suffix, data = read(i) if read is not None else (".npy", _as_npy(source.decode(i).pixels))
                refuse_oversized(source.name(i), len(data))
            except BadImage as error:
                bad[source.name(i)] = error.reason
            else:
                writer.add(suffix, data)
                names.append(source.name(i).replace("\n", " "))  # all else may stand in a line
            if tick is not None:
                tick(i + 1, total)
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    if not names:
        first = next(iter(bad.items()), ("", "there are none"))
        raise CmidError(f"none of {total} images could be packed, first {first[0]}: {first[1]}")
    np.save(folder / INDEX, np.array(writer.index, np.int64), allow_pickle=False)
    (folder / NAMES).write_bytes("".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape"))
    dtype = "uint8" if source.dtype == torch.uint8 else "float32"
    stored, sums = "pixels" if read is None else "files", {name: checksum(folder / name) for name in (INDEX, NAMES)}
    manifest = Manifest(len(names), stored, dtype, numbers or {}, tuple(writer.shards), sums)
    manifest.write(folder)  # last: a folder with a manifest is whole
    return manifest, bad


def _as_npy(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


def refuse_oversized(name: Path | str, size: int) -> None:
    """Raises `BadImage` where an image of `size` bytes could not be read from a shard."""
    if size > MOST_IMAGE_BYTES:
        raise BadImage(name, f"{size:,} bytes, where a shard gives back {MOST_IMAGE_BYTES:,}; cut it into tiles first")


def verify(folder: Path, tick: Callable[[int, int], None] | None = None) -> dict[str, str]:
    """Files of a set that are not as they were written, with the reason; reads all of them.

    Of the index and the names an earlier version wrote no check sums: then it is only known whether they fit.

    Raises:
        UsageError: no manifest, or a damaged one.
    """
    manifest, wrong = Manifest.read(folder), dict[str, str]()
    torn = {shard.file: reason for shard in manifest.shards if (reason := _torn(folder, shard)) is not None}
    sums = manifest.sums | {shard.file: shard.sha256 for shard in manifest.shards}
    files = [*(shard.file for shard in manifest.shards), INDEX, NAMES]
    for done, name in enumerate(files, 1):
        reason = torn.get(name) or _changed(folder / name, sums.get(name))
        if reason is not None:
            wrong[name] = reason
        if tick is not None:
            tick(done, len(files))
    if INDEX not in wrong and NAMES not in wrong:
        try:
            _read_index(folder, manifest)
        except UsageError as error:
            wrong[INDEX] = str(error).removeprefix(f"{folder}: ")
    return wrong


def _changed(path: Path, known: str | None) -> str | None:
    try:
        if checksum(path) != known and known is not None:
            return "its bytes have changed: the check sum is another"
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _torn(folder: Path, shard: Shard) -> str | None:
    path = folder / shard.file
    if not path.is_file():
        return "it is missing"
    size = path.stat().st_size
    return None if size == shard.bytes else f"it has {size:,} of {shard.bytes:,} bytes"


def _read_npy(file: IO[bytes]) -> np.ndarray:
    """The array in a npy file: `np.load` would also take a zip of them. Raises anything at all on damaged bytes."""
    return np.lib.format.read_array(file, allow_pickle=False)


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_index(folder: Path, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """`(N, 3)` int64 of a set, as the shards' sizes allow, and `(N,)` names; raises `UsageError`."""
    try:
        with (folder / INDEX).open("rb") as file:
            index = _read_npy(file)
        names = np.array((folder / NAMES).read_bytes().removesuffix(b"\n").split(b"\n"))
    except Exception as error:  # MemoryError of a shape that is not true, tokenize's of a header cut off ...
        raise UsageError(
            f"{folder}: {INDEX} or {NAMES} cannot be read ({_told(error)}): copy them again, or pack anew"
        ) from None
    if index.shape != (manifest.images, 3) or len(names) != manifest.images or index.dtype != np.int64:
        raise UsageError(f"{folder}: {INDEX} and {NAMES} do not fit the manifest; copy them again, or pack anew")
    sizes = np.array([shard.bytes for shard in manifest.shards], np.int64)
    shard, offset, length = index.T
    # the length against what is left: offset + length may be more than int64 holds
    if (index < 0).any() or (shard >= len(sizes)).any() or (length > sizes[shard] - offset).any():
        raise UsageError(f"{folder}: {INDEX} points outside the shards; copy it again, or pack the images anew")
    return index, names


class _File:
    """A shard, open until nobody holds this: one that is put away may be in use by another thread."""

    def __init__(self, path: Path) -> None:
        self.handle = -1
        self.handle = os.open(path, os.O_RDONLY)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` may be gone before the last of these
        if self.handle >= 0:
            close(self.handle)


class ShardSource:
    """Images of a folder of shards, by position.

    Args:
        folder: with a manifest.

    Attributes:
        manifest: what the folder holds.
        torn: file and reason of each shard that is left out, all its images with it.
        block: images that are read in one go, for `epoch_order`.
        repair: what to do about images that cannot be read.

    Raises:
        UsageError: no manifest, a damaged index, or fewer than two images in whole shards.
    """

    fresh = False

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.repair = f"`cmid pack {self.folder} --check` tells which shards have changed: copy those again"
        m = self.manifest = Manifest.read(self.folder)
        self.torn = {s.file: reason for s in m.shards if (reason := _torn(self.folder, s)) is not None}
        index, names = _read_index(self.folder, m)
        whole = ~np.isin(index[:, 0], [i for i, s in enumerate(m.shards) if s.file in self.torn])
        self._index, self._names = index[whole], names[whole]
        if len(self._index) < 2:
            raise UsageError(self._too_few())
        self.bands = 3 if m.stored == "files" else len(m.numbers.get("mean", (0, 0, 0)))
        self.dtype = torch.uint8 if m.dtype == "uint8" else torch.float32
        self.block = max(1, int(BLOCK_BYTES / max(1.0, float(self._index[:, 2].mean()))))
        self._files: OrderedDict[int, _File] = OrderedDict()
        self._owner = 0
        self._announced: OrderedDict[tuple[int, int], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._index)

    def _too_few(self) -> str:
        found = f"expected two images at least in whole shards of {self.folder}, found {len(self._index)}"
        if not self.torn:
            return f"{found}: pack more of them"
        told = "; ".join(f"{name} is left out: {reason}" for name, reason in list(self.torn.items())[:3])
        more = f"; and {len(self.torn) - 3} more" if len(self.torn) > 3 else ""
        return f"{found}; {told}{more}. Copy the shards again, or pack the images anew"

    def name(self, i: int) -> str:
        """The shard of image i, and what it was called before it was packed: the file of that name may be as it was."""
        return f"{self.manifest.shards[int(self._index[i, 0])].file}: {self.original(i)}"

    def original(self, i: int) -> str:
        """What image i was called before it was packed."""
        return os.fsdecode(bytes(self._names[i]))

    def read(self, i: int) -> bytes:
        """The bytes of image i; raises `BadImage`, and `CmidError` where no file can be opened."""
        shard, offset, length = (int(number) for number in self._index[i])
        if length > MOST_IMAGE_BYTES:
            refuse_oversized(self.name(i), length)
        try:
            file = self._open(shard)  # held until it has been read
            self._announce(i, file.handle)
            data = os.pread(file.handle, length, offset)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise CmidError(self._too_many(shard, error)) from None
            raise BadImage(self.name(i), f"the shard cannot be read: {error.strerror}") from error
        if len(data) != length:
            raise BadImage(self.name(i), "the shard ends before it: it is torn")
        return data

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Image i, shrunk as `reduction` allows; raises `BadImage`."""
        data = self.read(i)
        if self.manifest.stored == "files":
            return decode(self.name(i), reduction, data=data)
        try:
            pixels = _read_npy(io.BytesIO(data))
        except Exception as error:
            raise BadImage(self.name(i), f"its pixels cannot be read: {_told(error)}") from error
        if (
            not pixels.size
            or pixels.ndim != 3
            or pixels.shape[2] != self.bands
            or pixels.dtype != np.dtype(self.manifest.dtype)
        ):
            raise BadImage(self.name(i), f"pixels of {pixels.shape} {pixels.dtype} where {self.bands} bands were meant")
        return Decoded(pixels, width=pixels.shape[1], height=pixels.shape[0])

    def _open(self, shard: int) -> _File:
        if self._owner != os.getpid():  # a forked process closes its copies, with which its parent's stay open
            self._files, self._owner, self._announced = OrderedDict(), os.getpid(), OrderedDict()
        # taken out and put back, in single steps: another thread may do the same
        file = self._files.pop(shard, None) or _File(self.folder / self.manifest.shards[shard].file)
        self._files[shard] = file
        while len(self._files) > OPEN_AT_ONCE:
            self._files.popitem(last=False)
        return file

    def _too_many(self, shard: int, error: OSError) -> str:
        return (
            f"{self.folder / self.manifest.shards[shard].file} cannot be opened: {error.strerror}. A process keeps at "
            f"most {OPEN_AT_ONCE} shards open, beside its other files: allow it more (`ulimit -n 4096` in the shell), "
            "or use fewer workers, where it is the whole system that has too many open"
        )

    def _announce(self, i: int, handle: int) -> None:
        """Tells the system that the block of image i will be wanted, so that it is read in one go.

        Once for all images of the block, which come mixed with those of others: telling takes longer than reading.
        """
        block, shard = i // self.block, int(self._index[i, 0])
        if (block, shard) in self._announced or not hasattr(os, "posix_fadvise"):
            return
        self._announced[block, shard] = None
        if len(self._announced) > ANNOUNCED_AT_ONCE:
            self._announced.popitem(last=False)
        rows = self._index[block * self.block : (block + 1) * self.block]
        rows = rows[rows[:, 0] == shard]
        begin, end = int(rows[0, 1]), int(rows[-1, 1] + rows[-1, 2])
        for piece in range(begin, end, PIECE_BYTES):
            os.posix_fadvise(handle, piece, min(PIECE_BYTES, end - piece), os.POSIX_FADV_WILLNEED)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict(), "_owner": 0, "_announced": OrderedDict()}
