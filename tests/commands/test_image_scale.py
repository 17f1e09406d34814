"""Labelled image files of many bands or deep values: it is told what reading them as 8-bit RGB does and forbids."""

import numpy as np
import pytest

from cmid.backbones import create_backbone
from cmid.cli import main
from cmid.commands.image_scale import put_on_scale
from cmid.commands.weights import resolve_weights
from cmid.config import EvaluateConfig, ViewConfig
from cmid.data.labelled import LabelledFolder
from cmid.errors import UsageError
from cmid.zoo import BackboneMetadata, save_backbone
from tests.commands.test_evaluate_classifier import CLASSES, WORDS, model
from tests.commands.test_finetune import one_line, run
from tests.data.rasters_on_disk import write_raster
from tests.data.test_torchgeo_datasets import draw_eurosat, draw_millionaid

BANDS = "images looked at have more than 3 bands, of which only the first three are used"
DEPTH = "images looked at have more than 8 bits"


@pytest.fixture
def rasters(tmp_path):
    """Three classes of GeoTIFFs of 4 bands of int16."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        for i in range(4):
            values = generator.integers(100, 4000, (4, 64, 64)) + 900 * number
            write_raster(tmp_path / "labelled" / name / f"{i}.tif", values.astype(np.int16), photometric="minisblack")
    return tmp_path / "labelled"


def four_bands(path):
    backbone = create_backbone("test_resnet", 4, mask_stage=None)
    return str(save_backbone(path, backbone, BackboneMetadata("test_resnet", 4)))


def test_fine_tuning_and_frozen_scores_tell(rasters, tmp_path, capsys):
    assert run(rasters, tmp_path / "run", "--epochs", 1, "--batch-size", 4) == 0
    said = capsys.readouterr().err
    assert f"note: 9 of 9 {BANDS}" in said and f"note: 9 of 9 {DEPTH}" in said
    assert "torchgeo:NAME?root=DIR" in said and "--source scenes" not in said
    words = ["random", str(rasters), "--backbone", "test_resnet", "--size", "64", "--k", "1", "--workers", "0"]
    assert main(["evaluate", "knn", *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"note: 9 of 9 {BANDS}" in said and DEPTH in said


def test_a_classifier_tells_of_new_images_and_of_those_it_is_scored_on(rasters, tmp_path, capsys):
    path = str(model(tmp_path / "model.safetensors"))
    assert main(["predict", "classification", path, str(rasters), *WORDS, "--out", str(tmp_path / "p.csv")]) == 0
    said = capsys.readouterr().err
    assert f"note: 12 of 12 {BANDS}" in said and DEPTH in said and "--source scenes" not in said
    assert main(["evaluate", "classification", path, str(rasters), *WORDS]) == 0
    assert f"note: 12 of 12 {BANDS}" in capsys.readouterr().out


def test_backbones_of_other_bands_are_told_that_files_are_read_as_rgb(rasters, tmp_path, capsys):
    path = four_bands(tmp_path / "four.pth")
    words = ["finetune", "classification", path, str(rasters), "--out", str(tmp_path / "run"), "--train.workers", "0"]
    assert main(words) == 2
    said = one_line(capsys)
    assert f"is for 4 bands, but {rasters} is of image files, which are read as 8-bit RGB of 3 bands" in said
    assert "torchgeo:NAME?root=DIR" in said and "GeoTIFFs with label rasters" in said
    classifier = str(model(tmp_path / "model.safetensors", in_chans=4))
    with pytest.raises(UsageError, match="which are read as 8-bit RGB"):
        put_on_scale((LabelledFolder(rasters).all(),), ViewConfig(mean=(0.5,) * 4), str(rasters))
    assert main(["finetune", "classification", classifier, *words[3:]]) == 2
    assert "is for 4 bands, but" in (said := one_line(capsys)) and "8-bit RGB" in said
    with pytest.raises(UsageError, match=r"is for 4 bands, but the images of .* have 5"):  # pairs of GeoTIFFs
        resolve_weights(EvaluateConfig(weights=path, data=str(rasters)), 5)


def test_backbones_of_deep_values_are_told_so_too(rasters):
    sides = (LabelledFolder(rasters).all(),)
    with pytest.raises(UsageError, match=r"deeper than 8 bits, but .*labelled is of image files, which are read"):
        put_on_scale(sides, ViewConfig(low=(0.0,) * 3, high=(9.0,) * 3, mean=(0.5,) * 3), str(rasters))


def test_bands_of_the_same_names_in_another_order_are_refused(tmp_path, capsys):
    named = f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path / 'eurosat')}&bands="
    backbone = create_backbone("test_resnet", 3, mask_stage=None)
    numbers = {"low": (0.0,) * 3, "high": (4000.0,) * 3, "mean": (0.3,) * 3, "std": (0.2,) * 3}
    about = BackboneMetadata("test_resnet", bands=("B04", "B03", "B02"), size=32, **numbers)
    path = str(save_backbone(tmp_path / "backbone.safetensors", backbone, about))
    words = ["--workers", "0", "--k", "1"]
    assert main(["evaluate", "knn", path, named + "B04,B03,B02", *words]) == 0
    assert main(["evaluate", "knn", path, named + "B08,B03,B02", *words]) == 0  # of other names nothing is known
    said = "was trained on the bands B04,B03,B02, but those of"
    for kind in ("evaluate knn", "evaluate linear", "finetune classification"):
        more = ["--out", str(tmp_path / "run"), "--train.workers", "0"] if "finetune" in kind else ["--workers", "0"]
        capsys.readouterr()
        assert main([*kind.split(), path, named + "B02,B03,B04", *more]) == 2
        assert said in (line := one_line(capsys)) and "?bands=B04,B03,B02" in line


def test_a_classifier_from_random_weights_remembers_its_bands(tmp_path, capsys):
    named = f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path / 'eurosat')}&bands="
    out = tmp_path / "run"
    assert run(named + "B04,B03,B02", out, "--epochs", 1, "--batch-size", 4) == 0  # its images are near enough alike
    assert "but every test image is in train as well" in capsys.readouterr().err
    words = ["evaluate", "classification", str(out), "--workers", "0", "--no-report"]
    assert main([*words[:3], named + "B04,B03,B02", *words[3:]]) == 0
    assert main([*words[:3], named + "B03,B04,B02", *words[3:]]) == 2


@pytest.mark.parametrize("verb", ["finetune", "pretrain"])
def test_more_unreadable_images_of_torchgeo_than_allowed_end_it(tmp_path, capsys, verb):
    root = draw_millionaid(tmp_path / "data", {"train": ("beach", "dam"), "test": ("beach", "dam")})
    gone = root / "train" / "land" / "dam" / "dam1.jpg"
    gone.write_bytes(b"gone")
    named, out = f"torchgeo:MillionAID?root={root}", ["--out", str(tmp_path / "run"), "--epochs", "1", "--no-report"]
    words = {
        "finetune": ["finetune", "classification", "random", named, *out, "--backbone", "test_resnet", "--size", "32"],
        "pretrain": ["pretrain", named, *out, "--method", "supervised", "--backbone", "test_resnet"],
    }[verb]
    words += ["--batch-size", "2", "--train.workers", "0", "--train.accelerator", "cpu"]
    images = {"finetune": 12, "pretrain": 6}[verb]  # which learns from one split
    assert main(words) == 1
    line = one_line(capsys)
    assert f"too many unreadable images: 1 of {images} of {named}, where at most 5% are allowed" in line
    assert f"First: {gone} (" in line and not (tmp_path / "run").exists()
    assert main([*words, "--max-bad-share", "0.2"]) == 0
