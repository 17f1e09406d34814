"""`cmid finetune segmentation` and `evaluate segmentation` from the command line: what they leave, learn and answer."""

import csv
import io
import json
import re
import time
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from cmid.backbones import create_backbone
from cmid.cli import main
from cmid.commands.segment_images import Found, HowToLook, classes_of, segment_images
from cmid.commands.segmentation_scores import protocols_of, rows_of
from cmid.commands.settings import resolve
from cmid.config import FinetuneSegmentationConfig
from cmid.data import reading
from cmid.tasks.segmentation import Segmenter
from cmid.train import read_checkpoint
from cmid.zoo.segmenter_files import load_segmenter
from tests.data.labelled_squares import COLOURS, Squares
from tests.report.chromium import BINARY, browser

SMALL = """--backbone test_resnet --size 64 --batch-size 4 --segmenter.head lateral_sum --segmenter.width 16
    --segmenter.auxiliary-weight 0.4 --optimizer.name adamw --optimizer.betas 0.9,0.999 --optimizer.lr 3e-3
    --optimizer.warmup-epochs 0 --crops.scale 0.8,1.2 --train.workers 0 --train.precision 32 --train.accelerator cpu
    --labels.test_groups tile_3 --no-report""".split()  # noqa: SIM905
PALETTE = [{"name": n, "colour": list(c)} for n, c in zip(Squares.classes, COLOURS, strict=True)]


def draw(folder, tiles=4, each=4, side=96, colours=COLOURS, names=Squares.classes):
    """`tile_k/images/i.png` and `tile_k/masks/i.png` in the palette's colours; the edge is white and ignored."""
    source = Squares(tiles * each, side=side, per_group=each)
    for i in range(len(source)):
        image, where = source.read(i), folder / f"tile_{i // each}"
        for kind in ("images", "masks"):
            (where / kind).mkdir(parents=True, exist_ok=True)
        table = np.full((256, 3), 255, np.uint8)
        table[:3] = colours
        Image.fromarray(image.pixels).save(where / "images" / f"{i}.png")
        Image.fromarray(table[image.labels]).save(where / "masks" / f"{i}.png")
    entries = [{"name": n, "colour": list(c)} for n, c in zip(names, colours, strict=True)]
    entries.append({"name": "edge", "colour": [255, 255, 255], "ignore": True})
    (folder / "palette.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def data(tmp_path):
    return draw(tmp_path / "data")


def run(data, out, *words):
    return main(["finetune", "segmentation", "random", str(data), "--out", str(out), *SMALL, *map(str, words)])


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run of 12 epochs with its data beside it, and what was told of it; to be read, not written."""
    root, told = tmp_path_factory.mktemp("learned"), io.StringIO()
    with redirect_stderr(told):
        assert run(draw(root / "data"), root / "run", "--epochs", 12) == 0
    return root, told.getvalue()


def one_line(capsys):
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cmid: error:")]
    assert len(errors) == 1
    return errors[0]


def test_what_a_run_leaves_and_that_its_scores_are_torchmetrics(learned):
    root, told = learned
    scores = json.loads((root / "run" / "scores.json").read_text())
    assert scores["mean_iou"] > 0.6, "squares are told from ground by their colours"
    assert "mIoU" in told and "[3 classes, all labelled pixels]" in told
    segmenter, about = load_segmenter(root / "run" / "model.safetensors")
    assert (about.classes, about.colours, about.dtypes) == (Squares.classes, COLOURS, ("uint8",))
    assert (about.head, about.width, about.window) == ("lateral_sum", 16, 64)
    last = read_checkpoint(root / "run").learner_state
    assert torch.equal(segmenter.scores.state_dict()["1.weight"], last["scores.1.weight"])
    source, metric = Squares(16, per_group=4), MulticlassJaccardIndex(3, average="macro", ignore_index=255)
    look = HowToLook(about.backbone.mean, about.backbone.std, 64)
    test = [i for i in range(16) if source.group(i) == "tile 3"]
    for i, image, classes in classes_of(segmenter, source, look, torch.device("cpu"), {}):
        if i in test:
            metric.update(torch.from_numpy(classes), torch.from_numpy(image.labels))
    assert scores["mean_iou"] == pytest.approx(metric.compute().item(), abs=1e-6)
    rows = list(csv.DictReader((root / "run" / "tiles.csv").open()))
    assert {row["group"] for row in rows} == {"tile_3"} and len(rows) == scores["images"] == 4
    assert [float(r["mean_iou"]) for r in rows] == sorted(float(r["mean_iou"]) for r in rows), "the worst first"
    account = json.loads((root / "run" / "data.json").read_text())
    assert len(account["split"]["train"]) == 12 and not set(account["split"]["train"]) & set(account["split"]["test"])


def test_same_seed_same_model_and_a_resume_changes_nothing(data, tmp_path):
    words = ["--epochs", 2, "--crops.turn", 1, "--segmenter.dice", 0.5, "--segmenter.class_weights", "balanced"]
    assert run(data, tmp_path / "one", *words) == 0
    assert run(data, tmp_path / "two", *words, "--train.max-steps", 4) == 0
    assert main(["finetune", "segmentation", "random", str(data), "--out", str(tmp_path / "two"), "--resume",
                 "--train.max-steps", "0"]) == 0  # fmt: skip
    one, two = (load_segmenter(tmp_path / name / "model.safetensors")[0].state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_best_epoch_is_chosen_on_whole_tiles_of_train_alone(data, tmp_path, capsys):
    assert run(data, tmp_path / "run", "--epochs", 3, "--hold_out", 0.3, "--train_share", 0.75) == 0
    told = capsys.readouterr().err
    account = json.loads((tmp_path / "run" / "data.json").read_text())["split"]
    groups = {side: {name.split("/")[0] for name in account[side]} for side in account}
    assert len(groups["validation"]) == 1 and len(account["validation"]) == 4 and len(account["train"]) == 6
    assert not groups["validation"] & groups["train"] and groups["test"] == {"tile_3"}
    assert "held out for validation: 4 images, whole: tile_" in told
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["epoch"] == "best on validation"


def test_the_page_shows_every_part_and_opens_offline(data, tmp_path):
    words = [word for word in SMALL if word != "--no-report"]
    command = ["finetune", "segmentation", "random", str(data), "--out", str(tmp_path / "run"), *words]
    assert main([*command, "--epochs", "1"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    for anchor in ("protocols", "worst", "confusion", "classes", "losses", "pace"):
        assert f'id="{anchor}"' in page
    assert "Segmentation report" in page and "http://" not in page and "https://" not in page
    if BINARY is None:
        return
    with browser() as tab:
        for width, phone in ((1280, False), (390, True)):
            tab.open(tmp_path / "run" / "report.html", width=width, phone=phone)
            assert tab.complaints() == [] and len(tab.requests()) == 1
            assert tab.value("document.documentElement.scrollWidth") == width


def test_several_seeds_are_told_together(data, tmp_path):
    assert run(data, tmp_path / "runs", "--epochs", 1, "--seeds", "0,1") == 0
    figures = json.loads((tmp_path / "runs" / "seeds.json").read_text())["figures"]
    each = [json.loads((tmp_path / "runs" / f"seed_{s}" / "scores.json").read_text())["mean_iou"] for s in (0, 1)]
    assert figures["mIoU"]["mean"] == pytest.approx(100 * np.mean(each))


def test_a_class_with_an_output_that_is_not_learned(data, tmp_path):
    assert run(data, tmp_path / "run", "--epochs", 6, "--segmenter.untrained", "blue") == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert [each["protocol"] for each in scores["protocols"]] == [
        "2 classes, blue unlabelled",
        "3 classes, all labelled pixels",
    ]
    confusion = np.array(scores["confusion"])
    assert confusion.shape == (3, 3) and confusion[2].sum() > 0, "its pixels are still counted"
    assert scores["protocols"][1]["mean_iou"] < scores["mean_iou"]


def test_a_segmenter_is_trained_further_or_begun_anew(learned, tmp_path, capsys):
    data, learned_run = learned[0] / "data", learned[0] / "run"
    command = ["finetune", "segmentation", str(learned_run), "--out"]
    words = [w for w in SMALL if w not in ("--backbone", "test_resnet")]
    assert main([*command, str(tmp_path / "on"), str(data), *words, "--epochs", "1", "--optimizer.lr", "1e-6"]) == 0
    assert "its heads are trained further" in capsys.readouterr().err
    first, on = (json.loads((out / "scores.json").read_text())["mean_iou"] for out in (learned_run, tmp_path / "on"))
    assert on == pytest.approx(first, abs=0.02), "nearly nothing was learned, and nothing lost"
    other = draw(tmp_path / "other", names=("soil", "red", "blue"))
    assert main([*command, str(tmp_path / "no"), str(other), *words, "--epochs", "1"]) == 2
    assert "--new_head begins the heads anew" in one_line(capsys)
    assert main([*command, str(tmp_path / "anew"), str(other), *words, "--epochs", "1", "--new_head"]) == 0


def test_evaluate_finds_what_the_run_found_and_matches_classes_by_name(learned, tmp_path, capsys):
    data, model = learned[0] / "data", str(learned[0] / "run")
    plain = ["--workers", "0", "--precision", "32", "--accelerator", "cpu"]
    words = [*plain, "--labels.test_groups", "tile_3"]
    assert main(["evaluate", "segmentation", model, str(data), "--out", str(tmp_path / "e"), *words]) == 0
    ours, theirs = (json.loads((out / "scores.json").read_text()) for out in (tmp_path / "e", learned[0] / "run"))
    assert ours["confusion"] == theirs["confusion"] and ours["interval"] == theirs["interval"]
    assert (tmp_path / "e" / "report.html").is_file() and (tmp_path / "e" / "tiles.csv").is_file()
    # the same images under palettes in another order, and under one with a class the model does not know
    turned = draw(tmp_path / "turned")
    entries = json.loads((turned / "palette.json").read_text())
    (turned / "palette.json").write_text(json.dumps(entries[::-1]))
    assert main(["evaluate", "segmentation", model, str(turned), "--out", str(tmp_path / "t"), *words]) == 0
    assert json.loads((tmp_path / "t" / "scores.json").read_text())["confusion"] == theirs["confusion"]
    capsys.readouterr()
    strange = draw(tmp_path / "strange", names=("ground", "rad", "blue"))
    assert main(["evaluate", "segmentation", model, str(strange), *words]) == 2
    assert "does not know rad. Did you mean red" in one_line(capsys)
    assert main(["evaluate", "segmentation", model, str(data), "--out", str(tmp_path / "e"), *words]) == 2
    assert "holds files" in one_line(capsys)
    wrong = [*plain, "--labels.test_groups", "tile_9"]
    assert main(["evaluate", "segmentation", model, str(data), *wrong]) == 2, "not: all of them then"
    assert "test_groups names 'tile_9'" in one_line(capsys)
    assert main(["evaluate", "segmentation", model, str(data), "--part", "all", *words]) == 2
    assert "labels.test_groups names some" in one_line(capsys)
    assert main(["evaluate", "segmentation", model, str(data), *plain]) == 0
    told = capsys.readouterr().err
    assert "16 images of" in told, "nothing says which are for test, so all are scored"
    assert "caution: 12 of these images are among those the model was trained on" in told


def test_windows_of_a_large_image_and_turns(learned):
    """Looked at in windows, an image gets nearly the classes that it gets as a whole."""
    segmenter, about = load_segmenter(learned[0] / "run" / "model.safetensors")
    b, device = about.backbone, torch.device("cpu")
    source = Squares(4, side=256)
    whole, windows, turned = (
        segment_images(segmenter, source, HowToLook(b.mean, b.std, 128, window, turns), device).counts
        for window, turns in ((0, "none"), (64, "none"), (64, "d4"))
    )
    for other in (windows, turned):
        assert other.sum() == whole.sum() and (other != whole).any()
        assert np.trace(other.sum(0)) > 0.9 * np.trace(whole.sum(0))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "60"], "size 60 is not a multiple of 32 px"),
        (["--batch_size", "1", "--segmenter.head", "upernet"], "batch_size is 1, but upernet pools to one position"),
        (["--segmenter.untrained", "bleu"], "'bleu', which is no class of .* Did you mean blue"),
        (["--mean", "0.1,0.2"], "mean and std need 3 values each"),
        (["--segmenter.head", "unet"], "expected one of upernet, lateral_sum"),
        (["--labels.test_groups", "tile_9"], "tile_9"),
        (["--recipe", "finetune-small"], "is for `cmid finetune classification`, not for `cmid finetune segmentation`"),
        (["--segmenter.cross_entropy", "0"], "one of the three losses above 0"),
    ],
)
def test_requests_that_cannot_be_carried_out(data, tmp_path, capsys, words, says):
    assert run(data, tmp_path / "run", "--epochs", 1, *words) == 2
    assert re.search(says, one_line(capsys))
    assert not (tmp_path / "run").exists()


def test_one_image_at_a_time_is_enough_for_the_light_decoder(data, tmp_path):
    assert run(data, tmp_path / "run", "--epochs", 1, "--batch_size", 1, "--train.max_steps", 2) == 0


def test_the_file_says_which_bands_were_read_and_evaluate_is_wary_of_others(tmp_path, capsys):
    words = [word for word in SMALL if word not in ("--labels.test_groups", "tile_3")]
    for name, bands in (("one", ("red", "green", "blue", "nir")), ("two", ("nir", "red", "green"))):
        scenes(tmp_path / name, bands)
    chosen = ["--labels.bands", "nir,red,green", "--labels.test_groups", "images/1"]
    command = ["finetune", "segmentation", "random", str(tmp_path / "one"), "--out", str(tmp_path / "run"), *words]
    assert main([*command, *chosen, "--epochs", "1"]) == 0
    assert load_segmenter(tmp_path / "run" / "model.safetensors")[1].backbone.bands == ("nir", "red", "green")
    plain = ["--workers", "0", "--precision", "32", "--accelerator", "cpu"]
    capsys.readouterr()
    assert main(["evaluate", "segmentation", str(tmp_path / "run"), str(tmp_path / "two"), *plain]) == 0
    assert "caution" not in capsys.readouterr().err
    assert main(["evaluate", "segmentation", str(tmp_path / "run"), str(tmp_path / "one"), *plain]) == 0
    told = capsys.readouterr().err
    assert "note: bands are read by the model's names, nir, red, green" in told
    assert "caution: the model was trained on the bands" not in told
    further = ["finetune", "segmentation", str(tmp_path / "run"), str(tmp_path / "one"), "--train.max_steps", "1"]
    assert main([*further, "--out", str(tmp_path / "further"), *words, *chosen[2:], "--epochs", "1"]) == 0
    assert load_segmenter(tmp_path / "further" / "model.safetensors")[1].backbone.bands == ("nir", "red", "green")
    capsys.readouterr()
    other = ["--labels.bands", "red,green,blue"]
    assert main(["evaluate", "segmentation", str(tmp_path / "run"), str(tmp_path / "one"), *plain, *other]) == 0
    told = capsys.readouterr().err
    assert "caution: the model was trained on the bands nir, red, green; these are red, green, blue" in told
    assert "caution: 1 of these images are among those the model was trained on" in told


def scenes(folder, bands):
    """Two GeoTIFFs with their label rasters and a palette."""
    import rasterio

    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for k in range(2):
        labels = rng.integers(0, 2, (96, 96), np.uint8)
        place = {"driver": "GTiff", "width": 96, "height": 96, "dtype": "uint8", "crs": "EPSG:32632",
                 "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)}  # fmt: skip
        with rasterio.open(folder / "images" / f"{k}.tif", "w", count=len(bands), **place) as raster:
            raster.write(rng.integers(0, 255, (len(bands), 96, 96), np.uint8))
            raster.descriptions = bands
        with rasterio.open(folder / "labels" / f"{k}.tif", "w", count=1, **place) as raster:
            raster.write(labels[None])
    (folder / "palette.json").write_text(json.dumps([{"name": "a", "value": 0}, {"name": "b", "value": 1}]))


def test_a_resume_with_other_meanings_of_the_labels_is_refused(data, tmp_path, capsys):
    assert run(data, tmp_path / "run", "--epochs", 2, "--train.max-steps", 2) == 0
    entries = json.loads((data / "palette.json").read_text())
    (data / "palette.json").write_text(json.dumps([entries[1], entries[0], *entries[2:]]))
    capsys.readouterr()
    assert main(["finetune", "segmentation", "random", str(data), "--out", str(tmp_path / "run"), "--resume",
                 "--train.max-steps", "0"]) == 2  # fmt: skip
    assert "was started with other numbers: fingerprint" in one_line(capsys)


def test_the_worst_images_are_those_of_the_headline(data):
    source, counts = Squares(2), np.zeros((2, 3, 3), np.int64)
    counts[0] = [[50, 0, 0], [0, 40, 0], [10, 0, 0]]  # wrong where the headline does not look
    counts[1] = [[30, 20, 0], [0, 40, 0], [0, 0, 10]]
    some, every = protocols_of({}, source.classes, (2,))
    rows = rows_of(Found([0, 1], counts), source, some)
    assert [row["image"] for row in rows] == [source.name(1), source.name(0)]
    assert rows[1]["mean_iou"] == 1
    assert [row["image"] for row in rows_of(Found([0, 1], counts), source, every)] == [source.name(0), source.name(1)]


def test_a_backbone_of_one_size_looks_in_windows_of_it():
    torch.manual_seed(0)
    backbone = create_backbone("hiera_tiny_224", mask_stage=None, img_size=224)
    assert backbone.fixed_size == (224, 224)
    segmenter = Segmenter(backbone, 3, head="lateral_sum", width=8, auxiliary_weight=0).eval()
    look = HowToLook((0.5,) * 3, (0.2,) * 3, 224)
    for side in (100, 256):
        found = segment_images(segmenter, Squares(1, side=side), look, torch.device("cpu"))
        assert found.counts.sum() == (side - 2) ** 2


class Hanging(Squares):
    """The reading of its second image does not end."""

    def read(self, i):
        time.sleep(600 if i == 1 else 0)
        return super().read(i)


def test_an_image_whose_reading_does_not_end_is_passed_over_and_then_known(monkeypatch):
    monkeypatch.setattr(reading, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)
    segmenter = Segmenter(create_backbone("test_resnet", mask_stage=None), 3, head="lateral_sum", width=8)
    look = HowToLook((0.5,) * 3, (0.2,) * 3, 64, workers=1, read_timeout_s=1.0)
    hung = {}
    for _ in range(2):
        found = segment_images(segmenter, Hanging(4), look, torch.device("cpu"), hung=hung)
        assert found.indices == [0, 2, 3]
        assert found.skipped == {"tile 0/1.png": "reading it did not end within 1 s"}
    assert list(hung) == [1]
    whole = segment_images(segmenter, Squares(4), look, torch.device("cpu"))
    assert np.array_equal(found.counts, whole.counts[[0, 2, 3]])


def test_a_truncated_image_is_told_and_passed_over(data, tmp_path, capsys):
    """Before training where the masks' sizes are read anyway; while training where it broke since then."""
    whole = (data / "tile_0" / "images" / "1.png").read_bytes()
    (data / "tile_0" / "images" / "1.png").write_bytes(whole[:3000])
    assert run(data, tmp_path / "run", "--epochs", 1) == 0
    assert re.search(r"1 pairs? cannot be read and .*tile_0/images/1.png", capsys.readouterr().err)
    split = json.loads((tmp_path / "run" / "data.json").read_text())["split"]
    assert len(split["train"]) == 11 and not any(name.endswith("tile_0/images/1.png") for name in split["train"])


def test_the_settings_of_a_run_begin_another(learned, tmp_path, capsys):
    root, _ = learned
    settings, out = str(root / "run" / "settings.yaml"), str(tmp_path / "again")
    words = ["--config", settings, "--out", out, "--train.max_steps", "1"]
    assert main(["finetune", "segmentation", *words]) == 0
    again, before = (yaml.safe_load(Path(file).read_text()) for file in (f"{out}/settings.yaml", settings))
    assert again["task"] == "segmentation"
    assert {name for name in again if again[name] != before[name]} == {"out", "train"}
    assert resolve(FinetuneSegmentationConfig, config=before).epochs == 12
    for verb in (["finetune", "classification"], ["pretrain"]):
        capsys.readouterr()
        assert main([*verb, "--config", settings]) == 2
        assert "settings of a `cmid finetune segmentation` run, which are for that verb alone" in one_line(capsys)
