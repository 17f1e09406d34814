"""Images of torchgeo's data sets that have no label that can be read are on no side, and are named."""

from pathlib import Path

import numpy as np
import pytest

from cmid.data.decode import BadImage
from cmid.data.torchgeo_classes import stacked
from cmid.data.torchgeo_datasets import TorchgeoSource, labelled_sides, labelled_whole, parse_name
from cmid.errors import UsageError
from tests.data.big_earth_net import big_earth_net
from tests.data.sen12ms_on_disk import cover, draw_sen12ms
from tests.data.test_torchgeo_datasets import draw_millionaid


def test_labels_that_cannot_be_read_are_left_out_and_told(tmp_path):
    root = big_earth_net(tmp_path, (3, 1, 2))
    named = parse_name(f"torchgeo:BigEarthNet?root={root}&bands=s2")
    whole = labelled_sides(named, seed=0)
    labels = [next(root.glob(f"BigEarthNet-v1.0/*{name}/*.json")) for name in ("train_0", "test_1", "test_0")]
    labels[0].write_text("{")
    labels[1].write_text("")
    train, test = labelled_sides(named, seed=0)
    assert (train.places.tolist(), test.places.tolist()) == ([1, 2], [0])
    assert np.array_equal(train.labels, whole[0].labels[1:]) and np.array_equal(test.labels, whole[1].labels[:1])
    assert [name for name, _ in train.left_out] == ["torchgeo:BigEarthNet[0]", "torchgeo:BigEarthNet[1]"]
    assert train.notes == test.notes and train.notes[0].startswith(
        "2 images without a label that can be read are left out, first torchgeo:BigEarthNet[0]: "
    )
    assert not whole[0].notes
    with pytest.raises(BadImage, match=r"torchgeo:BigEarthNet\[1\]"):
        test.source.label(1)
    opened = TorchgeoSource(named.of_split("test"))
    labels[2].write_text("")
    with pytest.raises(UsageError, match=r"none of 2 images of torchgeo's BigEarthNet with .* has a label that can be"):
        labelled_whole(opened)


def test_a_damaged_image_whose_label_is_read_with_it_is_on_neither_side(tmp_path):
    root = draw_millionaid(tmp_path, {"train": ("beach", "dam"), "test": ("beach", "dam")})
    gone = root / "test" / "land" / "dam" / "dam1.jpg"
    gone.write_bytes(b"gone")
    train, test = labelled_sides(parse_name(f"torchgeo:MillionAID?root={root}"), seed=0)
    assert (len(train), len(test)) == (6, 5) and [name for name, _ in test.left_out] == [str(gone)]
    for i, label in enumerate(test.labels):
        assert Path(test.name(i)).parent.name == test.classes[label] and test.decode(i).pixels.shape == (32, 40, 3)


def test_scenes_without_a_class_are_on_neither_side(tmp_path):
    covers = [cover((17, 64)), cover((0, 64)), cover((1, 64)), cover((255, 64)), cover((10, 64))]
    draw_sen12ms(tmp_path, covers, test=2)
    train, test = labelled_sides(parse_name(f"torchgeo:SEN12MS?root={tmp_path}"), seed=0)
    assert (train.places.tolist(), test.places.tolist()) == ([0, 2], [1])
    assert [train.classes[k] for k in train.labels] == ["water", "forest"] and test.labels.tolist() == [3]
    assert [reason for _, reason in train.left_out] == ["the data set gives it no class"] * 2


def test_rows_without_a_label_are_as_wide_as_the_others():
    assert stacked([-1, 3, 0]).tolist() == [-1, 3, 0]
    assert stacked([-1, np.array([0, 1], np.float32)]).tolist() == [[-1, -1], [0, 1]]
