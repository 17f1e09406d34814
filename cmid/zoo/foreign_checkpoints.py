"""Tensors out of a torch.save file that also holds objects of somebody else's code, none of which is run.

`torch.load(weights_only=True)` refuses such a file whole, so its pickle is read here with a list of names of our own:

- `find_class` imports nothing. The few names that tensors and dicts need give the inert classes of this file; every
  other name gives `_StandIn`, which takes whatever a pickle does to it and keeps nothing.
- So a pickle can call nothing but these classes: no function of torch, of numpy or of the standard library.
- Opcodes are those of protocol 2, which torch.save writes; any other is refused before the first is carried out.
- Tensors are descriptions until one is asked for. Then its bytes are read, with their check sum, and its bounds held
  against them; optimiser and queue, most of a checkpoint, stay on disk.

Only the zip format is read, which torch has written since 1.6; what is older is None here.
"""

import io
import math
import pickle
import pickletools
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# fmt: off
_OPCODES = {
    "PROTO", "STOP", "MARK", "POP", "POP_MARK", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
}
# fmt: on
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class TensorsOnDisk(Mapping[str, Tensor]):
    """The tensors of one dict of a file by name; each is read when it is asked for.

    Asking raises pickle.UnpicklingError where the value is no tensor, and ValueError, KeyError, RuntimeError or
    zipfile.BadZipFile where its bytes are damaged.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str, values: dict[str, Any]) -> None:
        self._archive, self._root, self._values = archive, root, values

    def __getitem__(self, name: str) -> Tensor:
        value = self._values[name]
        if not isinstance(value, _TensorOnDisk):
            raise pickle.UnpicklingError(f"{name} is no tensor")
        return value.read(self._archive, self._root)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def read_beside_objects(path: Path, under: str = "model") -> dict[str, Any] | None:
    """The tensors under the key `under` of the file's dict, and the plain numbers and texts beside it.

    Returns:
        `{under: TensorsOnDisk, name: int | float | str, ...}`; None where the file is not such a dict, is not in the
        zip format, or asks for something that tensors beside objects do not need.

    Raises:
        zipfile.BadZipFile: the file is damaged.
    """
    if not zipfile.is_zipfile(path):
        return None
    archive = zipfile.ZipFile(path)  # closed with the TensorsOnDisk that keeps it
    roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1 or _byte_order(archive, roots[0]) != sys.byteorder:
        return None
    try:
        held = _Unpickler(_checked(_record(archive, f"{roots[0]}/data.pkl"))).load()
    except zipfile.BadZipFile:
        raise
    except Exception:  # what a hostile pickle raises has no limits, and all of it means the same
        return None
    if not isinstance(held, dict) or not isinstance(held.get(under), dict):
        return None
    if not all(type(name) is str for name in held[under]):
        return None
    plain = {name: value for name, value in held.items() if type(name) is str and type(value) in {int, float, str}}
    return {**plain, under: TensorsOnDisk(archive, roots[0], dict(held[under]))}


def _byte_order(archive: zipfile.ZipFile, root: str) -> str:
    name = f"{root}/byteorder"
    return _record(archive, name).decode() if name in archive.namelist() else "little"  # as before torch 2.1


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, which torch.save never does")  # a few bytes could fill the memory
    return archive.read(name)


def _checked(pickled: bytes) -> io.BytesIO:
    """`pickled` once each of its opcodes has been looked at, none carried out."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"opcode {opcode.name}")
        if opcode.name.endswith("BINPUT") and isinstance(argument, int) and argument > len(pickled):
            raise pickle.UnpicklingError("a memo larger than the pickle")  # would be allocated up to that index
    return io.BytesIO(pickled)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Never super().find_class: it imports the module, and importing runs it
        return _KNOWN.get((module, name), _StandIn)

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("storage", _StorageKind() as kind, str(record), _, int(count)):
                return _StorageOnDisk(kind.dtype, record, count)
        return _StandIn()


# --- all that a pickle gets to hold and call --------------------------------------------------------------------------


class _Inert:
    """Takes a state and drops it.

    BUILD would otherwise write attributes: on an instance, and through a class also on all that use it later.
    `self` is among the `_` so that BUILD on the class itself, which calls it unbound, is swallowed too.
    """

    __slots__ = ()

    def __setstate__(*_: object) -> None:
        pass


class _StandIn(_Inert):
    """In place of every class, function and object that is not known here."""

    __slots__ = ()

    def __new__(cls, *_: object, **__: object) -> "_StandIn":
        return super().__new__(cls)

    def append(*_: object) -> None:
        pass

    def extend(*_: object) -> None:
        pass

    def __setitem__(*_: object) -> None:
        pass


class _OrderedDict(_Inert, dict[Any, Any]):
    """For collections.OrderedDict; without the attributes that torch hangs on a state dict."""

    __slots__ = ()


class _StorageKind(_Inert):
    """For torch.FloatStorage and its like."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _StorageOnDisk(_Inert):
    """A record of the archive: `count` numbers of `dtype`."""

    __slots__ = ("count", "dtype", "record")

    def __init__(self, dtype: torch.dtype, record: str, count: int) -> None:
        self.dtype, self.record, self.count = dtype, record, count


class _TensorOnDisk(_Inert):
    """For torch._utils._rebuild_tensor_v2: believes nothing it is given until it is read."""

    __slots__ = ("offset", "size", "storage", "stride")
    offset: Any
    size: Any
    storage: Any
    stride: Any

    def __new__(
        cls, storage: Any = None, offset: Any = None, size: Any = None, stride: Any = None, *_: object
    ) -> "_TensorOnDisk":
        self = super().__new__(cls)
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        return self

    def read(self, archive: zipfile.ZipFile, root: str) -> Tensor:
        """The tensor, in memory of its own."""
        storage, shape = self.storage, (self.size, self.stride)
        if not isinstance(storage, _StorageOnDisk) or not all(isinstance(sides, tuple) for sides in shape):
            raise pickle.UnpicklingError("a tensor without a storage, size or stride")
        if not all(type(n) is int and 0 <= n <= storage.count for n in (self.offset, *self.size, *self.stride)):
            raise pickle.UnpicklingError("a tensor whose place is not within its storage")
        if math.prod(self.size) > storage.count:  # expanded: a copy of it could fill the memory
            raise pickle.UnpicklingError("a tensor larger than its storage")
        numbers = bytearray(_record(archive, f"{root}/data/{storage.record}"))
        if len(numbers) != storage.count * storage.dtype.itemsize:
            raise ValueError(f"record {storage.record} has {len(numbers)} bytes for {storage.count} numbers")
        return torch.frombuffer(numbers, dtype=storage.dtype).as_strided(self.size, self.stride, self.offset)


class _Parameter(_Inert):
    """For torch._utils._rebuild_parameter: the tensor in it."""

    __slots__ = ()

    def __new__(cls, tensor: Any = None, *_: object) -> Any:
        return tensor


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _TensorOnDisk,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    **{("torch", name): _StorageKind(dtype) for name, dtype in _STORAGES.items()},
}
