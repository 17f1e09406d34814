"""Temporal methods from the command line: places, dates that are made up, and data that have neither."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from cmid.cli import main
from cmid.commands import prepare
from cmid.commands.compare import _budget_words
from cmid.commands.compare_images import Images
from cmid.commands.compare_plan import plan_rows
from cmid.commands.dates import with_dates
from cmid.commands.fingerprint import fingerprint
from cmid.commands.settings import resolve
from cmid.commands.sources import open_source
from cmid.config import PretrainConfig, SeCoConfig
from cmid.data.artificial_dates import ArtificialDates
from cmid.data.places import Places
from cmid.errors import UsageError
from cmid.train import read_checkpoint
from tests.data.rasters_on_disk import write_raster

SMALL = [
    "--method", "seco", "--backbone", "test_resnet", "--views.size", "32", "--batch-size", "4", "--epochs", "2",
    "--seco.queue_size", "8", "--train.workers", "0", "--train.precision", "32", "--train.accelerator", "cpu",
    "--optimizer.warmup_epochs", "0", "--no-report",
]  # fmt: skip


def draw(path, seed, size=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """Eight places at two or three dates, one at one date, and a picture that says no date."""
    folder = tmp_path_factory.mktemp("dated")
    for place in range(8):
        for month in range(1, 3 + place % 2):
            draw(folder / f"p{place}" / f"2019-0{month}-01.png", 10 * place + month)
    draw(folder / "once" / "2019-05-01.png", 100)
    draw(folder / "p0" / "sketch.png", 101)
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    for i in range(8):
        draw(folder / "ab"[i % 2] / f"{i}.png", i)
    return folder


def run(data, out, *more):
    return main(["pretrain", str(data), "--out", str(out), *SMALL, *more])


def weights(out):
    return read_checkpoint(out).learner_state


def test_places_are_learned_from_and_a_run_goes_on_exactly(dated, tmp_path, capsys):
    assert run(dated, tmp_path / "whole") == 0
    said = capsys.readouterr().err
    assert "seco on test_resnet: 8 places of" in said
    assert "note: 8 places, each seen at 2 to 3 dates" in said
    assert "note: 1 places have one date only and are left out, first once" in said
    assert re.search(r"note: 1 images say no date and are left out, first .*sketch\.png", said)
    assert run(dated, tmp_path / "cut", "--train.max_steps", "3") == 0
    assert run(dated, tmp_path / "cut", "--resume", "--train.max_steps", "0") == 0
    for key, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, weights(tmp_path / "cut")[key]), key
    assert sum("queue" in key for key in weights(tmp_path / "whole")) == 2


def test_made_up_dates_are_called_so(single, tmp_path, capsys):
    assert run(single, tmp_path / "run", "--seco.dates", "artificial") == 0
    assert "note: the dates are artificial (seco.dates): of each image 3 further ones" in capsys.readouterr().err
    assert resolve(PretrainConfig, config=tmp_path / "run" / "settings.yaml").seco.dates == "artificial"


def test_single_dates_are_refused_with_what_to_do(single, tmp_path, capsys):
    assert run(single, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert re.search(r"no image of .* says its date \(.*0\.png is the first\), but seco contrasts the dates", said)
    assert "place/2019-05-01.tif" in said and "--seco.dates artificial" in said
    assert not (tmp_path / "run").exists()


def test_small_crops_are_refused_before_anything_is_loaded(dated, tmp_path, capsys):
    assert run(dated, tmp_path / "run", "--views.small_crops", "2") == 2
    assert "views.small_crops is 2, but seco takes no small crops: set it to 0, or take" in capsys.readouterr().err


def config(data, **more):
    return PretrainConfig(data=str(data), method="seco", **more)


def test_other_data_of_single_dates(tmp_path):
    for i in range(3):
        draw(tmp_path / "apart" / f"p{i}" / "2019-05-01.png", i)
    with pytest.raises(UsageError, match=r"all 3 places of .*apart have one date only, p0 the first, but seco"):
        with_dates(open_source(config(tmp_path / "apart")))
    write_raster(tmp_path / "scene" / "a.tif", np.random.default_rng(0).integers(1, 255, (3, 256, 256), np.uint8))
    opened = open_source(config(tmp_path / "scene", source="scenes", batch_size=2, in_chans=3))
    with pytest.raises(UsageError, match=r"the windows of scenes of .* are of single dates, but seco"):
        with_dates(opened)


def test_limit_is_of_places(dated):
    few = with_dates(open_source(config(dated, limit=3)))
    assert isinstance(few.source, Places) and len(few.source) == 3


def test_the_fingerprint_is_of_all_dates_wherever_the_folder_lies(dated, tmp_path):
    def of(folder):
        return fingerprint(with_dates(open_source(config(folder))).source)

    moved = tmp_path / "moved"
    for path in sorted(dated.rglob("*.png")):
        draw(moved / path.relative_to(dated), 0)
    assert of(moved) == of(dated)
    draw(moved / "p0" / "2020-01-01.png", 1)
    assert of(moved) != of(dated)
    plain = open_source(config(dated))
    made_up = with_dates(open_source(config(dated, seco=SeCoConfig(dates="artificial")))).source
    assert isinstance(made_up, ArtificialDates) and fingerprint(made_up) == fingerprint(plain.source)


def rows(*words):
    return plan_rows(prepare("compare", {"data": "d", "labelled": "l", **dict(words)}))


def test_a_row_of_a_comparison_says_that_its_dates_are_made_up():
    assert rows(("methods", ("seco?dates=artificial",)))[0].title == "SeCo (dates = artificial)"
    (hidden,) = rows(("methods", ("seco",)), ("pretrain.seco.dates", "artificial"))
    assert hidden.title == "SeCo (dates = artificial)"
    assert [row.title for row in rows(("methods", ("seco", "cmid")))] == ["SeCo", "CMID"]


def test_a_comparison_refuses_single_dates_before_it_trains(single, tmp_path, capsys):
    small = [f"--pretrain.{word[2:]}" if word.startswith("--") else word for word in SMALL[2:-1]]
    line = ["compare", str(single), str(single), "--methods", "byol,seco", *small, "--out", str(tmp_path / "out")]
    assert main(line) == 2
    assert "but seco contrasts the dates of one place" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_comparison_says_what_an_epoch_of_places_is(dated):
    source = open_source(config(dated)).source
    given = {"data": str(dated), "labelled": "l", "methods": ("byol", "seco")}
    made = prepare("compare", given | {"pretrain.epochs": 3, "pretrain.batch_size": 4})
    planned = plan_rows(made)
    seen = Images(source, (0,))
    said = _budget_words(planned, made, {row.label: seen.of(row) for row in planned})
    assert said == "equal epochs: 3 of 22 images; an epoch of SeCo is 8 places at several dates"
