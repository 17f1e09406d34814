"""`cmid recipes`: list the packaged recipes, or show one whole.

A recipe is a YAML file in `cmid/recipes` with fields of the verb's dataclass. It opens with a comment of five
entries: What, Command, Time and hardware, Paper, Ours. An entry that goes on is indented; a bare `#` ends the five.
"""

import re
import sys
from dataclasses import dataclass
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
    def words(self) -> tuple[str, ...]:
        """Those of its command after `cmid`: the verb whose settings it holds, and its kind where it has any."""
        return tuple(self.command.split()[1:])

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
    """Print a table of the recipes, or the file of `config.name` whole, to standard output."""
    if config.name is not None:
        sys.stdout.write(find_recipe(config.name).text)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=True)
    for column in ("recipe", "what", "time and hardware", "result"):
        table.add_column(column, no_wrap=column == "recipe", overflow="fold")
    for recipe in all_recipes().values():
        table.add_row(recipe.name, recipe.what, recipe.hardware, f"paper: {recipe.paper}\nours: {recipe.ours}")
    console = Console(markup=False)
    console.print(table)
    console.print("Show one whole: cmid recipes NAME. Use one: its command begins it.", highlight=False)


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
