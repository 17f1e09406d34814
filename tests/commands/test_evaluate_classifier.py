"""A finished classifier on other labelled images."""

import csv
import json

import pytest
from PIL import Image

from cmid.cli import main
from tests.commands.test_finetune import SMALL, draw, one_line
from tests.commands.test_finetune_labels import several


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on colours, and its images."""
    root = tmp_path_factory.mktemp("trained")
    images = draw(root / "images")
    line = ["finetune", "classification", "random", str(images), "--out", str(root / "run"), *SMALL, "--epochs", "6"]
    assert main(line) == 0
    return root / "run", images


def evaluate(run, data, *more):
    return main(["evaluate", "classification", str(run), str(data), "--workers", "0", *map(str, more)])


def test_on_its_own_test_images_it_says_what_it_said_after_training(trained, tmp_path, capsys):
    run, images = trained
    split = json.loads((run / "data.json").read_text())["split"]["test"]
    (tmp_path / "test.txt").write_text("\n".join(path.removeprefix(f"{images}/") for path in split) + "\n")
    out = tmp_path / "scores"
    assert evaluate(run, images, "--test_list", tmp_path / "test.txt", "--out", out, "--precision", "32") == 0
    before, after = (json.loads((folder / "scores.json").read_text()) for folder in (run, out))
    for key in ("overall_accuracy", "kappa", "confusion", "images", "interval"):
        assert after[key] == before[key], key
    mine, theirs = (list(csv.DictReader((f / "test_predictions.csv").open())) for f in (out, run))
    assert {r["image"]: r["predicted"] for r in mine} == {r["image"]: r["predicted"] for r in theirs}
    page = (out / "report.html").read_text()
    assert "Confusion matrix" in page and "Calibration" in page
    assert evaluate(run, images, "--out", out) == 2
    assert "holds something: name a folder that is new or empty" in one_line(capsys)


def test_classes_are_matched_by_name(trained, tmp_path, capsys):
    run, images = trained
    other = tmp_path / "other"
    (other / "aaa").mkdir(parents=True)
    for name in ("red", "blue"):  # one of the three is missing, and one is new, so that numbers shift
        (other / name).symlink_to(images / name)
    Image.new("RGB", (72, 80)).save(other / "aaa" / "x.png")
    assert evaluate(run, other) == 2
    said = one_line(capsys)
    assert "the model does not know 1 classes of" in said and "aaa; it knows blue, green, red" in said
    assert evaluate(run, other, "--leave_out_unknown", "--out", tmp_path / "scores") == 0
    said = capsys.readouterr().err
    assert "1 classes that the model does not know are left out, 1 images with them" in said
    assert "1 of the model's 3 classes have no image here" in said
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert scores["images"] == 20 and scores["overall_accuracy"] > 0.6
    assert [c["support"] for c in scores["per_class"]] == [10, 0, 10]


def test_what_cannot_be_scored(trained, tmp_path, capsys):
    run, images = trained
    strange = tmp_path / "strange"
    for name in ("p", "q"):
        (strange / name).mkdir(parents=True)
        Image.new("RGB", (72, 80)).save(strange / name / "x.png")
    assert evaluate(run, strange, "--leave_out_unknown") == 2
    assert "the model knows no class of" in one_line(capsys)
    assert evaluate(run, several(tmp_path / "several")) == 2
    assert "names one class an image, but the images of" in one_line(capsys)
    assert evaluate(tmp_path / "none", images) == 2
    assert "No such file" in one_line(capsys)
    assert evaluate(run, images, "--train_list", "x") == 2
    assert "leave train_list out" in one_line(capsys)
