"""Scores are those of scikit-learn on features taken by hand, and the table says how they came about."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from timm.models import get_pretrained_cfg

from cmid.backbones import create_backbone
from cmid.commands.evaluate import evaluate
from cmid.commands.extract import extract
from cmid.commands.weights import _numbers_of_timm
from cmid.config import EvaluateConfig, ExtractConfig
from cmid.errors import UsageError
from cmid.zoo import BackboneMetadata, save_backbone
from tests.commands.test_extract import write_run

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of unequal size, 32 px, hardly told apart by colour."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for label, (name, count) in enumerate((("field", 40), ("town", 25), ("water", 20))):
        (root / name).mkdir()
        for i in range(count):
            colour = random.normal(110, 30, 3) + 35 * (np.arange(3) == label)
            pixels = colour + random.normal(0, 30, (32, 32, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{name}{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def lists(folder, tmp_path_factory):
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))
    sides = {
        "train": [n for i, n in enumerate(names) if i % 5 > 1],
        "test": [n for i, n in enumerate(names) if i % 5 < 2],
    }
    out = tmp_path_factory.mktemp("lists")
    for side, chosen in sides.items():
        (out / f"{side}.txt").write_text("\n".join(chosen))
    return out


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    backbone = create_backbone("resnet18", mask_stage=None)
    metadata = BackboneMetadata("resnet18", method="cmid", mode="exact", mean=MEAN, std=STD, size=32, epochs=7.0)
    return save_backbone(tmp_path_factory.mktemp("weights") / "b.safetensors", backbone, metadata)


@pytest.fixture
def config(folder, lists, weights):
    return EvaluateConfig(
        weights=str(weights),
        data=str(folder),
        train_list=str(lists / "train.txt"),
        test_list=str(lists / "test.txt"),
        workers=0,
        precision="32",
        k=(1, 5),
    )


def linear(config):
    return evaluate("linear", replace(config, k=EvaluateConfig().k))  # which is for neighbours


@pytest.fixture(scope="module")
def by_hand(folder, lists):
    """Features and labels of train and test without any of the code under test but the backbone."""
    torch.manual_seed(0)
    backbone, sides = create_backbone("resnet18", mask_stage=None).eval(), []
    for side in ("train", "test"):
        names = (lists / f"{side}.txt").read_text().split()
        pixels = np.stack([np.asarray(Image.open(folder / n), dtype=np.float32) for n in names]) / 255
        images = torch.from_numpy((pixels - np.float32(MEAN)) / np.float32(STD)).permute(0, 3, 1, 2)
        with torch.no_grad():
            features = backbone(images).last.mean((2, 3)).double().numpy()
        sides.append((features, np.array([n.split("/")[0] for n in names])))
    return sides


def test_knn_equals_scikit_learn(config, by_hand):
    (train, train_y), (test, test_y) = by_hand
    result = evaluate("knn", config)
    theirs = KNeighborsClassifier(1, metric="cosine").fit(train, train_y).predict(test)
    assert result.scores[0].classifier == "kNN, k = 1"
    assert result.scores[0].accuracy == pytest.approx(100 * accuracy_score(test_y, theirs))
    assert result.scores[0].average_accuracy == pytest.approx(100 * balanced_accuracy_score(test_y, theirs))
    assert 40 < result.scores[0].accuracy < 95
    assert result.scores[0].low < result.scores[0].accuracy < result.scores[0].high
    assert (result.train_images, result.test_images, result.classes) == (51, 34, 3)
    assert result.chance == pytest.approx(100 * (test_y == "field").mean())


def test_knn_with_a_temperature(config, by_hand):
    (train, train_y), (test, test_y) = by_hand
    config.temperature, config.k = 0.07, (20,)
    weighted = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    expected = weighted.fit(train, train_y).score(test, test_y)
    result = evaluate("knn", config)
    assert result.scores[0].accuracy == pytest.approx(100 * expected)
    assert result.protocol["vote"] == "exp(cosine / 0.07)"


def test_linear_equals_scikit_learn(config, by_hand, capsys):
    (train, train_y), (test, test_y) = by_hand
    result = linear(config)
    assert [s["C"] for s in result.sweep] == [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
    best = max(result.sweep, key=lambda s: s["validation_accuracy"])
    assert result.protocol["C"] == best["C"]
    scale = StandardScaler().fit(train)
    theirs = LogisticRegression(C=best["C"], tol=1e-8, max_iter=5000).fit(scale.transform(train), train_y)
    assert result.scores[0].accuracy == pytest.approx(100 * theirs.score(scale.transform(test), test_y))
    said = capsys.readouterr().out
    assert "sweep" in said and "20% of each class of train" in said


def test_a_sweep_that_ends_too_early_says_so(config, capsys):
    config.regularisation = (1e-8, 1e-7, 1.0)
    ends = linear(config)
    assert ends.protocol["C"] == 1.0 and "widen --regularisation" in capsys.readouterr().out
    config.regularisation = (1e-8, 1.0, 1.0 + 1e-9)
    linear(config)
    assert "widen" not in capsys.readouterr().out


def test_the_table_and_the_json_say_how(config, tmp_path, capsys, weights):
    config.out = str(tmp_path / "new" / "scores.json")
    result = evaluate("knn", config)
    said = capsys.readouterr().out
    for words in (
        "kNN, k = 5", f"{result.scores[1].accuracy:.2f}", "95 % interval", "chance", "51 train, 34 test, 3 classes",
        "32 px", "0.4/0.5/0.6", str(weights), "resnet18, cmid (exact), student, 7 epochs", "1000 resamples",
    ):  # fmt: skip
        assert words in said, words
    written = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert written["scores"][1]["accuracy"] == result.scores[1].accuracy
    assert written["protocol"]["size"] == 32 and written["protocol"]["mean"] == list(MEAN)
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "scores.json"]


def test_same_seed_same_figures_and_a_split_without_lists(config):
    config.train_list = config.test_list = None
    one, two = evaluate("knn", config), evaluate("knn", config)
    assert one == two
    assert (one.train_images, one.test_images) == (68, 17)
    config.seed = 1
    assert evaluate("knn", config).scores != one.scores


def test_size_mean_and_std_can_be_chosen(config):
    config.size, config.mean, config.std = 64, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)
    chosen = evaluate("knn", config).protocol
    assert (chosen["size"], chosen["mean"], chosen["std"]) == (64, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    config.std = (1.0, 0.0, 1.0)
    with pytest.raises(UsageError, match="std above 0"):
        evaluate("knn", config)


def test_unreadable_files_are_skipped_counted_and_named(config, folder, tmp_path, capsys):
    copy = tmp_path / "data"
    for path in folder.rglob("*.png"):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / path.parent.name / path.name).write_bytes(path.read_bytes())
    (copy / "town" / "town00.png").write_bytes(b"not an image")
    config.data = str(copy)
    result = evaluate("knn", config)
    assert result.train_images + result.test_images == 84
    assert list(result.skipped) == [str(copy / "town" / "town00.png")]
    assert "unreadable files, not counted above: 1" in capsys.readouterr().out


# --- weights --------------------------------------------------------------------------------------------------------


def test_a_folder_may_have_any_name(config, folder, tmp_path, capsys):
    config.data = str(shutil.copytree(folder, tmp_path / "[/odd] :name:"))
    evaluate("knn", config)
    assert "[/odd]:name:" in "".join(capsys.readouterr().out.split())  # a table may break its title anywhere


def test_random_weights_follow_the_seed(config):
    config.weights, config.backbone, config.size = "random", "resnet18", 32
    one, two = evaluate("knn", config), evaluate("knn", config)
    assert one == two and one.protocol["weights"] == "random, seed 0"


def test_a_run_its_checkpoint_and_its_file_are_the_same(config, tmp_path):
    run = tmp_path / "run"
    write_run(run)
    scores = []
    for weights in (run, run / "checkpoints" / "last.ckpt", extract(ExtractConfig(run=str(run)))):
        config.weights = str(weights)
        scores.append(evaluate("knn", config).scores)
    (run / "checkpoints" / "last.ckpt").unlink()
    config.weights = str(run)
    result = evaluate("knn", config)
    assert scores[0] == scores[1] == scores[2] == result.scores
    assert result.protocol["weights"] == str(run / "backbone.safetensors")
    assert (result.protocol["size"], result.protocol["mean"]) == (64, (0.1, 0.2, 0.3))


def test_a_file_without_metadata_needs_a_name(config, tmp_path, weights):
    torch.save(create_backbone("resnet18", mask_stage=None).weights(), tmp_path / "m.pth")
    config.weights, config.size = str(tmp_path / "m.pth"), 32
    with pytest.raises(UsageError, match="--backbone"):
        evaluate("knn", config)
    config.backbone = "resnet18"
    assert evaluate("knn", config).protocol["mean"] == (0.485, 0.456, 0.406)
    config.weights, config.backbone = str(weights), "resnet50"
    with pytest.raises(UsageError, match="holds resnet18, but resnet50"):
        evaluate("knn", config)


def test_weights_that_are_none(config, tmp_path):
    config.weights = "random"
    with pytest.raises(UsageError, match="give --backbone"):
        evaluate("knn", config)
    config.weights = str(tmp_path)
    with pytest.raises(UsageError, match=r"neither checkpoints/last\.ckpt nor backbone\.safetensors"):
        evaluate("knn", config)
    config.weights = str(tmp_path / "none.pth")
    with pytest.raises(UsageError, match="no such file"):
        evaluate("knn", config)


def test_other_bands_than_a_folder_has(config, tmp_path):
    four = create_backbone("resnet18", 4, mask_stage=None)
    config.weights = str(save_backbone(tmp_path / "four.pth", four, BackboneMetadata("resnet18", 4)))
    with pytest.raises(UsageError, match=r"is for 4 bands, but .* is of image files, which are read as 8-bit RGB"):
        evaluate("knn", config)


# --- requests that cannot be met ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"k": (5, 52)}, "from 1 to the 51 training images"),
        ({"size": 50}, "not a multiple of 32 px.*take 32 or 64"),
        ({"bootstrap": 0}, "at least 1"),
        ({"temperature": -1.0}, "positive"),
    ],
)
def test_numbers_that_do_not_fit(config, changed, complaint):
    for name, value in changed.items():
        setattr(config, name, value)
    with pytest.raises(UsageError, match=complaint):
        evaluate("knn", config)


def test_unknown_kind_and_bad_c(config, tmp_path):
    with pytest.raises(UsageError, match=r"knn, linear or classification, found .svm."):
        evaluate("svm", config)
    config.regularisation = (-1.0,)
    with pytest.raises(UsageError, match="positive"):
        linear(config)
    config.out = str(tmp_path)
    with pytest.raises(UsageError, match="is a folder"):
        linear(config)


# --- real images ----------------------------------------------------------------------------------------------------


def test_random_weights_on_real_images(real_images, tmp_path):
    """Random ResNet-18 at 96 px: about 37 % kNN-5 on the whole set; here 12 images of 21 classes, so fewer."""
    source = real_images / "UCMerced_LandUse" / "Images"
    for side, numbers in (("train", range(8)), ("test", range(8, 12))):
        names = [
            str(p.relative_to(source)) for f in sorted(source.iterdir()) for p in np.array(sorted(f.iterdir()))[numbers]
        ]
        (tmp_path / f"{side}.txt").write_text("\n".join(names))
    result = evaluate(
        "knn",
        EvaluateConfig(
            "random",
            str(source),
            str(tmp_path / "train.txt"),
            str(tmp_path / "test.txt"),
            backbone="resnet18",
            size=96,
            workers=0,
            precision="32",
            k=(5,),
        ),
    )
    assert result.test_images == 84 and result.chance == pytest.approx(100 / 21)
    assert result.scores[0].low > result.chance + 5


def test_weights_of_timm_are_asked_for_by_name(config):
    about = get_pretrained_cfg("resnet18.a1_in1k")
    assert _numbers_of_timm("resnet18.a1_in1k", 3) == {"mean": about.mean, "std": about.std, "size": 224}
    assert _numbers_of_timm("resnet18.a1_in1k", 4) == {}
    config.weights = "timm:resnet1"
    with pytest.raises(UsageError, match="No backbone is called 'resnet1'"):
        evaluate("knn", config)
