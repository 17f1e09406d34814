"""Dates that are made up: what they change and what they leave."""

import numpy as np
import pytest
import torch
from PIL import Image

from cmid.config import ViewConfig
from cmid.data import artificial_dates
from cmid.data.artificial_dates import AIRLIGHT, DATES, ArtificialDates, another_date
from cmid.data.crops import generator_for
from cmid.data.decode import Decoded
from cmid.data.folder import FolderSource
from cmid.data.sources import DatedSource
from cmid.data.views import ViewLoader


def generator(number=0):
    return generator_for(number, 0, 0, 0)


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        pixels = np.random.default_rng(i).integers(30, 200, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def test_the_first_date_is_the_image_and_the_others_are_fixed_by_the_seed(folder):
    source = ArtificialDates(FolderSource(folder), seed=3)
    assert isinstance(source, DatedSource) and source.date_count(0) == DATES
    plain = FolderSource(folder).read(2)
    assert np.array_equal(source.decode(2).pixels, plain) and np.array_equal(source.decode_date(2, 0).pixels, plain)
    made = [source.decode_date(2, d).pixels for d in range(1, DATES)]
    for d, pixels in enumerate(made, 1):
        assert pixels.dtype == np.uint8 and pixels.shape == plain.shape
        assert np.array_equal(pixels, ArtificialDates(FolderSource(folder), seed=3).decode_date(2, d).pixels)
        assert not np.array_equal(pixels, ArtificialDates(FolderSource(folder), seed=4).decode_date(2, d).pixels)
        assert not np.array_equal(pixels, plain)
    assert not np.array_equal(made[0], made[1])


def test_what_changes_is_smooth_and_the_scene_stays():
    """Of an even surface the change is a smooth field, far from noise, and edges stay where they were."""
    even = np.full((96, 96, 3), (60, 110, 70), np.uint8)
    for number in range(20):
        after = another_date(even, generator(number)).astype(float)
        steps = max(np.abs(np.diff(after, axis=axis)).max() for axis in (0, 1))
        assert steps <= 6, "grey levels between neighbours, of 100 between the points that are drawn"
        assert 20 < after.mean() < 180
    board = np.kron(np.indices((6, 6)).sum(0) % 2, np.ones((16, 16)))[..., None] * [90, 120, 60] + 40
    after = another_date(board.astype(np.uint8), generator(1)).astype(float).mean(-1)
    assert np.corrcoef(after.ravel(), board.mean(-1).ravel())[0, 1] > 0.9


def test_grey_keeps_its_colour_better_than_leaves(monkeypatch):
    monkeypatch.setattr(artificial_dates, "HAZE", 0.0)  # which takes colour from all
    grey, green = np.full((32, 32, 3), 120, np.uint8), np.full((32, 32, 3), (60, 120, 50), np.uint8)

    def turned(pixels, number):
        """How far the gains of the bands are from one another."""
        return np.ptp(another_date(pixels, generator(number)).astype(float).mean((0, 1)) / pixels.mean((0, 1)))

    roofs, leaves = ([turned(pixels, number) for number in range(30)] for pixels in (grey, green))
    assert np.mean(leaves) > 3 * np.mean(roofs) > 0


def test_haze_lifts_the_dark():
    black = np.zeros((24, 24, 3), np.uint8)
    lifted = [another_date(black, generator(number)) for number in range(20)]
    assert max(pixels.max() for pixels in lifted) <= 255 * AIRLIGHT * 0.35
    assert np.mean([pixels.mean() for pixels in lifted]) > 5


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_deep_values_of_any_bands_are_neither_clipped_nor_changed_in_place(bands):
    values = np.random.default_rng(0).normal(0.5, 0.6, (30, 20, bands)).astype(np.float32)
    kept = values.copy()
    after = another_date(values, generator(5))
    assert after.dtype == np.float32 and after.shape == values.shape and np.isfinite(after).all()
    assert np.array_equal(values, kept)
    assert after.max() > 1.2 and after.min() < -0.2
    assert np.corrcoef(after.ravel(), values.ravel())[0, 1] > 0.9


def test_a_shrunk_image_has_the_same_day():
    large = np.kron(np.random.default_rng(1).uniform(0.2, 0.8, (12, 12, 3)), np.ones((8, 8, 1))).astype(np.float32)
    small = large.reshape(48, 2, 48, 2, 3).mean((1, 3))
    shrunk = another_date(large, generator(2)).reshape(48, 2, 48, 2, 3).mean((1, 3))
    assert np.abs(another_date(small, generator(2)) - shrunk).max() < 0.02


def test_a_run_sees_the_same_made_up_dates_again_whatever_loads_them(folder):
    def batches(workers, start):
        loader = ViewLoader(
            ArtificialDates(FolderSource(folder), 1), ViewConfig(size=16, recoloured="alternate"),
            batch_size=2, seed=1, workers=workers, crops=4, dates=(0, 1, 2, 0),
        )  # fmt: skip
        loader.resume_at(0, start)
        found = [[crop.images for crop in batch] for batch in loader]
        loader.close()
        return found

    whole, rest = batches(0, 0), batches(1, 1)
    assert len(whole) == 3 and len(rest) == 2
    for one, other in zip(whole[1:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Fresh:
    """Images that each epoch brings anew, in long strokes, as windows and shards do."""

    bands, dtype, fresh, block = 3, torch.uint8, True, 7

    def __len__(self):
        return 4

    def name(self, i):
        return f"window {i}"

    def decode(self, i, reduction=None):
        return Decoded(np.full((20, 20, 3), i, np.uint8), 20, 20)


def test_what_a_source_says_of_itself_is_passed_on():
    source = ArtificialDates(Fresh(), 0)
    assert (source.fresh, source.block, len(source), source.name(3), source.bands) == (True, 7, 4, "window 3", 3)
    assert source.decode_date(9, 0).pixels[0, 0, 0] == 9
