import csv
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch

from cmid.config import ViewConfig
from cmid.data.folder import FolderSource
from cmid.data.order import epoch_order
from cmid.data.views import ViewLoader
from cmid.errors import CmidError, UsageError

SMALL = ViewConfig(size=16)
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def loader_of(folder, *, views=SMALL, batch_size=4, seed=5, workers=0, **options):
    return ViewLoader(FolderSource(folder), views, batch_size=batch_size, seed=seed, workers=workers, **options)


def content(batch):
    return [batch.indices, *(part for view in batch for part in (view.images, view.boxes, view.flipped))]


def assert_same(left, right):
    assert len(left) == len(right) and len(left) > 0
    for ours, theirs in zip(left, right, strict=True):
        assert ours.epoch == theirs.epoch
        for a, b in zip(content(ours), content(theirs), strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def spoil(folder, *numbers):
    for number in numbers:
        path = folder / f"{number:03d}.jpg"
        path.write_bytes(path.read_bytes()[:300])


def test_shapes_types_and_whereabouts(make_folder):
    loader = loader_of(make_folder(11))
    batches = list(loader)
    assert len(batches) == len(loader) == 2
    for batch in batches:
        assert len(batch) == 2 and batch.batch_size == 4 and batch.epoch == 0 and batch.indices.dtype == torch.int64
        for view in batch:
            assert view.images.shape == (4, 3, 16, 16) and view.images.dtype == torch.uint8
            assert (
                view.images.is_contiguous() and view.boxes.dtype == torch.float32 and view.flipped.dtype == torch.bool
            )
            x0, y0, x1, y1 = view.boxes.T
            assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= 48).all() and (y1 <= 40).all()
            assert (((x1 - x0) * (y1 - y0)) > 0.25 * 48 * 40).all()
    seen = torch.cat([batch.indices for batch in batches])
    assert len(seen.unique()) == 8
    assert loader.names(batches[0].indices) == [str(loader.source.paths[i]) for i in batches[0].indices]


@pytest.mark.parametrize("turn", [False, True])
def test_crops_are_what_the_boxes_say(make_folder, turn):
    loader = loader_of(make_folder(8, suffix="png"), views=ViewConfig(size=20, turn=float(turn)), batch_size=8)
    [batch] = loader
    for view in batch:
        assert (view.turns is not None and len(view.turns.unique()) > 2) if turn else view.turns is None
        for row, (index, box) in enumerate(zip(batch.indices, view.boxes.int(), strict=True)):
            x0, y0, x1, y1 = box.tolist()
            piece = torch.from_numpy(loader.source.read(int(index))[y0:y1, x0:x1]).permute(2, 0, 1)
            expected = torch.nn.functional.interpolate(
                piece[None].float(), size=(20, 20), mode="bilinear", antialias=True
            )[0]
            expected = expected.rot90(int(view.turns[row]), (-2, -1)) if turn else expected
            expected = expected.flip(-1) if view.flipped[row] else expected
            assert (expected - view.images[row].float()).abs().max() <= 1


def test_turning_changes_no_other_draw(make_folder):
    folder = make_folder(4)
    for straight, turned in zip(
        *(loader_of(folder, views=ViewConfig(size=16, turn=t)) for t in (0.0, 0.5)), strict=True
    ):
        for ours, theirs in zip(straight, turned, strict=True):
            assert torch.equal(ours.boxes, theirs.boxes) and torch.equal(ours.flipped, theirs.flipped)


@pytest.mark.parametrize("squash", [False, True])
def test_workers_change_nothing(make_folder, squash):
    folder, views = make_folder(10), ViewConfig(size=16, squash=squash)
    spoil(folder, 3)
    runs = []
    for workers in (0, 1, 3):
        loader = loader_of(folder, views=views, workers=workers, batch_size=3, max_bad_share=0.2)
        batches = list(loader)
        loader.set_epoch(4)
        runs.append((batches + list(loader), dict(loader.skipped), loader.state_dict()))
    for batches, skipped, state in runs[1:]:
        assert_same(batches, runs[0][0])
        assert skipped == runs[0][1] and 3 in skipped and state == runs[0][2]


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_in_the_middle_of_an_epoch_changes_nothing(make_folder, workers):
    folder = make_folder(13)
    whole = loader_of(folder, batch_size=3)
    whole.set_epoch(2)
    expected = list(whole) + list(whole)
    first = loader_of(folder, batch_size=3, workers=workers)
    first.set_epoch(2)
    batches = iter(first)
    done = [next(batches) for _ in range(3)]
    state = first.state_dict()
    assert (state["epoch"], state["batch"]) == (2, 3)
    second = loader_of(folder, batch_size=3, workers=workers)
    second.load_state_dict(state)
    second.set_epoch(2)  # as a trainer would at the start of the epoch
    assert_same(done + list(second) + list(second), expected)
    third = loader_of(folder, batch_size=3, workers=workers)
    third.resume_at(2, 1)
    assert_same(list(third), expected[1:4])
    assert_same(list(third), expected[4:])


def test_the_same_iterator_can_be_left_and_started_again(make_folder):
    folder = make_folder(12)
    expected = list(loader_of(folder, batch_size=2))
    loader = loader_of(folder, batch_size=2, workers=2)
    for _ in range(2):
        for batch in loader:
            assert_same([batch], [expected[0]])
            break
        loader.resume_at(0, 0)
    assert_same(list(loader), expected)
    assert loader.state_dict()["epoch"] == 1


def test_the_position_moves_with_the_last_batch(make_folder):
    loader = loader_of(make_folder(8))
    states = [(loader.state_dict()["epoch"], loader.state_dict()["batch"]) for _ in loader]
    assert states == [(0, 1), (1, 0)]
    assert [batch.epoch for batch in loader] == [1, 1]


def test_epochs_and_seeds_differ_and_torch_is_left_alone(make_folder):
    folder = make_folder(8)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loader = loader_of(folder)
    first, second = list(loader), list(loader)
    other = list(loader_of(folder, seed=6))
    assert torch.equal(before, torch.get_rng_state())
    for batches in (second, other):
        assert not torch.equal(batches[0].indices, first[0].indices)
        at = {int(i): box.tolist() for batch in batches for i, box in zip(batch.indices, batch[0].boxes, strict=True)}
        was = {int(i): box.tolist() for batch in first for i, box in zip(batch.indices, batch[0].boxes, strict=True)}
        assert sum(at[i] == was[i] for i in at) < 4
    assert not torch.equal(first[0][0].boxes, first[0][1].boxes)


def test_the_order_is_a_permutation_of_its_own_for_each_epoch():
    orders = [epoch_order(100, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (-1, 0))]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize(("drop_last", "count"), [(True, 2), (False, 3)])
def test_processes_share_an_epoch(make_folder, drop_last, count):
    folder = make_folder(17)
    ranks = [list(loader_of(folder, batch_size=4, rank=rank, world_size=2, drop_last=drop_last)) for rank in range(2)]
    assert [len(batches) for batches in ranks] == [count] * 2
    seen = [set(torch.cat([batch.indices for batch in batches[:2]]).tolist()) for batches in ranks]
    assert seen[0].isdisjoint(seen[1]) and len(seen[0] | seen[1]) == 16
    if not drop_last:
        assert [batches[2].batch_size for batches in ranks] == [1, 1]
    single = list(loader_of(folder, batch_size=8))
    assert torch.equal(single[0].indices, torch.cat([batches[0].indices for batches in ranks]))


def test_a_batch_larger_than_the_data_is_refused(make_folder):
    folder = make_folder(7)
    with pytest.raises(UsageError, match=r"batch larger than the data set: 8 images, but there are 7.*fits is 7"):
        loader_of(folder, batch_size=8)
    with pytest.raises(UsageError, match=r"each of 2 processes, but there are 7.*fits is 3"):
        loader_of(folder, world_size=2)
    with pytest.raises(UsageError, match="at least 1"):
        loader_of(folder, batch_size=0)
    with pytest.raises(UsageError, match="found -2"):
        loader_of(folder, workers=-2)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_replaced_counted_and_listed(make_folder, tmp_path, workers):
    folder = make_folder(12)
    clean = list(loader_of(folder, batch_size=4))
    spoil(folder, 4, 5)
    loader = loader_of(folder, batch_size=4, workers=workers, max_bad_share=0.2)
    batches = list(loader)
    assert sorted(loader.skipped) == [4, 5] and "runcated" in loader.skipped[4][1]
    for batch, before in zip(batches, clean, strict=True):
        bad = (before.indices == 4) | (before.indices == 5)
        assert not (batch.indices == 4).any() and not (batch.indices == 5).any()
        assert torch.equal(batch.indices[~bad], before.indices[~bad])
        assert torch.equal(batch[1].images[~bad], before[1].images[~bad])
        for row in bad.nonzero().flatten().tolist():  # the stand-in is cut as it would be in its own place
            [[place, at]] = [(k, j) for k in range(3) for j in range(4) if clean[k].indices[j] == batch.indices[row]]
            assert torch.equal(batch[0].images[row], clean[place][0].images[at])
    list(loader)
    assert len(loader.skipped) == 2
    loader.write_skipped(tmp_path / "skipped.csv")
    with (tmp_path / "skipped.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "reason"] and [row[0] for row in rows[1:]] == loader.names([4, 5])
    other = loader_of(folder, batch_size=4, max_bad_share=0.2)
    other.load_state_dict(loader.state_dict())
    assert other.skipped == loader.skipped


def test_files_deleted_under_the_running_job(make_folder):
    folder = make_folder(40)
    loader = loader_of(folder, max_bad_share=0.1, workers=1)
    list(loader)
    for i in (0, 7):
        (folder / f"{i:03d}.jpg").unlink()
    assert len(list(loader)) == 10 and loader.skipped == {i: (loader.source.name(i), "no such file") for i in (0, 7)}


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_images_stop_the_run(make_folder, workers):
    folder = make_folder(20)
    spoil(folder, 1, 2, 3)
    loader = loader_of(folder, max_bad_share=0.1, workers=workers)
    with pytest.raises(CmidError, match=r"3 of 20 so far, where at most 2 \(10%\).*00[123].jpg \(.*runcated") as error:
        list(loader)
    assert not isinstance(error.value, UsageError)


def test_what_other_processes_could_not_read_counts_too(make_folder):
    folder = make_folder(20)
    spoil(folder, 1)
    loader = loader_of(folder, max_bad_share=0.1)
    list(loader)
    loader.skipped.update({2: ("b.jpg", "bad")})
    loader.require_readable()
    loader.skipped.update({3: ("c.jpg", "bad")})
    with pytest.raises(CmidError, match=r"too many unreadable images: 3 of 20 so far"):
        loader.require_readable()


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_all_corrupt(make_folder, share):
    folder = make_folder(6)
    spoil(folder, *range(6))
    with pytest.raises(CmidError, match="unreadable images"):
        list(loader_of(folder, batch_size=2, max_bad_share=share, workers=1))


def test_large_jpegs_are_shrunk_while_decoding_and_boxes_stay_in_source_pixels(make_folder, monkeypatch):
    folder = make_folder(4, width=640, height=400)
    [batch] = loader_of(folder, views=ViewConfig(size=32, scale=(0.6, 1.0)))
    assert batch[0].boxes[:, 2:].max() > 350
    [whole] = loader_of(folder, views=ViewConfig(size=32, scale=(0.6, 1.0)))
    monkeypatch.setattr("cmid.data.crops.SHRINK_MARGIN", 1e9)
    [exact] = loader_of(folder, views=ViewConfig(size=32, scale=(0.6, 1.0)))
    assert_same([batch], [whole])
    for shrunk, full in zip(batch, exact, strict=True):
        assert 0 < (shrunk.boxes - full.boxes).abs().max() <= 4
        assert (shrunk.images.float() - full.images.float()).abs().mean() < 3


def test_images_smaller_than_the_crop_and_of_one_pixel(make_folder):
    folder = make_folder(3, width=5, height=7)
    make_folder(1, width=1, height=1, suffix="png")
    [batch] = loader_of(folder, views=ViewConfig(size=32))
    assert batch[0].images.shape == (4, 3, 32, 32)
    row = int(np.flatnonzero([name.endswith("png") for name in loader_of(folder).names(batch.indices)])[0])
    assert (
        batch[0].boxes[row].tolist() == [0, 0, 1, 1] and (batch[0].images[row] == batch[0].images[row, :, :1, :1]).all()
    )


class DeadlySource(FolderSource):
    """Its worker dies as one does that has taken too much memory."""

    def decode(self, i, reduction=None):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_worker_is_told_in_one_line(make_folder):
    loader = ViewLoader(DeadlySource(make_folder(4)), SMALL, batch_size=2, seed=0, workers=1)
    with pytest.raises(CmidError, match="a loader process died"):
        list(loader)


def test_workers_live_through_epochs_and_end_with_the_loader(make_folder):
    before = set(multiprocessing.active_children())
    loader = loader_of(make_folder(8), workers=2)
    list(loader)
    first = set(multiprocessing.active_children()) - before
    loader.set_epoch(7)
    list(loader)
    assert set(multiprocessing.active_children()) - before == first and len(first) == 2
    loader.close()
    assert not set(multiprocessing.active_children()) - before
    assert next(iter(loader)).epoch == 8
    del loader
    assert not set(multiprocessing.active_children()) - before


def test_small_crops_come_after_the_others_and_change_none_of_them(make_folder):
    folder = make_folder(8, "small")
    several = ViewConfig(size=32, small_crops=3, small_size=16, small_scale=(0.05, 0.2))
    with_small, without = (next(iter(loader_of(folder, views=v))) for v in (several, ViewConfig(size=32)))
    assert [tuple(v.images.shape[-2:]) for v in with_small] == [(32, 32)] * 2 + [(16, 16)] * 3
    for ours, theirs in zip(with_small, without, strict=False):
        assert torch.equal(ours.boxes, theirs.boxes) and torch.equal(ours.flipped, theirs.flipped)
        assert torch.equal(ours.images, theirs.images)
    small = torch.cat([v.boxes for v in with_small.crops[2:]])
    assert len({tuple(box) for box in small.tolist()}) == len(small)  # each is a draw of its own
    whole = torch.cat([v.boxes for v in without])
    area = [((b[:, 2:] - b[:, :2]).prod(1)).mean() for b in (small, whole)]
    assert area[0] < area[1] / 2
