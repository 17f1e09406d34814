"""The sections of a segmenter's page, from plain values."""

import math

import numpy as np

from cmid.report.page import Absent
from cmid.report.segmentation import Tile, _drawn, classes_section, confusion_section, protocols_section, tiles_section

PER_CLASS = [
    {"name": "<roof>", "iou": 0.5, "f1": 0.66, "precision": 0.7, "recall": 0.6, "pixels": 30, "counts": True},
    {"name": "tree", "iou": None, "f1": None, "precision": None, "recall": None, "pixels": 0, "counts": True},
    {"name": "clutter", "iou": 0.1, "f1": 0.2, "precision": 0.1, "recall": 0.9, "pixels": 10, "counts": False},
]
SCORES = {
    "protocols": [
        {"protocol": "2 of 3", "mean_iou": 0.5, "mean_f1": 0.66, "overall_accuracy": 0.8, "pixels": 40,
         "per_class": PER_CLASS}
    ],
    "interval": [0.4, 0.6],
    "confusion": [[18, 0, 12], [0, 0, 0], [1, 0, 9]],
}  # fmt: skip


def test_every_figure_stands_by_its_protocol():
    body = protocols_section(SCORES)
    assert "2 of 3" in body.body and "50.0" in body.body and "between 40.00 and 60.00" in body.how_to_read


def test_confusion_is_in_percent_of_the_row_and_names_are_escaped():
    body = confusion_section(SCORES).body
    assert "&lt;roof&gt;" in body and "<roof>" not in body
    assert ">60.0<" in body and ">40.0<" in body and ">90.0<" in body
    assert "(12 pixels)" in body


def test_the_worst_class_is_first_and_those_that_do_not_count_are_left_out():
    body = classes_section(SCORES).body
    assert body.index("tree") < body.index("roof") and "clutter" not in body and "none" in body


def test_maps_are_drawn_in_their_colours_without_mixing_them():
    classes = np.kron(np.array([[0, 1], [255, 1]], np.uint8), np.ones((400, 400), np.uint8))
    drawn = _drawn(classes, {0: (10, 20, 30), 1: (200, 100, 0)})
    assert drawn.shape == (320, 320, 3)
    assert {tuple(c) for c in drawn.reshape(-1, 3).tolist()} == {(10, 20, 30), (200, 100, 0), (255, 255, 255)}


def test_the_answer_lies_over_the_image_pixel_by_pixel(monkeypatch):
    """Of a picture that is shrunk, too; only what the model says is seen, not the labels."""
    shown = {}
    monkeypatch.setattr("cmid.report.segmentation.picture", lambda image, alt, *_: shown.update({alt: image}))
    rows, columns = np.mgrid[:640, :960]
    image = np.full((640, 960, 3), (100, 50, 0), np.uint8)
    predicted = ((rows // 320 + columns // 480) % 2).astype(np.uint8)
    tile = Tile(image, np.full_like(predicted, 255), predicted, "a.png", 0.0)
    tiles_section("worst", "Worst", "How.", [tile], [("roof", (200, 0, 0)), ("tree", (0, 150, 30))])
    found = shown["a.png, predicted, over the image"]
    assert found.shape == shown["a.png, image"].shape == (213, 320, 3)
    assert found[10, 10].tolist() == found[-10, -10].tolist() == [150, 25, 0]
    assert found[10, -10].tolist() == found[-10, 10].tolist() == [50, 100, 15]


def test_tiles():
    tile = Tile(np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.uint8), np.ones((8, 9), np.uint8), "a/1.png", 0.25)
    empty = Tile(tile.image, tile.labels, tile.predicted, "b", math.nan)
    section = tiles_section("worst", "Worst", "How.", [tile, empty], [("roof", (1, 2, 3))])
    assert section.body.count("<img") == 8 and section.body.count("<span>predicted, over the image</span>") == 2
    assert "25.0 %" in section.body and "rgb(1 2 3)" in section.body
    assert isinstance(tiles_section("worst", "Worst", "How.", [], []), Absent)
