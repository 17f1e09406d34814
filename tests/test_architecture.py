"""The floors of docs/architecture.md, held against the imports that are really there."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cmid"
FLOORS = [
    {"contracts", "config", "ops", "layers", "errors", "folder_lock", "whole_files"},
    {"backbones", "methods", "tasks", "data", "train", "evaluation", "predict", "report"},
    {"zoo"},
    {"commands"},
    {"cli", "__init__", "__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
NEIGHBOURS_APART = 1  # the rooms of this floor do not import one another
SHAPELESS = {"utils", "misc", "common", "base", "helpers"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module] if node.module != "cmid" else [f"cmid.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("cmid.")}
    return rooms & FLOOR_OF.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    here = room_of(path)
    assert here in FLOOR_OF, f"{path} is in no known room: give it a floor in docs/architecture.md and here"
    for room in imported_rooms(path) - {here}:
        assert FLOOR_OF[room] <= FLOOR_OF[here], f"{path} imports cmid.{room}, which is a floor above it"
        if FLOOR_OF[here] == FLOOR_OF[room] == NEIGHBOURS_APART:
            pytest.fail(f"{path} imports its neighbour cmid.{room}: they meet in cmid/commands only")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_small_and_named(path):
    lines = len(path.read_text().splitlines())
    assert lines <= 400, f"{path} has {lines} lines: split it where a reader would look for the parts"
    assert path.stem not in SHAPELESS, f"{path}: the name says nothing of what is in it"


def test_absolute_imports_only():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: write cmid.… in full"


def test_only_train_names_lightning():
    for path in FILES:
        if room_of(path) != "train":
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not any(n.split(".")[0] == "lightning" for n in names), f"{path} names Lightning"
