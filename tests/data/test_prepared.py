"""Manifests of prepared windows: what is of another form is named, never a traceback."""

import json

import pytest

from cmid.data.isprs import COLOURS
from cmid.data.prepared import FORMAT, MANIFEST, Manifest
from cmid.errors import UsageError

TILE = {
    "name": "2_13", "split": "train", "width": 64, "height": 64, "places": [[0, 0]], "pixels": {}, "unknown": {},
    "files": {},
}  # fmt: skip


def text(**other):
    plain = {
        "format": FORMAT, "dataset": "Potsdam", "bands": "RGB", "window_px": 64, "step_px": 64, "labels": ["eroded"],
        "classes": [f"class {i}" for i in range(len(COLOURS))], "unknown": "refused", "tiles": [TILE],
    }  # fmt: skip
    return json.dumps(plain | other)


def test_a_manifest_comes_back(tmp_path):
    (tmp_path / MANIFEST).write_text(text())
    manifest = Manifest.read(tmp_path)
    (tmp_path / MANIFEST).write_text(manifest.to_json())
    assert Manifest.read(tmp_path) == manifest and manifest.tiles[0].places == ((0, 0),)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (text(window_px=float("inf")), "OverflowError"),
        (text(step_px=float("nan")), "ValueError"),
        (text(tiles=[TILE | {"places": [[0, float("inf")]]}]), "OverflowError"),
        (text(tiles=[TILE | {"width": -float("inf")}]), "OverflowError"),
        ("[" * 100_000, "RecursionError"),
        (text(format="other"), "its format is 'other'"),
    ],
)
def test_a_manifest_of_another_form_is_named(tmp_path, content, says):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(UsageError, match=rf"manifest\.json is not of the form .*{says}.*prepare the set again"):
        Manifest.read(tmp_path)
