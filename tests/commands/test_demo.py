"""The demo goes from nothing to a report, and from wherever it was left; it keeps off what is not its own."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rich.console import Console

from cmid.cli import main
from cmid.commands import demo as room
from cmid.commands import demo_map
from cmid.commands.demo import demo
from cmid.commands.generate import generate
from cmid.commands.learners import build_learner
from cmid.commands.pace import images_per_second
from cmid.config import CMIDConfig, DemoConfig, GenerateConfig, PretrainConfig, TrainConfig, ViewConfig, as_plain
from cmid.errors import UsageError
from cmid.train import Interrupted, RunDirectory, read_checkpoint

COUNT = 36
LEAST = {"count": COUNT, "minutes": 0.001}


INSIDE = ["classifier", "linear_cmid.json", "linear_random.json", "map", "run", "scenes", "segmenter"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def drawn(tmp_path):
    """A demo's folder with its scenes."""
    generate(GenerateConfig(out=str(tmp_path / "demo" / "scenes"), count=COUNT, workers=1, size=64))
    return tmp_path / "demo"


def test_again_it_resumes_and_then_only_looks(drawn, capfd, monkeypatch):
    monkeypatch.setattr(demo_map, "SCENE_PX", 256)
    monkeypatch.setattr(demo_map, "CROPS", 24)
    monkeypatch.setattr(room, "CLASSIFIER_EPOCHS", 2)
    out, run = drawn, drawn / "run"
    before = {path: path.stat().st_mtime_ns for path in (out / "scenes").rglob("*.*")}
    # a demo of 3 epochs that was stopped after the first step
    config = DemoConfig(out=str(out), **LEAST)
    begun = replace(room._settings(config, out), epochs=3, report=False)
    room.pretrain(replace(begun, train=replace(begun.train, max_steps=1)))
    capfd.readouterr()
    result = demo(config)
    said = capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "are there from before" in said and "Going on with the pre-training begun before: 1 of 3 epochs" in said
    assert (result.fit.epochs_done, result.fit.steps_done) == (3, 3)
    assert result.report == run / "report.html" and result.report.stat().st_size > 100_000
    assert names(out) == INSIDE
    assert json.loads((out / "linear_cmid.json").read_text())["test_images"] == 12

    (map_,) = (out / "map" / "maps").rglob("*.tif")
    (mask,) = (out / "map" / "scene" / "masks").rglob("*.png")
    with rasterio.open(map_) as raster:
        found, place = raster.read(1), raster.crs
    share = (found == np.asarray(Image.open(mask))).mean()
    assert found.shape == (256, 256) and place is not None
    assert f"nothing has seen: {100 * share:.1f} % of its pixels are right" in said and str(map_) in said
    page = out / "map" / "map.html"
    assert str(page) in said and page.read_text().count("data:image/jpeg") == 13
    trained_on = (out / "map" / "train_list.txt").read_text().split()
    tested_on = (out / "map" / "test_list.txt").read_text().split()
    assert (len(trained_on), len(tested_on)) == (24, 12) and not set(trained_on) & set(tested_on)
    (out / "segmenter" / "scores.json").unlink()  # as where it was killed between the model and its scores
    assert demo_map.learn_and_map(config, result.backbone, out / "scenes", out / "segmenter", out / "map").map == map_
    assert (out / "segmenter" / "scores.json").is_file()
    drawn_map = map_.stat().st_mtime_ns

    weights = read_checkpoint(run / "checkpoints" / "last.ckpt", lazy=False).learner_state
    for gone in (result.report, result.backbone, out / "linear_cmid.json"):
        gone.unlink()
    moved = out.rename(out.with_name("moved"))
    result = demo(replace(config, out=str(moved)))
    said = capfd.readouterr().out
    assert "The pre-training of 3 epochs has ended before" in said and "It is there from before." in said
    assert (moved / "classifier" / "report.html").is_file() and (moved / "map" / "map.html").is_file()
    assert moved.joinpath(*map_.parts[len(out.parts) :]).stat().st_mtime_ns == drawn_map
    assert names(moved) == INSIDE
    assert result.report.is_file() and result.backbone.is_file()
    after = read_checkpoint(moved / "run" / "checkpoints" / "last.ckpt").learner_state
    assert all(torch.equal(value, after[name]) for name, value in weights.items())


def test_scenes_interrupted_on_the_way_are_drawn_again(tmp_path, capfd):
    config, scenes = DemoConfig(out=str(tmp_path), count=COUNT), tmp_path / "scenes"
    generate(GenerateConfig(out=str(scenes), count=COUNT + 4, workers=1, size=64))
    (scenes / "scenes.csv").unlink()
    (scenes / ".lock").touch()  # which one that was killed leaves
    room._check(config, room._settings(config, tmp_path), tmp_path)
    room._draw(Console(), config, scenes)
    assert "was interrupted" in capfd.readouterr().out
    assert len((scenes / "scenes.csv").read_text().splitlines()) == 1 + COUNT
    assert len(list((scenes / "images").rglob("*.jpg"))) == COUNT


@pytest.mark.parametrize("foreign", ["notes.txt", "images/mine.jpg", "masks/a/b.png"])
def test_a_folder_of_scenes_with_anything_else_in_it_is_left_alone(drawn, foreign):
    scenes = drawn / "scenes"
    (scenes / "scenes.csv").unlink()
    (scenes / foreign).parent.mkdir(exist_ok=True)
    (scenes / foreign).write_text("mine")
    with pytest.raises(UsageError, match=r"no scenes\.csv in it.*remove it"):
        demo(DemoConfig(out=str(drawn), **LEAST))
    assert (scenes / foreign).read_text() == "mine" and len(list(scenes.rglob("*.jpg"))) >= 2 * COUNT


def test_images_of_someone_else_are_left_alone(tmp_path):
    picture = tmp_path / "scenes" / "images" / "harbor" / "harbor_00001.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_text("mine")
    with pytest.raises(UsageError, match="remove it"):
        demo(DemoConfig(out=str(tmp_path), **LEAST))
    assert picture.is_file()


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"not the demo's \(thesis\.tex\)"):
        demo(DemoConfig(out=str(tmp_path), **LEAST))
    assert names(tmp_path) == ["thesis.tex"]
    with pytest.raises(UsageError, match="is a file"):
        demo(DemoConfig(out=str(tmp_path / "thesis.tex"), **LEAST))


@pytest.mark.parametrize(("asked", "found"), [({"count": 40}, "36 scenes of seed 0"), ({"seed": 1}, "of seed 0")])
def test_other_scenes_than_those_that_are_there(drawn, asked, found):
    with pytest.raises(UsageError, match=found):
        demo(DemoConfig(**{"out": str(drawn), **LEAST, **asked}))
    assert names(drawn) == ["scenes"]


def test_scenes_that_have_lost_a_file(drawn):
    next((drawn / "scenes" / "images").rglob("*_00003.jpg")).unlink()
    with pytest.raises(UsageError, match=r"lacks 1 of its scenes, first images/.*_00003\.jpg"):
        demo(DemoConfig(out=str(drawn), **LEAST))


def test_a_run_that_was_killed_before_its_first_checkpoint_is_begun_anew(drawn, monkeypatch, capfd):
    run = RunDirectory(drawn / "run")
    run.checkpoints.mkdir(parents=True)
    for left in (run.settings, run.steps, run.path / ".lock", run.checkpoints / ".last.ckpt.123.part"):
        left.write_text("old\n")

    def begin(settings):
        """What pre-training does first, and then a second signal."""
        with RunDirectory(settings.out) as opened:
            opened.open(as_plain(settings), resume=settings.resume)
            assert "before its first checkpoint; it is begun anew" in opened.notes[0]
            opened.last.write_text("a checkpoint")
        raise Interrupted("after its first step", 2)

    monkeypatch.setattr(room, "images_per_second", lambda settings, learner: 10.0)
    monkeypatch.setattr(room, "pretrain", begin)
    with pytest.raises(Interrupted):
        demo(DemoConfig(out=str(drawn), **LEAST))
    assert "Pre-training CMID" in capfd.readouterr().out
    assert names(run.path) == ["checkpoints", "settings.yaml"] and names(run.checkpoints) == ["last.ckpt"]
    run.last.unlink()
    (run.path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="no checkpoint to go on from: remove it"):
        demo(DemoConfig(out=str(drawn), **LEAST))


def test_a_run_without_checkpoint(drawn):
    (drawn / "run").mkdir()
    (drawn / "run" / "settings.yaml").write_text("epochs: 4\n")
    with pytest.raises(UsageError, match="no checkpoint to go on from: remove it"):
        demo(DemoConfig(out=str(drawn), **LEAST))


def test_too_few_scenes_for_a_batch_leave_nothing_behind(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--count", "31"]) == 2
    assert "--count 32" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_the_estimate_is_of_the_epochs_really_chosen(tmp_path):
    config = DemoConfig(out=str(tmp_path), count=80, minutes=1)
    settings = room._settings(config, tmp_path)
    epoch = 64 * room.BESIDE_STEPS  # of 80 scenes a batch of 32 leaves out 16; at one image a second
    assert room._epochs(config, settings, 1.0) == (3, pytest.approx(3 * epoch))
    assert room._epochs(config, settings, 1e6) == (60, pytest.approx(60 * epoch / 1e6))
    epochs, seconds = room._epochs(config, settings, 20.0)
    assert epochs == int(60 / (epoch / 20)) and seconds == pytest.approx(epochs * epoch / 20) and seconds <= 60


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_the_trial_takes_whole_steps_as_the_run_does(precision):
    train = TrainConfig(precision=precision, channels_last=precision == "32", accelerator="cpu")
    heads = CMIDConfig(queue_size=16, global_hidden=32, local_hidden=32, local_bottleneck=16, local_prototypes=32)
    settings = PretrainConfig(backbone="resnet18", batch_size=2, cmid=heads, views=ViewConfig(size=64), train=train)
    learner = build_learner(settings)
    seen = []

    def look(module, given, made):
        in_format = given[0].is_contiguous(memory_format=torch.channels_last)
        seen.append((made.last.dtype, in_format))

    learner.backbone.register_forward_hook(look)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    began = time.perf_counter()
    pace = images_per_second(settings, learner, batches=2)
    assert {dtype for dtype, _ in seen} == {torch.float32 if precision == "32" else torch.bfloat16}
    assert {in_format for _, in_format in seen} == {precision == "32"}
    took = time.perf_counter() - began
    assert pace > 4 / took  # what warms up is not counted
    changed = {name for name, value in learner.state_dict().items() if not torch.equal(before[name], value)}
    assert "backbone.model.conv1.weight" in changed, "the optimiser took no step"
    assert "teacher_backbone.model.conv1.weight" in changed, "the teacher was not updated"


def test_paths_are_printed_as_they_are(capsys):
    console = Console(highlight=False, width=80)
    path = "/data/[/x]/[red]/:smile:/" + "long/" * 30
    room._say(console, 1, f"Scenes in {path}")
    room._show(console, f"Open in a browser: {path}", style="bold")
    said = capsys.readouterr().out
    assert said == f"\n1/7 Scenes in {path}\n   Open in a browser: {path}\n"
