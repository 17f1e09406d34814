"""From ISPRS as it is shipped to figures that carry their protocol, on patches and on whole tiles."""

import json

import numpy as np
import pytest
import torch

import cmid
from cmid.cli import main
from cmid.commands.pixel_sources import open_prepared_tiles
from cmid.commands.segmentation_scores import protocols_of
from cmid.config import PixelLabelsConfig
from cmid.evaluation.segmentation import ISPRS_CLASSES, ConfusionMatrix, score_segmentation
from cmid.ops.normalise import normalise
from cmid.zoo.segmenter_files import load_segmenter
from tests.commands.isprs_on_disk import potsdam_files, write_folders

WORDS = ["--workers", "0", "--precision", "32", "--accelerator", "cpu", "--no-report"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A prepared set of three tiles, and a segmenter trained on it by the published recipe's bones."""
    root = tmp_path_factory.mktemp("isprs")
    source = write_folders(root / "shipped", potsdam_files(("2_10", "2_11", "2_13")))
    cmid.prepare("potsdam", source, out=root / "data", window_px=64, step_px=64, allow_missing=True)
    cmid.finetune(
        "segmentation", "random", root / "data", recipe="segment-isprs-resnet50-adan", backbone="test_resnet", size=64,
        out=str(root / "run"), epochs=2, batch_size=4, report=False, segmenter={"width": 16},
        train={"workers": 0, "precision": "32", "accelerator": "cpu"},
    )  # fmt: skip
    return root


def test_a_run_is_scored_by_the_three_protocols_of_its_labels(trained):
    scores = json.loads((trained / "run" / "scores.json").read_text())
    where = "ISPRS Potsdam, eroded labels, patches, windows of 64 px every 64 px, 13 of 14 test tiles missing"
    assert [each["protocol"] for each in scores["protocols"]] == [
        f"{where}, 5 classes, clutter unlabelled",
        f"{where}, 5 of 6 classes, clutter labelled",
        f"{where}, 6 classes",
    ]
    assert scores["mean_iou"] == scores["protocols"][0]["mean_iou"]
    assert load_segmenter(trained / "run" / "model.safetensors")[1].classes == ISPRS_CLASSES


@pytest.mark.parametrize("borders", ["eroded", "full"])
def test_whole_tiles_are_counted_once_and_named_so(trained, tmp_path, borders):
    words = ["--over", "tiles", "--labels.borders", borders, "--out", str(tmp_path / "e"), *WORDS]
    assert main(["evaluate", "segmentation", str(trained / "run"), str(trained / "data"), *words]) == 0
    scores = json.loads((tmp_path / "e" / "scores.json").read_text())
    assert scores["protocol"].startswith(f"ISPRS Potsdam, {borders} labels, whole tiles, ")
    assert scores["protocol"].endswith(", 13 of 14 test tiles missing, 5 classes, clutter unlabelled")
    tiles, _ = open_prepared_tiles(str(trained / "data"), PixelLabelsConfig(borders=borders, tile_px=1 << 20))
    assert scores["images"] == len(tiles) == 1
    image = tiles.read(0)
    assert scores["protocols"][2]["pixels"] == (image.labels != 255).sum()
    if max(image.labels.shape) <= 128:  # looked at whole: the model itself says what is counted
        segmenter, about = load_segmenter(trained / "run" / "model.safetensors")
        pixels = normalise(torch.from_numpy(image.pixels).permute(2, 0, 1), about.backbone.mean, about.backbone.std)
        height, width = image.labels.shape
        padded = torch.nn.functional.pad(pixels[None], (0, -width % 32, 0, -height % 32))
        with torch.no_grad():
            classes = segmenter.probabilities(padded)[0, :, :height, :width].argmax(0)
        matrix = ConfusionMatrix(6)
        matrix.add(classes, torch.from_numpy(image.labels))
        assert np.array_equal(matrix.counts.numpy(), scores["confusion"])


def test_tiles_of_another_folder_are_refused(trained, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    assert main(["evaluate", "segmentation", str(trained / "run"), str(tmp_path), "--over", "tiles", *WORDS]) == 2
    assert "whole tiles are kept by `cmid prepare`" in capsys.readouterr().err


def test_without_clutter_the_protocol_still_says_where_its_pixels_are_from():
    isprs = {"isprs": {"dataset": "Vaihingen", "labels": "full"}}
    (protocol,) = protocols_of(isprs, ISPRS_CLASSES[:5], ())
    assert protocol.name == "ISPRS Vaihingen, full labels, patches, 5 classes, all labelled pixels"
    names = [each.name for each in protocols_of(isprs, ISPRS_CLASSES, (5,), ISPRS_CLASSES[:5])]
    assert names == ["ISPRS Vaihingen, full labels, patches, 5 classes, clutter unlabelled"]
    (odd,) = protocols_of(isprs, ISPRS_CLASSES, (5,), (*ISPRS_CLASSES[:4], "clutter"))
    assert odd.name.endswith("4 classes, car, clutter unlabelled") and odd.means_over == (0, 1, 2, 3)
    isprs["isprs"]["departures"] = ["windows of 256 px every 256 px"]
    assert all("windows of 256 px every 256 px" in each.name for each in protocols_of(isprs, ISPRS_CLASSES, ()))
    first, every = protocols_of({}, ("a", "b", "c"), (1,))
    counts = torch.tensor([[5, 0, 0], [9, 9, 9], [1, 0, 3]])
    assert score_segmentation(counts, first).overall_accuracy == pytest.approx(8 / 9)
    assert score_segmentation(counts, every).overall_accuracy == pytest.approx(17 / 36)
