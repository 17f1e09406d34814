"""Places seen at several dates: how they are found, and what the loader cuts of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from cmid.config import ViewConfig
from cmid.data.crops import kinds_of_crops
from cmid.data.folder import FolderSource
from cmid.data.places import Found, Places, date_in, places_of_folder
from cmid.data.sources import DatedSource, draw_dates
from cmid.data.views import ViewLoader
from cmid.errors import UsageError
from tests.data.rasters_on_disk import write_raster

DAYS = ("2019-01-20", "2019-05-01", "2019-08-12")
SLOTS = (0, 1, 2, 0)
VIEWS = ViewConfig(size=16, recoloured="alternate")


def draw(path, level, size=(40, 30)):
    """An image of one level of grey, so that a crop tells which image it was cut from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Six places of three dates; place p at date d has the grey level 40 p + 10 d + 5."""
    for place in range(6):
        for d, day in enumerate(DAYS):
            draw(tmp_path / f"p{place}" / f"{day}.png", 40 * place + 10 * d + 5)
    return tmp_path


def places_in(folder, **limits):
    source = FolderSource(folder)
    return Places(source, places_of_folder(source), **limits)


def loader_of(source, batch_size=2, seed=3, workers=0, **more):
    return ViewLoader(
        source, VIEWS, batch_size=batch_size, seed=seed, workers=workers, crops=4, dates=SLOTS, **more
    )  # fmt: skip


def seen_in(batch):
    """Place and date of each crop, from its grey level: `(crops, B, 2)`."""
    levels = torch.stack([crop.images.flatten(1).float().mean(1).round().long() for crop in batch])
    return torch.stack((levels // 40, levels % 40 // 10), -1)


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("2019-05-01", "20190501"),
        ("20190501", "20190501"),
        ("S2A_2019_05_01_clear", "20190501"),
        ("S2_20190501T101031_T32", "20190501T101031"),
        ("2019-05-01T10:10:31", "20190501T101031"),
        ("20181231T095411_20190101T095601_T33", "20181231T095411"),
        ("20191332", None),  # no such day
        ("airport_1", None),
        ("1234567890123", None),
        ("2019-0501", None),
    ],
)
def test_a_date_in_a_name(name, date):
    assert date_in(name) == date


def test_places_are_folders_and_dates_are_files_or_folders_in_them(tmp_path):
    draw(tmp_path / "fields" / "2020-01-30.png", 1)
    draw(tmp_path / "fields" / "2019-05-01.png", 2)
    draw(tmp_path / "deep" / "coast" / "20190812" / "rgb.png", 3)
    draw(tmp_path / "deep" / "coast" / "20190501" / "rgb.png", 4)
    draw(tmp_path / "alone" / "2019-05-01.png", 5)
    draw(tmp_path / "fields" / "overview.png", 6)
    found = places_of_folder(FolderSource(tmp_path))
    assert found.names == ("deep/coast", "fields") and found.alone == ("alone",)
    assert [name.endswith("overview.png") for name in found.undated] == [True]
    places = Places(FolderSource(tmp_path), found)
    levels = [[int(places.decode_date(i, d).pixels[0, 0, 0]) for d in range(2)] for i in range(2)]
    assert levels == [[4, 3], [2, 1]], "the earliest first"
    assert [int(places.decode(i).pixels[0, 0, 0]) for i in range(2)] == [4, 2]
    assert isinstance(places, DatedSource) and not isinstance(places.source, DatedSource)


def test_places_of_a_list_file(folder):
    (folder / "list.txt").write_text("p3/2019-05-01.png\np1/2019-08-12.png\np3/2019-01-20.png\np1/2019-05-01.png\n")
    assert places_of_folder(FolderSource(folder / "list.txt")).names == ("p3", "p1")


def test_a_list_keeps_apart_what_lies_beside_its_folder(tmp_path):
    for place in ("lists/c/x", "listsc/x"):
        for day in DAYS:
            draw(tmp_path / place / f"{day}.png", 1)
    paths = sorted(str(path) for path in tmp_path.rglob("*.png"))
    (tmp_path / "lists" / "all.txt").write_text("\n".join(paths))
    found = places_of_folder(FolderSource(tmp_path / "lists" / "all.txt"))
    assert sorted(found.names) == [str(tmp_path / "listsc" / "x"), "c/x"]


def test_geotiffs_are_read(tmp_path):
    for place in ("a", "b"):
        for d, day in enumerate(DAYS):
            (tmp_path / place).mkdir(exist_ok=True)
            write_raster(tmp_path / place / f"{day}.tif", np.full((3, 30, 40), 50 + d, np.uint8))
    assert [int(places_in(tmp_path).decode_date(1, d).pixels.mean()) for d in range(3)] == [50, 51, 52]


def test_places_that_lie_in_one_folder_are_refused(tmp_path):
    draw(tmp_path / "a_2019-05-01.png", 1)
    draw(tmp_path / "b_2019-05-01.png", 1)
    with pytest.raises(
        UsageError, match=r"a_2019-05-01\.png and .* are of one date \(20190501\).* a folder of its own"
    ):
        places_of_folder(FolderSource(tmp_path))


def test_one_place_is_too_few(tmp_path):
    draw(tmp_path / "a" / "2019-05-01.png", 1)
    draw(tmp_path / "a" / "2019-06-01.png", 1)
    with pytest.raises(UsageError, match="only one place is seen at several dates, a; pre-training needs at least 2"):
        places_in(tmp_path)


def test_limit_counts_places(folder):
    few = places_in(folder, limit=3, seed=1)
    assert len(few) == 3 and [few.date_count(i) for i in range(3)] == [3, 3, 3]
    names = [few.name(i) for i in range(3)]
    assert names == [places_in(folder, limit=3, seed=1).name(i) for i in range(3)]
    assert any(names != [places_in(folder, limit=3, seed=s).name(i) for i in range(3)] for s in range(2, 6))


def test_dates_are_drawn_evenly_and_never_the_querys():
    drawn = [draw_dates(np.random.default_rng(i), 5, 3) for i in range(6000)]
    assert all(len({*dates}) == 3 for dates in drawn)
    for position in range(3):
        shares = np.bincount([dates[position] for dates in drawn], minlength=5) / len(drawn)
        assert np.abs(shares - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / len(drawn))
    of_two = {tuple(draw_dates(np.random.default_rng(i), 2, 3)) for i in range(50)}
    assert of_two == {(0, 1, 1), (1, 0, 0)}


def test_every_place_once_and_each_crop_of_its_date(folder):
    loader = loader_of(places_in(folder))
    for _ in range(3):
        epoch = list(loader)
        indices = torch.cat([batch.indices for batch in epoch])
        assert sorted(indices.tolist()) == list(range(6))
        for batch in epoch:
            seen = seen_in(batch)
            assert (seen[..., 0] == batch.indices).all(), "all crops show the same place"
            q, k0, k1, k2 = seen[..., 1]
            assert torch.equal(q, k2)
            assert (q != k0).all() and (q != k1).all() and (k0 != k1).all()
            assert not batch[0].flipped.any() and not batch[2].flipped.any()


def test_each_crop_has_its_own_box_in_the_pixels_of_its_own_date(tmp_path):
    """The images are ramps, each from a level of its own, so that a crop's mean tells where it was cut."""
    for place in range(2):
        for d, (day, width) in enumerate(zip(DAYS, (64, 80, 100), strict=True)):
            (tmp_path / f"{place}").mkdir(exist_ok=True)
            ramp = np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None] + 50 * d, (width, width, 3))
            Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / f"{place}" / f"{day}.png")
    boxes = []
    for _ in range(2):
        batch = next(iter(loader_of(places_in(tmp_path), seed=len(boxes))))
        for crop in batch:
            for box, image in zip(crop.boxes, crop.images, strict=True):
                middle = float(box[0] + box[2] - 1) / 2
                date = (image.float().mean() - middle) / 50
                assert abs(date - date.round()) < 0.02
                assert box[2] <= (64, 80, 100)[int(date.round())]
                boxes.append(tuple(box.tolist()))
    assert len(set(boxes)) == len(boxes)


def same(one, other):
    assert torch.equal(one.indices, other.indices)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.boxes, b.boxes) and torch.equal(a.flipped, b.flipped)


def test_a_run_that_goes_on_sees_the_same_crops_of_the_same_dates(folder):
    whole = loader_of(places_in(folder))
    expected = [batch for _ in range(2) for batch in whole]
    first = loader_of(places_in(folder), workers=1)
    before = [batch for _, batch in zip(range(2), first, strict=False)]
    state = first.state_dict()
    first.close()
    later = loader_of(places_in(folder))
    later.load_state_dict(state)
    after = [batch for _ in range(2) for batch in later]
    assert len(before) + len(after) == len(expected) == 6
    for one, other in zip([*before, *after], expected, strict=True):
        same(one, other)


def test_an_unreadable_date_is_named_and_another_place_stands_in(folder):
    (folder / "p2" / "2019-05-01.png").write_bytes(b"no image")
    loader = loader_of(places_in(folder), max_bad_share=0.4)
    used = [batch.indices for _ in range(4) for batch in loader]
    assert len(used) == 12, "no batch is lost"
    assert list(loader.skipped) == [2]
    assert loader.skipped[2][0].endswith("p2/2019-05-01.png")
    loader.write_skipped(folder / "skipped.csv")
    assert "p2/2019-05-01.png" in (folder / "skipped.csv").read_text()


def test_dates_need_places(folder):
    with pytest.raises(ValueError, match="are for a source of places"):
        loader_of(FolderSource(folder))
    with pytest.raises(ValueError, match="as many crops"):
        ViewLoader(places_in(folder), VIEWS, batch_size=2, seed=0, workers=0, crops=2, dates=SLOTS)


def test_a_source_of_places_gives_other_methods_its_first_dates(folder):
    loader = ViewLoader(places_in(folder), ViewConfig(size=16), batch_size=6, seed=0, workers=0)
    assert (seen_in(next(iter(loader)))[..., 1] == 0).all()
    assert kinds_of_crops(ViewConfig(small_crops=1), 2)[2].size == ViewConfig().small_size


def test_nothing_found():
    with pytest.raises(UsageError, match="no place is; pre-training needs at least 2"):
        Places(None, Found((), ()))
