"""What a run's page says in words, and which points its pictures mark."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmid.commands.looking import changed, spread_out
from cmid.commands.report import bands_words, duration
from cmid.contracts import View


def test_which_bands_the_pictures_show_is_said():
    assert bands_words(()) == ""
    assert bands_words(("nir", "swir")) == "2; pictures show nir in grey"
    assert bands_words(("Blue", "Green", "Red", "NIR")) == "4; pictures show Red, Green, Blue"
    assert bands_words(("HH", "HV", "VV", "VH")) == "4; pictures show HH, HV, VV as red, green and blue"


def test_how_a_crop_was_changed_is_said_in_words():
    nothing = View(torch.zeros(4, 3, 8, 8), torch.zeros(4, 4), torch.tensor([False, True, False, True]))
    turned = replace(nothing, turns=torch.tensor([0, 0, 3, 1]))
    assert [changed(nothing, row) for row in range(4)] == ["", "mirrored", "", "mirrored"]
    assert [changed(turned, row) for row in range(2, 4)] == ["turned by 270°", "turned by 90° and mirrored"]


def test_points_are_spread_out():
    places = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), -1).reshape(-1, 2)
    assert spread_out(places, np.arange(25), 5).tolist()[0] == 12
    assert set(spread_out(places, np.arange(25), 5).tolist()) == {12, 0, 4, 20, 24}
    assert set(spread_out(places, np.array([3, 7]), 5).tolist()) == {3, 7}


@pytest.mark.parametrize(("seconds", "words"), [(4.2, "4 s"), (600, "10 min"), (11100, "3 h 5 min")])
def test_durations(seconds, words):
    assert duration(seconds) == words
