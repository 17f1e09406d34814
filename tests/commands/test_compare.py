"""`cmid compare` from the command line: what it leaves, that it goes on after any end, that nothing stale is used."""

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cmid
from cmid.backbones import create_backbone
from cmid.cli import main
from cmid.commands import prepare
from cmid.commands.compare_plan import key_of, plan_rows
from cmid.errors import UsageError
from cmid.train import read_checkpoint
from cmid.zoo.backbone_files import BackboneMetadata, save_backbone
from tests.processes import begin

SMALL = [
    "--pretrain.backbone", "resnet18", "--pretrain.views.size", "32", "--pretrain.epochs", "2",
    "--pretrain.batch_size", "6", "--pretrain.byol.hidden", "16", "--pretrain.byol.dim", "8",
    "--pretrain.cmid.queue_size", "12", "--pretrain.cmid.local_hidden", "16", "--pretrain.cmid.local_prototypes", "16",
    "--pretrain.train.workers", "0", "--pretrain.train.accelerator", "cpu", "--pretrain.train.precision", "32",
    "--pretrain.optimizer.warmup_epochs", "0", "--labels", "1,3,50", "--draws", "2",
]  # fmt: skip


def draw(folder, count, seed, tint):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        small = (rng.integers(0, 120, (5, 5, 3)) + tint).astype(np.uint8)
        Image.fromarray(small).resize((40, 36), Image.Resampling.BICUBIC).save(folder / f"{seed}_{i}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    images = draw(root / "images", 12, 9, 60)
    for number, tint in enumerate((0, 120)):
        draw(root / "labelled" / f"class{number}", 8, number, tint)
    return str(images), str(root / "labelled")


def words(data, out, *more):
    return ["compare", *data, "--out", str(out), *SMALL, *more]


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    """Two methods, one of them with a rate at which it diverges, beside a file that others trained."""
    out = tmp_path_factory.mktemp("out") / "compared"
    file = out.parent / "elsewhere.safetensors"
    save_backbone(file, create_backbone("resnet18", mask_stage=None), BackboneMetadata("resnet18", 3, which="unknown"))
    methods = ["--methods", "cmid,byol,byol?optimizer.lr=1e30", "--external", str(file)]
    assert main(words(data, out, *methods)) == 0
    return out, methods


def rows_of(out):
    with (out / "compare.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_cell_has_its_figure_and_interval(compared):
    out, _ = compared
    rows = {(r["method"], r["measure"], r["seed"]): r for r in rows_of(out)}
    for method in ("cmid", "byol", "random weights, resnet18"):
        for measure in ("kNN-5", "linear", "linear, 1 a class", "linear, 3 a class"):
            row = rows[method, measure, "all"]
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
            assert (row["difference"] == "") == (method == "cmid")
        assert float(rows[method, "effective rank", "0"]["value"]) >= 1
    assert float(rows["cmid", "images/s", "all"]["value"]) > 0
    assert 0.2 < float(rows["cmid", "peak memory GB", "all"]["value"]) < 20
    assert not any(measure == "linear, 50 a class" for _, measure, _ in rows)  # no class has so many


def test_a_diverged_run_is_told_of_and_not_dropped(compared):
    out, _ = compared
    diverged = [r for r in rows_of(out) if r["measure"] == "diverged"]
    assert [r["method"] for r in diverged] == ["byol?optimizer.lr=1e30"]
    table = (out / "compare.md").read_text()
    assert "| BYOL (optimizer.lr = 1e30), resnet18 | 0, 1 diverged |" in table
    assert "BYOL (optimizer.lr = 1e30), seed 0: diverged." in table and "not finite" in table
    assert "| elsewhere.safetensors (external) | 1 |" in table and "External backbones (marked) were trained" in table
    assert "Left out, since a class has fewer training images: linear, 50 a class." in table
    page = (out / "report.html").read_text()
    assert "diverged and is not in its figures" in page
    assert "Nearest neighbours" in page and "Effective rank" in page


def test_the_same_again_trains_and_scores_nothing(compared, data):
    out, methods = compared
    files = [p for p in out.rglob("*") if p.is_file() and p.parent.name in ("cells", "checkpoints")]
    before = {p: p.stat().st_mtime_ns for p in files}
    table = (out / "compare.md").read_text()
    assert main(words(data, out, *methods, "--pretrain.train.log_every", "3")) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (out / "compare.md").read_text() == table


def test_what_was_scored_is_kept_without_its_run(compared, data, tmp_path):
    """Cells alone, as they are carried from another machine, give the same table, and nothing is trained."""
    out, methods = compared
    shutil.copytree(out / "cells", tmp_path / "out" / "cells")
    shutil.copy(out / "compare.yaml", tmp_path / "out")
    assert main(words(data, tmp_path / "out", *methods)) == 0
    assert not any((tmp_path / "out" / "runs").iterdir())
    assert (tmp_path / "out" / "compare.md").read_text() == (out / "compare.md").read_text()
    assert main(words(data, tmp_path / "out", *methods, "--labels", "2", "--no-report")) == 2, "other rules: not kept"


def test_images_with_other_labels_are_scored_anew(data, tmp_path):
    """Lists may give the same images, in the same order, other numbers: nothing that was kept is true of them."""
    images = tmp_path / "labelled" / "img"
    images.mkdir(parents=True)
    files = sorted(Path(data[1]).rglob("*.png"))
    for path in files:
        shutil.copy(path, images)
    file = tmp_path / "elsewhere.safetensors"
    save_backbone(file, create_backbone("resnet18", mask_stage=None), BackboneMetadata("resnet18", 3, which="unknown"))

    def compared_by(label):
        for side, name in enumerate(("train", "test")):
            lines = [f"{path.name} {label(i)}\n" for i, path in enumerate(files) if i % 2 == side]
            (images.parent / f"{name}.txt").write_text("".join(lines))
        settings = {"methods": [], "external": [str(file)], "labels": [1], "draws": 1, "report": False}
        done = cmid.compare(data[0], str(images.parent), out=str(tmp_path / "out"), **settings)
        return done.lines[0].outcomes[0]["linear"]

    by_tint = compared_by(lambda i: int(files[i].parent.name == "class1"))
    by_chance = compared_by(lambda i: i // 2 % 2)
    assert by_tint.mean() > by_chance.mean()


def test_other_settings_are_other_runs(data):
    def key(*more):
        from cmid.cli import read_words

        said = read_words("compare", words(data, "x", "--methods", "byol", *more)[1:])
        [row] = plan_rows(prepare("compare", said.given, kind=said.kind, **said.files))
        return key_of(row.config, "images")

    usual = key()
    assert key("--pretrain.train.workers", "1") == key("--pretrain.cmid.queue_size", "99") == usual
    assert (
        len(
            {usual, key("--pretrain.byol.dim", "4"), key("--pretrain.optimizer.lr", "1"), key("--pretrain.epochs", "3")}
        )
        == 4
    )


def test_killed_in_the_middle_of_a_cell_it_goes_on(data, tmp_path):
    out = tmp_path / "out"
    given = words(data, out, "--methods", "byol", "--no-untrained", "--no-report", "--pretrain.epochs", "30")
    given[given.index("resnet18")] = "test_resnet"  # whose checkpoints are small: there is one after each epoch
    whole = begin("cmid", given, dict(os.environ), tmp_path / "told")
    deadline = time.monotonic() + 120
    while not list(out.glob("runs/*/checkpoints/last.ckpt")):
        assert whole.is_alive() and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(whole.pid, signal.SIGKILL)
    whole.join()
    assert not list(out.glob("cells/*.json"))
    [run] = out.glob("runs/*")
    reached = read_checkpoint(run).progress.epoch
    assert reached < 30, "it was killed on the way"
    assert main(given) == 0
    assert read_checkpoint(run).progress.epoch == 30
    [cell] = out.glob("cells/*.json")
    assert json.loads(cell.read_text())["status"] == "trained"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--methods", "byolo"], "expected one of cmid, byol"),
        (["--methods", "byol,byol"], "names byol twice"),
        (["--methods", "byol?queue=3"], "Unknown setting 'queue' (the row 'byol?queue=3')"),
        (["--methods", "byol?seed=3"], "sets seed, which the comparison decides"),
        (["--methods", "byol", "--reference", "cmid"], "reference is 'cmid', which is none of the rows: byol"),
        (["--methods", "byol", "--pretrain.seed", "4"], "pretrain.seed is decided by the comparison"),
        (["--methods", "byol", "--pretrain.batch_size", "60"], "batch_size 60 is more than the 12 images"),
        (["--methods", "cmid?local_stage=9"], "cmid.local_stage names map 9"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_trained(data, tmp_path, capsys, more, says):
    assert main(words(data, tmp_path / "out", *more)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(data, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main(words(data, tmp_path / "out")) == 2
    assert "holds other files and no comparison" in capsys.readouterr().err


def test_rows_read_their_own_numbers_alone():
    config = prepare(
        "compare", {"data": "a", "labelled": "b", "methods": ("byol", "cmid"), "pretrain.cmid.queue_size": 64}
    )
    byol, cmid = plan_rows(config)
    assert cmid.config.cmid.queue_size == 64 and byol.config.cmid.queue_size == 65536
    assert (byol.title, cmid.title) == ("BYOL", "CMID")
    with pytest.raises(UsageError, match="nothing to compare"):
        plan_rows(prepare("compare", {"data": "a", "labelled": "b", "methods": ()}))
