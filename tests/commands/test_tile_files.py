"""Tiles of the benchmarks as files."""

import pytest
import rasterio

from cmid.commands.tile_files import read_image, read_labels
from cmid.data.decode import MAX_PIXELS
from cmid.errors import UsageError
from cmid.evaluation.segmentation import ISPRS_CLASSES


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_small_file_that_says_it_is_huge_is_not_unpacked(tmp_path):
    path, side = tmp_path / "bomb.tif", 30_000
    options = {"count": 3, "dtype": "uint8", "photometric": "RGB", "tiled": True, "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", width=side, height=side, **options):
        pass  # no block is written: all are taken for zeros
    assert path.stat().st_size < 2_000_000 and side**2 > MAX_PIXELS
    with pytest.raises(UsageError, match=r"the tile says it is 30,000 x 30,000 px, where a tile has at most 178,956"):
        read_image(path, "the tile")
    with pytest.raises(UsageError, match="the label is 30000 x 30000, its image 96 x 96"):
        read_labels(path, "the label", (96, 96), ISPRS_CLASSES, "refuse")
