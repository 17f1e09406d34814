import pickle
import threading

import numpy as np
import pytest
import torch

from cmid.config import SceneConfig, ViewConfig
from cmid.data.decode import BadImage
from cmid.data.scenes import SceneSource, open_scenes
from cmid.data.statistics import Stretch, measure
from cmid.data.views import ViewLoader
from cmid.errors import CmidError, UsageError
from tests.data.rasters_on_disk import numbered, write_raster

PLAIN = Stretch((), (), (0.0,))


def source_of(path, *, window=32, windows=24, seed=0, stretch=PLAIN, max_nodata=0.25, **config):
    scenes = open_scenes(path, SceneConfig(**config))
    return SceneSource(scenes, window=window, windows=windows, seed=seed, stretch=stretch, max_nodata=max_nodata)


def place_of(values):
    """Column and row of a window's first pixel, from `numbered` values of one band in rows of 100 columns."""
    return int(values[0, 0])


@pytest.fixture
def folder(tmp_path):
    write_raster(tmp_path / "s" / "a.tif", numbered(1, 96, 128))
    write_raster(tmp_path / "s" / "b.tif", numbered(1, 96, 512) + 10_000, crs="EPSG:4326")
    return tmp_path / "s"


def test_windows_are_those_of_the_file_and_fixed_by_seed_and_number(folder):
    source, again, other = source_of(folder), source_of(folder), source_of(folder, seed=1)
    for i in (0, 5, 23, 24, 1000):
        values, valid = source._draw(i)[2:]
        assert values.shape == (1, 32, 32) and valid.all()
        path, box = source._draw(i)[:2]
        whole = numbered(1, 96, path.width) + (10_000 if "b.tif" in path.path else 0)
        assert np.array_equal(values[0], whole[0, box[1] : box[3], box[0] : box[2]])
        assert np.array_equal(source.decode(i).pixels, again.decode(i).pixels)
        assert source.decode(i).pixels.dtype == np.float32
    assert any(not np.array_equal(source.decode(i).pixels, other.decode(i).pixels) for i in range(4))
    assert source.name(3).endswith("32 x 32]") and str(folder) in source.name(3)


def test_a_name_is_remembered_from_the_read_and_is_the_same_where_nothing_was_read(folder, monkeypatch):
    source = source_of(folder)
    reads = []
    read = source._rasters.read
    monkeypatch.setattr(source._rasters, "read", lambda *each: reads.append(each) or read(*each))
    monkeypatch.setattr("cmid.data.scenes.NAMES_KEPT", 10)
    for i in range(20):
        source.decode(i)
    names = [source.name(i) for i in range(10, 20)]
    assert len(reads) == 20 and len(source._recent) == 10
    elsewhere = source_of(folder)
    assert names == [elsewhere.name(i) for i in range(10, 20)]
    assert source.name(0) == elsewhere.name(0) and len(reads) == 21
    monkeypatch.undo()
    assert not pickle.loads(pickle.dumps(source))._recent  # noqa: S301
    for path in folder.iterdir():
        path.write_text("gone bad")
    broken = SceneSource(source.scenes, window=32, windows=24, seed=0, stretch=PLAIN)
    with pytest.raises(BadImage) as caught:
        broken.decode(3)
    assert broken.name(3) == str(caught.value.path)


def test_scenes_are_drawn_by_area_and_places_evenly(folder):
    source = source_of(folder)
    drawn = [source._draw(i)[:2] for i in range(1500)]
    of_b = np.mean([raster.path.endswith("b.tif") for raster, _ in drawn])
    assert abs(of_b - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 1500)
    x = np.array([box[0] for raster, box in drawn if raster.path.endswith("b.tif")])
    counts = np.histogram(x, bins=8, range=(0, 481))[0]
    assert np.square(counts - len(x) / 8).sum() / (len(x) / 8) < 24.3  # chi squared, 7 degrees, p = 0.001


def test_scenes_smaller_than_a_window_are_given_whole(tmp_path):
    write_raster(tmp_path / "a.tif", numbered(1, 20, 30))
    image = source_of(tmp_path).decode(0)
    assert (image.width, image.height, image.pixels.shape) == (30, 20, (20, 30, 1))


def test_nodata_is_avoided_and_what_is_left_becomes_the_mean(tmp_path):
    values = numbered(2, 256, 256)
    values[:, :, 64:] = 0
    write_raster(tmp_path / "a.tif", values, nodata=0)
    stretch = Stretch((0.0, 0.0), (1000.0, 1000.0), (0.25, 0.75))
    source = source_of(tmp_path, stretch=stretch, max_nodata=0.25)
    shares = [source._draw(i)[3].mean() for i in range(40)]
    assert np.mean([share >= 0.75 for share in shares]) > 0.6  # at random it would be one in six
    for i in range(40):
        _, _, raw, valid = source._draw(i)
        pixels = source.decode(i).pixels
        assert np.allclose(pixels[valid], np.moveaxis(raw, 0, -1)[valid] / 1000, atol=1e-6)
        assert (pixels[~valid] == np.float32([0.25, 0.75])).all()


@pytest.mark.parametrize(
    ("dtype", "value", "same"),
    [("uint16", 0, 0), ("int16", -9999, -9999), ("float32", -3.4028234663852886e38, -3.4028235e38), ("uint8", 7, 7)],
)
def test_nodata_that_files_do_not_declare_may_be_said(tmp_path, dtype, value, same):
    values = numbered(1, 64, 64).astype(dtype)
    values[:, :, 32:] = value
    write_raster(tmp_path / "a.tif", values)
    assert source_of(tmp_path, window=64)._draw(0)[3].all()
    valid = source_of(tmp_path, window=64, nodata=same)._draw(0)[3]
    assert np.array_equal(valid, values[0] != value)
    for nothing in (0.5, -1e300, 1e300, float("nan"), float("inf")):
        assert source_of(tmp_path, window=64, nodata=nothing)._draw(0)[3].all()
    write_raster(tmp_path / "a.tif", values, nodata=5)
    valid = source_of(tmp_path, window=64, nodata=same)._draw(0)[3]
    assert np.array_equal(valid, values[0] != 5), "what the file says holds"


def test_a_band_named_twice_is_refused(tmp_path):
    write_raster(tmp_path / "a.tif", numbered(3, 64, 64), names=("red", "green", "nir"))
    for bands in (("1", "1"), ("2", "3", "NIR")):
        with pytest.raises(UsageError, match=r"a.tif more than once \((1, 1|3, NIR)\): name each once"):
            source_of(tmp_path, bands=bands)


def test_a_scene_of_nodata_alone_is_a_bad_image(tmp_path):
    write_raster(tmp_path / "a.tif", np.zeros((1, 64, 64), np.uint16), nodata=0)
    with pytest.raises(BadImage, match="none has a valid pixel"):
        source_of(tmp_path).decode(0)


def test_unreadable_scenes_are_told_and_too_many_refused(folder):
    (folder / "c.tif").write_text("no raster")
    with pytest.raises(UsageError, match=r"1 of 3 scenes.*c.tif.*not recognized"):
        open_scenes(folder, SceneConfig())
    scenes = open_scenes(folder, SceneConfig(), max_bad_share=0.5)
    assert len(scenes.rasters) == 2 and list(scenes.bad) == [str(folder / "c.tif")]


def test_bytes_stay_bytes(tmp_path):
    write_raster(tmp_path / "a.tif", numbered(4, 64, 64, "uint8"), names=("nir", "red", "green", "blue"))
    source = source_of(tmp_path, bands=("red", "green", "blue"), stretch=Stretch((), (), (0.5,) * 3))
    assert source.decode(0).pixels.dtype == np.uint8 and (source.bands, source.dtype) == (3, torch.uint8)
    assert source.scenes.names == ("red", "green", "blue")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_gives_each_window_once_whatever_the_workers_and_a_resume(folder, workers):
    views = ViewConfig(size=16, mean=(0.0,), std=(1.0,))

    def loader(count=workers, **more):
        return ViewLoader(source_of(folder), views, batch_size=4, seed=3, workers=count, **more)

    one = loader()
    epochs = [list(one), list(one)]
    ids = [torch.cat([batch.indices for batch in epoch]).tolist() for epoch in epochs]
    assert sorted(ids[0]) == list(range(24)) and sorted(ids[1]) == list(range(24, 48))
    resumed = loader(0)
    resumed.resume_at(1, 3)
    for ours, theirs in zip(resumed, epochs[1][3:], strict=True):
        assert torch.equal(ours.indices, theirs.indices)
        for a, b in zip(ours, theirs, strict=True):
            assert a.images.dtype == torch.float32 and a.images.shape == (4, 1, 16, 16)
            assert torch.equal(a.images, b.images) and torch.equal(a.boxes, b.boxes)
    shared = [loader(0, rank=rank, world_size=2) for rank in (0, 1)]
    both = [torch.cat([batch.indices for batch in each]).tolist() for each in shared]
    assert sorted(both[0] + both[1]) == list(range(24))
    one.close()


def test_a_scene_that_breaks_is_replaced_and_counted_by_epoch(folder):
    source, strict_source = source_of(folder), source_of(folder, windows=100)
    loader = ViewLoader(source, ViewConfig(size=16), batch_size=4, seed=0, workers=0, max_bad_share=0.5)
    (folder / "a.tif").write_text("gone bad")
    for _ in range(3):
        batches = list(loader)
        assert len(batches) == 6
    assert loader.skipped and all("a.tif" in name for name, _ in loader.skipped.values())
    strict = ViewLoader(strict_source, ViewConfig(size=16), batch_size=4, seed=0, workers=0)
    (folder / "b.tif").write_text("gone bad")
    with pytest.raises(CmidError, match="too many unreadable images"):
        list(strict)


@pytest.mark.parametrize(
    ("other", "answer"),
    [
        (numbered(2, 96, 128), "it has 2 bands, but had 4 or more when the run began"),
        (numbered(4, 96, 128, np.uint8), "its values are uint8, but were uint16 when the run began"),
        (numbered(4, 96, 128, np.float32), "its values are float32, but were uint16"),
    ],
)
def test_a_scene_that_is_replaced_by_another_kind_is_a_bad_image(tmp_path, other, answer):
    path = write_raster(tmp_path / "a.tif", numbered(4, 96, 128))
    source = source_of(tmp_path, stretch=Stretch((0.0,) * 4, (1.0,) * 4, (0.0,) * 4))
    path.unlink()
    write_raster(path, other)
    with pytest.raises(BadImage, match=answer):
        source.decode(0)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_row_is_cut_however_many_are_bad_in_a_later_epoch(tmp_path, workers):
    for name in "abcde":
        write_raster(tmp_path / f"{name}.tif", numbered(1, 64, 64))
    source = source_of(tmp_path, window=16, windows=50)
    loader = ViewLoader(source, ViewConfig(size=16), batch_size=25, seed=0, workers=workers)
    loader.resume_at(4, 0)
    (tmp_path / "b.tif").unlink()
    batch = next(iter(loader))
    # more than 5 % of the 50 windows of this epoch, no more than 5 % of the 250 of five
    assert 3 <= len(loader.skipped) <= 12 and not set(batch.indices.tolist()) & set(loader.skipped)
    for view in batch:
        assert (view.boxes[:, 2:] > view.boxes[:, :2]).all() and (view.images > 0).all()
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_where_no_window_of_an_epoch_is_left_the_run_stops(folder, workers):
    loader = ViewLoader(source_of(folder), ViewConfig(size=16), batch_size=4, seed=0, workers=workers)
    loader.resume_at(30, 0)  # 5 % of what 31 epochs draw is more than one epoch draws
    for name in ("a.tif", "b.tif"):
        (folder / name).unlink()
    with pytest.raises(CmidError, match=r"4 of the 4 images of a batch cannot be read.*tif \(no such file\)"):
        next(iter(loader))


def test_statistics_equal_numpys_on_everything(tmp_path):
    generator = np.random.default_rng(0)
    values = generator.gamma(3.0, 400.0, (3, 64, 64)).astype(np.uint16) + np.uint16(1)
    values[:, :16] = 0
    write_raster(tmp_path / "a.tif", values, nodata=0)
    source = source_of(tmp_path, window=64)
    found = measure(source, ("a", "b", "c"), images=1, seed=0)
    seen = values[:, 16:].reshape(3, -1).astype(float)
    low, high = np.percentile(seen, (2, 98), axis=1)
    scaled = (seen - low[:, None]) / (high - low)[:, None]
    assert found.pixels == 48 * 64 and found.nodata == 0.25 and found.dtype == "uint16"
    for ours, theirs in (
        (found.low, low), (found.high, high), (found.mean, scaled.mean(1)), (found.std, scaled.std(1)),
        (found.minimum, seen.min(1)), (found.maximum, seen.max(1)),
    ):  # fmt: skip
        assert np.allclose(ours, theirs, rtol=1e-5)
    pixels = source_of(tmp_path, window=64, stretch=Stretch(found.low, found.high, found.mean)).decode(0).pixels
    assert np.allclose(pixels[16:].reshape(-1, 3).mean(0), found.mean, atol=1e-4)
    assert np.allclose(pixels[:16], found.mean)


@pytest.mark.parametrize(
    ("least", "dtype"), [(2_000_000, np.int32), (1_500_000_000, np.int32), (1e9, np.float64), (2_000_000, np.float32)]
)
def test_a_narrow_range_far_from_zero_is_stretched_like_any_other(tmp_path, least, dtype):
    steps = np.random.default_rng(0).integers(0, 4, (1, 64, 64))
    write_raster(tmp_path / "a.tif", (steps + least).astype(dtype))
    found = measure(source_of(tmp_path, window=64), ("1",), images=1, seed=0)
    assert (found.low, found.high) == ((least,), (least + 3,)) == (found.minimum, found.maximum)
    assert np.allclose((found.mean, found.std), ((steps.mean() / 3,), (steps.std() / 3,)), rtol=1e-5)
    pixels = source_of(tmp_path, window=64, stretch=Stretch(found.low, found.high, found.mean)).decode(0).pixels
    assert pixels.dtype == np.float32 and np.allclose(pixels[..., 0], steps[0] / 3, atol=1e-6)


def test_a_constant_band_has_no_zero_to_divide_by(tmp_path):
    write_raster(tmp_path / "a.tif", np.full((1, 64, 64), 7, np.uint16))
    found = measure(source_of(tmp_path), ("1",), images=2, seed=0)
    assert found.high[0] > found.low[0] and found.std[0] > 0


def test_nothing_valid_cannot_be_measured(tmp_path):
    write_raster(tmp_path / "a.tif", np.zeros((1, 64, 64), np.uint16), nodata=0)
    with pytest.raises(CmidError, match="no valid pixel"):
        measure(source_of(tmp_path), ("1",), images=3, seed=0)


def test_the_threads_that_read_headers_outlive_it(folder):
    """A thread that ends holds locks of GDAL's for a while, and a loader process forked meanwhile would hang."""

    def reading():
        return {t for t in threading.enumerate() if t.name.startswith("headers of scenes")}

    open_scenes(folder, SceneConfig())
    alive = reading()
    assert alive
    open_scenes(folder, SceneConfig())
    assert alive <= reading()
