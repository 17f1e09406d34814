"""`cmid predict classification --maps`: a picture for each image, placed and named right, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cmid
from cmid.backbones import create_backbone
from cmid.cli import main
from cmid.commands.class_maps import picture_names
from cmid.data.images import resize_whole
from cmid.errors import UsageError
from cmid.evaluation.activation import class_activation
from cmid.ops.normalise import normalise
from cmid.tasks.classification import Classifier
from cmid.zoo.backbone_files import BackboneMetadata
from cmid.zoo.classifier_files import ClassifierMetadata, load_classifier, save_classifier

MEAN, STD, CLASSES = (0.3, 0.4, 0.5), (0.2, 0.2, 0.2), ("airplane", "beach", "harbour")
PLAIN = {"precision": "32", "workers": 0, "accelerator": "cpu"}


def model(path, backbone="test_resnet", multi_label=False, test_crop=1.0):
    torch.manual_seed(0)
    task = Classifier(create_backbone(backbone, mask_stage=None, img_size=64), 3, multi_label=multi_label)
    torch.nn.init.normal_(task.head.weight)
    about = BackboneMetadata(backbone, mean=MEAN, std=STD, size=64)
    return save_classifier(path, task, ClassifierMetadata(about, CLASSES, multi_label, test_crop))


def draw(path, width=96, height=64, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def images(tmp_path):
    for i, name in enumerate(("a/x.png", "b/x.png", "b/x.bmp", "y.png")):
        draw(tmp_path / "images" / name, seed=i)
    return tmp_path / "images"


def predict(path, data, out, **settings):
    return cmid.predict("classification", path, data, out=out / "p.csv", maps=out / "maps", **PLAIN | settings)


def told(out):
    return json.loads((out / "maps" / "maps.json").read_text())


def test_each_image_has_a_picture_under_its_own_name_and_its_class_and_score(images, tmp_path):
    path = model(tmp_path / "model.safetensors", test_crop=0.75)
    found = predict(path, images, tmp_path, map_classes=("beach",))
    rows = {row["image"]: row for row in csv.DictReader((tmp_path / "p.csv").open())}
    pictures = told(tmp_path)["pictures"]
    assert found.maps == tmp_path / "maps" and {p["image"] for p in pictures} == set(rows) and len(rows) == 4
    on_disk = {p.relative_to(found.maps).as_posix() for p in found.maps.rglob("*.png")}
    assert on_disk == {p["picture"] for p in pictures} == {"a/x.png.png", "b/x.png.png", "b/x.bmp.png", "y.png.png"}
    assert not [p.name for p in found.maps.iterdir() if p.name.startswith(".")]
    task, _ = load_classifier(path)
    for p in pictures:
        names = [m["class"] for m in p["maps"]]
        assert names == list(dict.fromkeys([rows[p["image"]]["class"], "beach"]))
        assert p["seen"] == [24, 8, 72, 56], "three quarters of the central square of 96 x 64"
        pixels = resize_whole(np.array(Image.open(p["image"])), 64, 0.75)
        with torch.no_grad():
            scores = task.logits(normalise(pixels[None], MEAN, STD))[0]
        for m in p["maps"]:
            assert m["score"] == pytest.approx(scores[CLASSES.index(m["class"])].item(), abs=1e-4)
            assert m["low"] < m["score"] < m["high"]
            assert m["probability"] == pytest.approx(float(rows[p["image"]][m["class"]]), abs=1e-6)


def test_the_map_lies_where_the_model_looked_in_an_image_that_is_not_square(tmp_path):
    """The picture's heat is that of the class map over the box that the model was shown, dark elsewhere."""
    path = model(tmp_path / "model.safetensors", test_crop=0.5)
    image = draw(tmp_path / "wide.png", width=400, height=300)
    predict(path, image, tmp_path)
    [picture] = told(tmp_path)["pictures"]
    x0, y0, x1, y1 = picture["seen"]
    assert (x0, y0, x1, y1) == (125, 75, 275, 225)
    sheet = np.asarray(Image.open(tmp_path / "maps" / picture["picture"])).astype(int)
    shown, heat = sheet[8:308, 8:408], sheet[8:308, 416:816]
    original = np.array(Image.open(image))
    assert (shown == original).all()
    grey = np.asarray(Image.open(image).convert("L")).astype(int)
    outside = np.ones((300, 400), bool)
    outside[y0:y1, x0:x1] = False
    assert np.abs(heat[outside] - np.rint(0.45 * grey[outside])[:, None]).max() <= 1
    task, _ = load_classifier(path)
    maps = class_activation(task, normalise(resize_whole(original, 64, 0.5)[None], MEAN, STD))[0]
    values = maps[CLASSES.index(picture["maps"][0]["class"])]
    rows, columns = values.shape
    for extreme, brighter in ((values.argmax(), True), (values.argmin(), False)):
        r, c = divmod(int(extreme), columns)
        y, x = y0 + (r + 0.5) * (y1 - y0) / rows, x0 + (c + 0.5) * (x1 - x0) / columns
        here = slice(int(y) - 2, int(y) + 2), slice(int(x) - 2, int(x) + 2)
        colour = (heat[here] - 0.3 * grey[here][..., None]).sum(-1).mean()  # without the grey below it
        every = (heat - 0.3 * grey[..., None])[y0:y1, x0:x1].sum(-1)
        assert abs(colour - (every.max() if brighter else every.min())) < 0.12 * np.ptp(every)


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_attention_is_drawn_once_for_all_classes(images, tmp_path, backbone):
    predict(model(tmp_path / "model.safetensors", backbone), images, tmp_path, map_kind="attention")
    about = told(tmp_path)
    assert about["kind"] == "attention" and len(about["pictures"]) == 4
    for picture in about["pictures"]:
        [values] = picture["maps"]
        assert 0 <= values["low"] < values["high"] and "class" not in values


def test_all_likely_classes_are_drawn_where_there_may_be_several(images, tmp_path):
    predict(model(tmp_path / "model.safetensors", multi_label=True), images, tmp_path)
    rows = {row["image"]: row for row in csv.DictReader((tmp_path / "p.csv").open())}
    counts = set()
    for picture in told(tmp_path)["pictures"]:
        row = {name: float(rows[picture["image"]][name]) for name in CLASSES}
        likely = sorted((k for k in row if row[k] > 0.5), key=lambda k: -row[k]) or [max(row, key=row.__getitem__)]
        assert [m["class"] for m in picture["maps"]] == likely
        counts.add(len(likely))
    assert counts - {1}, "no image is of several: nothing was tested"


def test_a_limit_takes_images_from_all_over_and_unreadable_ones_have_no_picture(images, tmp_path, capsys):
    for i in range(20):
        draw(images / "c" / f"{i:02}.png", 64, 64, seed=i)
    (images / "c" / "00.png").write_bytes(b"no image")
    found = predict(model(tmp_path / "model.safetensors"), images, tmp_path, map_limit=3, batch_size=2)
    assert found.images == 23
    names = [Path(p["image"]).relative_to(images).as_posix() for p in told(tmp_path)["pictures"]]
    assert names == ["a/x.png", "c/09.png", "y.png"]
    assert "3 pictures of 23 images (map_limit)" in capsys.readouterr().err


def test_lists_name_pictures_from_the_folder_that_holds_all_and_never_upwards(images, tmp_path):
    lines = ["../images/a/x.png", "../images/b/x.png", str(images / "y.png"), "../images/b/../y.png"]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_text("\n".join(lines))
    predict(model(tmp_path / "model.safetensors"), tmp_path / "lists" / "list.txt", tmp_path)
    pictures = [p["picture"] for p in told(tmp_path)["pictures"]]
    assert pictures == ["a/x.png.png", "b/x.png.png", "y.png.png", "y.png.2.png"]
    written = {p for p in tmp_path.rglob("*.png") if images not in p.parents}
    assert written == {tmp_path / "maps" / name for name in pictures}


def test_names_that_some_disks_take_for_one_are_kept_apart():
    names = [str(name) for name in picture_names(["/d/A.png", "/d/a.png", "/d/a.png", "/d/b/../a.png"], "list.txt")]
    assert names == ["A.png.png", "a.png.2.png", "a.png.2.png", "a.png.3.png"]


def test_a_folder_with_files_is_kept_unless_told_otherwise(images, tmp_path):
    path = model(tmp_path / "model.safetensors")
    (tmp_path / "maps").mkdir()
    predict(path, images, tmp_path)  # an empty one may be used
    (tmp_path / "p.csv").unlink()
    before = (tmp_path / "maps" / "maps.json").read_bytes()
    with pytest.raises(UsageError, match="holds files"):
        predict(path, images, tmp_path, map_limit=1)
    assert (tmp_path / "maps" / "maps.json").read_bytes() == before and not (tmp_path / "p.csv").exists()
    predict(path, images, tmp_path, map_limit=1, overwrite=True)
    assert len(told(tmp_path)["pictures"]) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"map_kind": "attention"}, "test_resnet has no attention to follow"),
        ({"map_kind": "attention", "map_classes": "beach"}, "the same for all classes"),
        ({"map_classes": "harbor"}, "Did you mean harbour?"),
        ({"map_limit": -1}, "map_limit"),
        ({"map_kind": "rollout"}, "one of cam, attention"),
        ({"maps": "IMAGES/b/maps"}, "lies among the images"),
        ({"maps": "IMAGES/y.png"}, "is a file"),
    ],
)
def test_requests_that_cannot_be_carried_out(images, tmp_path, capsys, settings, words):
    path = model(tmp_path / "model.safetensors")
    settings = {"maps": str(tmp_path / "maps"), **settings}
    options = [w for k, v in settings.items() for w in (f"--{k}", str(v).replace("IMAGES", str(images)))]
    command = ["predict", "classification", str(path), str(images), "--out", str(tmp_path / "p.csv"), *options]
    assert main([*command, "--workers", "0", "--accelerator", "cpu"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cmid: error:")]
    assert len(errors) == 1 and words in errors[0]
    assert not (tmp_path / "p.csv").exists() and not (tmp_path / "maps").exists()


def test_a_folder_that_cannot_be_written(images, tmp_path):
    path = model(tmp_path / "model.safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(cmid.errors.CmidError, match=r"cannot be written: Not a directory\. Choose"):
        cmid.predict("classification", path, images, out=tmp_path / "p.csv", maps=tmp_path / "file" / "maps", **PLAIN)
