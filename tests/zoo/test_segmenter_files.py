"""Segmenters in files: what is written is what is read, and what is no segmenter's file is refused with advice."""

from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from safetensors import safe_open

from cmid.backbones import create_backbone
from cmid.contracts import View, Views
from cmid.errors import CmidError, UsageError
from cmid.tasks.classification import Classifier
from cmid.tasks.segmentation import Segmenter
from cmid.zoo.backbone_files import BackboneMetadata, save_backbone
from cmid.zoo.classifier_files import ClassifierMetadata, classifier_file, load_classifier, save_classifier
from cmid.zoo.segmenter_files import SegmenterMetadata, load_segmenter, save_segmenter, segmenter_file

BANDS = {"bands": ("r", "g", "b", "nir"), "mean": (0.1, 0.2, 0.3, 0.4), "std": (0.2,) * 4}
DEEP = {"low": (100.0,) * 4, "high": (3000.0, 2500.0, 2000.0, 5000.0)}


def made(name="resnet10t", head="upernet", align_corners=False):
    torch.manual_seed(0)
    backbone = create_backbone(name, 4, mask_stage=None, img_size=64)
    task = Segmenter(backbone, 3, head=head, width=8, align_corners=align_corners)
    task.train()(task_batch())  # running means and deviations that are not those of the beginning
    about = SegmenterMetadata(
        BackboneMetadata(name, 4, method="cmid", **BANDS, **DEEP), ("water", "röad", "roof"),
        ((0, 0, 255), (9, 8, 7), (255, 0, 0)), head, 8, align_corners, ("uint16", "float32"), 64,
    )  # fmt: skip
    return task.eval(), about


def task_batch():
    view = View(torch.randn(2, 4, 64, 64), torch.zeros(2, 4), torch.zeros(2, dtype=torch.bool))
    return Views((view,), torch.arange(2), labels=torch.randint(0, 3, (2, 64, 64)))


@pytest.mark.parametrize(
    ("name", "head", "align_corners"),
    [("resnet10t", "upernet", True), ("resnet10t", "lateral_sum", False), ("test_vit", "upernet", False),
     ("swin_tiny_patch4_window7_224", "lateral_sum", True)],
)  # fmt: skip
def test_what_is_read_says_what_was_written(tmp_path, name, head, align_corners):
    task, about = made(name, head, align_corners)
    path = save_segmenter(tmp_path / "model.safetensors", task, about)
    again, said = load_segmenter(path)
    assert said == replace(about, cmid_version=version("cmid"))
    assert not again.training and again.auxiliary is None and task.auxiliary is not None
    images = torch.randn(1, 4, 64, 64)
    torch.testing.assert_close(again.logits(images), task.logits(images), rtol=0, atol=0)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["task"] == "segmentation"
        assert {key.partition(".")[0] for key in file.keys()} <= {"backbone", "levels", "decoder", "scores"}  # noqa: SIM118
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_files_are_told_apart_and_the_command_is_named(tmp_path):
    task, about = made()
    run = tmp_path / "segmenter"
    run.mkdir()
    path = save_segmenter(run / "model.safetensors", task, about)
    other = tmp_path / "classifier.safetensors"
    b = replace(about.backbone, size=64)
    save_classifier(other, Classifier(task.backbone, 2), ClassifierMetadata(b, ("a", "b")))
    bare = save_backbone(tmp_path / "backbone.safetensors", task.backbone, about.backbone)
    assert segmenter_file(str(run)) == segmenter_file(str(path)) == path
    assert classifier_file(str(other)) == other
    assert [segmenter_file(str(p)) for p in (other, bare, tmp_path, tmp_path / "no")] == [None] * 4
    assert classifier_file(str(run)) is None
    with pytest.raises(UsageError, match=r"expected task segmentation, found classification.*predict classification"):
        load_segmenter(other)
    with pytest.raises(UsageError, match=r"expected task classification, found segmentation.*predict segmentation"):
        load_classifier(path)
    with pytest.raises(
        UsageError, match=r"found none\. A backbone becomes a segmenter by `cmid finetune segmentation`"
    ):
        load_segmenter(bare)
    with pytest.raises(UsageError, match=r"No such file.*cmid finetune segmentation"):
        load_segmenter(tmp_path / "no.safetensors")


def test_damage_and_what_does_not_fit(tmp_path):
    task, about = made()
    path = save_segmenter(tmp_path / "model.safetensors", task, about)
    for wrong in (
        replace(about, width=16),
        replace(about, head="lateral_sum"),
        replace(about, classes=("a", "b"), colours=()),
        replace(about, align_corners=True),
        replace(about, backbone=replace(about.backbone, backbone="resnet18")),
    ):
        with pytest.raises(ValueError, match="metadata of a segmenter"):
            save_segmenter(path, task, wrong)
    with pytest.raises(UsageError, match="2 colours for 3 classes"):
        replace(about, colours=((0, 0, 0), (1, 1, 1)))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="is damaged, or no segmenter's file"):
        load_segmenter(path)
    with pytest.raises(CmidError, match="cannot be written"):
        save_segmenter(path / "model.safetensors", task, about)
