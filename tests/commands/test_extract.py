"""What leaves a run is its backbone, bit for bit, with where it comes from."""

import zipfile
from dataclasses import asdict, replace

import pytest
import torch
import torchvision

from cmid.backbones import create_backbone
from cmid.cli import main
from cmid.commands.extract import describe, extract
from cmid.commands.learners import build_learner
from cmid.config import CMIDConfig, ExtractConfig, PretrainConfig, TrainConfig, ViewConfig, as_plain
from cmid.contracts import Progress
from cmid.errors import CmidError, UsageError
from cmid.train.checkpoints import FORMAT, write_checkpoint
from cmid.zoo import load_backbone, read_metadata
from tests.zoo.published_code import full_model, save_full_checkpoint

SETTINGS = PretrainConfig(
    data="images",
    backbone="resnet18",
    batch_size=8,
    cmid=CMIDConfig(queue_size=16, global_hidden=32, local_hidden=32, local_bottleneck=16, local_prototypes=32),
    views=ViewConfig(size=64, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
    train=TrainConfig(accumulate=2),  # of 41 batches the last step of an epoch takes one
)


def write_run(folder, settings=SETTINGS, seed=0, name="last", epoch=62 / 41):
    """A run directory as the trainer leaves it, of an untrained learner whose teacher is not its student."""
    torch.manual_seed(seed)
    learner = build_learner(settings)
    for value in learner.teacher_backbone.parameters():
        value.add_(0.01)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    state = {
        "format": FORMAT,
        "settings": as_plain(settings),
        "learner": learner.state_dict(),
        "fixed": {"batches_per_epoch": 41},
        "progress": asdict(Progress(step=31, total_steps=63, epoch=epoch, total_epochs=3)),
    }
    write_checkpoint(folder / "checkpoints" / f"{name}.ckpt", state)
    return learner


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run")
    return tmp_path / "run"


def test_writes_the_student_into_the_run(run, capsys):
    learner = write_run(run)
    out = extract(ExtractConfig(run=str(run)))
    assert out == run / "backbone.safetensors"
    backbone, metadata = load_backbone(out)
    for key, value in learner.backbone.weights().items():
        assert torch.equal(backbone.weights()[key], value), key
    assert (metadata.method, metadata.mode, metadata.which) == ("cmid", "exact", "student")
    assert (metadata.backbone, metadata.in_chans, metadata.bands) == ("resnet18", 3, ("red", "green", "blue"))
    assert (metadata.mean, metadata.std, metadata.size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 64)
    assert (metadata.epochs, metadata.images_seen) == (1.512, 62 * 8)
    said = capsys.readouterr().out
    assert "resnet18, cmid (exact), student, 1.512 epochs" in said and str(out) in said


def test_images_seen_are_told_only_where_they_are_known():
    progress = Progress(step=31, total_steps=63, epoch=62 / 41, total_epochs=3)
    assert describe(SETTINGS, progress).images_seen is None
    assert describe(replace(SETTINGS, train=TrainConfig(devices=2)), progress).images_seen == 31 * 8 * 2


def test_teacher_best_and_pth(run):
    best = write_run(run, seed=5, name="best", epoch=1.0)
    out = run.parent / "elsewhere" / "teacher.pth"
    extract(ExtractConfig(run=str(run), out=str(out), which="teacher", checkpoint="best"))
    held = torch.load(out, weights_only=True)
    assert held["metadata"]["which"] == "teacher" and held["metadata"]["epochs"] == 1.0
    expected = best.teacher_backbone.weights()
    assert held["state_dict"].keys() == expected.keys()
    assert torch.equal(held["state_dict"]["conv1.weight"], expected["conv1.weight"])
    assert not torch.equal(held["state_dict"]["conv1.weight"], best.backbone.weights()["conv1.weight"])


def test_a_checkpoint_file_is_taken_as_it_is(run):
    write_run(run, seed=5, name="best", epoch=1.0)
    out = extract(ExtractConfig(run=str(run / "checkpoints" / "best.ckpt")))
    assert out == run / "backbone.safetensors" and read_metadata(out).epochs == 1.0


def test_a_checkpoint_that_was_taken_elsewhere_gets_its_backbone_beside_it(run):
    moved = run.parent / "deep" / "x" / "last.ckpt"
    moved.parent.mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").rename(moved)
    assert extract(ExtractConfig(run=str(moved))) == moved.parent / "backbone.safetensors"
    assert sorted(path.name for path in moved.parent.iterdir()) == ["backbone.safetensors", "last.ckpt"]


def test_never_replaces_a_file_unless_asked(run):
    out = extract(ExtractConfig(run=str(run)))
    before = out.read_bytes()
    write_run(run, seed=9)
    with pytest.raises(UsageError, match=r"backbone\.safetensors exists.*--overwrite"):
        extract(ExtractConfig(run=str(run)))
    assert out.read_bytes() == before
    extract(ExtractConfig(run=str(run), overwrite=True))
    assert out.read_bytes() != before


def test_weights_that_changed_on_the_disk_are_not_passed_on(run):
    path = run / "checkpoints" / "last.ckpt"
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda each: each.file_size)
    whole[largest.header_offset + largest.file_size // 2] ^= 0x10
    path.write_bytes(whole)
    with pytest.raises(CmidError, match=r"is damaged.*the check sum of .* is wrong"):
        extract(ExtractConfig(run=str(run)))
    assert not (run / "backbone.safetensors").exists()


def test_random_numbers_of_the_caller_go_on_undisturbed(run):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    extract(ExtractConfig(run=str(run)))
    assert torch.equal(torch.rand(2), expected)


def test_a_vit_of_another_size_than_timms(tmp_path):
    settings = PretrainConfig(
        data="images", backbone="vit_tiny_patch16_224", cmid=SETTINGS.cmid, views=ViewConfig(size=96)
    )
    learner = write_run(tmp_path / "run", settings)
    backbone, _ = load_backbone(extract(ExtractConfig(run=str(tmp_path / "run"))))
    assert torch.equal(backbone.weights()["pos_embed"], learner.backbone.weights()["pos_embed"])


def test_no_run(tmp_path):
    with pytest.raises(UsageError, match="No such run"):
        extract(ExtractConfig(run=str(tmp_path / "none")))
    with pytest.raises(UsageError, match="Expected a checkpoint at"):
        extract(ExtractConfig(run=str(tmp_path)))


def test_a_checkpoint_that_is_not_of_its_settings(run):
    path = run / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    state["settings"]["backbone"] = "resnet34"
    write_checkpoint(path, state)
    with pytest.raises(CmidError, match="another architecture"):
        extract(ExtractConfig(run=str(run)))
    assert not (run / "backbone.safetensors").exists()


def test_settings_of_another_version_are_left_out_with_a_word(run, capsys):
    path = run / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    state["settings"]["cmid"] |= {"sharpness": 3.0, "mode": "blunt"}
    state["settings"]["weather"] = {"rain": True}
    write_checkpoint(path, state)
    _, metadata = load_backbone(extract(ExtractConfig(run=str(run))))
    assert (metadata.mode, metadata.mean, metadata.size) == ("exact", (0.1, 0.2, 0.3), 64)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(said) == 3
    for line, field in zip(said, ("cmid.mode", "cmid.sharpness", "weather"), strict=True):
        assert field in line
        assert line.endswith("Left out: another version of cmid may have written it.")


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_a_full_checkpoint_of_the_published_code(tmp_path, capsys, which):
    states = {name: create_backbone("resnet18", mask_stage=None).weights() for name in ("student", "teacher")}
    (tmp_path / "checkpoints").mkdir()
    path = save_full_checkpoint(tmp_path / "checkpoints" / "epoch_199.pth", full_model(**states))
    out = extract(ExtractConfig(run=str(path), which=which))
    assert out == tmp_path / "backbone.safetensors"
    backbone, metadata = load_backbone(out)
    assert torch.equal(backbone.weights()["conv1.weight"], states[which]["conv1.weight"])
    assert (metadata.backbone, metadata.method, metadata.which, metadata.epochs) == ("resnet18", "cmid", which, 200.0)
    assert metadata.cmid_version and "published code" in metadata.note
    assert f"resnet18, cmid, {which}, 200 epochs, from {path}" in capsys.readouterr().out


def test_a_backbone_in_another_format(run):
    first = extract(ExtractConfig(run=str(run), which="teacher"))
    out = extract(ExtractConfig(run=str(first), out=str(run / "b.pth")))
    assert read_metadata(out) == read_metadata(first) and read_metadata(out).which == "teacher"
    student = extract(ExtractConfig(run=str(run), out=str(run / "student.pth")))
    with pytest.raises(UsageError, match="holds the student, but the teacher was asked for"):
        extract(ExtractConfig(run=str(student), out=str(run / "c.pth"), which="teacher"))


def test_weights_that_do_not_say_what_they_are_are_named(tmp_path, capsys):
    state = create_backbone("resnet18", mask_stage=None).weights()
    torch.save(state, tmp_path / "m.pth")
    words = ["extract", str(tmp_path / "m.pth")]
    assert main(words) == 2
    assert "does not say which backbone" in capsys.readouterr().err
    assert main([*words, "--backbone", "resnet18"]) == 0
    backbone, metadata = load_backbone(tmp_path / "backbone.safetensors")
    assert torch.equal(backbone.weights()["conv1.weight"], state["conv1.weight"])
    assert (metadata.backbone, metadata.which, metadata.mean) == ("resnet18", "unknown", None) and metadata.cmid_version


def test_a_whole_model_of_torchvision_is_taken_by_name(tmp_path):
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "m.pth")
    out = extract(ExtractConfig(run=str(tmp_path / "m.pth"), backbone="resnet18"))
    assert torch.equal(load_backbone(out)[0].weights()["conv1.weight"], state["conv1.weight"])
    torch.save(torchvision.models.mobilenet_v2().state_dict(), tmp_path / "m.pth")
    with pytest.raises(UsageError, match=r"names must be timm's, which of torchvision's models the ResNets have"):
        extract(ExtractConfig(run=str(tmp_path / "m.pth"), backbone="mobilenetv2_100"))


def test_another_backbone_than_a_run_holds(run):
    for held in (run, extract(ExtractConfig(run=str(run)))):
        with pytest.raises(UsageError, match=r"holds resnet18, but resnet50 was asked for: leave backbone out"):
            extract(ExtractConfig(run=str(held), backbone="resnet50", overwrite=True))
