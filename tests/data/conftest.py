"""Tiny image folders."""

import numpy as np
import pytest
from PIL import Image


def picture(seed, width=48, height=40):
    """A smooth picture that is different for every seed and the same from left to right as nowhere else."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def make_folder(tmp_path):
    """Writes `count` pictures into a new folder: `make_folder(count, name, suffix)`."""

    def make(count, name="images", suffix="jpg", **size):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture(i, **size).save(folder / f"{i:03d}.{suffix}")
        return folder

    return make


@pytest.fixture
def make_classes(tmp_path):
    """Writes `count` pictures for each class: `make_classes({"field": 5, "port": 4})`."""

    def make(counts, name="labelled"):
        folder = tmp_path / name
        for number, (label, count) in enumerate(counts.items()):
            (folder / label).mkdir(parents=True)
            for i in range(count):
                picture(100 * number + i, 20, 16).save(folder / label / f"{label}{i:02d}.png")
        return folder

    return make
