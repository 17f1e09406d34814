"""Crops with labels: cut where they say, labels with their pixels, the same for the same seed."""

from functools import partial

import numpy as np
import pytest
import torch

from cmid.config import PixelCropConfig, ViewConfig
from cmid.data import pixel_crops
from cmid.data.crops import generator_for
from cmid.data.pixel_crops import PADDING, PixelBatches, cut_labelled, draw_window
from cmid.data.pixel_labels import UNLABELLED, LabelledPixels
from cmid.data.views import ViewLoader
from tests.data.labelled_squares import COLOURS, Squares

PLAIN = PixelCropConfig(scale=(1.0, 1.0), flip=0.0, max_share=1.0)


def loader(source, size=64, crops=PLAIN, untrained=(), **more):
    batches = partial(PixelBatches, pixel_crops=crops, untrained=untrained)
    given = {"batch_size": 4, "seed": 3, "workers": 0, "crops": 1} | more
    return ViewLoader(source, ViewConfig(size=size), batches=batches, **given)


def empty(size):
    return torch.empty((3, size, size), dtype=torch.uint8), torch.empty((size, size), dtype=torch.uint8)


def test_at_its_own_size_a_crop_is_the_pixels_of_its_box():
    source = Squares()
    for views in loader(source):
        assert views.labels.shape == (4, 64, 64) and views.labels.dtype == torch.uint8
        for row, i in enumerate(views.indices.tolist()):
            image = source.read(i)
            x0, y0, x1, y1 = views[0].boxes[row].int().tolist()
            assert (x1 - x0, y1 - y0) == (64, 64)
            assert np.array_equal(views[0].images[row].permute(1, 2, 0).numpy(), image.pixels[y0:y1, x0:x1])
            assert np.array_equal(views.labels[row].numpy(), image.labels[y0:y1, x0:x1])


def test_labels_stay_with_their_pixels_however_a_crop_is_drawn():
    """A pixel well inside a class has that class's colour, after enlarging, shrinking, turning and mirroring."""
    wild = PixelCropConfig(scale=(0.5, 2.0), turn=1.0, flip=0.5)
    colours, looked = torch.tensor(COLOURS).float(), 0
    for views in loader(Squares(16), crops=wild):
        images, labels = views[0].images.float(), views.labels
        for k in range(3):
            inside = torch.nn.functional.max_pool2d((labels != k).float()[:, None], 7, 1, 3)[:, 0] == 0
            found = images.permute(0, 2, 3, 1)[inside]
            looked += len(found)
            assert ((found - 15 - colours[k]).abs() < 17).all()
    assert looked > 5000


def test_beyond_the_image_is_padding():
    image = LabelledPixels(np.full((20, 30, 3), 7, np.uint8), np.ones((20, 30), np.uint8))
    out, labels = empty(64)
    cut_labelled(image, (0, 0, 30, 20), 1.0, out, labels)
    expected = np.full((64, 64), PADDING)
    expected[:20, :30] = 1
    assert np.array_equal(labels.numpy(), expected)
    assert (out[:, labels == 1] == 7).all() and (out[:, labels == PADDING] == 0).all()


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flipped", [False, True])
def test_turned_and_mirrored_as_numpy_does(turns, flipped):
    image = Squares().read(0)
    out, labels = empty(96)
    cut_labelled(image, (0, 0, 96, 96), 1.0, out, labels, flipped=flipped, turns=turns)
    for found, whole in ((out.permute(1, 2, 0), image.pixels), (labels, image.labels)):
        turned = np.rot90(whole, turns)
        assert np.array_equal(found.numpy(), turned[:, ::-1] if flipped else turned)


def test_labels_are_never_mixed():
    image = Squares().read(0)
    for factor in (0.5, 0.77, 1.9):
        out, labels = empty(64)
        side = round(64 / factor)
        cut_labelled(image, (0, 0, min(96, side), min(96, side)), 64 / side, out, labels)
        assert set(labels.unique().tolist()) <= {0, 1, 2, UNLABELLED, PADDING}


def test_a_crop_full_of_one_class_is_drawn_again():
    labels = np.zeros((200, 200), np.uint8)
    labels[:, 100:] = 1
    labels[:, :10] = UNLABELLED
    crops = PixelCropConfig(scale=(1.0, 1.0), max_share=0.75)
    shares = {0.75: [], 1.0: []}
    for most in shares:
        for k in range(200):
            draws = generator_for(0, 0, k, 0)
            (x0, y0, x1, y1), _ = draw_window(draws, labels, 60, PixelCropConfig(scale=crops.scale, max_share=most))
            piece = labels[y0:y1, x0:x1]
            counts = np.bincount(piece[piece < UNLABELLED], minlength=2)
            shares[most].append(counts.max() / counts.sum())
    too_much = {most: np.mean(np.array(found) >= 0.75) for most, found in shares.items()}
    assert abs(too_much[1.0] - 112 / 141) < 0.09, "of 141 places 29 give both classes more than a quarter"
    assert abs(too_much[0.75] - (112 / 141) ** 10) < 0.06, "ten attempts each"


def test_untrained_classes_have_no_label():
    for views in loader(Squares(), untrained=(2,)):
        assert set(views.labels.unique().tolist()) <= {0, 1, UNLABELLED}


def test_workers_ranks_and_a_resume_change_nothing():
    crops = PixelCropConfig(turn=1.0)

    def seen(**more):
        return [(v.indices.tolist(), v[0].images.sum().item(), v.labels.sum().item()) for v in loader(**more)]

    whole = seen(source=Squares(16), crops=crops)
    assert whole == seen(source=Squares(16), crops=crops, workers=2)
    late = loader(Squares(16), crops=crops)
    late.resume_at(0, 2)
    assert [v.indices.tolist() for v in late] == [indices for indices, *_ in whole[2:]]
    of_ranks = [seen(source=Squares(16), crops=crops, batch_size=2, world_size=2, rank=r) for r in (0, 1)]
    halves = [i for pair in zip(*of_ranks, strict=True) for part in pair for i in part[0]]
    assert sorted(halves) == sorted(i for indices, *_ in whole for i in indices) == list(range(16))


def test_an_unreadable_image_is_replaced_and_told_with_its_labels_right():
    source = Squares(8, broken=(3,))
    batches = loader(source, max_bad_share=0.2)
    for views in batches:
        assert 3 not in views.indices
        for row, i in enumerate(views.indices.tolist()):
            x0, y0, x1, y1 = views[0].boxes[row].int().tolist()
            assert np.array_equal(views.labels[row].numpy(), source.read(i).labels[y0:y1, x0:x1])
    assert batches.skipped == {3: ("tile 1/3.png", "truncated")}


def test_a_box_is_the_window_that_was_drawn_whatever_the_size(monkeypatch):
    """32 / (32 / 49) is a little more than 49."""
    monkeypatch.setattr(pixel_crops, "draw_window", lambda *_: ((0, 0, 49, 49), 32 / 49))
    for views in loader(Squares(4), size=32):
        assert views[0].boxes.tolist() == [[0, 0, 49, 49]] * 4
