"""Scenes read over HTTP, from a real server on 127.0.0.1 and nowhere else."""

import multiprocessing
import pickle
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from cmid.cli import main
from cmid.config import SceneConfig, ViewConfig
from cmid.data import rasters
from cmid.data.decode import BadImage
from cmid.data.rasters import OpenRasters, find_rasters, read_header
from cmid.data.remote import RemoteRasters
from cmid.data.scenes import SceneSource, open_scenes
from cmid.data.statistics import Stretch, measure
from cmid.data.views import ViewLoader
from cmid.errors import UsageError
from tests.data.rasters_on_disk import write_raster
from tests.data.server import Served

SIDE = 1024
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two COGs of 6 MB that cannot be made smaller: noise."""
    folder = tmp_path_factory.mktemp("served")
    for name, seed in (("a.tif", 0), ("b.tif", 1)):
        values = np.random.default_rng(seed).integers(0, 60_000, (3, SIDE, SIDE), np.uint16)
        write_raster(folder / name, values, driver="COG", BLOCKSIZE="128", compress="deflate", OVERVIEWS="NONE")
    return folder


@pytest.fixture
def server(folder, monkeypatch):
    """The server; whatever is asked of any other place goes to `server.proxy`, which counts it."""
    server, proxy = Served(folder), Served(folder)
    server.proxy = proxy
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy.address)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    for each in (server, proxy):
        each.stop()
    assert not proxy.asked, "something other than 127.0.0.1 was to be contacted"


@pytest.fixture
def impatient(monkeypatch):
    """Time-outs of a second, where the product waits for twenty."""
    assert rasters.GDAL["GDAL_HTTP_LOW_SPEED_TIME"] == str(rasters.SILENCE_S)
    monkeypatch.setitem(rasters.GDAL, "GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setitem(rasters.GDAL, "GDAL_HTTP_CONNECTTIMEOUT", "1")


def listed(server, path, *names):
    path.mkdir(parents=True, exist_ok=True)
    (path / "list.txt").write_text("".join(f"{server.address}/{name}\n" for name in names or ("a.tif", "b.tif")))
    return path / "list.txt"


def source_of(data, windows=24, **more):
    scenes = open_scenes(data, SceneConfig(remote=True, **more))
    return SceneSource(scenes, window=64, windows=windows, seed=0, stretch=Stretch((), (), (0.0,) * 3))


def test_headers_and_windows_are_those_of_the_file(server, folder):
    address, path = f"{server.address}/a.tif", str(folder / "a.tif")
    there, here = read_header(address), read_header(path)
    assert (there.width, there.height, there.bands, there.crs) == (here.width, here.height, here.bands, here.crs)
    rasters = RemoteRasters()
    for x, y in ((0, 0), (100, 513), (960, 960)):
        window = (x, y, x + 64, y + 64)
        both = rasters.read(address, (3, 1), window), OpenRasters().read(path, (3, 1), window)
        for ours, theirs in zip(*both, strict=True):
            assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype


def test_a_window_costs_its_blocks_and_no_scene_is_read_whole(server, folder):
    size = (folder / "a.tif").stat().st_size
    assert size > 5_000_000
    address = f"{server.address}/a.tif"
    read_header(address)
    assert 0 < server.sent <= 32_768, "a header is read from the first bytes"
    rasters = RemoteRasters()
    server.forget()
    rasters.read(address, (1, 2, 3), (130, 130, 250, 250))  # inside one block of 128 x 128
    assert 0 < server.sent < size / 32, "one of 64 blocks, and a little about it"
    asked = {path for _, path in server.asked}
    assert asked == {"/a.tif"}, "no neighbouring file is looked for"


@pytest.mark.parametrize("workers", [0, 3])
def test_views_of_addresses_are_those_of_files_whatever_was_read_before(server, folder, tmp_path, workers):
    """Loader processes must not share the connections of the one that measured: they would get others' answers."""
    local, remote = source_of(folder), source_of(listed(server, tmp_path))
    measured = [measure(source, ("1", "2", "3"), images=6, seed=0) for source in (local, remote)]
    assert measured[0] == measured[1]
    views = ViewConfig(size=16, mean=(0.5,) * 3, std=(0.2,) * 3)
    loaders = [
        ViewLoader(source, views, batch_size=4, seed=0, workers=n) for source, n in ((local, 0), (remote, workers))
    ]
    for _ in range(3):
        for ours, theirs in zip(*loaders, strict=True):
            assert torch.equal(ours.indices, theirs.indices)
            assert all(torch.equal(a.images, b.images) for a, b in zip(ours, theirs, strict=True))
    assert not loaders[1].skipped
    for loader in loaders:
        loader.close()


@pytest.mark.parametrize("beside", ["a.tif.msk", "a.tif.MSK", "a.tif.ovr", "a.aux", "a.tif.aux", "a.tif.msk.aux"])
def test_what_lies_beside_a_local_scene_leads_to_no_address(server, tmp_path, beside):
    """GDAL opens masks, overviews and notes with any driver: this one asks a server as soon as it is opened."""
    path = write_raster(tmp_path / "a.tif", np.ones((1, 64, 64), np.uint8))
    if beside == "a.tif.msk.aux":
        write_raster(tmp_path / "a.tif.msk", np.ones((1, 64, 64), np.uint8))
    start = "EHFA_HEADER_TAG" if beside.endswith(".aux") else ""
    asks = f"<GDAL_WMTS><GetCapabilitiesUrl>{server.address}/x</GetCapabilitiesUrl></GDAL_WMTS>"
    (tmp_path / beside).write_text(start + asks)
    for read in (read_header, lambda path: OpenRasters().read(path, (1,), (0, 0, 9, 9))):
        with suppress(BadImage):
            read(str(path))
    assert not server.asked


def _read_many(rasters, address, seed, answers):
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(20):
        x, y = generator.integers(0, SIDE - 64, 2).tolist()
        try:
            found.append(((x, y), rasters.read(address, (1, 2, 3), (x, y, x + 64, y + 64))[0]))
        except BadImage as error:
            found.append(((x, y), error.reason))
    answers.put(found)


def test_processes_that_are_forked_after_a_read_make_their_own_connections(server, folder):
    rasters, address = RemoteRasters(), f"{server.address}/a.tif"
    for x in range(0, 512, 64):
        rasters.read(address, (1, 2, 3), (x, 0, x + 64, 64))
    before = server.connections
    server.forget()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_read_many, args=(rasters, address, seed, answers)) for seed in range(4)]
    for process in processes:
        process.start()
    found = [each for _ in processes for each in answers.get(timeout=60)]
    for process in processes:
        process.join(10)
        assert process.exitcode == 0
    assert before and len(server.connections) >= 4 and not before & server.connections
    whole = OpenRasters().read(str(folder / "a.tif"), (1, 2, 3), (0, 0, SIDE, SIDE))[0]
    assert len(found) == 80
    for (x, y), values in found:
        assert not isinstance(values, str), values
        assert np.array_equal(values, whole[:, y : y + 64, x : x + 64])
    elsewhere = pickle.loads(pickle.dumps(rasters))  # noqa: S301
    assert np.array_equal(elsewhere.read(address, (1,), (0, 900, 64, 964))[0], whole[:1, 900:964, :64])


def test_addresses_are_refused_unless_they_are_allowed(server, tmp_path):
    data = listed(server, tmp_path)
    with pytest.raises(UsageError, match=r"lists 2 addresses, first http://127.*turn it on with --scenes.remote true"):
        find_rasters(data)
    assert not server.asked


@pytest.mark.parametrize("how", ["/vsicurl/{}", "/vsizip//vsicurl/{}", "GTIFF_DIR:1:/vsicurl/{}", "zip+{}!a.tif"])
@pytest.mark.parametrize("remote", [False, True])
def test_gdals_own_names_for_addresses_are_no_way_around_that(server, tmp_path, monkeypatch, how, remote):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text(how.format(f"{server.address}/a.tif") + "\n")
    with pytest.raises(UsageError, match="no such file"):
        open_scenes("list.txt", SceneConfig(remote=remote))
    assert not server.asked


@pytest.mark.parametrize(
    "name",
    ["GTIFF_DIR:1:/vsis3/bucket/a.tif", "GTIFF_DIR:1:/vsicurl/{}/a.tif", "zip+{}!a.tif", "ftp://127.0.0.1/a.tif"],
)
def test_files_that_are_called_like_addresses_are_files(server, tmp_path, monkeypatch, name):
    bucket = {"S3_ENDPOINT": server.address[7:], "HTTPS": "NO", "VIRTUAL_HOSTING": "FALSE", "NO_SIGN_REQUEST": "YES"}
    for key, value in bucket.items():
        monkeypatch.setenv(f"AWS_{key}", value)
    monkeypatch.chdir(tmp_path)
    name = name.format(server.address)
    write_raster(tmp_path / name, np.ones((1, 64, 64), np.uint8))
    assert read_header(name).width == 64
    assert OpenRasters().read(name, (1,), (0, 0, 9, 9))[0].all()
    [found] = open_scenes(".", SceneConfig()).rasters
    assert (found.width, found.path) == (64, str(Path(name)))
    assert not server.asked


def test_no_path_of_gdals_own_is_read_whoever_asks(server):
    with pytest.raises(BadImage, match="begins with /vsi"):
        OpenRasters().read(f"/vsicurl/{server.address}/a.tif", (1,), (0, 0, 9, 9))
    assert not server.asked


def test_a_signed_address_is_read_by_its_own_suffix(server, tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8)
    name = "B04.jp2?sig=a%2Fb&name=c.tif"  # the server takes all of it for a file's name
    server.folder = tmp_path
    write_raster(tmp_path / "B04.jp2", values, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    (tmp_path / "B04.jp2").rename(tmp_path / name)
    address = f"{server.address}/{name}"
    assert read_header(address).bands == 3
    assert np.array_equal(RemoteRasters().read(address, (1, 2, 3), (0, 0, 64, 64))[0], values)


@pytest.mark.parametrize("mood", ["404", "dies", "redirects"])
def test_a_server_that_fails_gives_bad_images(server, tmp_path, mood):
    address = f"{server.address}/a.tif?{mood}=.tif"  # GDAL remembers addresses that failed: each its own
    server.mood = mood
    with pytest.raises(BadImage) as caught:
        read_header(address)
    assert str(caught.value.path) == address and caught.value.reason and "\n" not in caught.value.reason
    if mood == "redirects":  # followed, as a signed address must be; and proof that the proxy hears of all else
        assert {path for _, path in server.proxy.asked} == {"http://elsewhere.invalid/a.tif"}
    server.mood = "well"
    source = source_of(listed(server, tmp_path))
    source.decode(0)
    server.mood = mood
    before = len(server.asked)
    with pytest.raises(BadImage) as caught:
        for i in range(1, 9):
            source.decode(i)
    assert len(server.asked) > before and str(caught.value.path).startswith(server.address)
    server.mood = "well"
    assert source.decode(30).pixels.shape == (64, 64, 3), "once it is back it is read again"
    server.proxy.forget()


def test_a_server_that_is_gone_gives_bad_images(server, tmp_path):
    source = source_of(listed(server, tmp_path))
    source.decode(0)
    server.stop()
    with pytest.raises(BadImage, match=r"127\.0\.0\.1"):
        for i in range(1, 9):
            source.decode(i)
    with pytest.raises(UsageError, match=r"2 of 2 scenes.*cannot be read"):
        source_of(listed(server, tmp_path, "x.tif", "y.tif"))


def test_a_server_that_never_answers_is_waited_for_so_long_and_named(server, tmp_path, impatient):
    server.mood = "silent"
    begin = time.monotonic()
    with pytest.raises(BadImage, match=r"127.*/late.tif: .*too slow"):
        read_header(f"{server.address}/late.tif")
    assert 0.5 < time.monotonic() - begin < 4
    server.mood = "well"
    source = source_of(listed(server, tmp_path))
    source.decode(0)
    server.mood = "silent"
    begin = time.monotonic()
    with pytest.raises(BadImage, match=r"127\.0\.0\.1"):
        for i in range(1, 9):
            source.decode(i)
    assert 0.5 < time.monotonic() - begin < 3 + 4, "at most three times a second"


def test_many_scenes_of_a_silent_server_are_not_all_waited_for(server, tmp_path, impatient):
    server.mood = "silent"
    data = listed(server, tmp_path, *(f"{i}.tif" for i in range(200)))
    begin = time.monotonic()
    with pytest.raises(UsageError, match=r"of the first \d+ of 200 scenes.*cannot be read.*too slow"):
        source_of(data)
    assert time.monotonic() - begin < 8, "200 scenes, 16 at a time, would be 13 s"


WORDS = ("--recipe", "cmid-tiny", "--source", "scenes", "--scenes.statistics", "4", "--scenes.windows", "12")


def test_a_run_over_http_from_the_command_line(server, folder, tmp_path, capsys):
    data = listed(server, tmp_path)
    words = (*WORDS, "--no-report", "--train.workers", "2", "--scenes.window-px", "64")
    assert main(["pretrain", str(data), *words, "--out", str(tmp_path / "run")]) == 2
    assert "--scenes.remote true" in capsys.readouterr().err and not server.asked
    words = (*words, "--scenes.remote", "true")
    assert main(["pretrain", str(data), *words, "--out", str(tmp_path / "run")]) == 0
    assert main(["pretrain", str(folder), *words, "--out", str(tmp_path / "local")]) == 0
    assert (tmp_path / "run" / "metrics.csv").is_file() and not (tmp_path / "run" / "skipped.csv").exists()
    columns = [(tmp_path / run / "steps.csv").read_text().splitlines()[1].split(",")[:6] for run in ("run", "local")]
    assert columns[0] == columns[1]


def test_a_run_whose_server_fails_later_records_or_stops_in_a_line(server, tmp_path, capsys, monkeypatch):
    data = listed(server, tmp_path)
    first = SceneSource.decode

    def decode(source, i, reduction=None):
        server.mood = "404"  # from the first window on, after the bands have been measured
        return first(source, i, reduction)

    monkeypatch.setattr(SceneSource, "decode", decode)
    words = (*WORDS, "--no-report", "--train.workers", "0", "--scenes.window-px", "64", "--scenes.remote", "true")
    assert main(["pretrain", str(data), *words, "--out", str(tmp_path / "run")]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cmid: error:")]
    assert len(errors) == 1 and "too many unreadable images" in errors[0] and server.address in errors[0]
