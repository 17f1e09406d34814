"""An epoch loses no image and doubles none: ids counted over all ranks, for every source, workers, and a resume.

With images left over that do not fill a batch on every rank, `drop_last` leaves out exactly those; without it the last
batch is shared so that each rank gets as many, for which fewer images than there are ranks are seen twice.
"""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cmid.config import SceneConfig, ViewConfig
from cmid.data.folder import FolderSource
from cmid.data.order import epoch_order
from cmid.data.scenes import SceneSource, open_scenes
from cmid.data.shards import ShardSource, write_shards
from cmid.data.statistics import Stretch
from cmid.data.torchgeo_datasets import TorchgeoSource, parse_name
from cmid.data.views import ViewLoader
from tests.data.rasters_on_disk import numbered, write_raster
from tests.data.test_torchgeo_datasets import draw_resisc

SEED, BATCH = 5, 5
SOURCES = ("folder", "shards", "scenes", "torchgeo")
GOES_ON_WITH = {0: 3, 1: 0, 3: 1}
"""Workers before a resume: workers after it."""
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def draw_folder(path):
    for i in range(37):
        (path / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (i, i, i)).save(path / str(i % 3) / f"{i}.png")
    return FolderSource(path)


def draw_shards(path):
    files = draw_folder(path / "images")
    (path / "shards").mkdir()
    data = [files.path_of(i).read_bytes() for i in range(len(files))]
    write_shards(files, path / "shards", shard_bytes=5_000, read=lambda i: (".png", data[i]))
    source = ShardSource(path / "shards")
    assert len(source.manifest.shards) > 2
    source.block = 2  # what images of 2 MB would have, so that the order is that of blocks
    return source


def draw_scenes(path):
    for i in range(2):
        write_raster(path / f"{i}.tif", numbered(1, 64, 64))
    scenes = open_scenes(path, SceneConfig())
    return SceneSource(scenes, window=16, windows=37, seed=0, stretch=Stretch((), (), (0.0,)))


def draw_torchgeo(path):
    return TorchgeoSource(parse_name(f"torchgeo:UCMerced?root={draw_resisc(path, count=20)}"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    draw = {"folder": draw_folder, "shards": draw_shards, "scenes": draw_scenes, "torchgeo": draw_torchgeo}
    assert tuple(draw) == SOURCES
    return {name: each(tmp_path_factory.mktemp(name)) for name, each in draw.items()}


def expected(source, epoch, ranks, drop_last):
    """How often each id must come in an epoch, from the order alone."""
    images, together = len(source), BATCH * ranks
    order = epoch_order(images, SEED, epoch, getattr(source, "block", 1))
    assert sorted(order.tolist()) == list(range(images))
    left = images % together
    assert 0 < left < together, "the numbers of this test must leave some over"
    again = [] if drop_last else order[: -left % ranks].tolist()
    assert len(again) < ranks
    order = order[: images - left] if drop_last else order
    first = epoch * images if source.fresh else 0
    return Counter([first + i for i in (*order.tolist(), *again)])


def ids(batches):
    return [i for batch in batches for i in batch.indices.tolist()]


@pytest.mark.parametrize("resumed", [False, True], ids=["whole", "resumed"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(
    ("name", "drop_last"), [*((name, True) for name in SOURCES), ("folder", False)]
)  # which images are left out is the loader's matter, not the source's
def test_every_image_comes_once(sources, name, workers, ranks, drop_last, resumed):
    source = sources[name]

    def loader(rank, workers):
        return ViewLoader(
            source, ViewConfig(size=8), batch_size=BATCH, seed=SEED, workers=workers, rank=rank, world_size=ranks,
            drop_last=drop_last,
        )  # fmt: skip

    seen = [Counter[int](), Counter[int]()]
    sizes = []
    for rank in range(ranks):
        running = loader(rank, workers)
        first = []
        if resumed:
            batches = iter(running)
            first = [next(batches) for _ in range(2)]
            state = running.state_dict()
            running.close()  # with batches under way that nobody has seen
            running = loader(rank, GOES_ON_WITH[workers])
            running.load_state_dict(state)
        first += list(running)
        assert all(batch.epoch == 0 for batch in first)
        sizes.append([len(batch.indices) for batch in first])
        for epoch, batches in enumerate((first, list(running))):  # the second epoch must be whole again
            seen[epoch].update(ids(batches))
        running.close()
    assert sizes[0] == sizes[-1], "a rank with more batches would wait for the others for ever"
    for epoch in range(2):
        assert seen[epoch] == expected(source, epoch, ranks, drop_last)


@pytest.mark.parametrize("name", SOURCES)
def test_a_resume_with_more_ranks_loses_none(sources, name):
    """Two ranks go on where one stood: at the same number of images a step, at the same place."""
    source = sources[name]

    def loader(batch_size, rank, ranks):
        return ViewLoader(
            source, ViewConfig(size=8), batch_size=batch_size, seed=SEED, workers=0, rank=rank, world_size=ranks
        )

    one = loader(10, 0, 1)
    batches = iter(one)
    begun = ids([next(batches), next(batches)])
    both = [loader(5, rank, 2) for rank in range(2)]
    for each in both:
        each.load_state_dict(one.state_dict())
    assert Counter(begun + ids(both[0]) + ids(both[1])) == Counter(ids(loader(10, 0, 1)))


def test_blocks_of_shards_are_mixed_in_these_tests(sources):
    """Otherwise the order of blocks, the one that could lose some, would not be what is counted above."""
    source = sources["shards"]
    assert not np.array_equal(epoch_order(len(source), SEED, 0, source.block), epoch_order(len(source), SEED, 0))
