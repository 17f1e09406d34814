"""A tiny copy of SEN12MS: the folders, file names and bands of the published archive, 8 x 8 pixels a patch."""

import numpy as np

from tests.data.rasters_on_disk import write_raster

SEASONS = ("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter")


def cover(*shares):
    """Land cover `(8, 8)` of (IGBP class, pixels) pairs that make 64."""
    values = np.concatenate([np.full(pixels, igbp, np.uint16) for igbp, pixels in shares])
    assert values.size == 64
    return values.reshape(8, 8)


def draw_sen12ms(root, covers, test=2):
    """A patch for each land cover; the last `test` of them are the test list. Gives the names in the lists."""
    for season in SEASONS:
        (root / season).mkdir(parents=True)
    names = []
    for i, igbp in enumerate(covers):
        season, rest = SEASONS[i % 4], f"{i + 1}_p{30 + i}.tif"
        rng = np.random.default_rng(i)
        layers = {
            "lc": np.stack((igbp, *(np.full((8, 8), 10 * k, np.uint16) for k in (1, 2, 3)))),
            "s1": rng.normal(-12, 4, (2, 8, 8)).astype(np.float32),
            "s2": rng.integers(0, 4000, (13, 8, 8)).astype(np.uint16) + 100 * i,
        }
        for source, values in layers.items():
            path = root / season / f"{source}_{i + 1}" / f"{season}_{source}_{rest}"
            write_raster(path, values.astype(values.dtype), photometric="minisblack")
        names.append(f"{season}_s2_{rest}")
    (root / "train_list.txt").write_text("\n".join(names[: len(names) - test]) + "\n")
    (root / "test_list.txt").write_text("\n".join(names[len(names) - test :]) + "\n")
    return names
