"""The documents against the disk and the command line: the README's tree, and every command, link and anchor."""

import re
import shlex
from pathlib import Path

import pytest

from cmid.cli import read_words
from cmid.commands import VERBS, prepare
from cmid.errors import UsageError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TREE = re.search(r"```\n(cmid/\n.*?)```", README, re.DOTALL).group(1).splitlines()
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
LAUNCHERS = ("torchrun", "srun")


def indented_lines(text: str) -> list[str]:
    """Lines of indented code without their comments, continued ones joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [re.split(r"\s#\s", line)[0].strip() for line in joined.splitlines() if line.startswith("    ")]


def without_launcher(line: str) -> str:
    """What follows `torchrun ... -m ` or `srun ... `."""
    return line[line.index("cmid ") :] if line.startswith(LAUNCHERS) else line


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands_of(path: Path) -> list[str]:
    lines = [without_launcher(line) for line in indented_lines(path.read_text())]
    return [line for line in lines if line.startswith("cmid ")]


def mentions_of(path: Path) -> set[str]:
    """`cmid ...` within a sentence, perhaps broken over two lines."""
    return {" ".join(found.split()) for found in re.findall(r"`(cmid [^`]+)`", path.read_text())}


COMMANDS = [pytest.param(line, id=f"{name_of(path)}: {line}") for path in DOCUMENTS for line in commands_of(path)]
MENTIONS = [
    pytest.param(text, id=f"{name_of(path)}: {text}") for path in DOCUMENTS for text in sorted(mentions_of(path))
]


def understand(command: str) -> None:
    verb, *words = shlex.split(command)[1:]
    read = read_words(verb, words)
    prepare(verb, read.given, kind=read.kind, source="command line", **read.files)


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
def test_commands_are_understood(command):
    understand(command)


@pytest.mark.parametrize("text", MENTIONS)
def test_commands_within_sentences_are_understood(text):
    """They may leave out what must be given, name kinds as `a|b`, and hold VERB for any."""
    words = text.removesuffix(" --help").split(" ", 2)
    if words[1] == "VERB" or (words[1] in VERBS and len(words) == 2):
        return
    for kind in words[2].split(" ")[0].split("|"):
        rest = " ".join([kind, *words[2].split(" ")[1:]])
        try:
            understand(f"cmid {words[1]} {rest}")
        except UsageError as error:
            assert re.search(r"was not given|one of .* comes first", str(error)), error


def test_scripts_of_benchmarks_and_their_options_are_there():
    for path in DOCUMENTS:
        for line in indented_lines(path.read_text()):
            if line.startswith("python "):
                script = (ROOT / line.split()[1]).read_text()
                for option in re.findall(r"--[a-z-]+", line):
                    assert {f'"{option}"', f'"{option[2:]}"'} & set(re.findall(r'"[^"\n]*"', script)), (
                        f"{name_of(path)}: {line}: {option}"
                    )


def test_every_picture_and_link_is_there():
    for path in DOCUMENTS:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]+)?\)", path.read_text()):
            if target.startswith("http"):
                continue
            found = path.parent / target if target else path
            assert found.exists(), f"{name_of(path)}: {target}"
            if anchor:
                assert anchor[1:] in anchors_of(found), f"{name_of(path)}: {target}{anchor}"


def anchors_of(path: Path) -> set[str]:
    """Headings as GitHub names them: lower case, blanks to dashes, other signs dropped."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
