"""What `cmid doctor` found: findings, shares of the classes, as a table and as plain values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from cmid.errors import CmidError

Level = Literal["wrong", "look", "fine"]
MARKS: dict[Level, str] = {"wrong": "WRONG", "look": "look", "fine": "fine"}
MOST_SHOWN = 5
MOSTLY = 0.5
"""More pixels than this without label are worth a look."""
UNEQUAL = 5.0
"""A class whose shares of train and test differ by more than this factor is worth a look."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: whether training on it would go wrong, a person should look, or nothing is the matter.
        what: was looked at, in two or three words.
        told: what was found, in one sentence.
        examples: names of files, all of them.
    """

    level: Level
    what: str
    told: str
    examples: tuple[str, ...] = ()


@dataclass
class Diagnosis:
    """All that was found.

    Attributes:
        data: that was looked at.
        findings: in the order they were made.
        images: on each side.
        classes: names, as far as they are known.
        pixels: on each side, of each class, and under the empty name those without label.
    """

    data: str
    findings: list[Finding] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    pixels: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, level: Level, what: str, told: str, examples: Iterable[str] = ()) -> None:
        """One finding more."""
        self.findings.append(Finding(level, what, told, tuple(examples)))

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """What would make training go wrong."""
        return tuple(each for each in self.findings if each.level == "wrong")

    def weigh_classes(self) -> None:
        """Adds what the pixels of the classes tell."""
        sides = self.pixels
        found = {name: [side for side in sides if sides[side].get(name)] for name in self.classes}
        never = [name for name, seen in found.items() if not seen]
        untrained = [name for name, seen in found.items() if seen and "train" in sides and "train" not in seen]
        untested = [name for name, seen in found.items() if seen and "test" in sides and "test" not in seen]
        if never:
            self.add("wrong", "classes", f"{_count(never, 'class', 'classes')} never seen: {', '.join(never)}")
        if untrained:
            self.add("wrong", "classes", f"in test, but never in train: {', '.join(untrained)}")
        if untested:
            self.add("look", "classes", f"in train, but never in test: {', '.join(untested)}")
        if not never + untrained + untested:
            self.add(
                "fine", "classes", f"all {len(self.classes)} are on both sides" if len(sides) > 1 else "all are seen"
            )
        for side, pixels in sides.items():
            total = sum(pixels.values())
            if total and pixels.get("", 0) > MOSTLY * total:
                self.add("look", "unlabelled", f"{pixels[''] / total:.0%} of the pixels of {side} have no label")
        shares = {side: _shares(pixels, self.classes) for side, pixels in sides.items()}
        if {"train", "test"} <= shares.keys():
            pairs = {name: (shares["train"][name], shares["test"][name]) for name in self.classes}
            unequal = [n for n, (a, b) in pairs.items() if min(a, b) > 0 and max(a, b) > UNEQUAL * min(a, b)]
            if unequal:
                told = ", ".join(f"{name} {pairs[name][0]:.2%} and {pairs[name][1]:.2%}" for name in unequal)
                self.add("look", "shares", f"train and test differ by more than {UNEQUAL:g} times: {told}")

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "data": self.data,
            "wrong": len(self.wrong),
            "findings": [
                {"level": each.level, "what": each.what, "told": each.told, "examples": list(each.examples)}
                for each in self.findings
            ],
            "images": self.images,
            "classes": list(self.classes),
            "pixels": self.pixels,
        }

    def show(self, console: Console) -> None:
        """The findings and the classes' shares as tables."""
        table = Table("", "what", "found", title=f"cmid doctor {self.data}", title_justify="left")
        for each in self.findings:
            some = ", ".join(each.examples[:MOST_SHOWN])
            more = len(each.examples) - MOST_SHOWN
            named = f": {some}{f' and {more} more' if more > 0 else ''}" if some else ""
            table.add_row(MARKS[each.level], each.what, each.told + named)
        console.print(table)
        if self.pixels and self.classes:
            sides = list(self.pixels)
            shares = Table(
                "class", *(f"share of {side}" for side in sides), title="labelled pixels", title_justify="left"
            )
            of_side = {side: _shares(self.pixels[side], self.classes) for side in sides}
            for name in self.classes:
                shares.add_row(name, *(f"{of_side[side][name]:.2%}" for side in sides))
            without = [self.pixels[side].get("", 0) / max(1, sum(self.pixels[side].values())) for side in sides]
            shares.add_row("(no label, of all pixels)", *(f"{share:.2%}" for share in without))
            console.print(shares)


class Unsound(CmidError):
    """Something is wrong with the data; `diagnosis` tells what."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self.diagnosis = diagnosis
        wrong = diagnosis.wrong
        told = "; ".join(f"{each.what}: {each.told}" for each in wrong[:3])
        super().__init__(f"{_count(wrong, 'thing', 'things')} wrong with {diagnosis.data}: {told}")


def _count(found: Sequence[Any], one: str, several: str) -> str:
    return f"{len(found)} {one if len(found) == 1 else several} {'is' if len(found) == 1 else 'are'}"


def _shares(pixels: Mapping[str, int], classes: Sequence[str]) -> dict[str, float]:
    """Of the labelled pixels."""
    total = sum(pixels.get(name, 0) for name in classes)
    return {name: pixels.get(name, 0) / max(1, total) for name in classes}
