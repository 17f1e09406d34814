"""The record of a folder of maps: what counts as finished, and as ours, whenever its process was killed."""

import pytest

from cmid.commands.map_record import NAME, MapRecord
from cmid.errors import UsageError

SETTINGS = {"model": "a", "bands": ["1", "2"]}
RESULT = {"nodata": 3}


@pytest.fixture
def map_(tmp_path):
    return tmp_path / "a.tif"


def test_a_map_is_finished_while_settings_and_files_are_as_they_were(tmp_path, map_):
    with MapRecord(tmp_path) as record:
        assert record.finished("a.tif", SETTINGS, [map_]) is None
        record.begin("a.tif", "s/a.tif", SETTINGS, [map_])
        assert record.finished("a.tif", SETTINGS, [map_]) is None and not record.made("a.tif", map_)
        map_.write_bytes(b"one")
        record.end("a.tif", "s/a.tif", SETTINGS, [map_], RESULT)
    with MapRecord(tmp_path) as record:
        assert record.finished("a.tif", SETTINGS, [map_])["result"] == RESULT and record.made("a.tif", map_)
        assert record.finished("a.tif", SETTINGS, [map_, tmp_path / "a.png"]) is None  # asked for now, and not there
        other = SETTINGS | {"model": "b"}
        assert record.finished("a.tif", other, [map_]) is None
        assert record.differences("a.tif", other) == ['model was "a" and is "b"']
        map_.write_bytes(b"changed by someone")
        assert record.finished("a.tif", SETTINGS, [map_]) is None and not record.made("a.tif", map_)


def test_what_was_put_in_place_and_not_noted_any_more_is_ours(tmp_path, map_):
    map_.write_bytes(b"of someone else")
    with MapRecord(tmp_path) as record:
        record.begin("a.tif", "s/a.tif", SETTINGS, [map_])
    with MapRecord(tmp_path) as record:
        assert not record.made("a.tif", map_)
    map_.write_bytes(b"the map; then the process was killed")
    with MapRecord(tmp_path) as record:
        assert record.made("a.tif", map_) and record.finished("a.tif", SETTINGS, [map_]) is None


def test_what_the_finished_map_before_had_is_stale_also_after_calls_that_were_killed(tmp_path, map_):
    areas, look, foreign = (tmp_path / name for name in ("a.gpkg", "a.png", "a.geojson"))
    for path in (map_, areas, look, foreign):
        path.write_bytes(b"before")
    with MapRecord(tmp_path) as record:
        assert record.stale("a.tif", [map_]) == []
        record.end("a.tif", "s", SETTINGS, [map_, areas, look], RESULT)
        assert record.stale("a.tif", [map_, look]) == [(areas, True)]
        record.begin("a.tif", "s", SETTINGS, [map_, foreign])
    with MapRecord(tmp_path) as record:  # after a kill; what was asked for then need not be ours
        record.begin("a.tif", "s", SETTINGS, [map_])
        look.write_bytes(b"changed by someone")
        assert record.stale("a.tif", [map_]) == [(areas, True), (look, False)]
        areas.unlink()
        assert record.stale("a.tif", [map_]) == [(look, False)]
        record.end("a.tif", "s", SETTINGS, [map_], RESULT)
        assert record.stale("a.tif", [map_]) == []


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_was_cut_short_is_dropped(tmp_path, map_, cut):
    with MapRecord(tmp_path) as record:
        for name in ("a.tif", "b.tif"):
            map_.with_name(name).write_bytes(b"map")
            record.end(name, name, SETTINGS, [map_.with_name(name)], RESULT)
    path = tmp_path / NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with MapRecord(tmp_path) as record:
        assert record.finished("a.tif", SETTINGS, [map_]) is not None
        assert record.finished("b.tif", SETTINGS, [tmp_path / "b.tif"]) is None
        record.end("b.tif", "b.tif", SETTINGS, [tmp_path / "b.tif"], RESULT)
    assert path.read_bytes() == whole


def test_one_process_at_a_time_and_no_other_kind_of_file(tmp_path):
    with MapRecord(tmp_path / "m") as record:
        with pytest.raises(UsageError, match="another process writes maps"), MapRecord(tmp_path / "m"):
            pass
        record.begin("a.tif", "a", SETTINGS, [])
        assert (tmp_path / "m" / NAME).stat().st_size > 0
    (tmp_path / "n").mkdir()
    for text in (
        "thesis\n", '{"map": "a.tif"}\n', '{"map": "a.tif", "state": "mapped", "settings": {}, "files": {}}\n',
        '{"map": "a.tif", "state": "begun", "settings": [], "files": {}}\n', "[1]\n",
    ):  # fmt: skip
        (tmp_path / "n" / NAME).write_text(text)
        with pytest.raises(UsageError, match="is no record of maps"), MapRecord(tmp_path / "n"):
            pass
        assert (tmp_path / "n" / NAME).read_text() == text
    with MapRecord(tmp_path / "empty"):
        pass
    assert list((tmp_path / "empty").iterdir()) == []
