"""`cmid recipes`: list the packaged recipes, or show one whole.

A recipe is a YAML file in `cmid/recipes` with fields of the verb's dataclass. It opens with a comment of five
entries: What, Command, Time and hardware, Paper, Ours. An entry that goes on is indented; a bare `#` ends the five.
"""

import re
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from cmid.config import RecipesConfig
from cmid.errors import UsageError, did_you_mean

FOLDER = Path(__file__).parent.parent / "recipes"
HEADER = ("What", "Command", "Time and hardware", "Paper", "Ours")


@dataclass(frozen=True)
class Recipe:
    """A packaged recipe and the entries of its opening comment.

    Attributes:
        name: what `--recipe` takes.
        path: its file.
        what: what it trains, on what.
        command: how to run it.
        hardware: how long it takes on what.
        paper: what the paper reports for it.
        ours: what we measured with it.
    """

    name: str
    path: Path
    what: str
    command: str
    hardware: str
    paper: str
    ours: str

    @property
    def verb(self) -> str:
        """The verb whose settings it holds, with its kind where it has any: `finetune segmentation`."""
        return " ".join(takewhile(str.islower, self.command.split()[1:]))  # what it takes is in capitals

    @property
    def text(self) -> str:
        """The whole file."""
        return self.path.read_text(encoding="utf-8")


def recipe_names() -> list[str]:
    """Names of all packaged recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(name: str) -> Recipe:
    """The packaged recipe `name`.

    Raises:
        UsageError: there is none; with the nearest names.
    """
    known = recipe_names()
    if name not in known:
        raise UsageError(
            f"Unknown recipe {name!r}.{did_you_mean(name, known) or ' There are ' + ', '.join(known) + '.'}"
        )
    path = FOLDER / f"{name}.yaml"
    entries = _header(path)
    if tuple(entries) != HEADER:
        raise ValueError(f"{path} must open with a comment of the entries {HEADER}, found {tuple(entries)}")
    return Recipe(name, path, *(entries[key] for key in HEADER))


def all_recipes() -> dict[str, Recipe]:
    """All packaged recipes by name."""
    return {name: find_recipe(name) for name in recipe_names()}


def recipes(config: RecipesConfig) -> None:
    """Print what each recipe is for, by verb, or the file of `config.name` whole, to standard output."""
    if config.name is not None:
        sys.stdout.write(find_recipe(config.name).text)
        return
    from rich.console import Console
    from rich.table import Table

    console, found = Console(markup=False, highlight=False), all_recipes()
    longest = max(map(len, found))
    for verb in dict.fromkeys(recipe.verb for recipe in found.values()):
        console.print(f"cmid {verb} --recipe ...", style="bold")
        table = Table.grid(padding=(0, 0, 0, 2))
        table.add_column(no_wrap=True, min_width=longest)
        table.add_column()
        for recipe in found.values():
            if recipe.verb == verb:
                table.add_row(recipe.name, recipe.what)
        console.print(table)
        console.print()
    console.print("One whole, with its command, time, hardware, the paper's result and ours: cmid recipes NAME")


def _header(path: Path) -> dict[str, str]:
    """The entries of the opening comment, which ends at a bare `#` or at the first setting."""
    entries: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.removeprefix("#").strip() or not line.startswith("#"):
            break
        if entry := re.match(r"# ([A-Z][^:]*): (.+)", line):
            last = entry[1]
            entries[last] = entry[2]
        elif entries:
            entries[last] += " " + line.lstrip("# ")
    return entries
