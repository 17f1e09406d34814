"""`cmid pretrain` from the command line: what it leaves, and what it answers to bad input, in one clear line."""

import csv
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cmid.cli import main
from cmid.data import reading
from cmid.train import fit, read_checkpoint
from cmid.zoo.backbone_files import load_backbone, read_metadata


def draw(folder, count, seed=0, size=(80, 72)):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        small = rng.integers(0, 255, (6, 7, 3), np.uint8)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / f"{seed}_{i}.png")
    return folder


@pytest.fixture
def images(tmp_path):
    return draw(tmp_path / "images", 8)


def run(images, out, *words):
    return main(["pretrain", str(images), "--recipe", "cmid-tiny", "--out", str(out), "--no-report", *map(str, words)])


def one_line(capsys):
    """The error, which must be one line on stderr."""
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cmid: error:")]
    assert len(errors) == 1
    return errors[0]


def test_what_a_run_leaves(images, tmp_path):
    out = tmp_path / "run"
    labelled = tmp_path / "labelled"
    for number, name in enumerate("ab"):
        draw(labelled / name, 5, seed=number + 1)
    words = ["--recipe", "cmid-tiny", "--out", str(out), "--epochs", "2", "--knn.data", str(labelled)]
    assert main(["pretrain", str(images), *words]) == 0
    assert yaml.safe_load((out / "settings.yaml").read_text())["epochs"] == 2
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for column in (
        "reconstruction",
        "global",
        "local",
        "knn_top1",
        "knn_top1_teacher",
        "feature_std",
        "effective_rank",
    ):
        assert np.isfinite(float(rows[-1][column])), column
    page = (out / "report.html").read_text()
    assert "kNN accuracy" in page
    backbone, metadata = load_backbone(out / "backbone.safetensors")
    assert (metadata.backbone, metadata.method, metadata.mode, metadata.which) == (
        "test_resnet",
        "cmid",
        "exact",
        "student",
    )
    trained = read_checkpoint(out).learner_state
    assert torch.equal(backbone.weights()["conv1.0.weight"], trained["backbone.model.conv1.0.weight"])


@pytest.fixture
def labelled(tmp_path):
    for number, name in enumerate("ab"):
        draw(tmp_path / "labelled" / name, 5, seed=number + 1)
    return tmp_path / "labelled"


def test_knn_images_of_which_none_can_be_read_are_refused_before_the_training(images, labelled, tmp_path, capsys):
    for path in labelled.glob("*/*"):
        path.write_bytes(b"broken")
    assert run(images, tmp_path / "run", "--knn.data", labelled) == 2
    error = one_line(capsys)
    assert f"none of 8 images of {labelled} can be read" in error and "--knn.data" in error
    assert not (tmp_path / "run").exists()


def test_knn_images_that_go_away_are_told_and_cost_no_epoch(images, labelled, tmp_path, capsys, monkeypatch):
    def fit_without_them(*arguments, **options):
        shutil.rmtree(labelled)
        return fit(*arguments, **options)

    monkeypatch.setattr("cmid.commands.pretrain.fit", fit_without_them)
    assert run(images, tmp_path / "run", "--knn.data", labelled) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "Warning: knn could not be measured at the end of epoch 1" in said
    assert f"none of 8 images of {labelled} can be read; the first: {labelled}" in said and "no such file" in said
    [row] = csv.DictReader((tmp_path / "run" / "metrics.csv").open())
    assert float(row["feature_std"]) and "knn_top1" not in row
    assert read_checkpoint(tmp_path / "run").progress.epoch == 1


def block(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_images_whose_reading_does_not_end_stop_neither_the_probes_nor_the_report(
    images, labelled, tmp_path, capsys, monkeypatch
):
    """A named pipe without a writer among the images, all of which are seen in training, and later among kNN's."""
    monkeypatch.setattr(reading, "LOOK_EVERY_S", 0.1)
    draw(images, 4, seed=7)
    listed = images / "list.txt"
    listed.write_text("".join(f"{path.name}\n" for path in sorted(images.glob("*.png"))))
    block(images / "0_3.png")

    def fit_with_one_blocked(*arguments, **options):
        block(sorted((labelled / "a").iterdir())[0])
        return fit(*arguments, **options)

    monkeypatch.setattr("cmid.commands.pretrain.fit", fit_with_one_blocked)
    given_up = []

    def give_up(stuck, *rest):
        given_up.append(stuck.file)
        return reading.give_up(stuck, *rest)

    monkeypatch.setattr("cmid.data.images.give_up", give_up)
    words = ["--recipe", "cmid-tiny", "--out", str(tmp_path / "run"), "--knn.data", str(labelled), "--epochs", "2"]
    slow = ["--train.workers", "1", "--read-timeout-s", "2", "--max-bad-share", "0.5"]
    assert main(["pretrain", str(listed), *words, *slow]) == 0
    assert len(given_up) == 1, "kNN's image, once; the other is known from training"
    assert "Warning" not in capsys.readouterr().err
    table = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert all(float(row["knn_top1"]) >= 0 and float(row["feature_std"]) for row in table) and len(table) == 2
    assert (tmp_path / "run" / "report.html").is_file()


def test_parity_squashes_the_images(images, tmp_path):
    assert run(images, tmp_path / "run", "--cmid.mode", "parity", "--train.max-steps", 1) == 0
    assert yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["views"]["squash"] is True
    assert read_metadata(tmp_path / "run" / "backbone.safetensors").mode == "parity"


def test_same_seed_same_losses_other_seed_others(images, tmp_path):
    losses = []
    for name, seed, workers in (("a", 1, 0), ("b", 1, 2), ("c", 2, 0)):
        assert run(images, tmp_path / name, "--seed", seed, "--train.workers", workers) == 0
        losses.append([row["total"] for row in csv.DictReader((tmp_path / name / "steps.csv").open())])
    assert losses[0] == losses[1], "another number of workers changes nothing"
    assert losses[0] != losses[2]


def test_odd_images_are_read(tmp_path):
    folder = draw(tmp_path / "odd", 1)
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8))
    colour.resize((1, 1)).save(folder / "pixel.png")
    Image.fromarray(rng.integers(0, 65535, (40, 50), np.uint16)).save(folder / "sixteen.png")
    colour.convert("P").save(folder / "palette.png")
    colour.convert("L").save(folder / "grey.jpg")
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    colour.convert("RGBA").save(folder / "alpha.png")
    colour.resize((5, 9)).save(folder / "deep_small.webp")
    assert run(folder, tmp_path / "run", "--batch-size", 8) == 0
    assert not (tmp_path / "run" / "skipped.csv").exists(), "none of them is bad"


def test_some_corrupt_images_are_skipped_and_listed(images, tmp_path):
    whole = next(images.iterdir()).read_bytes()
    (images / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (images / "text.jpg").write_text("no image")
    assert run(images, tmp_path / "run", "--max-bad-share", 0.3, "--epochs", 2, "--batch-size", 5) == 0
    skipped = {Path(row["path"]).name: row["reason"] for row in csv.DictReader((tmp_path / "run/skipped.csv").open())}
    assert set(skipped) == {"truncated.png", "text.jpg"}
    assert all(skipped.values())


def test_too_many_corrupt_images_stop_the_run(images, tmp_path, capsys):
    for path in list(images.iterdir())[:4]:
        path.write_bytes(b"broken")
    assert run(images, tmp_path / "run", "--batch-size", 8) == 1
    error = one_line(capsys)
    assert "too many unreadable images" in error
    assert "max_bad_share" in error


def test_all_corrupt(images, tmp_path, capsys):
    for path in images.iterdir():
        path.write_bytes(b"broken")
    assert run(images, tmp_path / "run") == 1
    assert "unreadable" in one_line(capsys)


@pytest.mark.parametrize(("count", "words"), [(0, "no images"), (1, "one image")])
def test_too_few_images(count, words, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    draw(tmp_path / "images", count)
    assert run(tmp_path / "images", tmp_path / "run") == 2
    assert words in one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--backbone", "resnet81"], "resnet18"),
        (["--method", "cmdi"], "cmid"),
        (["--recipe", "cmid-smal"], "cmid-small"),
        (["--cmid.temperatur", "0.1"], "cmid.temperature"),
        (["--epochs", "many"], "epochs"),
        (["--batch-size", "9"], "largest batch that fits is 8"),
        (["--batch-size", "1"], "at least 2"),
        (["--views.size", "60"], "64"),
        (["--views.mean", "0.5,0.5"], "views.mean has 2 values for 3 bands"),
        (["--views.std", "0.5"], "views.std has 1 values for 3 bands"),
        (["--views.bands", "red,green"], "views.bands has 2 values for 3 bands"),
        (["--views.low", "0,0"], "these are bytes: leave them out"),
        (["--views.low", "0,0,0", "--views.high", "1,1,1"], "these are bytes: leave them out"),
        (["--in-chans", "4"], "read as RGB"),
        (["--cmid.local-stage", "7"], "4 maps"),
        (["--epochs", "0"], "at least 1"),
        (["--cmid.mode", "parity", "--cmid.queue-size", "7"], "multiple"),
        (["--cmid.reconstruction-weight", "0", "--cmid.global-weight", "0", "--cmid.local-weight", "0"], "branches"),
        (["--cmid.mode", "parity", "--train.accumulate", "2"], "adds up"),
        (["--cmid.queue-size", "99999999999"], "memory of this machine cannot hold cmid on"),
        (["--optimizer.lr", "1e300"], "expected 0 to 1e+30"),
        (["--cmid.mode", "parity", "--train.strategy", "fsdp"], "moves within the forward pass"),
        (["--seed", "99999999999999999999"], "seed"),
        (["--knn.data", "nowhere"], "nowhere"),
    ],
)
def test_requests_that_cannot_be_carried_out(words, expected, images, tmp_path, capsys):
    base = ["pretrain", str(images), "--out", str(tmp_path / "run"), "--no-report"]
    base += [] if "--recipe" in words else ["--recipe", "cmid-tiny"]
    assert main([*base, *words]) == 2
    assert expected in one_line(capsys)
    assert not (tmp_path / "run").exists(), "nothing is left of a run that never began"


def test_settings_that_are_seldom_meant_are_pointed_out(images, tmp_path, capsys):
    settings = ["--optimizer.warmup-epochs", 10, "--cmid.queue-size", 64, "--train.max-steps", 1]
    assert run(images, tmp_path / "[/odd] name", *settings) == 0
    said = capsys.readouterr().err
    for words in (
        "warms up over 10 of 1 epochs",
        "warmup_epochs 0.1 would be a tenth",
        "a queue of 64",
        "rises over 50 epochs",
        "[/odd] name",
    ):
        assert words in said


def test_a_run_is_never_overwritten(images, tmp_path, capsys):
    assert run(images, tmp_path / "run") == 0
    before = (tmp_path / "run" / "steps.csv").read_bytes()
    capsys.readouterr()
    assert run(images, tmp_path / "run") == 2
    assert "--resume" in one_line(capsys)
    assert (tmp_path / "run" / "steps.csv").read_bytes() == before


def test_nothing_to_resume(images, tmp_path, capsys):
    assert run(images, tmp_path / "run", "--resume") == 2
    assert "resume" in one_line(capsys)


@pytest.mark.parametrize(("out", "words"), [("full", ()), ("gone", ("--resume",)), ("/proc/no_such_run", ())])
def test_a_folder_that_cannot_be_taken_is_refused_before_anything_is_read(tmp_path, capsys, monkeypatch, out, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    monkeypatch.setattr("cmid.commands.pretrain.open_source", lambda *_, **__: pytest.fail("opened"))
    assert run("no_images", tmp_path / out, *words) == 2
    assert re.search("Choose another --out|Start without --resume", one_line(capsys))


def test_a_run_goes_on_by_its_own_settings_and_on_its_own_images_only(images, tmp_path, capsys):
    assert run(images, tmp_path / "run", "--epochs", "2", "--train.max-steps", "1") == 0
    resume = ["--out", str(tmp_path / "run"), "--resume", "--no-report", "--train.max-steps", "0"]
    others = draw(tmp_path / "others", 8, seed=5)
    capsys.readouterr()
    assert main(["pretrain", str(others), *resume]) == 2
    assert "fingerprint was" in one_line(capsys)
    moved = images.rename(tmp_path / "moved")
    assert main(["pretrain", str(moved), *resume]) == 0  # without the recipe
    assert read_checkpoint(tmp_path / "run").progress.epoch == 2


def test_devices_and_nodes_have_short_names(images, tmp_path, capsys):
    assert run(images, tmp_path / "run", "--devices", "0") == 2
    assert "train.devices" in one_line(capsys)


def test_a_directory_that_cannot_be_written(images, capsys):
    assert run(images, "/proc/no_such_run") == 2
    assert "cannot be written" in one_line(capsys)


def test_resuming_with_another_architecture_is_refused(images, tmp_path, capsys):
    assert run(images, tmp_path / "run", "--train.max-steps", 1) == 0
    capsys.readouterr()
    assert run(images, tmp_path / "run", "--resume", "--backbone", "resnet34") == 2
    assert "backbone" in one_line(capsys)


def test_a_checkpoint_with_code_in_it_is_refused_not_run(images, tmp_path, capsys):
    assert run(images, tmp_path / "run", "--train.max-steps", 1) == 0
    witness = tmp_path / "witness"

    class Evil:
        def __reduce__(self):
            return Path.touch, (witness,)

    torch.save({"learner": Evil()}, tmp_path / "run" / "checkpoints" / "last.ckpt", pickle_module=pickle)
    capsys.readouterr()
    assert run(images, tmp_path / "run", "--resume") != 0
    one_line(capsys)
    assert not witness.exists()


def test_a_loss_that_is_not_finite_stops_and_names_the_images(images, tmp_path, capsys):
    assert run(images, tmp_path / "run", "--optimizer.lr", 1e30, "--epochs", 20) == 1
    assert "finite" in one_line(capsys)
    named = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert {p.name for p in images.iterdir()} >= {Path(f).name for f in named["files"]} > set()
    if (tmp_path / "run/checkpoints/last.ckpt").exists():
        state = read_checkpoint(tmp_path / "run").learner_state
        assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())


def test_a_list_that_names_an_image_twice_is_told(images, tmp_path, capsys):
    names = [path.name for path in sorted(images.iterdir())]
    (images / "list.txt").write_text("\n".join([*names, names[0]]))
    assert run(images / "list.txt", tmp_path / "run", "--train.max-steps", 1) == 0
    assert f"note: 1 of 9 entries of {images / 'list.txt'} name an image once more" in capsys.readouterr().err
