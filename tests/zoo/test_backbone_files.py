"""A backbone survives its file, other libraries read it, and a file from a stranger runs nothing."""

import json
import os
import pickle
import resource
import struct
from contextlib import suppress
from dataclasses import replace

import pytest
import timm
import torch
import torchvision

from cmid.backbones import create_backbone
from cmid.errors import CmidError, UsageError
from cmid.tasks.classification import Classifier
from cmid.zoo import BackboneMetadata, load_backbone, read_metadata, save_backbone
from cmid.zoo.classifier_files import ClassifierMetadata, save_classifier

METADATA = BackboneMetadata(
    "resnet18", 3, method="cmid", mode="exact", which="teacher", bands=("red", "green", "blue"), mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6), size=96, epochs=9.5, images_seen=12345, note="trained on overhead images",
)  # fmt: skip


def new(name="resnet18", in_chans=3, **settings):
    """A backbone whose running statistics are not their defaults either."""
    torch.manual_seed(1)
    backbone = create_backbone(name, in_chans, **settings)
    for key, value in backbone.weights().items():
        if "running" in key:
            value.copy_(torch.rand_like(value) + 0.5)
    return backbone.eval()


@pytest.fixture(scope="module")
def backbone():
    return new()


@pytest.fixture(params=["b.safetensors", "b.pth"])
def file(request, tmp_path, backbone):
    return save_backbone(tmp_path / request.param, backbone, METADATA)


@torch.no_grad()
def last(model, size=64, in_chans=3):
    images = torch.randn(2, in_chans, size, size, generator=torch.Generator().manual_seed(0))
    return model(images).last if hasattr(model, "strides") else model.forward_features(images)


class Malicious:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# --- there and back -------------------------------------------------------------------------------------------------


def test_comes_back_bit_for_bit(file, backbone):
    loaded, metadata = load_backbone(file)
    assert metadata == METADATA == read_metadata(file)
    assert loaded.name == "resnet18" and not loaded.training and loaded.mask_token is None
    for key, value in backbone.weights().items():
        assert torch.equal(loaded.weights()[key], value), key
    assert torch.equal(last(loaded), last(backbone))


@pytest.mark.parametrize(
    ("name", "in_chans", "built", "size"),
    [
        ("resnet18", 5, {}, 64),
        ("vit_tiny_patch16_224", 3, {}, 224),
        ("vit_tiny_patch16_224", 3, {"img_size": 96}, 96),
        ("convnext_atto", 2, {}, 64),
    ],
)
def test_other_bands_and_families(tmp_path, name, in_chans, built, size):
    saved = new(name, in_chans, **built)
    path = save_backbone(tmp_path / "b.safetensors", saved, BackboneMetadata(name, in_chans, size=size))
    loaded, _ = load_backbone(path)
    assert torch.equal(last(loaded, size, in_chans), last(saved, size, in_chans))


def test_channels_last_and_mask_token_are_left_behind(tmp_path):
    saved = new(mask_stage=0).to(memory_format=torch.channels_last)
    state = torch.load(save_backbone(tmp_path / "b.pth", saved, METADATA), weights_only=True)["state_dict"]
    assert "mask_token" not in str(state.keys()) and all(v.is_contiguous() for v in state.values())


def test_safetensors_are_known_whatever_the_length_of_their_header(tmp_path):
    backbone, first = create_backbone("test_resnet", mask_stage=None), set()
    path = tmp_path / "a.safetensors"
    for more in range(1, 257, 8):  # lengths are multiples of 8
        save_backbone(path, backbone, BackboneMetadata("test_resnet", note="x" * more), overwrite=True)
        first.add(path.read_bytes()[0])
        assert read_metadata(path).note == "x" * more
    assert 0x80 in first, "with which pickles begin"


def test_header_of_safetensors_reads_as_text(tmp_path, backbone):
    raw = save_backbone(tmp_path / "b.safetensors", backbone, METADATA).read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"]
    assert header["backbone"] == "resnet18" and header["mean"] == "[0.1, 0.2, 0.3]" and header["format"] == "pt"
    assert header["note"] == "trained on overhead images" and header["cmid_version"]


def test_unknown_fields_of_later_versions_are_passed_over(tmp_path, backbone):
    path = save_backbone(tmp_path / "b.pth", backbone, METADATA)
    held = torch.load(path, weights_only=True)
    held["metadata"]["orbit"] = "sun-synchronous"
    torch.save(held, path)
    assert read_metadata(path) == METADATA


# --- other libraries ------------------------------------------------------------------------------------------------


def test_torchvision_loads_it(tmp_path, backbone):
    state = torch.load(save_backbone(tmp_path / "b.pth", backbone, METADATA), weights_only=True)["state_dict"]
    model = torchvision.models.resnet18().eval()
    left = model.load_state_dict(state, strict=False)
    assert sorted(left.missing_keys) == ["fc.bias", "fc.weight"] and not left.unexpected_keys
    model.avgpool = model.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(images), backbone(images).last.flatten(1))


def test_timm_loads_it(file, backbone):
    model = timm.create_model("resnet18", num_classes=0, checkpoint_path=str(file)).eval()
    assert torch.equal(last(model), last(backbone))


@pytest.mark.parametrize("wrapped", [None, "state_dict", "model"])
def test_a_whole_model_of_torchvision_is_taken_by_name(tmp_path, wrapped):
    model = torchvision.models.resnet18().eval()
    state = model.state_dict()
    torch.save({wrapped: state, "epoch": 3} if wrapped else state, tmp_path / "m.pth")
    loaded, metadata = load_backbone(tmp_path / "m.pth", name="resnet18")
    assert torch.equal(loaded.weights()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert metadata.backbone == "resnet18" and metadata.mean is None
    assert read_metadata(tmp_path / "m.pth") is None


# --- writing safely -------------------------------------------------------------------------------------------------


def test_never_overwrites_unless_asked(file, backbone):
    before = file.read_bytes()
    with pytest.raises(UsageError, match=r"exists.*--overwrite"):
        save_backbone(file, backbone, replace(METADATA, note="other"))
    assert file.read_bytes() == before
    save_backbone(file, backbone, replace(METADATA, note="other"), overwrite=True)
    assert read_metadata(file).note == "other"


@pytest.mark.parametrize("name", ["b.safetensors", "b.pth"])
def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, backbone, name):
    path = save_backbone(tmp_path / name, backbone, METADATA)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))  # as a full disk, after the first megabyte
    try:
        with pytest.raises(CmidError, match="cannot be written"):
            save_backbone(path, backbone, METADATA, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="no such rights there")
@pytest.mark.parametrize("umask", [0o002, 0o027, 0o077])
def test_files_have_the_rights_of_any_new_file(tmp_path, backbone, umask):
    metadata = BackboneMetadata("resnet18")
    before = os.umask(umask)
    try:
        (tmp_path / "plain").touch()
        files = [save_backbone(tmp_path / f"b{suffix}", backbone, metadata) for suffix in (".safetensors", ".pth")]
        files.append(save_backbone(files[0], backbone, metadata, overwrite=True))
        about = ClassifierMetadata(metadata, ("beach", "field"))
        files.append(save_classifier(tmp_path / "model.safetensors", Classifier(backbone, 2), about))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "plain", *files)} == {0o666 & ~umask}


def test_equal_weights_make_equal_files(tmp_path, backbone):
    """safetensors leaves the order of the metadata to chance."""
    files = [save_backbone(tmp_path / f"{i}.safetensors", backbone, METADATA).read_bytes() for i in range(6)]
    assert len(set(files)) == 1
    assert load_backbone(tmp_path / "0.safetensors")[1] == METADATA


def test_where_nothing_can_be_written(tmp_path, backbone):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CmidError, match="cannot be written"):
        save_backbone(tmp_path / "file" / "b.pth", backbone, METADATA)


def test_suffix_and_mismatched_metadata(tmp_path, backbone):
    with pytest.raises(UsageError, match=r"\.safetensors or \.pth, not to b\.onnx"):
        save_backbone(tmp_path / "b.onnx", backbone, METADATA)
    with pytest.raises(ValueError, match="metadata of resnet50"):
        save_backbone(tmp_path / "b.pth", backbone, replace(METADATA, backbone="resnet50"))
    with pytest.raises(UsageError, match="4 bands needs as many values of mean"):
        BackboneMetadata("resnet18", 4, mean=(0.1, 0.2, 0.3))


# --- files that must be refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["torch", "torch legacy", "pickle", "pickle in a state dict"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, writer):
    trap, path = tmp_path / "sprung", tmp_path / "weights.pth"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Malicious(trap)))
    elif writer == "pickle in a state dict":
        torch.save({"state_dict": {"conv1.weight": torch.zeros(1), "x": Malicious(trap)}}, path)
    else:
        torch.save(Malicious(trap), path, _use_new_zipfile_serialization=writer == "torch")
    for read in (read_metadata, lambda p: load_backbone(p, name="resnet18")):
        with pytest.raises(UsageError, match=r"can run code: refused, nothing was run") as caught:
            read(path)
        assert writer == "pickle" or "mkdir" in str(caught.value)
    assert not trap.exists()
    with suppress(RuntimeError):  # for a pickle that torch did not write, raised once it has been run
        torch.load(path, weights_only=False)  # the trap is real
    assert trap.exists()


def test_old_text_pickles_are_not_even_opened(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "sprung"), protocol=0))
    with pytest.raises(UsageError, match="is not a file of weights"):
        load_backbone(path, name="resnet18")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not a file of weights: it is empty"),
        (b"\xff\xd8\xff\xe0 a photograph, not weights", "is not a file of weights: it begins with"),
        (b"PK\x03\x04 no zip at all", "is damaged or cut short"),
        (struct.pack("<Q", 500) + b'{"weight": nonsense', "is damaged or cut short"),
    ],
)
def test_what_is_not_a_file_of_weights(tmp_path, content, complaint):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    for read in (load_backbone, read_metadata):
        with pytest.raises(UsageError, match=complaint):
            read(path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_a_truncated_file(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UsageError, match="is damaged or cut short"):
        load_backbone(file)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_backbone(tmp_path / "none.pth")
    with pytest.raises(UsageError, match="is a folder"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("held", [torch.zeros(3), {}, {"state_dict": {"a": 3}}, [torch.zeros(3)]])
def test_tensors_that_are_no_state_dict(tmp_path, held):
    torch.save(held, tmp_path / "m.pth")
    with pytest.raises(UsageError, match="holds no state dict"):
        load_backbone(tmp_path / "m.pth", name="resnet18")


def test_no_metadata_asks_for_the_backbone(tmp_path, backbone):
    torch.save(backbone.weights(), tmp_path / "m.pth")
    with pytest.raises(UsageError, match=r"does not say which backbone.*--backbone"):
        load_backbone(tmp_path / "m.pth")


def test_another_architecture_or_other_bands(tmp_path, file):
    with pytest.raises(UsageError, match="holds resnet18, but resnet50 was asked for"):
        load_backbone(file, name="resnet50")
    with pytest.raises(UsageError, match="for images of 3 bands, but 4"):
        load_backbone(file, in_chans=4)
    torch.save(new().weights(), tmp_path / "m.pth")
    with pytest.raises(UsageError, match=r"m\.pth: The weights do not fit resnet50"):
        load_backbone(tmp_path / "m.pth", name="resnet50")
    with pytest.raises(UsageError, match="for 3 bands"):
        load_backbone(tmp_path / "m.pth", name="resnet18", in_chans=4)


@pytest.mark.parametrize("wrong", [{"in_chans": "three"}, {"size": [1, 2]}, {"mean": 0.5}, {"std": ["a"] * 3}])
def test_metadata_of_wrong_types(tmp_path, backbone, wrong):
    path = save_backbone(tmp_path / "b.pth", backbone, METADATA)
    held = torch.load(path, weights_only=True)
    held["metadata"].update(wrong)
    torch.save(held, path)
    with pytest.raises(UsageError, match="metadata of wrong types"):
        load_backbone(path)
