"""A map that was killed goes on, and comes out as if it had not been."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cmid.errors import UsageError
from cmid.predict.journal import Journal
from cmid.predict.scene_to_map import Outputs, scene_to_map
from tests.predict.kill_midway import CLASSES, TILING, outputs
from tests.predict.small_scenes import Looking, patchy, write_scene

ROOT = Path(__file__).resolve().parents[2]


def run_until(scene, out, after, scores_bytes=1 << 28):
    """Starts the map in another process and kills it after `after` batches; gives the windows it had done."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.predict.kill_midway", scene.name, str(out), str(scores_bytes)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        told = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    return int(told[-1].split()[0])


def read(path):
    with rasterio.open(path) as raster:
        return raster.read()


def count(journal_path):
    journal = Journal(journal_path)
    journal._file = journal.path.open("rb")
    journal._file.read(len(b"cmid map journal 1\n"))
    journal._read_record()
    found = 0
    while journal._read_record() is not None:
        found += 1
    journal.close()
    return found


@pytest.mark.parametrize(("scores_bytes", "kills"), [(1 << 28, (9, 14)), (1, (12, 30))])
def test_killed_twice_it_goes_on_and_the_files_are_the_same(tmp_path, scores_bytes, kills):
    values = patchy(2, 420, 600)
    values[:, 180:330, :250] = 0
    scene = write_scene(tmp_path / "a.tif", values, nodata=0)
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    left_alone = scene_to_map(
        scene, Looking(2, 3), CLASSES, outputs(tmp_path / "whole"), tiling=TILING, scores_bytes=scores_bytes
    )
    kept = 0
    for after in kills:
        done = run_until(scene, tmp_path / "killed", after, scores_bytes)
        assert done < left_alone.windows
        now = count(tmp_path / "killed" / "map.tif")
        assert now > kept
        kept = now
        assert not (tmp_path / "killed" / "map.tif").exists()
    result = scene_to_map(
        scene, Looking(2, 3), CLASSES, outputs(tmp_path / "killed"), tiling=TILING, scores_bytes=scores_bytes
    )
    assert result.computed < left_alone.computed
    for name in ("map.tif", "p.tif", "q.png"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert replace(result, computed=0, outputs=None) == replace(left_alone, computed=0, outputs=None)
    assert sorted(p.name for p in (tmp_path / "killed").iterdir()) == sorted(
        p.name for p in (tmp_path / "whole").iterdir()
    )


class Stopped(Exception):
    pass


def interrupted(scene, out, after, **more):
    """Stops the map from inside after `after` windows."""

    def tick(done, total):
        if done >= after:
            raise Stopped

    with pytest.raises(Stopped):
        scene_to_map(scene, Looking(2, 3), CLASSES, out, tiling=TILING, tick=tick, **more)


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "a.tif", patchy(2, 300, 300))


@pytest.fixture
def out(tmp_path):
    return Outputs(tmp_path / "map.tif")


def test_other_settings_do_not_go_on_and_are_named(scene, out, tmp_path):
    interrupted(scene, out, 40, model="one")
    for changed, said in (
        ({"model": "two"}, 'model was "one" and is "two"'),
        ({"model": "one", "tiling": replace(TILING, overlap=30)}, "overlap was 32 and is 30"),
        ({"model": "one", "classes": replace(CLASSES, names=("a", "b", "d"))}, "classes was"),
    ):
        with pytest.raises(UsageError, match=said):
            scene_to_map(scene, Looking(2, 3), changed.pop("classes", CLASSES), out, **({"tiling": TILING} | changed))
    other = write_scene(tmp_path / "b.tif", patchy(2, 300, 300, seed=1))
    with pytest.raises(UsageError, match="pixels was"):
        scene_to_map(other, Looking(2, 3), CLASSES, out, tiling=TILING, model="one")
    result = scene_to_map(scene, Looking(2, 3), CLASSES, out, tiling=replace(TILING, turns="d4"), restart=True)
    assert result.computed == result.windows


def test_a_record_cut_short_anywhere_is_computed_again(scene, out, tmp_path):
    scene_to_map(scene, Looking(2, 3), CLASSES, Outputs(tmp_path / "whole.tif"), tiling=TILING)
    interrupted(scene, out, 60)
    journal = tmp_path / "map.tif.partial" / "journal"
    data = journal.read_bytes()
    for cut in (5, 40, len(data) // 2, len(data) - 700, len(data) - 1):
        journal.parent.mkdir(exist_ok=True)
        journal.write_bytes(data[:cut])
        scene_to_map(scene, Looking(2, 3), CLASSES, out, tiling=TILING)
        assert np.array_equal(read(out.map), read(tmp_path / "whole.tif"))
        out.map.unlink()
        out.names.unlink()


def test_damage_inside_is_noticed(scene, out, tmp_path):
    scene_to_map(scene, Looking(2, 3), CLASSES, Outputs(tmp_path / "whole.tif"), tiling=TILING)
    interrupted(scene, out, 60)
    journal = tmp_path / "map.tif.partial" / "journal"
    data = bytearray(journal.read_bytes())
    data[-100] ^= 255
    journal.write_bytes(data)
    scene_to_map(scene, Looking(2, 3), CLASSES, out, tiling=TILING)
    assert np.array_equal(read(out.map), read(tmp_path / "whole.tif"))


def test_another_file_in_the_journals_place_is_left_alone(scene, out, tmp_path):
    folder = tmp_path / "map.tif.partial"
    folder.mkdir()
    (folder / "journal").write_text("my diary")
    (folder / "letters").write_text("dear")
    with pytest.raises(UsageError, match="no journal of a map"):
        scene_to_map(scene, Looking(2, 3), CLASSES, out, tiling=TILING)
    (folder / "journal").unlink()
    scene_to_map(scene, Looking(2, 3), CLASSES, out, tiling=TILING)
    assert [p.name for p in folder.iterdir()] == ["letters"]


def test_two_processes_do_not_write_one_map(out):
    held = Journal(out.map)
    held.open({"a": 1})
    with pytest.raises(UsageError, match="another process is writing this map"):
        Journal(out.map).open({"a": 1})
    held.remove()


def test_a_crash_while_outputs_are_moved_is_gone_on_from(scene, out, tmp_path, monkeypatch):
    """The polygons are in their place, the map is not: its own file does not stand in its way."""
    both = Outputs(out.map, polygons=tmp_path / "p.gpkg")
    from cmid.predict import scene_to_map as module

    def move(file, to):
        if to == both.map:
            raise Stopped
        real(file, to)

    real = module._move
    monkeypatch.setattr(module, "_move", move)
    with pytest.raises(Stopped):
        scene_to_map(scene, Looking(2, 3), CLASSES, both, tiling=TILING)
    monkeypatch.undo()
    assert both.polygons.exists() and not both.map.exists()
    result = scene_to_map(scene, Looking(2, 3), CLASSES, both, tiling=TILING)
    assert result.computed == 0 and result.polygons and both.map.exists()
