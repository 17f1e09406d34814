import numpy as np
import pytest

from cmid.errors import UsageError
from cmid.predict.windows import Axis, Layout, Tiling


@pytest.mark.parametrize("length", [1, 63, 64, 65, 96, 97, 100, 128, 1000])
@pytest.mark.parametrize(("overlap", "margin"), [(0, 0), (16, 0), (16, 8), (32, 3), (32, 16)])
def test_windows_reach_from_edge_to_edge_and_every_pixel_has_weight(length, overlap, margin):
    axis = Axis(length, Tiling(window=64, overlap=overlap, margin=margin))
    assert axis.starts[0] == 0 and axis.span(len(axis.starts) - 1)[1] == length
    assert all(0 < b - a <= 64 - overlap for a, b in zip(axis.starts, axis.starts[1:], strict=False))
    total = np.zeros(length)
    for i in range(len(axis.starts)):
        begin, end = axis.counted(i)
        assert begin - axis.span(i)[0] == (margin if i else 0)
        assert (axis.weights(i) > 0).all()
        total[begin:end] += axis.weights(i)
    assert (total > 0).all() and np.allclose(total, axis.total(0, length), rtol=1e-6)
    assert np.allclose(axis.total(length // 3, length // 2 + 1), total[length // 3 : length // 2 + 1])


@pytest.mark.parametrize("blend", ["hann", "linear"])
def test_regular_windows_add_up_to_one(blend):
    axis = Axis(64 + 6 * 44, Tiling(window=64, overlap=20, margin=4, blend=blend))
    assert np.allclose(axis.total(0, axis.length), 1, atol=1e-6)


@pytest.mark.parametrize("seen_by", ["last", "any"])
@pytest.mark.parametrize("length", [65, 130, 150, 171, 305])
def test_no_window_begins_or_ends_suddenly(length, seen_by):
    axis = Axis(length, Tiling(window=64, overlap=32, margin=4))
    total = axis.total(0, length)
    for i in [len(axis.starts) - 1] if seen_by == "last" else range(len(axis.starts)):
        begin, end = axis.counted(i)
        share = np.zeros(length)
        share[begin:end] = axis.weights(i) / total[begin:end]
        steps = np.abs(np.diff(share))
        assert steps.max() < 0.1  # of 24 pixels, the steepest step of a Hann slope is 0.065


@pytest.mark.parametrize(("width", "height"), [(300, 1000), (40, 1000), (1000, 40), (64, 64), (2100, 129)])
@pytest.mark.parametrize("scores_bytes", [1, 1 << 30])
def test_every_pixel_is_finished_once_after_all_its_windows(width, height, scores_bytes):
    layout = Layout(width, height, 3, Tiling(window=64, overlap=20, margin=4, batch=8), scores_bytes)
    finished = np.zeros((height, width), int)
    for block in layout.blocks:
        finished[block.y0 : block.y1, block.x0 : block.x1] += 1
        begun = {i for other in layout.blocks[: block.number + 1] if other.x0 == block.x0 for i in other.rows}
        assert set(layout.y.touching(block.y0, block.y1)) <= begun
        assert block.y0 <= block.y1 <= block.reach <= block.y0 + layout.held
        assert set(layout.x.touching(block.x0, block.x1)) == set(block.columns)
    assert (finished == 1).all()
    panels = {block.x0 for block in layout.blocks}
    assert len(panels) == (-(-width // 512) if scores_bytes == 1 else 1)


def test_narrow_scenes_have_full_batches():
    layout = Layout(100, 5000, 3, Tiling(window=64, overlap=20, batch=8))
    assert {block.size for block in layout.blocks[:-1]} == {8}


@pytest.mark.parametrize("height", [65, 129, 300, 1001])
def test_taking_up_a_block_reruns_all_that_touches_its_rows(height):
    layout = Layout(200, height, 3, Tiling(window=64, overlap=32, margin=2, batch=3))
    for block in layout.blocks:
        again = {i for each in layout.blocks[layout.rerun(block.number) : block.number + 1] for i in each.rows}
        assert set(layout.y.touching(block.y0, block.y1)) <= again


def test_scores_that_are_held_do_not_grow_with_the_scene():
    tall = Layout(32_768, 32_768, 6, Tiling())
    assert tall.held * max(b.x1 - b.x0 for b in tall.blocks) * 6 * 4 <= 256 << 20
    assert tall.held == Layout(8_192, 8_192, 6, Tiling()).held


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"overlap": 300}, {"overlap": 64, "margin": 33}, {"blend": "x"}, {"turns": "x"}]
)
def test_impossible_tilings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(reversed(wrong))):
        Tiling(**({"window": 512} | wrong))
