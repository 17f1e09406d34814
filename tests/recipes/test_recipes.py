"""Every packaged recipe: its opening comment, its settings, and two steps through the real command line."""

import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
import timm
import yaml
from PIL import Image

from cmid.cli import main, read_words
from cmid.commands import prepare
from cmid.commands.compare_plan import plan_rows
from cmid.commands.learners import METHODS, build_learner
from cmid.commands.pretrain import check_queue, settled
from cmid.commands.recipes import HEADER, find_recipe, recipe_names
from cmid.commands.settings import resolve
from cmid.config import FinetuneConfig, FinetuneSegmentationConfig, PretrainConfig
from cmid.errors import UsageError
from cmid.train.optimisers import scaled_lr
from tests.commands.test_finetune_segmentation import draw

PUBLISHED = [f"cmid-{data}-{net}" for data in ("millionaid", "potsdam") for net in ("resnet50", "swin-b")]
SMALL = ["cmid-demo", "cmid-small", "cmid-tiny"]
RIVALS = {
    "byol-resnet50": ["--backbone=resnet18", "--views.size=64", "--byol.hidden=64"],
    "moco_v2-resnet50": ["--backbone=resnet18", "--views.size=64", "--moco_v2.queue_size=32"],
    "seco-resnet50": ["--backbone=resnet18", "--views.size=64", "--seco.queue_size=32"],
    "barlow_twins-resnet50": ["--backbone=resnet18", "--views.size=64", "--barlow_twins.hidden=64"],
    "swav-resnet50": ["--backbone=resnet18", "--views.size=64", "--views.small_size=32", "--swav.prototypes=20"],
    "mae-vit-b": ["--backbone=test_vit", "--views.size=64", "--mae.decoder_width=64", "--mae.decoder_depth=1"],
    "supervised-resnet50": ["--backbone=resnet18", "--views.size=64"],
    "simmim-swin-b": ["--backbone=resnet18", "--views.size=64"],
    "indexnet-resnet50": ["--backbone=resnet18", "--views.size=64", "--indexnet.hidden=64"],
}
"""Recipes of the methods beside CMID, and what makes two steps of each cheap."""
COMPARE = ["compare-small"]
FINETUNE = ["finetune-small", "finetune-ucm-resnet50", "finetune-ucm-swin-b"]
ISPRS = [f"segment-isprs-{net}{optimiser}" for net in ("resnet50", "swin-b") for optimiser in ("", "-adan")]
SEGMENT = [*ISPRS, "segment-small"]


def test_which_there_are():
    assert recipe_names() == sorted([*PUBLISHED, *SMALL, *RIVALS, *COMPARE, *FINETUNE, *SEGMENT])


@pytest.mark.parametrize("name", recipe_names())
def test_opening_comment(name):
    recipe = find_recipe(name)
    keys = re.findall(r"^# ([A-Z][^:]*): \S", recipe.text.partition("\n\n")[0].partition("\n#\n")[0], re.MULTILINE)
    assert tuple(keys) == HEADER
    program, verb, *rest = shlex.split(recipe.command)
    kinds = {name: ["finetune", "classification"] for name in FINETUNE} | {
        name: ["finetune", "segmentation"] for name in SEGMENT
    }
    expected = kinds.get(name, ["compare"] if name in COMPARE else ["pretrain"])
    assert [program, verb, *rest][: 1 + len(expected)] == ["cmid", *expected]
    words = read_words(verb, rest)
    assert words.files == {"recipe": name}
    assert prepare(verb, words.given, kind=words.kind, **words.files).out == f"runs/{name}"


@pytest.mark.parametrize("name", [*PUBLISHED, *SMALL, *RIVALS])
def test_settings(name):
    config = resolve(PretrainConfig, recipe=name)
    assert config.data == "", "a recipe does not know where the images are"
    assert config.backbone in timm.list_models()
    written = yaml.safe_load(find_recipe(name).text)
    assert written["backbone"] == config.backbone
    assert written.get("method", "cmid") == config.method
    assert config.views.size % getattr(getattr(config, config.method), "mask_cell_px", 1) == 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    config = resolve(PretrainConfig, recipe=name)
    assert config.epochs == (200 if "millionaid" in name else 400)
    assert config.batch_size * config.train.devices * config.train.accumulate == 4 * 64
    assert config.backbone == ("resnet50" if "resnet50" in name else "swin_base_patch4_window7_224")
    others = {"epochs": config.epochs, "backbone": config.backbone, "train": config.train}
    same = resolve(PretrainConfig, {**others, "cmid.local_start_epoch": -1 if "resnet50" in name else 0})
    assert config == same, "the defaults are the published numbers"
    assert "not measured" in find_recipe(name).ours


ON_DEVICES = [
    "--train.devices 4 --train.accumulate 1",
    "--train.devices 2 --train.accumulate 2",
    "--train.devices 8 --train.accumulate 1 --batch-size 32",
]
PARITY = ["--batch-size 256", "--train.devices 4"]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("more", ["", *ON_DEVICES, *(f"--cmid.mode parity --train.accumulate 1 {p}" for p in PARITY)])
def test_any_number_of_devices_takes_the_published_steps(name, more):
    recipe = find_recipe(name)
    for words in [*ON_DEVICES, "--cmid.mode parity --train.accumulate 1"]:
        assert words in recipe.text, "the header tells of it"
    _, verb, *rest = shlex.split(f"{recipe.command} {more}")
    words = read_words(verb, rest)
    config = settled(prepare(verb, words.given, **words.files))
    images = config.batch_size * config.train.devices * config.train.accumulate
    lr, said = scaled_lr(config.optimizer, images)
    assert images == 4 * 64 and lr == pytest.approx(4e-3)
    assert said == "learning rate 0.004 = 0.001 x 256 images a step / 64"
    check_queue(config, config.train.devices)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parity_mode_refuses_to_add_up(name):
    with pytest.raises(UsageError, match=r"train\.accumulate is 4, but the published code, and so parity mode, never"):
        settled(resolve(PretrainConfig, {"data": "images", "cmid.mode": "parity"}, recipe=name))


@pytest.mark.parametrize("name", ["finetune-ucm-resnet50", "finetune-ucm-swin-b"])
def test_published_fine_tuning(name):
    config = resolve(FinetuneConfig, recipe=name)
    o, m = config.optimizer, config.mixing
    assert (o.name, o.lr, o.lr_reference_batch, o.weight_decay, o.min_lr) == ("adan", 3.125e-3, 0, 0.02, 1e-6)
    assert (config.epochs, o.warmup_epochs, config.size, config.test_crop) == (200, 5, 224, 0.875)
    assert (m.randaugment, m.erasing, m.mixup, m.cutmix, m.switch_p) == ("rand-m9-mstd0.5-inc1", 0.25, 0.8, 1.0, 0.5)
    assert config.classification.smoothing == 0.1
    assert config.drop_path == (0.5 if "swin" in name else 0)
    text = find_recipe(name).text
    assert ("the published settings" in text) == ("swin" in name), "there are none for ResNet-50"
    assert "batch" in text.partition("\n\n")[0] and config.batch_size == 64, "which is ours, and told"
    assert config.mean == timm.data.IMAGENET_DEFAULT_MEAN and config.std == timm.data.IMAGENET_DEFAULT_STD


@pytest.mark.parametrize("name", ISPRS)
def test_published_segmentation(name):
    config = resolve(FinetuneSegmentationConfig, recipe=name)
    o, s, c = config.optimizer, config.segmenter, config.crops
    expected = {
        "segment-isprs-resnet50": ("sgd", 0.01, (0.9,), 1e-4, 0.0, 0.0),
        "segment-isprs-resnet50-adan": ("adan", 2e-3, (0.98, 0.92, 0.99), 0.02, 5.0, 0.0),
        "segment-isprs-swin-b": ("adamw", 6e-5, (0.9, 0.999), 0.01, 0.0, 0.3),
        "segment-isprs-swin-b-adan": ("adan", 3e-4, (0.98, 0.92, 0.99), 0.02, 0.0, 0.3),
    }[name]
    assert (o.name, o.lr, o.betas, o.weight_decay, o.clip_norm, config.drop_path) == expected
    assert (config.epochs, config.batch_size, config.size, o.warmup_steps, o.min_lr) == (50, 8, 512, 100, 1e-6)
    assert (s.head, s.width, s.auxiliary_weight, s.average, s.untrained) == ("upernet", 512, 0.4, "all", ("clutter",))
    assert (c.scale, c.max_share, c.flip, c.turn, c.hue) == ((0.5, 2.0), 0.75, 0.5, 0.0, 0.1)
    assert bool(o.undecayed) == ("swin" in name)


@pytest.mark.parametrize("name", SEGMENT)
def test_two_steps_of_segmentation(name, tmp_path):
    data = draw(tmp_path / "data", tiles=2, each=4, side=72, names=("building", "tree", "clutter"))
    model = "swin_tiny_patch4_window7_224" if "swin" in name else "test_resnet"
    argv = [
        "finetune", "segmentation", "random", str(data), "--recipe", name, "--backbone", model, "--size", "64",
        "--batch_size", "2", "--segmenter.width", "16", "--train.max_steps", "2", "--train.workers", "0",
        "--train.precision", "32", "--train.accelerator", "cpu", "--out", str(tmp_path / "run"), "--no-report",
    ]  # fmt: skip
    assert main(argv) == 0
    assert (tmp_path / "run" / "scores.json").is_file()


def test_a_recipe_of_another_verb():
    with pytest.raises(UsageError, match="is for `cmid finetune classification`, not for `cmid pretrain`"):
        prepare("pretrain", {"data": "images"}, recipe="finetune-small")


def test_unknown_recipe():
    with pytest.raises(UsageError, match=r"Unknown recipe 'cmid-potsdam-resnet5'\. Did you mean cmid-potsdam-resnet50"):
        find_recipe("cmid-potsdam-resnet5")


def test_a_recipe_name_is_not_a_path():
    with pytest.raises(UsageError, match="Unknown recipe"):
        find_recipe("../recipes/cmid-tiny")


def test_listed_by_verb(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["recipes"]) == 0
    groups = capsys.readouterr().out.split("\n\n")
    assert len(groups) == 5 and "cmid recipes NAME" in groups.pop()
    listed = {}
    for title, *rows in (group.splitlines() for group in groups):
        verb = title.removeprefix("cmid ").removesuffix(" --recipe ...")
        listed |= {row.split()[0]: (verb, " ".join(row.split()[1:])) for row in rows}
    assert listed == {name: (find_recipe(name).verb, find_recipe(name).what) for name in recipe_names()}
    assert listed["segment-small"][0] == "finetune segmentation" and listed["compare-small"][0] == "compare"


def test_shown_whole(capsys):
    assert main(["recipes", "cmid-tiny"]) == 0
    assert capsys.readouterr().out == find_recipe("cmid-tiny").text


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(8):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)  # classes, for the methods that learn from them
        pixels = np.random.default_rng(i).integers(0, 256, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "ab"[i % 2] / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """Eight places at two dates each, for methods that contrast dates."""
    folder = tmp_path_factory.mktemp("places")
    for i in range(8):
        (folder / f"{i}").mkdir()
        for when in ("2019-01-20", "20190801T101031"):
            pixels = np.random.default_rng(i).integers(0, 256, (80, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}" / f"{when}.png")
    return folder


def two_steps(images, out, name, *more):
    small = ["--batch-size", "4", "--train.workers", "0", "--train.precision", "32", "--train.accumulate", "1"]
    line = ["pretrain", str(images), "--recipe", name, "--out", str(out), *small]
    assert main([*line, "--train.max_steps", "2", "--train.accelerator", "cpu", "--no-report", *more]) == 0
    kept = resolve(PretrainConfig, config=out / "settings.yaml")
    assert (kept.batch_size, kept.train.max_steps) == (4, 2)
    assert (out / "backbone.safetensors").is_file()


@pytest.mark.parametrize("name", SMALL)
def test_two_steps_of_a_small_one(images, tmp_path, name):
    two_steps(images, tmp_path / "run", name, "--cmid.queue_size=32")


@pytest.mark.parametrize("name", PUBLISHED)
def test_two_steps_of_a_published_one(images, tmp_path, name):
    two_steps(
        images, tmp_path / "run", name, "--backbone=resnet18", "--views.size=64", "--cmid.queue_size=32",
        "--cmid.local_matches=2", "--cmid.local_prototypes=64", "--cmid.local_hidden=64", "--cmid.global_hidden=64",
    )  # fmt: skip


@pytest.mark.parametrize("name", RIVALS)
def test_two_steps_of_another_method(images, places, tmp_path, name):
    data = places if METHODS[resolve(PretrainConfig, recipe=name).method].dates else images
    two_steps(data, tmp_path / "run", name, *RIVALS[name])


def test_settings_of_a_method_that_is_not_trained_are_refused(images, tmp_path, capsys):
    line = ["pretrain", str(images), "--recipe", "byol-resnet50", "--out", str(tmp_path / "run")]
    assert main([*line, "--cmid.queue_size", "32"]) == 2
    said = capsys.readouterr().err
    assert "settings of cmid are given" in said and "the method is byol: leave them out" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", COMPARE)
def test_rows_of_a_comparison_can_be_built_and_differ_in_what_they_say(name):
    rows = plan_rows(prepare("compare", {"data": "images", "labelled": "labelled"}, recipe=name))
    assert {row.config.method for row in rows} == set(METHODS) - LEFT_OUT
    assert f"all methods but {', '.join(LEFT_OUT)} " in find_recipe(name).text
    for row in rows:
        build_learner(row.config)
        assert (row.config.epochs, row.config.batch_size) == (rows[0].config.epochs, rows[0].config.batch_size)
        # all but the rate, which each row has by the same small search
        assert replace(row.config.optimizer, lr=0.0) == replace(rows[0].config.optimizer, lr=0.0)


LEFT_OUT = {"supervised"} & set(METHODS)
"""Methods that a comparison on unlabelled images has no row for."""
