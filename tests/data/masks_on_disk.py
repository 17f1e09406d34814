"""Small folders of images and masks, written by Pillow."""

import numpy as np
from PIL import Image

COLOURS = {"road": (110, 193, 228), "building": (60, 16, 152), "water": (226, 169, 41)}
PALETTE_CSV = "name,colour\nroad,110 193 228\nbuilding,#3C1098\nwater,226 169 41\n"


def draw(path, array):
    """`array` as a picture; gives the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def labels_of(seed, height=12, width=16, classes=3):
    """Random labels `(H, W)` uint8, of every class some."""
    labels = np.random.default_rng(seed).integers(classes, size=(height, width)).astype(np.uint8)
    labels[0, :classes] = np.arange(classes)
    return labels


def coloured(labels, colours=None):
    """Labels as a colour mask."""
    return np.array(colours or tuple(COLOURS.values()), np.uint8)[labels]


def image_of(labels, seed=0):
    """An image of the labels' size."""
    noise = np.random.default_rng(seed).integers(256, size=(*labels.shape, 3))
    return noise.astype(np.uint8)


def write_tiles(root, tiles=3, parts=2, size=(12, 16), encode=coloured):
    """`Tile 1/images/part_0.png` and `Tile 1/masks/part_0.png` and so on; gives the labels by the images' paths."""
    written = {}
    for tile in range(1, tiles + 1):
        for part in range(parts):
            labels = labels_of(10 * tile + part, *size)
            name = f"Tile {tile}/images/part_{part}.png"
            draw(root / name, image_of(labels, tile))
            draw(root / f"Tile {tile}/masks/part_{part}.png", encode(labels))
            written[name] = labels
    return written
