"""Labels that stand in files: `img/` with `train.txt` and `test.txt`, and tables of images with several classes each.

- The layout of the published CMID code (`Dataset/UCM.py` there): a folder with `img/` in it, and `train.txt` and
  `test.txt` (or `val.txt`), a line each of `name number`, the number being the class. `classes.txt`, a name a line, may
  say what the numbers are called.
- A table, a CSV file beside the images or above them (`labels.csv` if its folder is named): a column `image` of paths
  relative to the file, and either a column `labels` with the classes of the image between `;` or `|`, or one column of
  0 and 1 for each class. A column `split` may say train, test (or val) or leave it out.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from cmid.data.decode import SUFFIXES
from cmid.data.folder import kind_of, read_rows, why
from cmid.data.labelled import LabelledImages, draw_share
from cmid.errors import UsageError

TABLE = "labels.csv"
SPLITS = {"train": "train", "training": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
MOST_CLASSES = 100_000
NUMBERED = re.compile(r"""^(?P<q>["']?)(?P<name>.+?)(?P=q)[\s,;]+(?P<number>[+-]?\d+(?:\.0*)?)$""")
"""A path, perhaps quoted or with blanks in it, then blanks, a tab, a comma or a semicolon, then a whole number."""


def has_lists(path: Path) -> bool:
    """Whether the folder `path` is laid out as the published code's: `img/` and `train.txt`."""
    return (path / "img").is_dir() and (path / "train.txt").is_file()


def is_table(path: Path) -> bool:
    """Whether `path` is a table of labels by its name, or a folder with a `labels.csv`."""
    return table_of(path) is not None


def table_of(path: Path) -> Path | None:
    """The table that `path` is or holds; None where it is none."""
    kind = kind_of(path)
    if kind == "folder" and (path / TABLE).is_file():
        return path / TABLE
    return path if kind == "file" and path.suffix.lower() == ".csv" else None


def open_lists(path: Path) -> tuple[LabelledImages, LabelledImages]:
    """Train and test of the published layout.

    Raises:
        UsageError: a list that is missing, cannot be read, is of another form, names images that are not there, or one
            image on both sides; fewer than two classes.
    """
    test_list = next((f for name in ("test.txt", "val.txt") if (f := path / name).is_file()), None)
    if test_list is None:
        raise UsageError(f"{path} has img/ and train.txt, but neither test.txt nor val.txt: which images are for test?")
    sides = [_read_numbers(each) for each in (path / "train.txt", test_list)]
    if shared := sides[0].keys() & sides[1].keys():
        raise UsageError(
            f"{len(shared)} images are in both train.txt and {test_list.name} of {path}, first {min(shared)}: a test "
            "image must not be trained on"
        )
    most = max(max(side.values()) for side in sides)
    classes = _class_names(path, most)
    if len(classes) < 2:
        raise UsageError(f"{path} has one class only, {classes[0]}: expected at least two")
    made = [_images(path / "img", side, classes, each) for side, each in zip(sides, ("train", "test"), strict=True)]
    return made[0], made[1]


def _images(folder: Path, numbers: dict[str, int], classes: tuple[str, ...], side: str) -> LabelledImages:
    paths = tuple(folder / name for name in numbers)
    _must_exist(paths, f"the {side} list")
    return LabelledImages(paths, np.array(list(numbers.values()), np.int64), classes, folder)


def _read_numbers(path: Path) -> dict[str, int]:
    """Name to class number, in the list's order."""
    found: dict[str, int] = {}
    for at, line in _lines(path):
        match = NUMBERED.match(line)
        if match is None or "." in match["number"].rstrip("0.").lstrip("+-"):
            raise UsageError(f"{path}, line {at}: expected `name number`, such as `beach01.jpg 3`, found {line[:60]!r}")
        name, number = _plain(match["name"]), int(match["number"].partition(".")[0])
        if number >= MOST_CLASSES:
            raise UsageError(f"{path}, line {at}: {number} cannot be a class's number; they count from 0")
        if number < 0:
            raise UsageError(f"{path}, line {at}: a class is a number from 0, found {number} of {name}")
        if found.get(name, number) != number:
            raise UsageError(f"{path}, line {at}: {name} has class {number} here and {found[name]} above")
        found[name] = number
    if not found:
        raise UsageError(f"{path} lists no images: expected one `name number` a line")
    return found


def _class_names(path: Path, most: int) -> tuple[str, ...]:
    file = path / "classes.txt"
    if not file.is_file():
        return tuple(str(number) for number in range(most + 1))
    names = tuple(line for _, line in _lines(file))
    if len(names) <= most:
        raise UsageError(
            f"{file} names {len(names)} classes, but the lists go up to class {most}: add the missing names"
        )
    return names


def open_table(path: Path, *, seed: int, train_share: float = 0.8) -> tuple[LabelledImages, LabelledImages]:
    """Train and test of a table: by its column `split`, or a seeded share of the images.

    The labels of both are `(N, K)` float32 of 0 and 1. An image without any class is allowed.

    Raises:
        UsageError: a table of another form (with the line), images that are not there, or an empty side.
    """
    path = table_of(path) or path
    rows, names, classes, splits = _read_table(path)
    paths = tuple(path.parent / name for name in names)
    _must_exist(paths, str(path))
    if splits is None:
        train = draw_share(rows, classes, share=train_share, seed=seed)
        test = np.setdiff1d(np.arange(len(names)), train)
    else:
        sides = np.array([SPLITS[each] for each in splits])
        train, test = (np.flatnonzero(sides == each) for each in ("train", "test"))
    for side, chosen in (("train", train), ("test", test)):
        if not chosen.size:
            raise UsageError(f"{path} has no images for {side}: mark some in its column split, or leave the column out")

    def side_of(chosen: np.ndarray) -> LabelledImages:
        return LabelledImages(tuple(paths[i] for i in chosen), rows[chosen], classes, path.parent)

    return side_of(train), side_of(test)


def open_table_to_score(path: Path) -> LabelledImages:
    """The test images of a table by its column `split`, or all of a table without one; labels and errors as there."""
    return _side_of_table(path, "test")[0]


def open_to_learn(path: Path) -> tuple[LabelledImages, int]:
    """The images for training of a table (all of one without a column `split`) or of lists, and how many are for test.

    Raises:
        UsageError: as `open_table` and `open_lists` do.
    """
    if is_table(path):
        return _side_of_table(path, "train")
    train, test = open_lists(path)
    return train, len(test)


def _side_of_table(path: Path, side: str) -> tuple[LabelledImages, int]:
    """The images of one side, or all where the table has no sides, and how many are on the other."""
    path = table_of(path) or path
    rows, names, classes, splits = _read_table(path)
    chosen = np.array([splits is None or SPLITS[splits[i]] == side for i in range(len(names))])
    paths = tuple(path.parent / name for name, taken in zip(names, chosen, strict=True) if taken)
    if not paths:
        raise UsageError(f"{path} has no images for {side}: mark some in its column split, or leave the column out")
    _must_exist(paths, str(path))
    return LabelledImages(paths, rows[chosen], classes, path.parent), len(names) - len(paths)


def _read_table(path: Path) -> tuple[np.ndarray, list[str], tuple[str, ...], list[str] | None]:
    """Labels `(N, K)`, names of the images, classes, and the split of each where the table has one."""
    text = _text(path)
    head = text.lstrip().partition("\n")[0]
    rows_read = read_rows(text.splitlines(), path, max(",;\t", key=head.count))
    lines = [(at, line) for at, line in rows_read if any(cell.strip() for cell in line)]
    columns = [name.strip() for name in lines[0][1]] if lines else []
    lower = [name.lower() for name in columns]
    if repeated := [name for name, count in Counter(columns).items() if count > 1]:
        raise UsageError(f"{path}: the first line has the column {repeated[0]!r} more than once")
    if "image" not in lower:
        raise UsageError(
            f"{path}: expected a first line with a column `image`, and `labels` or one column a class; found "
            f"{head[:80]!r}"
        )
    image, split = lower.index("image"), lower.index("split") if "split" in lower else None
    joined = lower.index("labels") if "labels" in lower else None
    own = [i for i in range(len(columns)) if i not in (image, split)]
    names, splits, found = [], [], []
    for at, line in lines[1:]:
        if len(line) != len(columns):
            raise UsageError(
                f"{path}, line {at}: expected {len(columns)} columns as in the first line, found {len(line)}"
            )
        names.append(_plain(line[image]))
        if split is not None:
            said = line[split].strip().lower()
            if said not in SPLITS:
                raise UsageError(f"{path}, line {at}: split is train, test or val, found {line[split]!r}")
            splits.append(said)
        if joined is None:
            cells = [line[i].strip() for i in own]
            if wrong := [cell for cell in cells if cell not in ("0", "1", "0.0", "1.0")]:
                raise UsageError(f"{path}, line {at}: a column of a class holds 0 or 1, found {wrong[0]!r}")
            found.append({columns[i] for i, cell in zip(own, cells, strict=True) if float(cell)})
        else:
            if "," in line[joined]:
                raise UsageError(f"{path}, line {at}: classes stand between ; or |, found {line[joined]!r}")
            found.append({each.strip() for each in re.split(r"[;|]", line[joined]) if each.strip()})
    if len(names) < 2:
        raise UsageError(f"{path} lists {len(names)} images: expected two at least")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{path} lists {repeated[0]} more than once: put all its classes into one line")
    classes = tuple(columns[i] for i in own) if joined is None else tuple(sorted(set().union(*found)))
    if len(classes) < 2:
        raise UsageError(f"{path} has {len(classes)} class ({', '.join(classes)}): expected two at least")
    rows = np.array([[name in mine for name in classes] for mine in found], np.float32)
    return rows, names, classes, splits if split is not None else None


def _plain(name: str) -> str:
    """One name for one file: `./a//0.png` is `a/0.png`, lest it be taken for another image on the other side."""
    return str(PurePosixPath(name.strip()))


def _lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line that is not blank and does not begin with #."""
    lines = ((at, line.strip()) for at, line in enumerate(_text(path).splitlines(), 1))
    return [(at, line) for at, line in lines if line and not line.startswith("#")]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text in UTF-8: save it again as UTF-8") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {why(error)}") from None


def _must_exist(paths: Sequence[Path], what: str) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UsageError(
            f"{what} names images that are not there: {', '.join(map(str, missing[:3]))}{more}; expected files ending "
            f"in {' '.join(SUFFIXES)}"
        )
