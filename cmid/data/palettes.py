"""Which colour or value of a mask is which class: read from a file, or found in the masks.

The file is a list of classes, in the order of the model's outputs. As JSON a list, or an object whose `classes` is one:

    [{"name": "building", "colour": "#3C1098"}, {"name": "unlabelled", "colour": [155, 155, 155], "ignore": true}]

as CSV (with commas, semicolons or tabs): columns `name`, `colour` (`#3C1098` or `60 16 152`; or three columns `r`, `g`,
`b`), `value`, `ignore`. `colour` is what colour masks hold, `value` what index masks hold; where no class has a value,
it is the place in the list from 0, or the grey level if all colours are grey. Pixels of a class with `ignore` have no
label.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cmid.data.folder import why
from cmid.data.pixel_labels import UNLABELLED
from cmid.errors import UsageError, did_you_mean

Kind = Literal["colour", "value"]
Colour = tuple[int, int, int]
A_LIST = 'expected a list of classes such as {"name": "road", "colour": "#6EC1E4"}'
FILES = ("palette.json", "palette.csv", "classes.csv", "classes.json")
MOST_CLASSES = 254
UNKNOWN = 254
"""What `Palette.encode` gives a pixel whose colour or value is no entry's."""
MOST_COLOURS = 64
"""More colours than this in masks are no classes but the traces of smoothing or of JPEG."""
STRAY_SHARE = 1e-3
"""A colour with less of all pixels is taken for such a trace where there are more of them than of others."""
OWN_COLOURS: tuple[Colour, ...] = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
    (188, 189, 34), (23, 190, 207), (127, 127, 127),
)  # fmt: skip
"""Of classes that came without one: matplotlib's ten."""


@dataclass(frozen=True)
class Entry:
    """One class of a palette.

    Attributes:
        name: of the class.
        colour: red, green and blue in colour masks; None where it has none.
        value: in index masks; None where it has none.
        ignore: its pixels have no label.
    """

    name: str
    colour: Colour | None = None
    value: int | None = None
    ignore: bool = False


@dataclass(frozen=True)
class Palette:
    """All classes of a data set, in the order of the model's outputs, and those that do not count."""

    entries: tuple[Entry, ...]

    @property
    def counted(self) -> tuple[Entry, ...]:
        """The entries that are classes."""
        return tuple(entry for entry in self.entries if not entry.ignore)

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(entry.name for entry in self.counted)

    @property
    def colours(self) -> tuple[Colour, ...]:
        """Their colours, made up where they have none."""
        return tuple(entry.colour or own_colour(i) for i, entry in enumerate(self.counted))

    @property
    def by_colour_alone(self) -> bool:
        """Whether it has colours and no values: masks with a palette of their own are then read by its colours."""
        return any(e.colour for e in self.entries) and not any(e.value is not None for e in self.entries)

    def codes(self, kind: Kind) -> dict[int, int]:
        """What pixels hold (a value, or red << 16 | green << 8 | blue) to what it is: an entry's place."""
        if kind == "colour":
            return {pack(e.colour): i for i, e in enumerate(self.entries) if e.colour}
        if any(e.value is not None for e in self.entries):
            return {e.value: i for i, e in enumerate(self.entries) if e.value is not None}
        if all(e.colour and len(set(e.colour)) == 1 for e in self.entries):
            return {e.colour[0]: i for i, e in enumerate(self.entries) if e.colour}
        return {i: i for i in range(len(self.entries))}

    @cached_property
    def _label_of(self) -> tuple[int, ...]:
        numbers = iter(range(len(self.entries)))
        return tuple(UNLABELLED if entry.ignore else next(numbers) for entry in self.entries)

    @cached_property
    def _tables(self) -> dict[Kind, np.ndarray]:
        return {}

    def __getstate__(self) -> dict[str, Any]:  # tables of 16 MB are made anew in each process
        return {"entries": self.entries}

    def encode(self, codes: np.ndarray, kind: Kind) -> np.ndarray:
        """Labels `(H, W)` uint8 of a mask's codes `(H, W)`: classes, `UNLABELLED`, or `UNKNOWN`."""
        if kind not in self._tables:
            table = np.full(1 << 24 if kind == "colour" else 1 << 16, UNKNOWN, np.uint8)
            if kind == "value" and UNLABELLED not in self.codes(kind):
                table[UNLABELLED] = UNLABELLED
            for code, place in self.codes(kind).items():
                table[code] = self._label_of[place]
            self._tables[kind] = table
        return self._tables[kind][codes]

    def without(self, names: Sequence[str]) -> "Palette":
        """The same with the classes of these names ignored; `UsageError` where one is none, or no two are left."""
        for name in names:
            if name not in self.classes:
                raise UsageError(
                    f"unlabelled names the class {name!r}, which is not there.{did_you_mean(name, self.classes)} There "
                    f"are {', '.join(self.classes)}."
                )
        palette = Palette(tuple(replace(e, ignore=True) if e.name in names else e for e in self.entries))
        if len(palette.classes) < 2:
            raise UsageError(f"{len(palette.classes)} classes are left ({', '.join(palette.classes)}): two are needed")
        return palette

    def to_plain(self) -> list[dict[str, Any]]:
        """Plain values, as a palette file's."""
        return [
            {"name": e.name, "colour": list(e.colour) if e.colour else None, "value": e.value, "ignore": e.ignore}
            for e in self.entries
        ]


def pack(colour: Sequence[int]) -> int:
    """Red, green and blue as one number."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def unpack(code: int) -> Colour:
    """`pack` undone."""
    return code >> 16, code >> 8 & 255, code & 255


def shown(code: int, kind: Kind) -> str:
    """A code for people: `#3C1098 (60 16 152)`, or the value."""
    return f"#{code:06X} ({' '.join(map(str, unpack(code)))})" if kind == "colour" else str(code)


def own_colour(i: int) -> Colour:
    """A colour for class i that came without one."""
    turn, i = divmod(i, len(OWN_COLOURS))
    red, green, blue = (round(part * 0.8 ** (turn % 8)) for part in OWN_COLOURS[i])
    return red, green, blue


def palette_beside(folder: Path) -> Path | None:
    """The palette that lies in a data set's folder, if one does that has our form."""
    for name in FILES:
        path = folder / name
        if path.is_file():
            try:
                entries = read_palette(path).entries
            except UsageError:
                continue
            # others call lists of classes by this name, too: of masks it is only if it says what those hold
            if name != "classes.json" or all(e.colour or e.value is not None for e in entries):
                return path
    return None


def read_palette(path: Path) -> Palette:
    """The palette in a file.

    Raises:
        UsageError: it cannot be read or has another form; names, colours or values that are there twice; fewer than
            two classes, or more than 254.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"the palette {path} is not text in UTF-8: save it again as UTF-8") from None
    except OSError as error:
        raise UsageError(f"cannot read the palette {path}: {why(error)}") from None
    try:
        rows = _rows_of_json(text, path) if path.suffix.lower() == ".json" else _rows_of_csv(text, path)
        entries = tuple(_entry(row, f"{path}, class {i}") for i, row in enumerate(rows, 1))
    except RecursionError:  # of reading, or of showing what was read
        raise UsageError(f"{path}: {A_LIST}, found lists in lists without end") from None
    palette = Palette(entries)
    if not 2 <= len(palette.classes) <= MOST_CLASSES:
        raise UsageError(f"{path} has {len(palette.classes)} classes that count; expected 2 to {MOST_CLASSES}")
    for what in ("name", "colour", "value"):
        counts = Counter(getattr(e, what) for e in entries if getattr(e, what) is not None)
        if twice := [found for found, count in counts.items() if count > 1]:
            raise UsageError(f"{path} has the {what} {twice[0]} for several classes: each needs its own")
        if what != "name" and counts and sum(counts.values()) < len(entries):
            lacking = next(e.name for e in entries if getattr(e, what) is None)
            raise UsageError(f"{path} gives no {what} for {lacking}, but does for others: give it for all, or for none")
    return palette


def _rows_of_json(text: str, path: Path) -> list[Mapping[str, Any]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the palette {path} is not JSON: {error}") from None
    rows = content.get("classes") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: {A_LIST}")
    return rows


def _rows_of_csv(text: str, path: Path) -> list[Mapping[str, Any]]:
    first = text.partition("\n")[0]
    delimiter = next((each for each in ",;\t" if each in first), ",")
    try:  # strict: a quote that is not closed would take the classes after it away
        rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True, delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UsageError(f"the palette {path} cannot be read as CSV: {error}; close its quotes") from None
    columns = [str(key).strip().lower() for key in next(csv.reader([first], delimiter=delimiter), ())]
    if not rows or "name" not in columns:
        raise UsageError(f"{path}: expected a first line with the columns name, colour (or r, g, b), value, ignore")
    if twice := [name for name, count in Counter(columns).items() if name and count > 1]:
        raise UsageError(f"{path} has the column {twice[0]} twice: leave one of them out")
    return [{str(k).strip().lower(): v for k, v in row.items() if v not in (None, "")} for row in rows]


def _entry(row: Mapping[str, Any], where: str) -> Entry:
    row = {str(key).lower(): value for key, value in row.items()}
    name = row.get("name")
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{where}: expected a name, found {name!r}")
    if any("\ud800" <= letter <= "\udfff" for letter in name):  # which JSON can spell, and no file can hold
        raise UsageError(f"{where}: the name {name!r} has half of a letter in it, written as \\ud800 to \\udfff")
    colour = row.get("colour", row.get("color"))
    if colour is None and {"r", "g", "b"} <= row.keys():
        colour = [row["r"], row["g"], row["b"]]
    value, ignore = row.get("value"), str(row.get("ignore", False)).strip().lower()
    if ignore not in ("true", "false", "1", "0", "yes", "no", ""):
        raise UsageError(f"{where}: ignore is true or false, found {ignore!r}")
    try:
        number = None if value is None else int(str(value))
    except ValueError:
        number = -1
    if number is not None and not 0 <= number < 1 << 16:
        raise UsageError(f"{where}: a value is a whole number from 0 to 65535, found {value!r}")
    return Entry(name.strip(), _colour(colour, where), number, ignore in ("true", "1", "yes"))


def _colour(given: Any, where: str) -> Colour | None:
    if given is None:
        return None
    parts: list[Any] = (
        list(given) if isinstance(given, list | tuple) else re.split(r"[\s,;]+", str(given).strip("()[] "))
    )
    if isinstance(given, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", given.strip()):
        return unpack(int(given.strip()[1:], 16))
    try:
        numbers = tuple(int(str(part)) for part in parts)
    except ValueError:
        numbers = ()
    if len(numbers) != 3 or not all(0 <= number <= 255 for number in numbers):
        raise UsageError(f"{where}: a colour is #RRGGBB or three numbers from 0 to 255, found {given!r}")
    return numbers[0], numbers[1], numbers[2]


def infer_palette(
    counts: Mapping[int, int],
    kind: Kind,
    *,
    lossy: int,
    colours: Mapping[int, Colour],
    names: Mapping[int, str],
    data: str,
) -> Palette:
    """The classes that masks hold, in the order of their values, or of their colours as numbers.

    255 in index masks is no label, unless 0 is all there is beside it.

    Args:
        counts: pixels of each code, over all masks.
        kind: what the codes are.
        lossy: how many of the masks are JPEGs.
        colours: of values, as the masks' own tables give them.
        names: of values, likewise; those that no mask holds are classes too.
        data: what the data set is called.

    Raises:
        UsageError: so many, or so many rare ones, that they are no classes.
    """
    total = sum(counts.values())
    stray = [code for code, count in counts.items() if count < STRAY_SHARE * total]
    doubtful = kind == "colour" or lossy
    if (doubtful and (len(counts) > MOST_COLOURS or len(stray) > len(counts) - len(stray))) or len(
        counts
    ) > MOST_CLASSES:
        found = sorted(counts, key=lambda code: -counts[code])[:8]
        cause = f"; {lossy} of the masks are JPEGs, which blur labels" if lossy else ""
        raise UsageError(
            f"the masks of {data} hold {len(counts):,} different {kind}s, {len(stray):,} of them in less than "
            f"{STRAY_SHARE:.1%} of the pixels: more than classes would have, as after smoothing{cause}. The most "
            f"frequent are {', '.join(f'{shown(c, kind)} {counts[c] / total:.1%}' for c in found)}. Name the classes "
            "in a palette (--labels.palette FILE) and leave the rest out (--labels.unknown ignore), or export the "
            "masks anew without smoothing"
        )
    codes = sorted(counts.keys() | names.keys()) if kind == "value" else sorted(counts)
    if len(codes) > MOST_CLASSES:  # names for values that do not occur
        codes = sorted(counts)
    if kind == "value" and set(codes) != {0, UNLABELLED}:
        codes = [code for code in codes if code != UNLABELLED]
    if len(codes) < 2:
        said = f"the masks of {data} hold {len(codes)} {kind} ({', '.join(shown(c, kind) for c in codes)})"
        raise UsageError(f"{said}: two classes at least are needed; is this the folder of the labels?")
    entries = []
    for i, code in enumerate(codes):
        if kind == "colour":
            entries.append(Entry(f"class {i}", unpack(code)))
        else:
            entries.append(Entry(names.get(code) or f"class {code}", colours.get(code), code))
    return Palette(_with_own_names(entries))


def _with_own_names(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    entries = list(entries)
    counts = Counter(entry.name for entry in entries)
    return tuple(replace(e, name=f"{e.name} ({e.value})") if counts[e.name] > 1 else e for e in entries)
