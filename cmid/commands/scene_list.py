"""Which scenes a folder, a list or a file names, what their headers say, and what their maps are called."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from cmid.commands.scene_files import identity_of
from cmid.data.decode import FORMATS, SUFFIXES, BadImage, orientation_of
from cmid.data.folder import find_files, is_remote, kind_of, read_list, why, without_suffix
from cmid.data.nodata import can_hold
from cmid.data.rasters import SUFFIXES as RASTERS
from cmid.data.rasters import choose_bands, read_header
from cmid.errors import UsageError

COLOURS = ("red", "green", "blue")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SIDECAR = ".aux.xml"
"""What GDAL keeps beside a raster, after its whole name."""


@dataclass(frozen=True)
class Found:
    """A scene that can be opened.

    Attributes:
        path: a file, or an address.
        stem: where its map goes, without suffix, relative to the folder of the maps.
        pixels: width times height.
        identity: what changes where the file's pixels may have.
        bands: what is read of it, by number from 1; empty for images, of which all are read.
        note: what the user should hear of the choice of bands and of nodata; empty where it is plain.
    """

    path: str
    stem: PurePosixPath
    pixels: int
    identity: str
    bands: tuple[str, ...] = ()
    note: str = ""


def find_scenes(data: str, out: Path, *, remote: bool = False) -> list[tuple[str, PurePosixPath]]:
    """Every scene and the stem of its map: its path under `data`, or under the folder that holds all of a list.

    Scenes that differ in their suffix alone keep it: `a.jpg` and `a.png` go to `a.jpg.tif` and `a.png.tif`.

    Args:
        data: a scene, a folder of any depth, or a text file that lists scenes.
        out: where the maps go; not among the scenes.
        remote: addresses are allowed.

    Raises:
        UsageError: nothing there, maps among the scenes, addresses that are not allowed, or a scene listed twice.
    """
    path = Path(data)
    if is_remote(data):
        paths, names = [data], [PurePosixPath(_last(data))]
    elif (kind := kind_of(path)) == "folder":
        if out.resolve().is_relative_to(path.resolve()):
            raise UsageError(
                f"out is {out}, which lies among the scenes of {data}: the next run would take the maps for scenes. "
                "Give an --out outside"
            )
        relative = find_files(path)
        paths, names = [str(path / name) for name in relative], [PurePosixPath(name) for name in relative]
    elif kind == "file" and path.suffix.lower() in SUFFIXES:
        paths, names = [data], [PurePosixPath(path.name)]
    elif kind == "file":
        paths = [each if is_remote(each) else str(path.parent / each) for each in read_list(path)]
        names = _under_their_folder(paths)
    else:
        raise UsageError(f"no such scene, folder or list file: {data}")
    if not paths:
        raise UsageError(f"no scenes in {data}; looked for files ending in {' '.join(SUFFIXES)}, or one path a line")
    addresses = [each for each in paths if is_remote(each)]
    if addresses and not remote:
        raise UsageError(
            f"{data} names {len(addresses)} addresses, first {addresses[0]}: reading over the network is off; turn it "
            "on with --remote"
        )
    same = [each if is_remote(each) else os.path.abspath(each) for each in paths]  # noqa: PTH100 - no links followed
    count = Counter(same)
    twice = [path for path, one in zip(paths, same, strict=True) if count[one] > 1]
    if twice:
        raise UsageError(f"{data} lists {twice[0]} more than once: list each scene once")
    return list(zip(paths, _stems(names), strict=True))


def _under_their_folder(paths: Sequence[str]) -> list[PurePosixPath]:
    local = {p: os.path.abspath(p) for p in paths if not is_remote(p)}  # noqa: PTH100 - without following links
    root = os.path.commonpath([os.path.dirname(p) for p in local.values()]) if local else ""  # noqa: PTH120
    names = {path: PurePosixPath(Path(full).relative_to(root).as_posix()) for path, full in local.items()}
    named = _names_of_addresses([path for path in paths if is_remote(path)], {_folded(each) for each in names.values()})
    return [names[path] if path in names else named[path] for path in paths]


def _names_of_addresses(addresses: Sequence[str], taken: set[str]) -> dict[str, PurePosixPath]:
    """The last part of each address; of those with the same, the path below what they share; of `taken` ones, all.

    None leads out of a folder it is put in.
    """
    same: dict[str, list[str]] = {}
    for address in addresses:
        same.setdefault(_folded(_last(address)), []).append(address)
    names = dict[str, PurePosixPath]()
    for last, group in same.items():
        if last not in taken and len(set(group)) == 1:
            names[group[0]] = PurePosixPath(_last(group[0]))
            continue
        parts = {address: _parts(address) for address in group}
        levels = list(zip(*(each[:-1] for each in parts.values()), strict=False)) if len(parts) > 1 else []
        shared = next((i for i, level in enumerate(levels) if len(set(level)) > 1), len(levels))
        names |= {address: PurePosixPath(*each[shared:]) for address, each in parts.items()}
    return names


def _last(address: str) -> str:
    """The last part of an address, without what follows a question mark."""
    return _parts(address)[-1]


def _parts(address: str) -> list[str]:
    """Host and folders of an address and its last part, none of them empty, `.` or `..`; no password, no question."""
    host, *rest = address.partition("://")[2].partition("?")[0].split("/")
    parts = [each for each in (host.rpartition("@")[2], *rest) if each not in ("", ".", "..")]
    return parts or ["scene"]


def _stems(names: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    # a line feed would be lost on the way to GDAL, and is no help in a file's name
    names = [PurePosixPath(CONTROL.sub("_", str(name))) for name in names]
    short = [without_suffix(name) for name in names]
    count = Counter(_folded(stem) for stem in short)
    return [s if count[_folded(s)] == 1 else name for s, name in zip(short, names, strict=True)]


def _folded(name: PurePosixPath | str) -> str:
    """What tells names apart on every disk: some take A and a for the same."""
    return str(name).casefold()


class SceneFiles:
    """The files of scenes, so that none is written over, by whatever path or link it is named.

    Args:
        paths: files and addresses.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._scenes = {_file(Path(path)): path for path in paths if not is_remote(path)}
        self._scenes.pop(None, None)

    def at(self, path: Path) -> str | None:
        """The scene that `path` is, or belongs to as GDAL's sidecar; None where there is none."""
        owner = path.with_name(path.name.removesuffix(SIDECAR) or path.name)
        return self._scenes.get(_file(path)) or self._scenes.get(_file(owner))

    def keep(self, outputs: Sequence[Path]) -> None:
        """Raises `UsageError` where one of `outputs` would replace a scene, or a file that belongs to one."""
        for path in outputs:
            scene = self.at(path)
            if scene is not None:
                raise UsageError(
                    f"{path} would be written over the scene {scene}, or over what belongs to it: choose another --out"
                )


def _file(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others, links followed; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def look_at(
    scenes: Sequence[tuple[str, PurePosixPath]],
    wanted: Sequence[str],
    trained: Sequence[str],
    tick: Callable[[int, int], object] | None = None,
    nodata: float | None = None,
) -> tuple[list[Found], dict[str, str]]:
    """What can be opened of `scenes`, and why each of the others cannot.

    Args:
        scenes: as `find_scenes` gives them.
        wanted: bands by number or name; empty takes those that the model knows where a raster names them all, else
            all in their order.
        trained: names of the bands of the model; empty where they are not known.
        tick: is told of progress.
        nodata: the value said to be none where a raster does not say.
    """
    found, skipped = list[Found](), dict[str, str]()
    for count, (path, stem) in enumerate(scenes, 1):
        try:
            found.append(_looked_at(path, stem, wanted, trained, nodata))
        except BadImage as error:
            skipped[path] = error.reason
        except UsageError as error:
            skipped[path] = str(error).replace(
                "scenes.bands", "bands"
            )  # the setting's name where scenes are learned from
        if tick is not None:
            tick(count, len(scenes))
    return found, skipped


def _looked_at(
    path: str, stem: PurePosixPath, wanted: Sequence[str], trained: Sequence[str], nodata: float | None
) -> Found:
    known = [name.casefold() for name in trained]
    try:
        identity = identity_of(path)
    except OSError as error:
        raise BadImage(path, "no such file" if isinstance(error, FileNotFoundError) else why(error)) from error
    if not is_remote(path) and (kind := kind_of(Path(path))) != "file":
        # opening a named pipe would wait for ever
        raise BadImage(path, f"expected a file, found {'a folder' if kind else 'a pipe or a device'}")
    if not path.lower().endswith(RASTERS):
        if wanted:
            raise UsageError(
                f"it is an image, whose bands are its colours: others can be chosen of {' '.join(RASTERS)} alone"
            )
        notes = []
        if len(known) == 3 and not _are_colours(known):
            notes.append(f"images are read as three colours, which are taken for the model's {', '.join(trained)}")
        pixels, turn = _pixels(path)
        if turn != 1:
            notes.append(f"EXIF orientation {turn} is not applied: the map lies on the pixels as the file stores them")
        return Found(path, stem, pixels, identity, (), "; ".join(notes))
    header = read_header(path)
    pixels, named = header.width * header.height, [name.casefold() for name in header.names]
    idle = ""
    if nodata is not None and not can_hold(header.dtype, nodata):
        idle = f"its values are {header.dtype}, which is never {nodata:.15g}: --nodata hides nothing"
    if wanted:
        return Found(path, stem, pixels, identity, tuple(map(str, choose_bands([header], wanted)[path])), idle)
    if known and set(known) <= set(named):
        return Found(path, stem, pixels, identity, tuple(str(named.index(name) + 1) for name in known), idle)
    bands = choose_bands([header], ())[path]
    used = [header.names[band - 1] for band in bands]
    notes = [idle] if idle else []
    if known and any(used) and len(used) == len(known) and not all(name.isdigit() for name in known):
        notes.append(
            f"its bands are named {', '.join(name or '(no name)' for name in used)}, and are taken in this order for "
            f"the model's {', '.join(trained)}: choose others with --bands"
        )
    return Found(path, stem, pixels, identity, tuple(map(str, bands)), "; ".join(notes))


def _are_colours(names: Sequence[str]) -> bool:
    return all(name.isdigit() for name in names) or [name[0] for name in names] == [name[0] for name in COLOURS]


def _pixels(path: str) -> tuple[int, int]:
    """Width times height of an image, and its EXIF orientation, from its first bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return image.width * image.height, orientation_of(image)
    except Image.DecompressionBombError:
        return 1, 1  # decoding says what is too large
    except Exception as error:  # decoders raise anything at all on damaged bytes
        raise BadImage(path, " ".join(str(error).split())[:200] or type(error).__name__) from error
