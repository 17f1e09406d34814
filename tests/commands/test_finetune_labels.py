"""Fine-tuning on labels that stand in files, and on images of several classes, from the command line."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

from cmid.cli import main
from cmid.zoo.classifier_files import load_classifier
from tests.commands.test_finetune import SMALL, draw, one_line
from tests.data.big_earth_net import big_earth_net

CLASSES = ("blue", "green", "red")


def several(folder, count=36):
    """Images that are of every class whose colour is strong in them, under noise, and their table."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["image,labels"]
    for i in range(count):
        mine = [bool(i >> k & 1) for k in range(3)]  # every mixture in turn, none of them included
        pixels = rng.integers(0, 110, (72, 80, 3), np.uint8)
        for k, there in enumerate(mine):
            pixels[..., 2 - k] += np.uint8(120 * there)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        lines.append(f"{i:02d}.png,{';'.join(n for n, there in zip(CLASSES, mine, strict=True) if there)}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def run(data, out, *words, weights="random"):
    own = SMALL if weights == "random" else SMALL[2:]
    return main(["finetune", "classification", weights, str(data), "--out", str(out), *own, *map(str, words)])


def test_several_classes_an_image_are_learned_scored_and_predicted(tmp_path, capsys):
    table = several(tmp_path / "images")
    assert run(table, tmp_path / "run", "--epochs", 12, "--report") == 0
    said = capsys.readouterr().err
    assert "classification of 3 classes, any number of them an image" in said and "mAP " in said
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    rows = list(csv.DictReader((tmp_path / "run" / "test_predictions.csv").open()))
    truth = np.array([[name in row["class"].split(";") for name in CLASSES] for row in rows])
    chances = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    each = [average_precision_score(truth[:, k], chances[:, k]) for k in range(3) if truth[:, k].any()]
    assert scores["mean_average_precision"] == pytest.approx(np.mean(each), abs=1e-6)
    assert scores["micro_f1"] == pytest.approx(f1_score(truth, chances > 0.5, average="micro"))
    assert scores["interval"][0] <= scores["mean_average_precision"] <= scores["interval"][1]
    assert scores["mean_average_precision"] > 0.8, "the colours are told apart"
    assert [row["predicted"].split(";") for row in rows] == [
        [n for n, c in zip(CLASSES, line, strict=True) if c > 0.5] or [""] for line in chances
    ]
    assert run(table, tmp_path / "held", "--epochs", 2, "--hold_out", 0.2) == 0
    metrics = list(csv.DictReader((tmp_path / "held" / "metrics.csv").open()))
    assert all(0 <= float(row["validation_map"]) <= 100 for row in metrics)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Each class" in page and ">AP<" in page and "Confusion matrix" not in page
    model, about = load_classifier(tmp_path / "run" / "model.safetensors")
    assert about.multi_label and model.multi_label
    assert (
        main(
            [
                "predict",
                "classification",
                str(tmp_path / "run"),
                str(tmp_path / "images"),
                "--out",
                str(tmp_path / "p.csv"),
            ]
        )
        == 0
    )
    predicted = {row["image"].rpartition("/")[2]: row for row in csv.DictReader((tmp_path / "p.csv").open())}
    for row in rows:
        assert predicted[row["image"].rpartition("/")[2]]["class"] == row["predicted"]


def relabelled(path):
    """The first two images of another class each change labels; names and order stay."""
    head, *lines = path.read_text().splitlines()
    mark = "," if path.suffix == ".csv" else " "
    rows = [line.rsplit(mark, 1) for line in lines]
    other = next(i for i, row in enumerate(rows) if row[1] != rows[0][1])
    rows[0][1], rows[other][1] = rows[other][1], rows[0][1]
    path.write_text("\n".join([head, *(mark.join(row) for row in rows), ""]))


@pytest.mark.parametrize("kind", ["table of several classes", "published lists"])
def test_a_run_does_not_go_on_with_other_labels_of_the_same_images(tmp_path, capsys, kind):
    data = table = several(tmp_path / "images", 16)
    if kind == "published lists":
        data, table = table.parent, table.with_name("train.txt")
        (data / "labels.csv").unlink()
        (data / "img").mkdir()
        for path in sorted(data.glob("*.png")):
            path.rename(data / "img" / path.name)
        table.write_text("".join(f"{i:02d}.png {i % 2}\n" for i in range(12)))
        (data / "test.txt").write_text("".join(f"{i:02d}.png {i % 2}\n" for i in range(12, 16)))
    else:
        rows = table.read_text().splitlines()
        split = [f"{row.split(',')[0]},{'train' if i < 12 else 'test'},{row.split(',')[1]}" for i, row in
                 enumerate(rows[1:])]  # fmt: skip
        table.write_text("\n".join(["image,split,labels", *split, ""]))
    words = ["--epochs", 3, "--duplicates", "off", "--train.max_steps"]
    assert run(data, tmp_path / "run", *words, 1) == 0
    assert run(data, tmp_path / "run", *words, 2, "--resume") == 0, "nothing has changed"
    kept = table.read_text()
    relabelled(table)
    capsys.readouterr()
    assert run(data, tmp_path / "run", *words, 3, "--resume") == 2
    said = one_line(capsys)
    assert "was started with other numbers: labels was" in said and "fingerprint" not in said
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    begun_before = torch.load(last, weights_only=True)
    del begun_before["fixed"]["labels"], begun_before["loader"]["labels"]
    torch.save(begun_before, last)
    table.write_text(kept)
    assert run(data, tmp_path / "run", *words, 3, "--resume") == 0, "runs of earlier versions do not say"


def test_several_classes_few_labels_weights_and_other_requests(tmp_path, capsys):
    table = several(tmp_path / "images")
    few = ["--per_class", 4, "--classification.class_weights", "balanced", "--epochs", 1]
    assert run(table, tmp_path / "few", *few) == 0
    kept = json.loads((tmp_path / "few" / "data.json").read_text())["split"]["train"]
    labels = {line.split(",")[0]: line.split(",")[1] for line in table.read_text().splitlines()[1:]}
    counts = [sum(name in labels[path.rpartition("/")[2]].split(";") for path in kept) for name in CLASSES]
    assert min(counts) == 4 and len(kept) < 12
    assert run(table, tmp_path / "many", "--per_class", 30) == 2
    assert "training images: lower it" in one_line(capsys)
    assert main(["evaluate", "knn", "random", str(table), "--backbone", "test_resnet"]) == 2
    assert "may be of several classes, and kNN and linear probes name one" in one_line(capsys)
    single = draw(tmp_path / "single")
    assert run(single, tmp_path / "one", weights=str(tmp_path / "few")) == 2
    assert "is a classifier of several classes an image, but" in one_line(capsys)


def test_what_several_classes_an_image_cannot_have(tmp_path, capsys):
    table = several(tmp_path / "images")
    assert run(table, tmp_path / "run", "--epochs", 1, "--published-protocol") == 2
    assert "the published protocol is for one class an image" in one_line(capsys)
    lines = table.read_text().splitlines()
    with_split = [f"{line},{'test' if line.endswith(',') else 'train'}" for line in lines[1:]]
    (tmp_path / "images" / "none.csv").write_text("\n".join([f"{lines[0]},split", *with_split]))
    assert run(tmp_path / "images" / "none.csv", tmp_path / "run", "--epochs", 1) == 2
    assert "no test image" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_pictures_on_both_sides_are_left_out_unless_a_class_would_end(tmp_path, capsys):
    folder = several(tmp_path / "images", 12).parent
    Image.open(folder / "01.png").save(folder / "twin.png")  # 01 is blue alone
    rows = [f"{i:02d}.png,train,{i & 1},{i >> 1 & 1},{i >> 2 & 1}" for i in range(12)]
    head = "image,split,blue,green,red"
    (folder / "labels.csv").write_text("\n".join([head, *rows, "twin.png,test,1,0,0", "twin2.png,test,0,1,0"]))
    Image.open(folder / "01.png").transpose(Image.Transpose.ROTATE_180).save(folder / "twin2.png")
    assert run(folder / "labels.csv", tmp_path / "run", "--epochs", 1, "--duplicates", "drop") == 0
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert data["duplicates"]["dropped"] == 1 and len(data["split"]["train"]) == 11
    rows[1] = "01.png,train,1,0,1"
    only = [row if i == 1 else f"{row[:-1]}0" for i, row in enumerate(rows)]  # red nowhere else
    (folder / "labels.csv").write_text("\n".join([head, *only, "twin.png,test,1,0,0"]))
    capsys.readouterr()
    assert run(folder / "labels.csv", tmp_path / "two", "--epochs", 1, "--duplicates", "drop") == 2
    assert "all training images of red are in test as well" in one_line(capsys)


def test_the_published_layout_without_a_flag(tmp_path):
    source, root = draw(tmp_path / "source"), tmp_path / "published"
    (root / "img").mkdir(parents=True)
    sides = {"train": [], "test": []}
    for number, name in enumerate(CLASSES):
        for i, path in enumerate(sorted((source / name).iterdir())):
            path.rename(root / "img" / f"{name}{i}.png")
            sides["train" if i % 4 else "test"].append(f"{name}{i}.png {number}")
    for side, lines in sides.items():
        (root / f"{side}.txt").write_text("\n".join(lines) + "\n")
    assert run(root, tmp_path / "run", "--epochs", 1) == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["images"] == len(sides["test"]) and [c["name"] for c in scores["per_class"]] == ["0", "1", "2"]
    assert main(["evaluate", "knn", "random", str(root), "--backbone", "test_resnet", "--size", "64"]) == 0


@pytest.mark.parametrize("kind", ["published lists", "lists of a folder", "table of several classes"])
def test_training_images_of_one_class_are_refused(tmp_path, capsys, kind):
    root = draw(tmp_path / "images", 4)
    words, what = [], "green"
    if kind == "published lists":
        (root / "green").rename(root / "img")
        for side, numbers in (("train", range(3)), ("test", [3])):
            (root / f"{side}.txt").write_text("".join(f"{i}.png 3\n" for i in numbers))
        what = "3"
    elif kind == "lists of a folder":
        for side, numbers in (("train", range(3)), ("test", [3])):
            (tmp_path / f"{side}.txt").write_text("".join(f"green/{i}.png\n" for i in numbers))
            words += [f"--{side}-list", str(tmp_path / f"{side}.txt")]
    else:
        rows = [f"green/{i}.png,{'test' if i == 3 else 'train'},0,1,1" for i in range(4)]
        (root / "labels.csv").write_text("\n".join(["image,split,blue,green,red", *rows]))
        what = "green and red"
    says = f"all 3 training images of {root} have the same label, {what}: expected two classes or more"
    assert run(root, tmp_path / "run", "--epochs", 1, *words) == 2
    assert says in one_line(capsys) and not (tmp_path / "run").exists()
    if kind != "table of several classes":
        assert main(["evaluate", "knn", "random", str(root), "--backbone", "test_resnet", *words]) == 2
        assert says in one_line(capsys)


def test_big_earth_net_from_its_twelve_bands_to_a_classifier(tmp_path):
    root = big_earth_net(tmp_path / "ben")
    named = f"torchgeo:BigEarthNet?root={root}&bands=s2"
    pretrain = ["pretrain", f"{named}&split=train", "--recipe", "cmid-tiny", "--out", str(tmp_path / "pre")]
    assert main([*pretrain, "--train.max_steps", "1", "--no-report", "--train.accelerator", "cpu"]) == 0
    words = ["--epochs", "1", "--batch-size", "4", "--train.workers", "0", "--no-report", "--train.accelerator", "cpu"]
    line = ["finetune", "classification", str(tmp_path / "pre"), named, "--out", str(tmp_path / "run"), *words]
    assert main(line) == 0
    model, about = load_classifier(tmp_path / "run" / "model.safetensors")
    assert about.multi_label and about.backbone.in_chans == 12 and len(about.classes) == 19
    assert about.classes[9] == "Coniferous forest"
    split = json.loads((tmp_path / "run" / "data.json").read_text())["split"]
    assert (len(split["train"]), len(split["test"])) == (8, 4)
    assert model.probabilities(torch.zeros(1, 12, 64, 64)).shape == (1, 19)
