"""Numbers out of range are refused by name; every default, and every name in the table, is right."""

import pytest

from cmid import config
from cmid.commands import VERBS, settings_class
from cmid.commands.ranges import RANGES, within_range
from cmid.commands.settings import field_types, resolve
from cmid.errors import UsageError

KINDS = [settings_class(verb, kind) for verb, how in VERBS.items() for kind in (None, *how.apart)]


def test_every_name_is_a_setting():
    known = {name for kind in KINDS for name in field_types(kind)}
    assert set(RANGES) <= known


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_defaults_are_in_range(kind):
    assert resolve(kind, config.as_plain(kind())) == kind()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", -1, "at least 1, found -1"),
        ("views.size", 0, "at least 1"),
        ("views.scale", (0.5, 1.5), "0.0001 to 1, found 1.5"),
        ("views.scale", (1.0, 0.5), "least first"),
        ("cmid.temperature", 0.0, "above 0"),
        ("cmid.momentum", 1.01, "0 to 1"),
        ("train.workers", -2, "at least -1"),
    ],
)
def test_out_of_range(name, value, expected):
    with pytest.raises(UsageError, match=expected):
        within_range(name, value, "test")


def test_unset_and_words_have_no_range():
    within_range("temperature", None, "test")
    within_range("backbone", "resnet18", "test")
