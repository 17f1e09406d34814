"""The README's tree against the disk, and its commands against the command line."""

import re
import shlex
from pathlib import Path

import pytest

from cmid.cli import read_words
from cmid.commands import prepare

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TREE = re.search(r"```\n(cmid/\n.*?)```", README, re.DOTALL).group(1).splitlines()
COMMANDS = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    cmid ")]


def test_the_tree_is_what_is_there():
    inside = {line.split()[0].rstrip("/") for line in TREE if line.startswith("  ")}
    hidden = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    assert inside == {p.name for p in (ROOT / "cmid").iterdir()} - hidden
    for line in TREE:
        if not line.startswith(" "):
            assert (ROOT / line.split()[0]).is_dir()


def test_a_line_of_the_tree_has_few_words():
    for line in TREE[1:]:
        assert len(line.split()[1:]) <= 6, line


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command):
    verb, *words = shlex.split(command)[1:]
    read = read_words(verb, words)
    prepare(verb, read.given, kind=read.kind, source="command line", **read.files)


def test_every_picture_and_link_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
