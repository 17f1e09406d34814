"""`cmid pretrain --method supervised` from the command line: labels found, and what is refused in words."""

import numpy as np
import pytest
import yaml
from PIL import Image

from cmid.cli import main
from cmid.commands.labels import _same_place, check_labels
from cmid.errors import UsageError
from cmid.train import read_checkpoint
from cmid.zoo.backbone_files import load_backbone
from tests.data.sen12ms_on_disk import cover, draw_sen12ms


def draw(root, **counts):
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


def run(data, out, *words):
    small = ["--method", "supervised", "--backbone", "resnet18", "--views.size", "32", "--batch-size", "4"]
    small += ["--train.workers", "0", "--train.precision", "32", "--train.max_steps", "2", "--train.accelerator", "cpu"]
    return main(["pretrain", str(data), "--out", str(out), *small, *map(str, words)])


def images_of(out):
    return read_checkpoint(out).state["loader"]["images"]


def test_a_labelled_folder(tmp_path, capsys):
    data, out = draw(tmp_path / "data", beach=3, field=4, town=2), tmp_path / "run"
    assert run(data, out) == 0
    assert "labels of 3 classes, one an image: beach 3, field 4, town 2" in capsys.readouterr().err
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    assert settings["supervised"] == {"classes": 3}
    assert images_of(out) == 9, "all of them are learned from"
    assert read_checkpoint(out).learner_state["head.weight"].shape == (3, 512)
    assert "supervised neither reconstructs nor matches" in (out / "report.html").read_text()
    backbone, metadata = load_backbone(out / "backbone.safetensors")
    assert metadata.method == "supervised" and not any("head" in key for key in backbone.weights())
    assert main(["extract", str(out), "--out", str(tmp_path / "again.safetensors")]) == 0


def test_a_run_goes_on_where_its_folder_was_moved_to_and_not_on_other_images(tmp_path, capsys):
    data, out = draw(tmp_path / "data", beach=4, field=4), tmp_path / "run"
    assert run(data, out, "--no-report") == 0
    moved = data.rename(tmp_path / "moved")
    again = ["pretrain", str(moved), "--out", str(out), "--resume", "--no-report", "--train.max_steps"]
    assert main([*again, "3"]) == 0
    assert read_checkpoint(out).progress.step == 3
    (moved / "beach" / "0.png").rename(moved / "beach" / "9.png")
    capsys.readouterr()
    assert main([*again, "4"]) == 2
    assert "fingerprint was" in capsys.readouterr().err
    draw(moved, town=4)
    assert main([*again, "4"]) == 2
    assert "supervised.classes is 2, but" in capsys.readouterr().err


def test_the_runs_own_knn_is_not_learned_from(tmp_path, capsys):
    data, out = draw(tmp_path / "data", beach=10, field=10), tmp_path / "run"
    assert run(data, out, "--knn.data", f"{data}/../data", "--no-report") == 0
    assert images_of(out) == 16
    assert "4 images that the run's kNN classifies are not learned from" in capsys.readouterr().err


def test_the_same_images_named_by_the_folder_above_are_not_learned_from_either(tmp_path):
    data, out = draw(tmp_path / "ucm" / "Images", beach=10, field=10), tmp_path / "run"
    assert run(data, out, "--knn.data", tmp_path / "ucm", "--no-report") == 0
    assert images_of(out) == 16
    assert _same_place("torchgeo:EuroSAT?root=/a", "torchgeo:EuroSAT?root=/a/")
    assert not _same_place("torchgeo:EuroSAT?root=/a", "torchgeo:EuroSAT?root=/b")
    assert not _same_place("torchgeo:EuroSAT?root=/a", "/a")


def test_some_of_the_images(tmp_path):
    assert run(draw(tmp_path / "data", beach=10, field=10), tmp_path / "run", "--limit", 12, "--no-report") == 0
    assert images_of(tmp_path / "run") == 12


def lay_out(root, kind):
    """Nine images, three of them for test: a table with several classes an image, or the published code's lists."""
    draw(root, img=9)
    if kind == "lists":
        for side, numbers in (("train", range(6)), ("test", range(6, 9))):
            (root / f"{side}.txt").write_text("".join(f"{i}.png {i % 3}\n" for i in numbers))
        (root / "classes.txt").write_text("beach\nfield\ntown\n")
        return root
    rows = [f"img/{i}.png,{'field;town' if i % 2 else 'beach'},{'train' if i < 6 else 'test'}\n" for i in range(9)]
    (root / "labels.csv").write_text("image,labels,split\n" + "".join(rows))
    return root / "labels.csv" if kind == "table" else root


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("table", "labels of 3 classes, several an image: beach 3, field 3, town 3"),
        ("folder with a table", "labels of 3 classes, several an image: beach 3, field 3, town 3"),
        ("lists", "labels of 3 classes, one an image: beach 2, field 2, town 2"),
    ],
)
def test_tables_and_lists(tmp_path, capsys, kind, said):
    out = tmp_path / "run"
    words = ["--train.max_steps", "1", *(["--no-report"] if kind != "table" else [])]
    assert run(lay_out(tmp_path / "data", kind), out, *words) == 0
    told = capsys.readouterr().err
    assert said in told and "3 images that are for test are not learned from" in told
    assert images_of(out) == 6
    assert read_checkpoint(out).learner_state["head.weight"].shape == (3, 512)
    assert kind != "table" or "cannot be shown" not in (out / "report.html").read_text()


@pytest.mark.parametrize("kind", ["single", "several"])
def test_sen12ms(tmp_path, capsys, kind):
    covers = [cover((17, 40), (10, 24)) if i % 2 else cover((1, 64)) for i in range(8)]
    draw_sen12ms(tmp_path / "sen12ms", covers, test=2)
    name = f"torchgeo:SEN12MS?root={tmp_path / 'sen12ms'}&labels={kind}"
    assert run(name, tmp_path / "run", "--no-report") == 0
    said = {"single": "one an image: forest 3, water 3", "several": "several an image: forest 3, grassland 3, water 3"}
    assert f"labels of 10 classes, {said[kind]}" in capsys.readouterr().err
    settings = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert (settings["in_chans"], settings["supervised"]["classes"]) == (15, 10)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({".": 8}, "no folders in"),
        ({"beach": 8}, "only one class, beach"),
        ({"beach": 8, "town": 0}, "class town has no images"),
    ],
)
def test_folders_without_classes(tmp_path, capsys, counts, says):
    assert run(draw(tmp_path / "data", **{k if k != "." else "": v for k, v in counts.items()}), tmp_path / "run") == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_has_no_labels(tmp_path, capsys):
    draw(tmp_path / "data", beach=4, field=4)
    assert main(["pack", str(tmp_path / "data"), "--out", str(tmp_path / "shards")]) == 0
    assert run(tmp_path / "shards", tmp_path / "run") == 2
    assert (
        "learns from labels, and shards have none: give a folder with one folder per class" in capsys.readouterr().err
    )


class Labels:
    classes = ("beach", "field", "town")

    def __init__(self, labels):
        self.labels = np.array(labels)

    def name(self, i):
        return f"{i}.png"


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 1, -1, 2, -1], "2 of 5 images of DATA have no label, 2.png the first"),
        ([0, 3], "1 of 2 images of DATA have no label, 1.png the first"),
        ([1, 1, 1], "all images of DATA are of one class, field"),
        ([[False, True, False]] * 2, "all images of DATA are of one class, field"),
        ([[False, False, False]] * 2, "DATA has no labels"),
    ],
)
def test_labels_that_teach_nothing(labels, says):
    with pytest.raises(UsageError, match=says):
        check_labels(Labels(labels), "DATA")


def test_counts_in_words():
    assert check_labels(Labels([0, 2, 2]), "DATA") == "beach 1, town 2"
    assert check_labels(Labels([[True, False, True], [False, False, True]]), "DATA") == "beach 1, town 2"
