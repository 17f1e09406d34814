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
import timm
import torch
import yaml
from PIL import Image
from rich.console import Console

import cmid
from cmid.backbones import create_backbone
from cmid.cli import main
from cmid.commands import compare, prepare
from cmid.commands.compare_images import Learned
from cmid.commands.compare_outsiders import outside, outsiders_of
from cmid.commands.compare_plan import key_of, plan_rows
from cmid.errors import NotFinite
from cmid.train import read_checkpoint
from cmid.zoo.backbone_files import BackboneMetadata, save_backbone
from tests.data.test_torchgeo_datasets import draw_eurosat
from tests.processes import begin

SMALL = [
    "--pretrain.backbone", "test_resnet", "--pretrain.views.size", "32", "--pretrain.epochs", "2",
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
    torso = create_backbone("test_resnet", mask_stage=None)
    save_backbone(file, torso, BackboneMetadata("test_resnet", 3, which="unknown"))
    methods = ["--methods", "cmid,byol,byol?optimizer.lr=1e30", "--external", str(file)]
    assert main(words(data, out, *methods)) == 0
    return out, methods


def rows_of(out):
    with (out / "compare.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_cell_has_its_figure_and_interval(compared):
    out, _ = compared
    rows = {(r["method"], r["measure"], r["seed"]): r for r in rows_of(out)}
    for method in ("cmid", "byol", "random weights, test_resnet"):
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
    assert "| BYOL (optimizer.lr = 1e30), test_resnet | 0, 1 diverged |" in table
    told = "BYOL (optimizer.lr = 1e30), seed 0: diverged and is not in its row's figures. The loss is not finite"
    assert told in table and "lower --pretrain.optimizer.lr" in table and "byol?optimizer.lr=RATE" in table
    assert (
        "| elsewhere.safetensors, test_resnet (external) | 1 |" in table
        and "External backbones (marked) were trained" in table
    )
    assert "Left out, since a class has fewer training images: linear, 50 a class." in table
    page = (out / "report.html").read_text()
    assert "diverged and is not in its row" in page and "Budget: equal epochs: 2 of 12 images." in page
    assert "External backbones (marked) were trained" in page
    assert "elsewhere.safetensors, test_resnet (external)" in page
    assert "Nearest neighbours" in page and "Effective rank" in page


def test_the_same_again_trains_and_scores_nothing(compared, data):
    out, methods = compared
    files = [p for p in out.rglob("*") if p.is_file() and p.parent.name in ("cells", "checkpoints")]
    before = {p: p.stat().st_mtime_ns for p in files}
    table = (out / "compare.md").read_text()
    assert main(words(data, out, *methods, "--pretrain.train.log_every", "3")) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (out / "compare.md").read_text() == table


def test_what_was_scored_is_kept_without_its_run(compared, data, tmp_path, capsys):
    """Cells alone, as they are carried from another machine, give the same table, and nothing is trained."""
    out, methods = compared
    shutil.copytree(out / "cells", tmp_path / "out" / "cells")
    assert main(words(data, tmp_path / "out", *methods)) == 0
    assert "scoring" not in capsys.readouterr().err
    assert not any((tmp_path / "out" / "runs").iterdir())
    assert (tmp_path / "out" / "compare.md").read_text() == (out / "compare.md").read_text()
    assert main(words(data, tmp_path / "out", *methods, "--labels", "2", "--no-report")) == 0
    told = capsys.readouterr().err
    assert "3 runs, 1 of them done before" in told and "byol, seed 0 was scored otherwise" in told.replace(
        "BYOL", "byol"
    )
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2, "trained anew, to be scored by the other rules"


def test_images_with_other_labels_are_scored_anew(data, tmp_path):
    """Lists may give the same images, in the same order, other numbers: nothing that was kept is true of them."""
    images = tmp_path / "labelled" / "img"
    images.mkdir(parents=True)
    files = sorted(Path(data[1]).rglob("*.png"))
    for path in files:
        shutil.copy(path, images)
    file = tmp_path / "elsewhere.safetensors"
    torso = create_backbone("test_resnet", mask_stage=None)
    save_backbone(file, torso, BackboneMetadata("test_resnet", 3, which="unknown"))

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
    given = words(data, out, "--methods", "byol", "--no-untrained", "--no-report", "--pretrain.epochs", "12")
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
    assert reached < 12, "it was killed on the way"
    assert main(given) == 0
    assert read_checkpoint(run).progress.epoch == 12
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
        (["--methods", "byol", "--labels", "5,1,5"], "labels names 5 twice"),
        (["--methods", "", "--external", "a.pth,b.pth,a.pth"], "external names a.pth twice"),
        (["--methods", "byol?epochs=5,byol", "--minutes_each", "1"], "'byol?epochs=5' sets epochs, which minutes_each"),
        (["--methods", "byol", "--labels", "0"], "labels (command line): expected at least 1, found 0"),
        (["--methods", "byol", "--seeds", "-1"], "seeds (command line): expected 0 to"),
        (["--methods", "byol", "--k", "13"], "k is 13, but there are 12 training images"),
        (["--methods", "byol,byol?limit=4"], "byol?limit=4: batch_size 6 is more than the 4 images"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_trained(data, tmp_path, capsys, more, says):
    assert main(words(data, tmp_path / "out", *more)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("external", "says"),
    [("nothere.pth", "nothere.pth"), ("weights.pth?size=3", "expected FILE or FILE?backbone=NAME")],
)
def test_an_external_file_is_looked_at_before_anything_is_trained(data, tmp_path, capsys, external, says):
    assert main(words(data, tmp_path / "out", "--methods", "byol", "--no-untrained", "--external", external)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_external_file_may_be_given_its_backbones_name(data, tmp_path):
    file = tmp_path / "plain.pth"
    torch.save(timm.create_model("resnet10t").state_dict(), file)
    settings = {"methods": [], "external": [f"{file}?backbone=resnet10t"], "labels": [1], "report": False}
    [line] = cmid.compare(*data, out=str(tmp_path / "out"), **settings).lines
    assert (line.title, line.kind, line.backbone) == ("plain.pth", "external", "resnet10t")


def test_external_files_of_one_name_are_told_apart(data, tmp_path):
    """Extracted backbones are all called backbone.safetensors, and `-` and `_` are one in the name of what is kept."""
    names = []
    for number, run in enumerate(("run-1", "run_1")):
        torch.manual_seed(number)
        (tmp_path / run).mkdir()
        names.append(str(tmp_path / run / "backbone.safetensors"))
        about = BackboneMetadata("resnet10t", 3, which="unknown")
        save_backbone(Path(names[-1]), create_backbone("resnet10t", mask_stage=None), about)
    settings = {"methods": [], "external": names, "labels": [1], "draws": 1, "report": False}
    done = cmid.compare(*data, out=str(tmp_path / "out"), **settings)
    assert [line.title for line in done.lines] == ["run-1/backbone.safetensors", "run_1/backbone.safetensors"]
    one, other = (line.effective_rank[0] for line in done.lines)
    assert one != other
    assert "| run_1/backbone.safetensors, resnet10t (external) |" in done.table.read_text()


def test_labels_of_test_images_are_not_learned_from(data, tmp_path, capsys):
    assert main(words([data[1], data[1]], tmp_path / "out", "--methods", "byol,supervised")) == 2
    assert "supervised would learn the labels of 4 of the 4 images that it is scored on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_that_blow_up_in_the_last_step_have_diverged(data, tmp_path, monkeypatch):
    """No loss was seen to be infinite: the features are."""
    out, more = tmp_path / "out", ["--pretrain.batch_size", "12", "--pretrain.epochs", "1", "--no-untrained"]
    assert main(words(data, out, "--methods", "byol?optimizer.lr=1e30,byol", "--no-report", *more)) == 0
    told = [json.loads(path.read_text()) for path in sorted(out.glob("cells/*.json"))]
    assert sorted(cell["status"] for cell in told) == ["diverged", "trained"]
    assert "Finite features were expected" in (out / "compare.md").read_text()

    def blown_up(*_):
        raise NotFinite("its features are infinite")

    monkeypatch.setattr(compare, "score", blown_up)
    assert main(words(data, out, "--methods", "byol", "--no-report", *more)) == 0
    told = [json.loads(path.read_text()) for path in sorted(out.glob("cells/*.json"))]
    assert [cell["status"] for cell in told] == ["diverged", "diverged"], "or --retry would not know of it"


def test_random_weights_of_other_settings_are_scored_anew(data, tmp_path):
    (tmp_path / "cells").mkdir()
    found = []
    for mean in ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), (0.5, 0.5, 0.5)):
        given = {"data": data[0], "labelled": data[1], "methods": ("byol",), "pretrain.backbone": "test_resnet"}
        config = prepare("compare", given | {"pretrain.views.mean": mean, "pretrain.views.size": 32, "labels": (1,)})
        rows = plan_rows(config)
        [name] = outsiders_of(config, rows)
        found.append(outside(name, config, "labelled", rows, tmp_path, Console(quiet=True)).effective_rank[0])
    assert found[0] == found[2] != found[1]
    assert len(list((tmp_path / "cells").iterdir())) == 2, "scores alone are kept"


def test_another_backbone_has_its_own_pace(data, tmp_path, monkeypatch):
    paces = iter((100.0, 10.0))

    def measured(module, settings, result):
        assert module == "cmid.commands.pace" and settings.is_file()
        result.write_text(json.dumps({"images_per_s": next(paces)}))

    monkeypatch.setattr(compare, "in_a_process", measured)
    for backbone, epochs in (("test_resnet", 500), ("resnet10t", 50), ("test_resnet", 500)):
        given = {"data": data[0], "labelled": data[1], "out": str(tmp_path), "methods": ("byol",), "minutes_each": 1.0}
        config = prepare("compare", given | {"pretrain.backbone": backbone})
        [row] = plan_rows(config)
        seen = {"byol": Learned(row, "images", 12, "images")}
        [row] = compare._with_budget([row], config, seen, Console(quiet=True))
        assert row.config.epochs == epochs


def test_images_of_many_bands_are_compared_too(tmp_path):
    """Bands, their numbers and their scale are filled in before the rows are built, for random weights as well."""
    named = f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path / 'eurosat')}"
    settings = {"methods": ["byol?optimizer.lr=1e-3"], "labels": [1], "draws": 1, "k": 1, "report": False}
    settings["pretrain"] = {
        "backbone": "test_resnet", "epochs": 1, "batch_size": 4, "views": {"size": 32},
        "optimizer": {"warmup_epochs": 0}, "byol": {"hidden": 16, "dim": 8},
        "train": {"workers": 0, "accelerator": "cpu", "precision": "32"},
    }  # fmt: skip
    done = cmid.compare(named, named, out=str(tmp_path / "out"), **settings)
    assert [line.kind for line in done.lines] == ["trained here", "not trained"]
    assert all(line.outcomes[0]["kNN-1"].shape == (3,) for line in done.lines)
    [cell] = (tmp_path / "out" / "cells").glob("byol*.yaml")
    assert yaml.safe_load(cell.read_text())["in_chans"] == 13


def test_a_folder_of_something_else_is_left_alone(data, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main(words(data, tmp_path / "out")) == 2
    assert "holds other files and no comparison" in capsys.readouterr().err


def test_what_was_torn_is_made_again(compared, data, tmp_path, capsys):
    out, methods = compared
    shutil.copytree(out, tmp_path / "torn")
    [scores] = (tmp_path / "torn" / "cells").glob("byol_s0*.npz")
    [ended] = (tmp_path / "torn" / "cells").glob("cmid_s0*.json")
    whole = ended.read_text()
    scores.write_bytes(scores.read_bytes()[:300])
    ended.write_text(whole[:20])
    capsys.readouterr()
    assert main(words(data, tmp_path / "torn", *methods)) == 0
    assert json.loads(ended.read_text())["status"] == "trained"
    before, after = (
        {(r["method"], r["measure"], r["seed"]): r["value"] for r in rows_of(f)} for f in (out, tmp_path / "torn")
    )
    changes = {key for key in before if before[key] != after[key]}
    assert all(measure in ("images/s", "peak memory GB") for _, measure, _ in changes)


def test_without_methods_no_images_are_needed(data, tmp_path):
    file = tmp_path / "elsewhere.safetensors"
    save_backbone(file, create_backbone("test_resnet", mask_stage=None), BackboneMetadata("test_resnet", size=32))
    settings = {"methods": (), "external": (str(file),), "labels": (1,), "draws": 1, "report": False}
    done = cmid.compare(labelled=data[1], out=str(tmp_path / "out"), **settings)
    assert [line.kind for line in done.lines] == ["external"] and "nothing was trained" in done.table.read_text()


def test_a_run_that_was_put_aside_is_none_of_other_settings(compared, data, tmp_path, capsys):
    out, methods = compared
    shutil.copytree(out, tmp_path / "again")
    [run] = (tmp_path / "again" / "runs").glob("byol_optimizer*")
    run.rename(run.with_name(f"{run.name}.diverged-1"))
    capsys.readouterr()
    assert main(words(data, tmp_path / "again", *methods)) == 0
    assert "of other settings" not in capsys.readouterr().err


def test_features_of_other_precisions_are_told_in_the_table(compared, data, tmp_path):
    """As where cells come from machines with and without units for bfloat16."""
    out, methods = compared
    shutil.copytree(out, tmp_path / "carried")
    [kept] = (tmp_path / "carried" / "cells").glob("byol_s0*.npz")
    with np.load(kept) as file:
        arrays = dict(file)
    about = json.loads(str(arrays["about"]))
    assert about["protocol"]["weights"].startswith("byol_s0") and about["protocol"]["data"] == "/".join(
        Path(data[1]).parts[-2:]
    )
    about["protocol"]["precision"] = "16"
    np.savez_compressed(kept, **arrays | {"about": json.dumps(about)})
    assert main(words(data, tmp_path / "carried", *methods)) == 0
    table = (tmp_path / "carried" / "compare.md").read_text()
    assert "Features come from machines that computed them in 16 (BYOL) and in " in table
    assert "Features come from" not in (out / "compare.md").read_text()
