"""Reads that never end: a named pipe without a writer stands in an image's place, and opening it waits for ever."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cmid.config import SceneConfig, ViewConfig
from cmid.data import reading
from cmid.data.decode import BadImage
from cmid.data.folder import FolderSource
from cmid.data.images import ImageLoader, in_order
from cmid.data.scenes import SceneSource, open_scenes
from cmid.data.statistics import Stretch, measure
from cmid.data.thumbnails import fingerprint
from cmid.data.views import ViewLoader
from cmid.errors import CmidError, NotFinite, UsageError
from tests.data.rasters_on_disk import write_raster
from tests.data.test_views import assert_same

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here"),
]
SMALL = ViewConfig(size=16)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(reading, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)  # a process is given so long to end


def loader_of(source, timeout_s, **options):
    return ViewLoader(source, SMALL, batch_size=4, seed=5, read_timeout_s=timeout_s, max_bad_share=0.5, **options)


def block(source, *places):
    for place in places:
        Path(source.name(place)).unlink()
        os.mkfifo(source.name(place))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_read_without_end_is_passed_over_and_named(make_folder, tmp_path, workers):
    source = FolderSource(make_folder(24))
    before = set(multiprocessing.active_children())
    block(source, 3)
    loader = loader_of(source, 1.5, workers=workers)
    batches = list(loader)
    assert loader.skipped == {3: (source.name(3), "reading it did not end within 1.5 s")}
    assert len(batches) == 6 and 3 not in torch.cat([batch.indices for batch in batches])
    loader.write_skipped(tmp_path / "skipped.csv")
    assert source.name(3) in (tmp_path / "skipped.csv").read_text()
    assert len(list(loader)) == 6, "the image is known now, and nobody waits for it again"
    loader.close()
    assert not set(multiprocessing.active_children()) - before
    Path(source.name(3)).unlink()  # as good as gone: the same stand-in, so the same batches, bit by bit
    again = ViewLoader(source, SMALL, batch_size=4, seed=5, workers=0, max_bad_share=0.5)
    assert_same(batches, list(again))


@pytest.fixture
def within_a_minute():
    """Fails a test that hangs."""

    def late(number, frame):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("workers", [1, 2])
def test_whole_images_are_given_without_those_whose_reading_does_not_end(make_folder, within_a_minute, workers):
    source = FolderSource(make_folder(9))
    whole = torch.cat([batch.images for batch in ImageLoader(source, 8, workers=0)])
    before = set(multiprocessing.active_children())
    block(source, 4)
    loader = ImageLoader(source, 8, batch_size=2, workers=workers, read_timeout_s=1.0)
    batches = list(loader)
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.cat([batch.indices for batch in batches]).tolist() == others
    assert loader.skipped == {4: "reading it did not end within 1 s"}
    assert torch.equal(torch.cat([batch.images for batch in batches]), whole[others])
    began = time.monotonic()
    assert torch.cat([batch.indices for batch in loader]).tolist() == others
    assert time.monotonic() - began < 1.0 or workers == 2, "the image is known now, and nobody waits for it again"
    assert not set(multiprocessing.active_children()) - before
    again = ImageLoader(source, 8, batch_size=2, workers=0)
    again.leave_out({4: "known", 0: "known"})
    assert torch.cat([batch.indices for batch in again]).tolist() == others[1:]
    assert again.skipped == {0: "known", 4: "known"}


def test_whole_images_on_a_disk_that_answers_nobody_are_named(make_folder, within_a_minute, monkeypatch):
    monkeypatch.setattr(reading, "HANGS_ALLOWED", 1)
    source = FolderSource(make_folder(6))
    block(source, *range(6))
    with pytest.raises(CmidError, match=r"2 reads did not end within 0.5 s each: .*\.jpg.*Look after the disk"):
        list(ImageLoader(source, 8, batch_size=2, workers=1, read_timeout_s=0.5))


def test_a_disk_that_answers_nobody_stops_the_run_with_the_files_named(make_folder, monkeypatch):
    monkeypatch.setattr(reading, "HANGS_ALLOWED", 1)
    source = FolderSource(make_folder(12))
    block(source, *range(12))
    with pytest.raises(CmidError, match=r"2 reads did not end within 0.5 s each: .*\.jpg.*Look after the disk"):
        list(loader_of(source, 0.5, workers=1))


def test_a_scene_that_hangs_is_named_without_being_read_again(tmp_path):
    rng = np.random.default_rng(0)
    write_raster(tmp_path / "a.tif", rng.integers(0, 255, (3, 64, 64), np.uint8))
    scenes = open_scenes(tmp_path, SceneConfig())
    source = SceneSource(scenes, window=16, windows=8, seed=0, stretch=Stretch((), (), (0.0,) * 3))
    (tmp_path / "a.tif").unlink()
    os.mkfifo(tmp_path / "a.tif")
    loader = loader_of(source, 1.0, workers=1)
    with pytest.raises(CmidError, match=r"reads did not end within 1 s each: .*a.tif\."):
        list(loader)


def test_bands_are_measured_without_what_hangs(tmp_path, within_a_minute):
    rng = np.random.default_rng(0)
    for name in "ab":
        write_raster(tmp_path / f"{name}.tif", rng.integers(0, 255, (3, 64, 64), np.uint8))
    source = SceneSource(
        open_scenes(tmp_path, SceneConfig()), window=16, windows=8, seed=1, stretch=Stretch((), (), (0.0,) * 3)
    )  # with this seed three of the first four are of a, one of b
    names = ("1", "2", "3")
    whole = measure(source, names, images=4, seed=0)
    assert measure(source, names, images=4, seed=0, workers=2) == whole  # who reads makes no difference
    (tmp_path / "b.tif").unlink()
    os.mkfifo(tmp_path / "b.tif")
    rest = measure(source, names, images=4, seed=0, workers=1, read_timeout_s=1.0)
    assert whole.pixels == 4 * 16 * 16 and rest.pixels == 3 * 16 * 16
    (tmp_path / "a.tif").unlink()
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(CmidError, match=r"reads did not end within 0.5 s each: .*a.tif"):
        measure(source, names, images=4, seed=0, workers=1, read_timeout_s=0.5)


def test_pictures_are_compared_without_what_hangs(make_folder, within_a_minute):
    source = FolderSource(make_folder(8))
    whole = fingerprint(source)
    block(source, 3)
    rest = fingerprint(source, workers=1, read_timeout_s=1.0)
    assert rest.skipped == {3: "reading it did not end within 1 s"}
    assert rest.indices.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(rest.digests, whole.digests[rest.indices])


class SlowSource(FolderSource):
    """Each image takes a while, as from far away."""

    pause_s = 0.3

    def decode(self, i, reduction=None):
        time.sleep(self.pause_s)
        return super().decode(i, reduction)


def test_who_is_only_slow_is_waited_for(make_folder):
    loader = loader_of(SlowSource(make_folder(8)), 1.0, workers=1)
    assert len(list(loader)) == 2 and not loader.skipped  # a batch takes longer than the limit, an image does not


def test_an_ended_process_that_is_stopped_ends_all_the_same(make_folder):
    before = set(multiprocessing.active_children())
    loader = loader_of(SlowSource(make_folder(8)), 1.0, workers=1)
    batches = iter(loader)
    next(batches)
    [worker] = set(multiprocessing.active_children()) - before
    os.kill(worker.pid, signal.SIGSTOP)  # what a debugger or a full machine does
    list(batches)
    worker.join(10)
    assert not worker.is_alive()


def test_a_run_that_was_suspended_blames_no_image(make_folder):
    source = SlowSource(make_folder(8))
    context = multiprocessing.get_context("fork")
    inbox, outbox = context.Pipe(duplex=False)

    def read_all():
        os.setpgid(0, 0)
        loader = loader_of(source, 1.0, workers=1)
        batches = iter(loader)
        next(batches)
        outbox.send("one")
        outbox.send((len(list(batches)), loader.skipped))

    process = context.Process(target=read_all)
    process.start()
    assert inbox.recv() == "one"
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.killpg(process.pid, signal.SIGCONT)
    assert inbox.recv() == (1, {})
    process.join()


class Raises:
    """A dataset that cannot be read, and says so."""

    def __init__(self, error):
        self.error, self.reading, self.hung = error, reading.Reading(1), {}

    def __len__(self):
        return 2

    def __getitem__(self, i):
        try:
            raise KeyError("cause")
        except KeyError as cause:
            raise self.error from cause


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UsageError("expected this, found that: do so"), UsageError),
        (CmidError("it failed"), CmidError),
        (NotFinite("two\nlines"), NotFinite),
        (BadImage("/a/b.tif", "torn"), CmidError),
    ],
)
def test_an_error_for_the_user_keeps_its_words_on_its_way_out_of_a_loader_process(error, kind):
    with pytest.raises(CmidError) as caught:
        list(in_order(Raises(error), str, 1, 60.0))
    assert type(caught.value) is kind and str(caught.value) == str(error)


@pytest.mark.parametrize("error", [RuntimeError("stack expects one size"), ValueError("DataLoader worker (pid 3) is")])
def test_a_mistake_in_a_loader_process_is_not_told_as_its_death(error):
    with pytest.raises(type(error), match=r"(?s)Caught .* in DataLoader worker process 0.*Traceback.*cause") as caught:
        list(in_order(Raises(error), str, 1, 60.0))
    assert type(caught.value) is type(error) and str(error) in str(caught.value)


def test_the_death_of_the_thread_that_pins_memory_is_told():
    """Torch looks after it only where a loader has no time-out; with one, each turn ends as if a worker were slow."""
    ended = threading.Thread(target=int)
    ended.start()
    ended.join()

    class Loading:
        _pin_memory_thread = ended

        def __iter__(self):
            return self

        def __next__(self):
            raise RuntimeError("DataLoader timed out after 5 seconds")

    with pytest.raises(CmidError, match=r"page-locked memory has died.*ulimit -n.*now 2"):
        next(reading.patiently(Loading, reading.Reading(2), 300, pytest.fail, 2))
