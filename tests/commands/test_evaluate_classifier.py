"""`cmid evaluate classification`: the same figures as fine-tuning's own, classes by name, and what is refused."""

import csv
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, cohen_kappa_score

import cmid
from cmid.backbones import create_backbone
from cmid.cli import main
from cmid.errors import CmidError, UsageError
from cmid.tasks.classification import Classifier
from cmid.zoo.backbone_files import BackboneMetadata, save_backbone
from cmid.zoo.classifier_files import ClassifierMetadata, save_classifier
from tests.commands.test_finetune import draw, run
from tests.commands.test_finetune_labels import several
from tests.data.test_torchgeo_datasets import draw_eurosat, draw_resisc

CLASSES = ("blue", "green", "red")
PLAIN = {"precision": "32", "workers": 0, "accelerator": "cpu"}
WORDS = ["--precision", "32", "--workers", "0", "--accelerator", "cpu"]
EXACT = ("overall_accuracy", "average_accuracy", "kappa", "macro_f1", "interval", "per_class", "confusion", "confused")
NEAR = ("expected_calibration_error", "negative_log_likelihood")


def model(path, classes=CLASSES, in_chans=3, multi_label=False, **numbers):
    torch.manual_seed(3)
    task = Classifier(create_backbone("test_resnet", in_chans, mask_stage=None), len(classes))
    torch.nn.init.normal_(task.head.weight)
    values = {"mean": (0.3,) * in_chans, "std": (0.2,) * in_chans, "size": 64} | numbers
    about = ClassifierMetadata(BackboneMetadata("test_resnet", in_chans, **values), classes, multi_label)
    return save_classifier(path, task, about)


def evaluate(path, data, **settings):
    return cmid.evaluate("classification", path, data, **PLAIN | settings)


def rows_of(folder):
    return list(csv.DictReader((folder / "test_predictions.csv").open()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Images, and a short run on them."""
    folder = tmp_path_factory.mktemp("finished")
    images = draw(folder / "images")
    assert run(images, folder / "run", "--epochs", 2) == 0
    return images, folder / "run"


def test_on_its_own_test_images_a_model_has_the_scores_that_its_run_wrote(finished, tmp_path, capsys):
    images, run_folder = finished
    split = json.loads((run_folder / "data.json").read_text())["split"]
    (tmp_path / "test.txt").write_text("\n".join("/".join(n.split("/")[-2:]) for n in split["test"]))
    capsys.readouterr()
    command = ["evaluate", "classification", str(run_folder), str(images), "--test-list", str(tmp_path / "test.txt")]
    assert main([*command, "--out", str(tmp_path / "out"), *WORDS]) == 0
    said = capsys.readouterr().out
    theirs, ours = (json.loads((f / "scores.json").read_text()) for f in (run_folder, tmp_path / "out"))
    assert {k: ours[k] for k in EXACT} == {k: theirs[k] for k in EXACT}
    assert {k: ours[k] for k in NEAR} == pytest.approx({k: theirs[k] for k in NEAR}, rel=1e-5)
    assert ours["confident_mistakes"] == theirs["confident_mistakes"] and len(theirs["confident_mistakes"]) > 0
    assert [r["predicted"] for r in rows_of(tmp_path / "out")] == [r["predicted"] for r in rows_of(run_folder)]
    assert f"overall accuracy {100 * theirs['overall_accuracy']:.2f} %" in said and "calibration error" in said
    assert ours["trained_on"] == 0 and "caution" not in said
    page = (tmp_path / "out" / "report.html").read_text()
    for anchor in ("confusion", "classes", "calibration"):
        assert f'id="{anchor}"' in page
    assert "steps.csv" not in page and "http://" not in page and "https://" not in page


def test_all_images_are_scored_and_those_it_was_trained_on_are_told(finished, tmp_path, capsys):
    images, run_folder = finished
    found = evaluate(run_folder / "model.safetensors", images, out=tmp_path / "out", report=False)
    rows = rows_of(tmp_path / "out")
    truth, predicted = [r["class"] for r in rows], [r["predicted"] for r in rows]
    assert len(rows) == found.scores["images"] == 30
    assert found.accuracy == pytest.approx(100 * accuracy_score(truth, predicted))
    assert found.scores["average_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert found.scores["kappa"] == pytest.approx(cohen_kappa_score(truth, predicted))
    assert found.low <= found.accuracy <= found.high
    learned = set(json.loads((run_folder / "data.json").read_text())["split"]["train"])
    new = [r for r in rows if r["image"] not in learned]
    expected = accuracy_score([r["class"] for r in new], [r["predicted"] for r in new])
    assert found.scores["trained_on"] == 24
    assert found.scores["overall_accuracy_without_duplicates"] == pytest.approx(expected)
    said = capsys.readouterr().out
    assert "caution: 24 of these images are among those the model was trained on" in said
    assert f"{100 * expected:.2f} % without 24 that are in train" in said
    assert not (tmp_path / "out" / "report.html").exists()


def test_classes_are_matched_by_name_and_not_by_position(tmp_path, capsys):
    """The same images under the same names, but with one class missing and another before: same answers."""
    path = model(tmp_path / "model.safetensors")
    whole = draw(tmp_path / "whole", of_each=6)
    evaluate(path, whole, out=tmp_path / "a")
    (whole / "blue").rename(tmp_path / "blue")
    (whole / "azure").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(whole / "azure" / "x.png")
    capsys.readouterr()
    with pytest.raises(UsageError, match=r"does not know 1 of the classes of .*: azure \(1 image\)"):
        evaluate(path, whole, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()
    found = evaluate(path, whole, out=tmp_path / "b", ignore_unknown_classes=True)
    said = capsys.readouterr().out
    assert "1 images of classes it does not know are left out: azure (1 image)" in said
    assert "1 of its classes have no image here: blue" in said
    assert found.scores["classes_left_out"] == {"azure": 1} and found.scores["classes_without_images"] == ["blue"]
    before = {r["image"]: r for r in rows_of(tmp_path / "a")}
    after = rows_of(tmp_path / "b")
    assert len(after) == 12 and all(
        (r["class"], r["predicted"]) == (before[r["image"]]["class"], before[r["image"]]["predicted"]) for r in after
    )
    assert {r["class"] for r in after} == {"green", "red"}
    assert np.array(found.scores["confusion"]).sum(1).tolist() == [0, 6, 6]


def test_classes_called_as_columns_are_told_from_them(tmp_path):
    names = ("class", "image", "predicted", "probability")
    images = draw(tmp_path / "images", 4, names)
    path = model(tmp_path / "model.safetensors", names)
    scores = evaluate(path, images, out=tmp_path / "out").scores
    head = (tmp_path / "out" / "test_predictions.csv").read_text().splitlines()[0]
    assert head == "image,class,predicted,class class,class image,class predicted,probability"
    rows = {row["image"]: row for row in rows_of(tmp_path / "out")}
    assert {row["class"] for row in rows.values()} == set(names) and scores["confident_mistakes"]
    page = (tmp_path / "out" / "report.html").read_text()
    for name in scores["confident_mistakes"]:
        row = rows[name]
        assert name.split("/")[-2] == row["class"] != row["predicted"]
        columns = {each: each if each == "probability" else f"class {each}" for each in names}
        chances = {each: float(row[column]) for each, column in columns.items()}
        assert row["predicted"] == max(chances, key=chances.get)
        figure = f"<b>{row['class']} </b><span>called {row['predicted']}, {100 * max(chances.values()):.0f} %</span>"
        assert figure in page
    assert main(["predict", "classification", str(path), str(images), "--out", str(tmp_path / "p.csv"), *WORDS]) == 0
    for row in csv.DictReader((tmp_path / "p.csv").open()):
        chances = {each: float(row[each if each == "predicted" else f"class {each}"]) for each in names}
        assert row["image"] in rows and row["class"] == max(chances, key=chances.get)
        assert float(row["probability"]) == max(chances.values())


def test_a_single_class_is_enough_and_unreadable_images_are_told(tmp_path, capsys):
    path = model(tmp_path / "model.safetensors")
    images = draw(tmp_path / "images", of_each=4, classes=("red",))
    (images / "red" / "0.png").write_bytes(b"no image")
    found = evaluate(path, images)
    said = capsys.readouterr().out
    assert (
        found.out is None
        and found.scores["images"] == 3
        and list(found.scores["skipped"]) == [str(images / "red" / "0.png")]
    )
    assert "0.png could not be read" in said and "3 images, 1 could not be read" in said


def test_a_data_set_of_torchgeo_gives_the_split_that_is_named_or_test(tmp_path, capsys):
    path = model(tmp_path / "model.safetensors", classes=("forest", "beach", "river"))
    name = f"torchgeo:UCMerced?root={draw_resisc(tmp_path)}"
    assert evaluate(path, name, ignore_unknown_classes=True).scores["images"] == 2
    said = capsys.readouterr().out
    assert "split test" in said and "1 of its classes have no image here: river" in said
    assert evaluate(path, f"{name}&split=val").scores["images"] == 8
    with pytest.raises(UsageError, match="test_list is for folders"):
        evaluate(path, name, test_list="list.txt")


def test_several_classes_an_image_are_matched_by_name_and_scored_by_map(tmp_path, capsys):
    path = model(tmp_path / "model.safetensors", ("red", "green", "blue", "grey"), multi_label=True)
    table = several(tmp_path / "images")
    table.write_text(table.read_text().replace("blue", "azure"))
    with pytest.raises(UsageError, match=r"does not know 1 of the classes of .*: azure \(18 images\)"):
        evaluate(path, table)
    found = evaluate(path, table, out=tmp_path / "out", ignore_unknown_classes=True, bootstrap=20)
    said = capsys.readouterr().out
    assert "classes it does not know are left out: azure" in said and "no image here: blue, grey" in said
    rows = rows_of(tmp_path / "out")
    labels = dict(line.split(",") for line in table.read_text().splitlines()[1:])
    assert len(rows) == 36 and found.scores["classes_left_out"] == {"azure": 18}
    areas = []
    for name in ("red", "green"):
        truth = [name in labels[r["image"].rpartition("/")[2]].split(";") for r in rows]
        areas.append(average_precision_score(truth, [float(r[name]) for r in rows]))
        assert truth == [name in r["class"].split(";") for r in rows]
    assert found.accuracy == pytest.approx(100 * np.mean(areas), abs=1e-3)
    assert f"mAP {found.accuracy:.2f} %" in said and ">AP<" in (tmp_path / "out" / "report.html").read_text()


def test_of_data_that_say_what_is_for_test_that_is_scored(tmp_path):
    images = draw(tmp_path / "images", of_each=2)
    names = [f"images/{c}/{i}.png" for c in CLASSES for i in range(2)]
    rows = [f"{n},{n.split('/')[1]},{'test' if n.endswith('1.png') else 'train'}" for n in names]
    (tmp_path / "labels.csv").write_text("\n".join(["image,labels,split", *rows]))
    path = model(tmp_path / "several.safetensors", multi_label=True)
    evaluate(path, tmp_path / "labels.csv", out=tmp_path / "table")
    assert [r["image"] for r in rows_of(tmp_path / "table")] == [str(tmp_path / n) for n in names if "1.png" in n]
    (tmp_path / "labels.csv").unlink()  # a table is taken before lists
    images.rename(tmp_path / "img")
    (tmp_path / "train.txt").write_text("red/0.png 2\nblue/0.png 0\n")
    (tmp_path / "val.txt").write_text("green/1.png 1\nred/1.png 2\nblue/1.png 0\n")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    evaluate(model(tmp_path / "model.safetensors"), tmp_path, out=tmp_path / "lists", report=False)
    assert [r["class"] for r in rows_of(tmp_path / "lists")] == ["green", "red", "blue"]


def test_bands_and_depth_must_be_those_of_the_model(tmp_path):
    name = f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path / 'eurosat')}"
    classes = ("AnnualCrop", "Forest", "River")
    with pytest.raises(UsageError, match=r"is for 3 bands, but the images of .* have 13"):
        evaluate(model(tmp_path / "rgb.safetensors", classes), name)
    with pytest.raises(UsageError, match="deeper values, but the backbone was trained on 8 bits"):
        evaluate(model(tmp_path / "shallow.safetensors", classes, 13), name)
    deep = model(tmp_path / "deep.safetensors", classes, 13, low=(0.0,) * 13, high=(4000.0,) * 13)
    assert evaluate(deep, name).scores["images"] == 3
    with pytest.raises(UsageError, match=r"is for 13 bands, but .* is of image files, which are read as 8-bit RGB"):
        evaluate(deep, draw(tmp_path / "images", of_each=1))


def test_a_folder_that_holds_files_is_kept_unless_told_otherwise(finished, tmp_path):
    images, path = draw(tmp_path / "images", of_each=2), model(tmp_path / "model.safetensors")
    evaluate(path, images, out=tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("kept")
    before = (tmp_path / "out" / "scores.json").read_bytes()
    with pytest.raises(UsageError, match="holds files"):
        evaluate(path, images, out=tmp_path / "out", bootstrap=50)
    assert (tmp_path / "out" / "scores.json").read_bytes() == before
    evaluate(path, images, out=tmp_path / "out", bootstrap=50, overwrite=True, report=False)
    assert "50 resamples" in (tmp_path / "out" / "scores.json").read_text()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mine.txt", "scores.json", "test_predictions.csv"]
    kept = (finished[1] / "scores.json").read_bytes()
    with pytest.raises(UsageError, match="beside the scores of its own run"):
        evaluate(finished[1], images, out=finished[1], overwrite=True)
    assert (finished[1] / "scores.json").read_bytes() == kept
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        evaluate(path, images, out=tmp_path / "file")
    with pytest.raises(CmidError, match="cannot be written"):
        evaluate(path, images, out=tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("weights", "data", "settings", "words"),
    [
        ("backbone.safetensors", "images", {}, "is not a classifier's file"),
        ("pickled.pth", "images", {}, "is damaged, or no classifier's file"),
        ("nowhere", "images", {}, "No such file"),
        (".", "nowhere", {}, "no such folder"),
        (".", "empty", {}, "no folders in"),
        (".", "hollow", {}, "class red has no images"),
        (".", "others", {}, r"knows none of the classes of .*: Blue \(1 image\), Red \(1 image\)"),
        (".", "misspelt", {}, "Did you mean red"),
        (".", "images", {"test_list": "list.txt"}, "names files that are not in"),
        (
            ".",
            "images",
            {"size": 96},
            "size is read by `cmid evaluate knn` and `cmid evaluate linear`, not by cl",
        ),
        (".", "images", {"k": (3,), "train_list": "list.txt"}, "train_list, k is read by"),
        (
            "several/model.safetensors",
            "images",
            {},
            "names several classes an image, and the images of images have one",
        ),
        (".", "labels.csv", {}, "names one class an image, and the images of labels.csv have several"),
        ("several/model.safetensors", "labels.csv", {"test_list": "list.txt"}, "has a split of its own"),
    ],
)
def test_requests_that_cannot_be_carried_out(tmp_path, monkeypatch, weights, data, settings, words):
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "model.safetensors")
    (tmp_path / "several").mkdir()
    model(tmp_path / "several" / "model.safetensors", multi_label=True)
    save_backbone(tmp_path / "backbone.safetensors", create_backbone("test_resnet"), BackboneMetadata("test_resnet"))
    (tmp_path / "pickled.pth").write_bytes(pickle.dumps({"weights": 1}))
    (tmp_path / "list.txt").write_text("red/none.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "red").mkdir(parents=True)
    draw(tmp_path / "images", of_each=1)
    (tmp_path / "labels.csv").write_text("image,labels\nimages/red/0.png,red\nimages/blue/0.png,blue;red\n")
    draw(tmp_path / "others", of_each=1, classes=("Blue", "Red"))
    draw(tmp_path / "misspelt", of_each=1, classes=("blue", "read"))
    with pytest.raises(UsageError, match=words):
        evaluate(weights, data, out="out", **settings)
    assert not (tmp_path / "out").exists()


def test_its_settings_are_refused_by_the_other_kinds(tmp_path):
    for kind, setting, reader in (
        ("knn", {"ignore_unknown_classes": True}, "classification"),
        ("knn", {"regularisation": (1.0,)}, "linear"),
        ("linear", {"k": (3,)}, "knn"),
        ("linear", {"report": False}, "classification"),
    ):
        with pytest.raises(
            UsageError, match=f"{next(iter(setting))} is read by `cmid evaluate {reader}`, not by {kind}"
        ):
            cmid.evaluate(kind, "random", tmp_path, backbone="test_resnet", **setting)
