"""Scenes: georeferenced rasters, local or behind an address, of any size, bands and number type.

Only drivers that read pixels from the file itself are allowed: others (VRT, WMS ...) follow what the file names. So are
the masks and notes beside a local file (`a.tif.msk`, `a.tif.aux.xml`), which GDAL finds by itself. Nothing here reads a
whole raster.
"""

import os
import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch.utils.data import get_worker_info

from cmid.data.decode import BadImage, name_of_file
from cmid.data.folder import find_files, is_remote, kind_of, read_list, why
from cmid.data.lasting_threads import lasting_threads
from cmid.data.nodata import OpenRaster
from cmid.data.reading import note_file
from cmid.data.shards import refuse_lone_shards
from cmid.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

K = TypeVar("K")
SUFFIXES = (".tif", ".tiff", ".jp2")
OPEN_AT_ONCE = 32
"""Rasters that a process keeps open: opening costs more than a window."""
SILENCE_S = 20
"""A server that sends nothing for so long is given up. GDAL asks up to three times for a window: a minute in all."""
CACHE_BYTES = 64 << 20
"""Blocks that GDAL keeps in each loader process: windows at random seldom meet again, and the default is 5 % of memory,
each. In bytes: GDAL would take a small number for MB, but rasterio hands it on as it is."""
GDAL: dict[str, str] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no address is asked for what may lie beside it; of files: `_beside`
    "GDAL_HTTP_MAX_RETRY": "3",  # of a server that says it is busy, or cannot be connected to
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": str(SILENCE_S // 4),  # tried four times
    "GDAL_HTTP_LOW_SPEED_TIME": str(SILENCE_S),
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1024",  # bytes a second: less is silence
    "GDAL_HTTP_TIMEOUT": str(6 * SILENCE_S),  # of one request that is answered, however slowly
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ",".join(SUFFIXES),
    "VSI_CACHE": "FALSE",
}
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ERDAS = b"EHFA_HEADER_TAG"


@dataclass(frozen=True)
class Raster:
    """What a scene's header says.

    Attributes:
        path: a file, or an address.
        width: in pixels.
        height: in pixels.
        bands: number of bands.
        alpha: numbers, from 1, of bands without name that are marked as transparency: read only when asked for.
            GDAL marks the fourth byte of any file so unless told otherwise, near infrared included.
        dtype: numpy's name of the pixels' type.
        names: description of each band, empty where it has none.
        crs: the coordinate reference system as text; empty where there is none.
        declared: of each band, whether the file says which value is no data.
    """

    path: str
    width: int
    height: int
    bands: int
    alpha: tuple[int, ...]
    dtype: str
    names: tuple[str, ...]
    crs: str
    declared: tuple[bool, ...]


def driver_of(path: str) -> str:
    """The driver that opens `path`; left to choose, GDAL would also take those that read what a file names."""
    name = path.partition("?")[0] if is_remote(path) else path  # addresses are signed after the question mark
    return "JP2OpenJPEG" if name.lower().endswith(".jp2") else "GTiff"


def name_for_gdal(path: str) -> str:
    """An address as it is; of a file a name that GDAL takes for nothing else; `BadImage` where there is none."""
    return path if is_remote(path) else name_of_file(path)


@contextmanager
def opened(path: str) -> "Iterator[DatasetReader]":
    """The raster at `path`, open for the length of a `with`.

    Raises:
        BadImage: it cannot be opened or read, with GDAL's reason.
    """
    import rasterio
    from rasterio.errors import RasterioError

    if not is_remote(path):
        try:
            status = Path(path).stat()
        except (OSError, ValueError) as error:
            raise BadImage(path, "no such file" if isinstance(error, FileNotFoundError) else why(error)) from None
        if not S_ISREG(status.st_mode):  # GDAL would take `/vsicurl/http:...` for a path, and go there
            raise BadImage(path, "it is no file")
        if not status.st_size:
            raise BadImage(path, "it is empty")
    try:
        with rasterio.Env(**(GDAL | _beside(path))), _open(path) as raster:
            yield raster
    except BadImage:
        raise
    except (RasterioError, OSError, ValueError) as error:
        raise BadImage(path, reason_of(error, path)) from error


def _open(path: str) -> "DatasetReader":
    """Rasterio's object; that a picture has no coordinates is no news."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(name_for_gdal(path), driver=driver_of(path))


def _beside(path: str) -> dict[str, str]:
    """GDAL's options for opening `path` with the masks and notes beside it: looked for by name, no folder is listed.

    GDAL opens some of them with whichever driver recognises them, so those that another than GTiff (or ERDAS, of a
    bare `.aux`) would recognise are refused here. Overviews, which are opened so too, are never asked for.

    Raises:
        BadImage: such a file lies beside the scene.
    """
    if is_remote(path):
        return {}
    scene = Path(path)
    files = [scene.name, *(scene.name + ending for ending in (".msk", ".MSK"))]
    for mask in files[1:]:
        if (begins := _beginning(scene.with_name(mask))) is not None and begins[:4] not in TIFF:
            raise BadImage(path, f"its mask {mask} is no TIFF that can be read: convert or remove it")
    for stem in {stem for name in files for stem in (name, name.rpartition(".")[0])}:
        for notes in (f"{stem}.aux", f"{stem}.AUX"):
            begins = _beginning(scene.with_name(notes)) or b""
            if begins.startswith(ERDAS) and begins != ERDAS + b"\0":  # what follows may be read as any other format
                raise BadImage(path, f"{notes} beside it is not of ERDAS: remove it")
    return {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}


def _beginning(path: Path) -> bytes | None:
    """The first 16 bytes; none of what is no file or cannot be read; None where GDAL finds nothing either."""
    try:
        if not S_ISREG(path.stat().st_mode):
            return b""
    except OSError:
        return None
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(16)
    except OSError:
        return b""


def reason_of(error: BaseException, path: str) -> str:
    """GDAL's words in one line, without the path they often begin with."""
    cause = error.__cause__ or error  # rasterio says "Read failed. See previous exception for details."
    words = " ".join(str(cause).split())
    for name in (f"./{path}", path):  # as it was opened, and as it is called
        words = words.replace(f"{name}: ", "").replace(f"'{name}' ", "")
    if not is_remote(path):
        try:
            Path(path).stat()
        except OSError as gone:
            return "no such file" if isinstance(gone, FileNotFoundError) else why(gone)
    return words[:200] or type(cause).__name__


def read_header(path: str) -> Raster:
    """Size, bands and number type of the scene at `path`; raises `BadImage`."""
    from rasterio.enums import ColorInterp

    with opened(path) as raster:
        if any(interp == ColorInterp.palette for interp in raster.colorinterp):
            raise BadImage(path, "it holds indices into a palette, not measured values: convert it to bands first")
        dtypes = set(raster.dtypes)
        if len(dtypes) != 1:
            raise BadImage(path, f"its bands are of several types ({', '.join(sorted(dtypes))})")
        if np.dtype(dtype := dtypes.pop()).kind not in "uif":
            raise BadImage(path, f"its values are {dtype}; integers and real numbers can be read")
        names = tuple((name or "").strip() for name in raster.descriptions)
        marked = (i for i, interp in enumerate(raster.colorinterp) if interp == ColorInterp.alpha)
        alpha = tuple(i + 1 for i in marked if not names[i] and raster.count > 1)
        crs = raster.crs.to_string() if raster.crs else ""
        declared = tuple(value is not None for value in raster.nodatavals)
        return Raster(path, raster.width, raster.height, raster.count, alpha, dtype, names, crs, declared)


def find_rasters(path: Path | str, *, remote: bool = False) -> list[str]:
    """Scenes of a folder (any depth, sorted), of a list file (paths relative to it, or addresses), or one file.

    Raises:
        UsageError: nothing there, or addresses that were not allowed.
    """
    if is_remote(str(path)):
        raise UsageError(f"addresses are read from a list file, one a line: write {path} into one")
    path = Path(path)
    kind = kind_of(path)
    if kind == "folder":
        found = [str(path / name) for name in find_files(path, SUFFIXES)]
    elif kind == "file" and path.suffix.lower() in SUFFIXES:
        found = [str(path)]
    elif kind == "file":
        found = [each if is_remote(each) else str(path.parent / each) for each in read_list(path)]
    else:
        raise UsageError(f"no such folder, list file or scene: {path}")
    if not found:
        refuse_lone_shards(path)
        raise UsageError(f"no scenes in {path}; looked for {' '.join(SUFFIXES)} at any depth, or one path a line")
    addresses = [each for each in found if is_remote(each)]
    if addresses and not remote:
        raise UsageError(
            f"{path} lists {len(addresses)} addresses, first {addresses[0]}: reading over the network is off; turn it "
            "on with --scenes.remote true"
        )
    return found


def choose_bands(rasters: Sequence[Raster], wanted: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """For each scene's path the numbers (from 1) of the bands to read: all but alpha, or `wanted` by number or name.

    Names are looked up in each scene, so that scenes may hold the same bands in other orders. Where all bands of all
    scenes have names, and the same, they are read in the order of the first scene.

    Raises:
        UsageError: scenes that differ in number of bands or type, or lack a band that is wanted.
    """
    types = _kinds((raster.dtype, raster.path) for raster in rasters)
    if len(types) > 1:
        said = ", ".join(f"{n} {dtype}{first}" for dtype, n, first in types)
        raise UsageError(f"the scenes are of several number types ({said}): give scenes of one type")
    if not wanted:
        counts = _kinds((raster.bands - len(raster.alpha), raster.path) for raster in rasters)
        if len(counts) > 1:
            said = ", ".join(f"{n} with {bands}{first}" for bands, n, first in counts)
            raise UsageError(f"the scenes differ in their number of bands ({said}): choose some with --scenes.bands")
        read = {r.path: tuple(b for b in range(1, r.bands + 1) if b not in r.alpha) for r in rasters}
        named = {raster.path: names_of(raster, read[raster.path]) for raster in rasters}
        first = named[rasters[0].path]
        if len(set(first)) < len(first) or any(set(names) != set(first) for names in named.values()):
            return read  # by position, whatever `unlike_names` says of it
        return {path: tuple(read[path][names.index(name)] for name in first) for path, names in named.items()}
    return {raster.path: tuple(_band(raster, str(name)) for name in wanted) for raster in rasters}


def names_of(raster: Raster, bands: Sequence[int]) -> tuple[str, ...]:
    """What a raster calls some of its bands, without regard to case; empty where one has no name."""
    return tuple(raster.names[band - 1].casefold() for band in bands)


def unlike_names(rasters: Sequence[Raster], chosen: Mapping[str, Sequence[int]], wanted: Sequence[str] = ()) -> str:
    """A note on scenes whose bands are called otherwise than those of the first one that they stand in for, or empty.

    Args:
        rasters: the scenes.
        chosen: of `choose_bands`.
        wanted: what it was asked for.
    """
    named = [(r, names) for r in rasters if any(names := names_of(r, chosen[r.path]))]
    others = [r for r, names in named if names != names_of(named[0][0], chosen[named[0][0].path])]
    if not others:
        return ""
    first, other = (
        ", ".join(r.names[band - 1] or "(no name)" for band in chosen[r.path]) for r in (named[0][0], others[0])
    )
    advice = "give names, which are looked up in each scene, instead of numbers in" if wanted else "choose bands with"
    return (
        f"{len(others)} of {len(rasters)} scenes call their bands otherwise than {named[0][0].path} ({first}), such as "
        f"{others[0].path} ({other}): they are taken in this order; {advice} --scenes.bands"
    )


def _band(raster: Raster, name: str) -> int:
    if name.isdecimal():
        if not 1 <= int(name) <= raster.bands:
            raise UsageError(f"scenes.bands asks for band {name}, but {raster.path} has {raster.bands}, from 1")
        return int(name)
    folded = [each.casefold() for each in raster.names]
    if name.casefold() not in folded:
        known = [each for each in raster.names if each]
        has = f"its bands are named {', '.join(known)}" if known else "its bands have no names: choose by number"
        raise UsageError(
            f"scenes.bands asks for band {name!r}, but {raster.path} has none of that name.{did_you_mean(name, known)} "
            f"Here {has}."
        )
    return folded.index(name.casefold()) + 1


def _kinds(of_paths: Iterable[tuple[K, str]]) -> list[tuple[K, int, str]]:
    """Each kind, how many there are, and in words the first file of it; the most frequent needs none."""
    pairs = list(of_paths)
    first = dict(reversed(pairs))
    counted = Counter(kind for kind, _ in pairs).most_common()
    return [(kind, n, f": {first[kind]}" if i else "") for i, (kind, n) in enumerate(counted)]


class OpenRasters:
    """Rasters kept open from window to window, in each process its own; the least used are closed.

    A thread that reads keeps GDAL's options from then on: setting them for each window takes about as long as reading
    a small one. So it is the thread of a loader process, or one of its own: a caller's use of rasterio is not touched.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._owner = (0, 0)
        self._environment: Any = None

    def __getstate__(self) -> dict[str, Any]:  # GDAL's handles belong to a process
        return {"_open": OrderedDict(), "_owner": (0, 0), "_environment": None}

    def read(
        self, path: str, bands: Sequence[int], window: tuple[int, int, int, int], *, together: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """A window x0, y0, x1, y1 of some bands.

        Args:
            path: the file.
            bands: numbers from 1.
            window: in pixels.
            together: only where all of the bands hold their nodata value is there none, as in pictures of colours.

        Returns:
            values `(C, h, w)` in the file's type, and valid `(h, w)` bool: False where any band is nodata, NaN or
            masked.

        Raises:
            BadImage: the file is damaged, gone, or changed.
        """
        if get_worker_info() is not None:
            return self.read_here(path, bands, window, together)
        return lasting_threads("scenes", 1).submit(self.read_here, path, bands, window, together).result()

    def read_here(
        self, path: str, bands: Sequence[int], window: tuple[int, int, int, int], together: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `read`, in this thread, which keeps GDAL's options."""
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        x0, y0, x1, y1 = window
        where = Window(x0, y0, x1 - x0, y1 - y0)
        note_file(path)
        try:
            opened = self._opened(path)
            if (last := max(bands)) > opened.raster.count:
                raise BadImage(path, f"it has {opened.raster.count} bands, but had {last} or more when the run began")
            values = opened.raster.read(list(bands), window=where)
            valid = opened.valid(bands, values, where, together=together)
        except BadImage:
            self._open.pop(path, None)
            raise
        except (RasterioError, OSError, ValueError) as error:
            self._open.pop(path, None)
            raise BadImage(path, reason_of(error, path)) from error
        if values.shape[1:] != (y1 - y0, x1 - x0):
            self._open.pop(path, None)
            raise BadImage(path, f"it is smaller than when the run began: window {window} is not in it")
        return values, valid

    def _opened(self, path: str) -> OpenRaster:
        import rasterio

        here = (os.getpid(), threading.get_ident())
        if here != self._owner:  # after a fork the parent's handles must not be used, nor closed
            self._open, self._owner = OrderedDict(), here
            cache = {} if get_worker_info() is None else {"GDAL_CACHEMAX": CACHE_BYTES}  # of the whole process
            self._environment = rasterio.Env(**GDAL, **cache)
            self._environment.__enter__()
        if path not in self._open:
            with rasterio.Env(**_beside(path)):
                self._open[path] = OpenRaster.of(_open(path))
            while len(self._open) > OPEN_AT_ONCE:
                self._open.popitem(last=False)[1].raster.close()
        self._open.move_to_end(path)
        return self._open[path]
