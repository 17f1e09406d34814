"""Of a file with somebody else's objects the tensors are read, and nothing in it runs or is imported."""

import builtins
import io
import os
import pickle
import random
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress

import pytest
import torch

from cmid.errors import UsageError
from cmid.zoo import foreign_checkpoints, load_backbone
from cmid.zoo.foreign_checkpoints import read_beside_objects
from tests.zoo.published_code import MODULE, save_full_checkpoint

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


class Calls:
    """Unpickles by calling `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def with_pickle(path, pickled, records=()):
    """A torch file around `pickled`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        for name, content in records:
            archive.writestr(f"a/data/{name}", content)
    return path


def pickle_of(value):
    """Protocol 2 of `value`; a `Storage` in it is written as torch writes a storage."""

    class Writer(pickle.Pickler):
        def persistent_id(self, found):
            return ("storage", torch.FloatStorage, found.record, "cpu", found.count) if type(found) is Storage else None

    out = io.BytesIO()
    Writer(out, protocol=2).dump(value)
    return out.getvalue()


class Storage:
    def __init__(self, record, count):
        self.record, self.count = record, count


def rebuilt(*arguments):
    return Calls(torch._utils._rebuild_tensor_v2, *arguments)


@pytest.fixture
def no_imports(monkeypatch):
    """Fails where the reading imports anything."""

    def refuse(name, *_, **__):
        raise AssertionError(f"{name} was imported")

    with monkeypatch.context() as patch:
        yield lambda: patch.setattr(builtins, "__import__", refuse)


# --- what is read ---------------------------------------------------------------------------------------------------


def test_tensors_and_plain_values_beside_foreign_objects(tmp_path, no_imports):
    generator = torch.Generator().manual_seed(0)
    model = {str(kind): (9 * torch.rand(3, 5, generator=generator)).to(kind) for kind in DTYPES}
    whole = torch.randn(6, 4, generator=generator)
    model |= {
        "slice": whole[2:4],
        "transposed": whole.T,
        "scalar": torch.tensor(7),
        "channels": whole[None, :, :, None],
    }
    model["channels"] = model["channels"].to(memory_format=torch.channels_last)
    model["parameter"] = torch.nn.Parameter(torch.ones(2))
    path = save_full_checkpoint(tmp_path / "epoch_1.pth", model)
    with pytest.raises(pickle.UnpicklingError, match=MODULE):
        torch.load(path, weights_only=True)
    no_imports()
    held = read_beside_objects(path)
    assert {key: value for key, value in held.items() if key != "model"} == {"epoch": 199, "num_gpus": 4}
    assert list(held["model"]) == list(model) and len(held["model"]) == len(model)
    for name, value in model.items():
        found = held["model"][name]
        assert found.dtype == value.dtype and found.stride() == value.stride() and torch.equal(found, value), name
    assert MODULE not in sys.modules


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    path = save_full_checkpoint(tmp_path / "m.pth", {"a": torch.ones(2), "b": torch.zeros(2), "c": torch.zeros(2)})
    read, record = [], foreign_checkpoints._record
    monkeypatch.setattr(
        foreign_checkpoints, "_record", lambda archive, name: read.append(name) or record(archive, name)
    )
    model = read_beside_objects(path)["model"]
    assert not [name for name in read if "/data/" in name]
    assert model["a"].tolist() == [1, 1] and len([name for name in read if "/data/" in name]) == 1


# --- what is not run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [os.mkdir, os.system, eval, exec, builtins.open])
def test_calls_among_the_objects_are_passed_over(tmp_path, call):
    trap = tmp_path / "sprung"
    argument = {
        os.mkdir: str(trap),
        os.system: f"touch {trap}",
        eval: f"__import__('os').mkdir({str(trap)!r})",
        exec: f"import os; os.mkdir({str(trap)!r})",
    }.get(call)
    arguments = (str(trap), "w") if argument is None else (argument,)
    path = save_full_checkpoint(tmp_path / "m.pth", {"a": torch.ones(2)}, extra=Calls(call, *arguments))
    assert read_beside_objects(path)["model"]["a"].tolist() == [1, 1]
    assert not trap.exists()
    pickle.loads(pickle.dumps(Calls(call, *arguments)))  # noqa: S301, the trap is real
    assert trap.exists()


@pytest.mark.parametrize("where", ["model", "name in it", "top"])
def test_a_call_in_place_of_the_tensors_is_refused(tmp_path, where):
    trap = Calls(os.mkdir, str(tmp_path / "sprung"))
    held = {"model": trap, "name in it": {"model": {trap: torch.ones(1)}}, "top": trap}[where]
    torch.save({"model": held} if where == "model" else held, tmp_path / "m.pth")
    assert read_beside_objects(tmp_path / "m.pth") is None
    with pytest.raises(UsageError, match="refused, nothing was run"):
        load_backbone(tmp_path / "m.pth", name="resnet18")
    assert not (tmp_path / "sprung").exists()


def test_a_call_in_place_of_a_tensor_is_no_tensor(tmp_path):
    torch.save({"model": {"a": Calls(os.mkdir, str(tmp_path / "sprung"))}}, tmp_path / "m.pth")
    with pytest.raises(pickle.UnpicklingError, match="a is no tensor"):
        read_beside_objects(tmp_path / "m.pth")["model"]["a"]
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "known",
    [OrderedDict, torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter, torch.FloatStorage, os.mkdir],
)
def test_no_state_sticks_to_what_a_pickle_may_hold(tmp_path, known):
    """BUILD on a class or on what it makes: writing attributes there would change every later reading."""
    before = {kind: dict(vars(kind)) for kind in vars(foreign_checkpoints).values() if isinstance(kind, type)}
    kinds = dict(foreign_checkpoints._KNOWN)
    state = (None, {"read": 1, "dtype": 1, "__new__": 1, "__setstate__": 1, "__defaults__": 1})
    name = pickle.dumps(known, protocol=2)[2:-1]  # pushes the global and memoises it as 0
    made = b"" if known is torch.FloatStorage else b")R" + pickle.dumps(state, protocol=2)[2:-1] + b"b"
    pickled = b"\x80\x02" + name + pickle.dumps(state, protocol=2)[2:-1] + b"b" + made + b"."
    with suppress(AttributeError):  # the state of what a _rebuild_parameter of nothing makes: None takes none
        foreign_checkpoints._Unpickler(foreign_checkpoints._checked(pickled)).load()
    assert kinds == foreign_checkpoints._KNOWN
    assert foreign_checkpoints._STORAGES["FloatStorage"] == kinds["torch", "FloatStorage"].dtype == torch.float32
    assert all(dict(vars(kind)) == earlier for kind, earlier in before.items())


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93.",  # STACK_GLOBAL
        b"(S'x'\nios\nmkdir\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1, a code that another part of the program may have registered
        b"\x80\x02}r\xff\xff\xff\x7f.",  # LONG_BINPUT: sixteen gigabytes of memo
        b"\x80\x02X\xff\xff\xff\x7fx.",  # BINUNICODE longer than the file
        b"\x80\x02}",  # no STOP
        b"\x80\x02}}}s.",  # a dict as a key
        b"\x80\x02R.",  # REDUCE of an empty stack
        b"",
    ],
)
def test_opcodes_that_torch_does_not_write_and_broken_pickles(tmp_path, pickled):
    assert read_beside_objects(with_pickle(tmp_path / "m.pth", pickled)) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of escapes in texts that come out of the changes
def test_random_bytes_in_the_pickle_raise_nothing_else(tmp_path):
    """Whatever comes of a changed pickle: a refusal, or tensors; never another error, a call or an import."""
    path = save_full_checkpoint(
        tmp_path / "m.pth", {"a": torch.ones(2), "b": torch.zeros(3)}, extra=Calls(os.mkdir, "x")
    )
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("m/data.pkl")
        records = [(name.rsplit("/", 1)[1], archive.read(name)) for name in archive.namelist() if "/data/" in name]
    dice = random.Random(0)
    for _ in range(300):
        changed = bytearray(pickled)
        for _ in range(dice.randint(1, 4)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        held = read_beside_objects(with_pickle(tmp_path / "changed.pth", bytes(changed), records))
        for name in [] if held is None else held["model"]:
            with suppress(pickle.UnpicklingError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile):
                assert isinstance(held["model"][name], torch.Tensor)


# --- tensors that are not what they say -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensor", "error"),
    [
        (rebuilt(Storage("0", 4), 0, (2, 2), (2, 1)), None),
        (rebuilt(Storage("0", 4), 1, (2, 2), (2, 1)), "out of bounds"),
        (rebuilt(Storage("0", 4), 0, (2, 2), (3, 1)), "out of bounds"),
        (rebuilt(Storage("0", 4), 0, (2, 2), (1,)), "mismatch"),
        (rebuilt(Storage("0", 4), 0, (2, 3), (0, 1)), "larger than its storage"),
        (rebuilt(Storage("0", 4), 0, (2,), (-1,)), "not within its storage"),
        (rebuilt(Storage("0", 4), 2**80, (2,), (1,)), "not within its storage"),
        (rebuilt(Storage("0", 4), 0.0, (2,), (1,)), "not within its storage"),
        (rebuilt(Storage("0", 4), 0, 2, (1,)), "without a storage, size or stride"),
        (rebuilt("0", 0, (2,), (1,)), "without a storage, size or stride"),
        (rebuilt(), "without a storage, size or stride"),
        (rebuilt(Storage("0", 1000), 0, (1000,), (1,)), "has 16 bytes for 1000 numbers"),
        (rebuilt(Storage("../0", 4), 0, (4,), (1,)), "no item named"),
        (rebuilt(Storage(0, 4), 0, (4,), (1,)), "without a storage"),
    ],
)
def test_bounds(tmp_path, tensor, error):
    content = torch.arange(4.0).numpy().tobytes()
    path = with_pickle(tmp_path / "m.pth", pickle_of({"model": {"a": tensor}}), [("0", content)])
    model = read_beside_objects(path)["model"]
    if error is None:
        assert torch.equal(model["a"], torch.arange(4.0).view(2, 2))
        return
    with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, RuntimeError), match=error):
        model["a"]


def test_changed_bytes_do_not_pass_their_check_sum(tmp_path):
    path = save_full_checkpoint(tmp_path / "m.pth", {"a": torch.full((64,), 3.0)})
    content = path.read_bytes()
    at = content.index(torch.full((64,), 3.0).numpy().tobytes())
    path.write_bytes(content[:at] + b"\x00\x00\x00\x01" + content[at + 4 :])
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read_beside_objects(path)["model"]["a"]


def test_what_could_unfold_in_memory_or_was_written_on_another_machine(tmp_path):
    path = tmp_path / "m.pth"
    tensor = pickle_of({"model": {"a": rebuilt(Storage("0", 10**6), 0, (10**6,), (1,))}})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", tensor, zipfile.ZIP_STORED)
        archive.writestr("a/data/0", bytes(4 * 10**6))
    with pytest.raises(ValueError, match="is compressed"):
        read_beside_objects(path)["model"]["a"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/byteorder", "big" if sys.byteorder == "little" else "little")
    assert read_beside_objects(path) is None


def test_other_files(tmp_path):
    assert read_beside_objects(save_full_checkpoint(tmp_path / "m.pth", {3: torch.ones(1)})) is None
    old = save_full_checkpoint(tmp_path / "old.pth", {"a": torch.ones(1)}, _use_new_zipfile_serialization=False)
    assert read_beside_objects(old) is None
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    assert read_beside_objects(tmp_path / "list.pth") is None
