"""`cmid finetune classification` from the command line: what it leaves and learns, what it answers to bad input."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, cohen_kappa_score

from cmid.cli import main
from cmid.commands.settings import resolve
from cmid.config import FinetuneConfig
from cmid.train import read_checkpoint
from cmid.zoo.classifier_files import load_classifier
from tests.report.chromium import BINARY, browser

SMALL = """--backbone test_resnet --size 64 --batch-size 8 --train.workers 0 --train.precision 32 --optimizer.name adamw
    --optimizer.betas 0.9,0.999 --optimizer.lr 3e-3 --optimizer.warmup-epochs 0 --mixing.mixup 0 --mixing.cutmix 0
    --mixing.scale 0.5,1 --mixing.erasing 0 --train.accelerator cpu --no-report""".split()  # noqa: SIM905


def draw(folder, of_each=10, classes=("blue", "green", "red")):
    """Images whose class is their strongest colour, under noise."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(of_each):
            pixels = rng.integers(0, 160, (72, 80, 3), np.uint8)
            pixels[..., 2 - number] += np.uint8(90)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def images(tmp_path):
    return draw(tmp_path / "images")


def run(images, out, *words):
    return main(["finetune", "classification", "random", str(images), "--out", str(out), *SMALL, *map(str, words)])


def one_line(capsys):
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cmid: error:")]
    assert len(errors) == 1
    return errors[0]


def test_what_a_run_leaves_and_that_its_scores_are_those_of_its_predictions(images, tmp_path):
    assert run(images, tmp_path / "run", "--epochs", 6) == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    rows = list(csv.DictReader((tmp_path / "run" / "test_predictions.csv").open()))
    truth, predicted = [r["class"] for r in rows], [r["predicted"] for r in rows]
    assert len(rows) == scores["images"] == 6
    assert scores["overall_accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert scores["kappa"] == pytest.approx(cohen_kappa_score(truth, predicted))
    assert scores["overall_accuracy"] > 0.6, "the colours are told apart"
    split = json.loads((tmp_path / "run" / "data.json").read_text())["split"]
    assert len(split["train"]) == 24 and {r["image"] for r in rows} == set(split["test"])
    assert not set(split["train"]) & set(split["test"])
    task, metadata = load_classifier(tmp_path / "run" / "model.safetensors")
    assert metadata.classes == ("blue", "green", "red") and metadata.backbone.size == 64
    last = read_checkpoint(tmp_path / "run").learner_state
    assert torch.equal(task.head.weight, last["head.weight"])


def test_a_model_names_new_images_as_it_named_them_in_the_test(images, tmp_path, capsys):
    assert run(images, tmp_path / "run", "--epochs", 1) == 0
    rows = list(csv.DictReader((tmp_path / "run" / "test_predictions.csv").open()))
    (tmp_path / "list.txt").write_text("\n".join(r["image"] for r in rows) + "\nbroken.png\n")
    (tmp_path / "broken.png").write_bytes(b"no image")
    words = ["--precision", "32", "--workers", "0", "--accelerator", "cpu", "--out"]
    command = ["predict", "classification", str(tmp_path / "run"), str(tmp_path / "list.txt"), *words]
    assert main([*command, str(tmp_path / "p.csv")]) == 0
    assert "6 images, 1 skipped" in capsys.readouterr().err
    found = {r["image"]: r for r in csv.DictReader((tmp_path / "p.csv").open())}
    for row in rows:
        assert found[row["image"]]["class"] == row["predicted"]
        assert float(found[row["image"]]["red"]) == pytest.approx(float(row["red"]), abs=2e-5)
    assert main([*command, str(tmp_path / "p.json")]) == 0
    first = json.loads((tmp_path / "p.json").read_text())[0]
    assert first["class"] == max(first["probabilities"], key=first["probabilities"].get)
    capsys.readouterr()
    assert main([*command, str(tmp_path / "p.csv")]) == 2 and "exists" in one_line(capsys)
    (tmp_path / "folder.csv").mkdir()
    for out, says in (("folder.csv", "is a folder"), ("p.csv/x.csv", "is no folder")):
        assert main([*command, str(tmp_path / out), "--overwrite"]) == 2 and says in one_line(capsys)
    assert main([*command, str(tmp_path / "p.txt")]) == 2 and ".csv or .json" in one_line(capsys)
    assert main(["predict", "classification", str(tmp_path / "run"), str(tmp_path / "nowhere")]) == 2
    assert "no such image" in one_line(capsys)


def test_same_seed_same_result_and_a_resume_changes_nothing(images, tmp_path):
    mixed = ["--epochs", 2, "--mixing.mixup", 0.8, "--mixing.cutmix", 1, "--mixing.erasing", 0.5]
    assert run(images, tmp_path / "one", *mixed) == 0
    assert run(images, tmp_path / "two", *mixed, "--train.max-steps", 4) == 0
    assert main(["finetune", "classification", "random", str(images), "--out", str(tmp_path / "two"), "--resume",
                 "--train.max-steps", "0"]) == 0  # fmt: skip
    one, two = (load_classifier(tmp_path / name / "model.safetensors")[0].state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_page_shows_every_part_and_opens_offline(images, tmp_path):
    words = [word for word in SMALL if word != "--no-report"]
    command = ["finetune", "classification", "random", str(images), "--out", str(tmp_path / "run"), *words]
    assert main([*command, "--epochs", "1"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    for anchor in ("confusion", "mistakes", "classes", "calibration", "losses", "pace"):
        assert f'id="{anchor}"' in page
    assert "Classification report" in page and "http://" not in page and "https://" not in page
    if BINARY is None:
        return
    with browser() as tab:
        for width, phone in ((1280, False), (390, True)):
            tab.open(tmp_path / "run" / "report.html", width=width, phone=phone)
            assert tab.complaints() == [] and len(tab.requests()) == 1
            assert tab.value("document.documentElement.scrollWidth") == width


def test_verbs_for_pre_training_say_that_this_is_another_run(images, tmp_path, capsys):
    assert run(images, tmp_path / "run", "--epochs", 1) == 0
    for verb in ("report", "extract"):
        capsys.readouterr()
        assert main([verb, str(tmp_path / "run")]) == 2
        assert "run of `cmid finetune classification`" in one_line(capsys)


def test_the_published_protocol_is_told_by_its_name_and_chooses_nothing(images, tmp_path, capsys, monkeypatch):
    for room in ("finetune_parts", "classifier_scores"):
        monkeypatch.setattr(f"cmid.commands.{room}.BATCH", 4)
    assert run(images, tmp_path / "plain", "--epochs", 3) == 0
    capsys.readouterr()
    assert run(images, tmp_path / "run", "--epochs", 3, "--published-protocol") == 0
    said = capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    best = max(float(row["published_test_accuracy"]) for row in rows)
    assert f"for comparison only: {best:.2f} %, the best of 3 test evaluations, each of the 4 images" in said
    one, two = (load_classifier(tmp_path / name / "model.safetensors")[0].state_dict() for name in ("plain", "run"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_few_labels_and_a_part_held_out(images, tmp_path):
    assert run(images, tmp_path / "run", "--epochs", 1, "--per-class", 4, "--hold-out", 0.25) == 0
    split = json.loads((tmp_path / "run" / "data.json").read_text())["split"]
    assert {side: len(names) for side, names in split.items()} == {"train": 12, "validation": 6, "test": 6}
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert 0 <= float(rows[0]["validation_accuracy"]) <= 100


def test_pictures_in_train_and_test_are_found_and_left_out_where_asked(images, tmp_path, capsys):
    lists = {"train": [], "test": []}
    for name in ("blue", "green", "red"):
        names = [f"{name}/{i}.png" for i in range(10)]
        lists["train"] += names[:8]
        lists["test"] += names[8:]
    (images / "green" / "9.png").write_bytes((images / "green" / "0.png").read_bytes())
    for side, names in lists.items():
        (tmp_path / f"{side}.txt").write_text("\n".join(names))
    words = ["--epochs", 1, "--train-list", tmp_path / "train.txt", "--test-list", tmp_path / "test.txt"]
    assert run(images, tmp_path / "run", *words) == 0
    assert "1 of 6 test images are also in train (1 exact pairs, 0 near)" in capsys.readouterr().err
    assert run(images, tmp_path / "dropped", *words, "--duplicates", "drop") == 0
    data = json.loads((tmp_path / "dropped" / "data.json").read_text())
    assert data["duplicates"]["dropped"] == 1 and len(data["split"]["train"]) == 23


def test_requests_that_cannot_be_carried_out(images, tmp_path, capsys):
    (tmp_path / "train.txt").write_text("\n".join(f"blue/{i}.png\ngreen/{i}.png" for i in range(8)))
    (tmp_path / "test.txt").write_text("red/1.png\nblue/9.png")
    lists = ["--train-list", tmp_path / "train.txt", "--test-list", tmp_path / "test.txt"]
    for words, expected in (
        (lists, "classes have test images but none to learn from: red"),
        (["--per-class", 9], "class blue has 8 training images"),
        (["--mixing.randaugment", "strong"], "randaugment is"),
        (["--size", 70], "not a multiple"),
        (["--batch-size", 1], "at least 2"),
        (["--mixing.scale", "1,0.5"], "least first"),
        (["--published-protocol"], f"counts full batches of 64 test images alone, and {images} has 6: leave"),
    ):
        assert run(images, tmp_path / "run", *words) == 2
        assert expected in one_line(capsys)
        assert not (tmp_path / "run").exists()


def test_a_classifiers_file_is_told_from_others(tmp_path, capsys):
    from cmid.errors import UsageError

    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    for path, words in ((tmp_path / "model.safetensors", "damaged"), (tmp_path / "none", "No such file")):
        with pytest.raises(UsageError, match=words):
            load_classifier(path)


def test_several_seeds_in_one_command(images, tmp_path, capsys):
    out = tmp_path / "runs"
    assert run(images, out, "--epochs", 2, "--seeds", "3,4") == 0
    said = capsys.readouterr().err
    kept = json.loads((out / "seeds.json").read_text())
    each = [100 * json.loads((out / f"seed_{s}" / "scores.json").read_text())["overall_accuracy"] for s in (3, 4)]
    oa = kept["figures"]["overall accuracy"]
    assert kept["seeds"] == [3, 4] and oa["runs"] == 2 and oa["of"] == "seeds"
    assert all(0 <= oa[end] <= 100 for end in ("low", "high")), "no percentage is less or more"
    assert oa["mean"] == pytest.approx(np.mean(each)) and oa["std"] == pytest.approx(np.std(each, ddof=1))
    assert "overall accuracy: " in said and "2 seeds" in said
    # a seed's run is the run with that seed
    assert run(images, tmp_path / "alone", "--epochs", 2, "--seed", 4) == 0
    one, other = ((tmp_path / d / "test_predictions.csv").read_text() for d in ("alone", "runs/seed_4"))
    assert one == other
    # those that are finished are kept; one more is trained beside them
    first = (out / "seed_3" / "model.safetensors").stat().st_mtime_ns
    assert run(images, out, "--epochs", 2, "--seeds", "3,4,5") == 2
    assert "go on with the runs in it by --resume" in one_line(capsys)
    assert run(images, out, "--epochs", 2, "--seeds", "3,4,5", "--resume") == 0
    assert (out / "seed_3" / "model.safetensors").stat().st_mtime_ns == first
    assert json.loads((out / "seeds.json").read_text())["figures"]["kappa"]["runs"] == 3
    assert run(images, tmp_path / "twice", "--seeds", "1,1") == 2
    assert "each may be there once" in one_line(capsys)
    assert run(images, tmp_path / "both", "--seeds", "0,1", "--seed", 5) == 2
    assert "seed is 5, but seeds are 0, 1" in one_line(capsys) and not (tmp_path / "both").exists()


def test_several_seeds_are_nothing_for_several_processes_of_slurm(images, tmp_path, capsys, monkeypatch):
    for name, value in {"NTASKS": 2, "NTASKS_PER_NODE": 2, "NNODES": 1, "PROCID": 1, "STEP_ID": 0}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert run(images, tmp_path / "runs", "--seeds", "0,1") == 2
    assert "in one process: with more, give one --seed a run" in one_line(capsys) and not (tmp_path / "runs").exists()


def test_a_classifier_is_trained_further_and_a_head_of_another_size_begun_anew(images, tmp_path, capsys):
    assert run(images, tmp_path / "first", "--epochs", 3) == 0
    further = ["finetune", "classification", str(tmp_path / "first"), str(images), *SMALL[2:]]
    # with no step to speak of, its head names what it named
    still = ["--optimizer.lr", "0", "--optimizer.min_lr", "0", "--epochs", "1", "--frozen"]
    assert main([*further, "--out", str(tmp_path / "same"), *still]) == 0
    assert "its head is trained further" in capsys.readouterr().err
    before, after = (load_classifier(tmp_path / d / "model.safetensors")[0] for d in ("first", "same"))
    assert torch.equal(before.head.weight, after.head.weight)
    assert torch.equal(before.backbone.weights()["conv1.0.weight"], after.backbone.weights()["conv1.0.weight"])
    fewer = draw(tmp_path / "fewer", classes=("blue", "green"))
    other = [
        "finetune",
        "classification",
        str(tmp_path / "first"),
        str(fewer),
        *SMALL[2:],
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(other) == 2
    said = one_line(capsys)
    assert (
        "a classifier of 3 classes (blue, green, red), but" in said
        and "has 2 classes (blue, green): --new_head" in said
    )
    assert main([*other, *still, "--new_head"]) == 0
    model, about = load_classifier(tmp_path / "o" / "model.safetensors")
    assert about.classes == ("blue", "green") and model.head.weight.shape[0] == 2
    assert torch.equal(before.backbone.weights()["conv1.0.weight"], model.backbone.weights()["conv1.0.weight"])
    assert main([*other, "--backbone", "resnet18"]) == 2
    assert "holds test_resnet, but resnet18 was asked for" in one_line(capsys)


def test_layer_decay_from_the_command_line(images, tmp_path):
    assert run(images, tmp_path / "run", "--epochs", 1, "--optimizer.layer_decay", 0.5) == 0


@pytest.mark.parametrize("name", ["finetune-small", "finetune-ucm-resnet50", "finetune-ucm-swin-b"])
def test_two_steps_of_each_recipe(images, tmp_path, name):
    small = ["--backbone", "test_resnet", "--size", "64", "--batch-size", "8", "--train.workers", "0"]
    small += ["--train.max-steps", "2", "--train.precision", "32", "--drop-path", "0", "--no-report"]
    words = ["finetune", "classification", "random", str(images), "--recipe", name, "--out", str(tmp_path / "run")]
    assert main([*words, *small]) == 0
    kept = resolve(FinetuneConfig, {"data": "x"}, recipe=name)
    assert kept.epochs in (50, 200) and (tmp_path / "run" / "model.safetensors").is_file()
