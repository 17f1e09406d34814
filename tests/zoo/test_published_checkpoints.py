"""A full checkpoint of the published code gives the student's or the teacher's backbone, and runs nothing."""

import json
import os

import pytest
import timm
import torch
from safetensors.torch import save_file

from cmid.backbones import create_backbone
from cmid.config import ViewConfig
from cmid.errors import UsageError
from cmid.zoo import load_backbone, read_metadata, save_backbone
from cmid.zoo.foreign_checkpoints import read_beside_objects
from cmid.zoo.published_layout import (
    BACKBONES,
    backbone_of,
    is_extracted_swin,
    is_full_checkpoint,
    name_of,
    to_timm,
)
from tests.conftest import fill_by_formula
from tests.zoo.published_code import MODULE, full_model, save_full_checkpoint
from tests.zoo.test_foreign_checkpoints import Calls
from tests.zoo.test_published_layout import SWIN, TINY, check, close, outputs

BESIDE = (
    "queue", "queue_ptr", "online_encoder.mask_token", "online_projector.", "branch_projector.", "class_projector.",
    "branch_class_projector.", "mim2org.", "class_loss.center",
)  # fmt: skip
"""What a full checkpoint's `model` holds besides the two backbones."""


def resnet18(seed):
    """A torchvision-named state with running statistics of its own."""
    torch.manual_seed(seed)
    state = create_backbone("resnet18", mask_stage=None).weights()
    return {key: torch.rand_like(value) if "running" in key else value.clone() for key, value in state.items()}


@pytest.fixture(scope="module")
def states():
    return {"student": resnet18(1), "teacher": resnet18(2)}


@pytest.fixture
def file(tmp_path, states):
    return save_full_checkpoint(tmp_path / "epoch_199.pth", full_model(**states))


def zeros(keys):
    """A state dict of the shapes and kinds of a list of keys, in hardly any memory."""
    return {key: torch.zeros((), dtype=getattr(torch, kind)).expand(shape) for key, (shape, kind) in keys.items()}


def listed(reference, name):
    with (reference.folder / f"{name}.json").open() as file:
        return json.load(file)


# --- the layout -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "name"), [("r50", "resnet50"), ("swin", "swin_base_patch4_window7_224")], ids=["r50", "swin"]
)
def test_every_name_of_the_published_checkpoints_is_accounted_for(reference, short, name):
    keys, alone = listed(reference, f"moco_keys_{short}"), listed(reference, f"backbone_keys_{short}")
    left = [key for key in keys if not key.startswith((*BACKBONES.values(), *BESIDE))]
    assert left == [] and len(keys) == 2 * len(alone) + sum(key.startswith(BESIDE) for key in keys)
    model = zeros(keys)
    assert is_full_checkpoint(model) and not is_full_checkpoint(zeros(alone))
    expected = to_timm(zeros(alone))
    own = create_backbone(name, mask_stage=None).weights()
    for which in BACKBONES:
        state = backbone_of(model, which)
        assert name_of(state) == name
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in own.items()}


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    + [f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")],
)
def test_names_are_told_from_shapes(name):
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    assert name_of(state) == name


@pytest.mark.parametrize(
    "name", ["resnet26", "swin_large_patch4_window7_224", "swin_base_patch4_window12_384", "resnet18d"]
)
def test_other_models_are_not_named(name):
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    assert name_of(state) is None


# --- through the file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [None, "student", "teacher"])
def test_student_or_teacher(file, states, which):
    backbone, metadata = load_backbone(file, which=which)
    expected = states[which or "student"]
    assert backbone.weights().keys() == expected.keys() and not backbone.training
    for key, value in expected.items():
        assert torch.equal(backbone.weights()[key], value), key
    assert (metadata.backbone, metadata.method, metadata.which) == ("resnet18", "cmid", which or "student")
    assert (metadata.epochs, metadata.size, metadata.mean) == (200.0, 224, ViewConfig().mean)
    assert which == "teacher" or read_metadata(file) == metadata


def test_nothing_in_it_is_run(tmp_path, states):
    trap = tmp_path / "sprung"
    path = save_full_checkpoint(tmp_path / "m.pth", full_model(**states), extra=Calls(os.mkdir, str(trap)))
    load_backbone(path)
    read_metadata(path)
    assert not trap.exists()


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_a_call_in_place_of_one_tensor_refuses_the_file(tmp_path, states, which):
    model = full_model(**states)
    model[BACKBONES[which] + "conv1.weight"] = Calls(os.mkdir, str(tmp_path / "sprung"))
    path = save_full_checkpoint(tmp_path / "m.pth", model)
    with pytest.raises(UsageError, match="refused, nothing was run"):
        load_backbone(path, which=which)
    assert not (tmp_path / "sprung").exists()


def test_foreign_objects_beside_any_other_layout_are_refused(tmp_path, states):
    path = save_full_checkpoint(tmp_path / "m.pth", states["student"])
    with pytest.raises(UsageError, match=rf"\({MODULE}.HistoryBuffer|{MODULE}.MetricStroge\).*nothing was run"):
        load_backbone(path, name="resnet18")


def test_the_format_from_before_torch_1_6_is_refused_in_words(tmp_path, states):
    path = save_full_checkpoint(tmp_path / "m.pth", full_model(**states), _use_new_zipfile_serialization=False)
    with pytest.raises(UsageError, match="refused, nothing was run"):
        load_backbone(path)


def test_a_checkpoint_without_foreign_objects_is_the_same(tmp_path, states):
    torch.save({"epoch": 4, "model": full_model(**states), "metric_storage": None}, tmp_path / "m.pth")
    backbone, metadata = load_backbone(tmp_path / "m.pth", which="teacher")
    assert torch.equal(backbone.weights()["conv1.weight"], states["teacher"]["conv1.weight"])
    assert (metadata.backbone, metadata.which, metadata.epochs) == ("resnet18", "teacher", 5.0)


def test_damage(file, states):
    content = file.read_bytes()
    weight = states["student"]["layer4.1.conv2.weight"].numpy().tobytes()[:64]
    at = content.index(weight)
    file.write_bytes(content[:at] + bytes(64) + content[at + 64 :])
    with pytest.raises(UsageError, match=r"is damaged or cut short \(Bad CRC"):
        load_backbone(file)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match="is damaged or cut short"):
        load_backbone(file)


def test_what_is_asked_for_must_be_what_it_holds(tmp_path, file, states):
    with pytest.raises(UsageError, match="The weights do not fit resnet34"):
        load_backbone(file, name="resnet34")
    with pytest.raises(UsageError, match="3 bands, but 4"):
        load_backbone(file, in_chans=4)
    backbone, metadata = load_backbone(file, which="teacher")
    path = save_backbone(tmp_path / "b.safetensors", backbone, metadata)
    assert load_backbone(path, which="teacher")[1] == load_backbone(path)[1] == metadata
    with pytest.raises(UsageError, match=r"holds the teacher, but the student was asked for.*--which"):
        load_backbone(path, which="student")
    torch.save(states["student"], tmp_path / "m.pth")
    with pytest.raises(UsageError, match="does not say whose backbone it holds, but the teacher"):
        load_backbone(tmp_path / "m.pth", name="resnet18", which="teacher")


def test_shapes_of_no_known_model_ask_for_the_name(tmp_path, states):
    cut = {which: {k: v for k, v in state.items() if "layer4.1" not in k} for which, state in states.items()}
    path = save_full_checkpoint(tmp_path / "m.pth", full_model(**cut))
    with pytest.raises(UsageError, match="does not say which backbone"):
        load_backbone(path)
    with pytest.raises(UsageError, match="The weights do not fit resnet18"):
        load_backbone(path, name="resnet18")


# --- backbones alone ------------------------------------------------------------------------------------------------


def extracted(reference, path, short):
    """A file as the published extraction writes it: the names and nothing else."""
    torch.save(zeros(listed(reference, f"backbone_keys_{short}")), path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_swin_alone_says_what_a_full_checkpoint_says(tmp_path, reference, suffix):
    path = extracted(reference, tmp_path / "swin.pth", "swin")
    if suffix == ".safetensors":
        state = {key: value.contiguous() for key, value in torch.load(path).items()}
        path = path.with_suffix(suffix)
        save_file(state, path)
    backbone, metadata = load_backbone(path, which="student")
    views = ViewConfig()
    assert (backbone.name, metadata.method, metadata.which) == ("swin_base_patch4_window7_224", "cmid", "student")
    assert (metadata.mean, metadata.std, metadata.size, metadata.epochs) == (views.mean, views.std, 224, None)
    assert "published code" in metadata.note and read_metadata(path) == metadata


@pytest.mark.parametrize("norms", [("norm",), ("norm0", "norm1", "norm2", "norm3")])
def test_a_swin_of_the_same_names_that_others_trained_gets_no_mean_of_cmid(tmp_path, reference, norms):
    """mmsegmentation's converted Swins have a norm without a number, its own one for each stage."""
    state = zeros(listed(reference, "backbone_keys_swin"))
    last = {end: state.pop(f"norm3.{end}") for end in ("weight", "bias")}
    assert is_extracted_swin(state | {f"norm3.{end}": value for end, value in last.items()})
    state |= {f"{norm}.{end}": value for norm in norms for end, value in last.items()}
    torch.save(state, tmp_path / "m.pth")
    assert read_metadata(tmp_path / "m.pth") is None


def test_a_resnet_alone_is_any_resnet_and_must_be_named(tmp_path, reference):
    path = extracted(reference, tmp_path / "r50.pth", "r50")
    with pytest.raises(UsageError, match=r"does not say which.*--backbone resnet50 of cmid extract, evaluate and fin"):
        load_backbone(path)
    backbone, metadata = load_backbone(path, name="resnet50")
    assert (backbone.name, metadata.method, metadata.which) == ("resnet50", None, "unknown")
    assert metadata.mean is None and metadata.std is None


# --- features -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["student", "teacher"])
@torch.no_grad()
def test_swin_features_through_a_full_checkpoint(tmp_path, reference, which):
    published = {key.removeprefix("sd."): value for key, value in reference("swin_tiny_state").items()}
    norms = [(published.pop(f"norm{i}.weight"), published.pop(f"norm{i}.bias")) for i in range(3)]
    other = {key: torch.zeros_like(value) for key, value in published.items()}
    pair = {"student": other, "teacher": other} | {which: published}
    path = save_full_checkpoint(tmp_path / "epoch_199.pth", full_model(**pair))
    arrays, backbone = reference("swin_tiny_io"), create_backbone(SWIN, **TINY).eval()
    assert backbone.load_weights(backbone_of(read_beside_objects(path)["model"], which)) == []
    check(outputs(backbone, norms, arrays["x"]), arrays, "out")


@torch.no_grad()
def test_resnet50_features_through_a_full_checkpoint(tmp_path, reference):
    model = zeros(listed(reference, "moco_keys_r50"))
    student = {f"model.{key}": value for key, value in zeros(listed(reference, "backbone_keys_r50")).items()}
    model |= {f"online_encoder.{key}": value for key, value in fill_by_formula(student).items()}
    path = save_full_checkpoint(tmp_path / "epoch_399.pth", model, epoch=399)
    backbone, metadata = load_backbone(path)
    assert (metadata.backbone, metadata.epochs) == ("resnet50", 400.0)
    arrays = reference("mask_resnet50")
    found = backbone(arrays["x"])
    for stage in range(4):
        close(found[stage].flatten()[:64], arrays[f"nomask_s{stage + 1}_first64"])
        close(found[stage].std(), arrays[f"nomask_s{stage + 1}_std"])
