import threading
import time

import numpy as np
import pytest

from cmid.errors import CmidError
from cmid.predict.prefetch import AHEAD, Picture, ReadAhead, batches
from cmid.predict.scene import Georeference
from cmid.predict.windows import Layout, Tiling


class Counted:
    """A scene in memory that counts its reads."""

    name, bands, dtype, colours, place, identity = "memory", 2, "uint8", (0,), Georeference(), ""

    def __init__(self, height, width, wrong=False):
        self.height, self.width, self.wrong, self.reads, self.unreadable = height, width, wrong, 0, []
        row, column = np.ogrid[:height, :width]
        self.values = np.stack(((row + column) % 251, (row * 3 + column) % 251)).astype(np.uint8)

    def read(self, window):
        self.reads += 1
        x0, y0, x1, y1 = window
        return self.values[:, y0 : y1 - self.wrong, x0:x1], np.ones((y1 - y0 - self.wrong, x1 - x0), bool)


def started(scene):
    layout = Layout(scene.width, scene.height, 2, Tiling(window=64, batch=4))
    picture = Picture(scene.width, scene.height, 1, 50)
    return layout, picture, batches(scene, layout, layout.blocks, picture, None)


def test_all_windows_come_in_order_in_batches_that_end_with_their_block():
    scene = Counted(300, 330)
    layout, _, source = started(scene)
    with ReadAhead(source) as ahead:
        found = list(ahead)
    assert [place for batch in found for place in batch.places] == [p for b in layout.blocks for p in b.places]
    assert [batch.block.number for batch in found if batch.last] == [block.number for block in layout.blocks]
    for batch in found:
        for (i, j), image in zip(batch.places, batch.images, strict=True):
            y, x = layout.y.starts[i], layout.x.starts[j]
            assert np.array_equal(image, scene.values[:, y : y + 64, x : x + 64])


def test_the_reader_is_some_batches_ahead_and_no_more():
    scene = Counted(640, 640)
    with ReadAhead(started(scene)[2]) as ahead:
        next(iter(ahead))
        deadline = time.monotonic() + 5
        while scene.reads < 4 * (AHEAD + 2) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert 4 <= scene.reads <= 4 * (AHEAD + 2)
    assert not [t for t in threading.enumerate() if t.name == "read ahead"]


def test_an_error_of_the_reader_comes_out_and_its_thread_ends():
    with (
        pytest.raises(CmidError, match=r"memory: window .* was read as"),
        ReadAhead(started(Counted(90, 90, True))[2]) as a,
    ):
        list(a)
    assert not [t for t in threading.enumerate() if t.name == "read ahead"]


@pytest.mark.parametrize(("height", "width"), [(300, 330), (1000, 90), (49, 50)])
def test_the_picture_is_every_nth_pixel_whatever_the_windows(height, width):
    scene = Counted(height, width)
    _, picture, source = started(scene)
    for batch in source:
        for window, sampled, _ in batch.seen:
            picture.put(window, sampled)
    assert max(picture.values.shape) <= 50
    assert np.array_equal(picture.values[0], scene.values[0, :: picture.step, :: picture.step])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 64), (63, 5)])
def test_a_small_scene_is_mirrored_as_often_as_it_takes(height, width):
    scene = Counted(height, width)
    (batch,) = started(scene)[2]
    image = batch.images[0]
    assert image.shape == (2, 64, 64) and np.array_equal(image[:, :height, :width], scene.values)
    if height > 1:
        assert np.array_equal(image[:, height, :width], scene.values[:, height - 2])
