"""The Python API: the same verbs, the same settings, nothing heavy before the first call."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import cmid
from cmid.commands import VERBS, prepare
from cmid.errors import UsageError

HEAVY = {"torch", "lightning", "timm", "numpy", "yaml", "jsonargparse", "rich"}


def test_importing_is_light():
    code = "import sys, cmid; cmid.pretrain, cmid.report, cmid.__version__; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(out.split())


def test_every_verb_has_its_twin():
    assert sorted(VERBS) == cmid.__all__
    for verb, how in VERBS.items():
        twin = inspect.unwrap(vars(cmid)["_VERBS"][verb])
        parameters = inspect.signature(twin).parameters.values()
        leading = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        if verb != "recipes":
            assert leading == [*(["kind"] if how.kinds else []), *how.positional]
            for settings in (how.settings, *(each.settings for each in how.apart.values())):
                assert f"cmid.config.{settings}" in twin.__doc__
        assert ("recipe" in {p.name for p in parameters}) == how.recipes


def test_a_room_of_the_same_name_does_not_hide_its_verb():
    room = importlib.import_module("cmid.report")
    assert cmid.report is room
    with pytest.raises(UsageError, match=r"Unknown setting 'imagse' .*Did you mean images"):
        cmid.report("runs/a", imagse=3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cmid.pretrain("images", epoch=3), r"Unknown setting 'epoch' \(the call\). Did you mean epochs"),
        (lambda: cmid.pretrain("images", views={"sise": 3}), "'views.sise'.*Did you mean views.size"),
        (lambda: cmid.pretrain("images", cmid={"mode": "paritee"}), "expected one of exact, parity, found 'paritee'"),
        (lambda: cmid.pretrain("images", recipe="cmid-smal"), "Unknown recipe 'cmid-smal'. Did you mean cmid-small"),
        (lambda: cmid.pretrain(), "`pretrain` needs IMAGES"),
        (
            lambda: cmid.evaluate("kn", "random", "data"),
            "kind .the call.: expected one of knn, linear, classification, segmentation, found 'kn'",
        ),
        (lambda: cmid.extract(Path("run"), wich="teacher"), "Did you mean which"),
        (lambda: cmid.generate("scenes", count="many"), "count .the call.: expected a whole number, found 'many'"),
        (lambda: cmid.demo("x", minuts=3), "Did you mean minutes"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(call, says):
    with pytest.raises(UsageError, match=says):
        call()


def test_a_run_from_python(tmp_path):
    scenes = cmid.generate(tmp_path / "scenes", count=4, size=64, workers=1)
    assert scenes.count == len(list(scenes.images.rglob("*.jpg"))) == 4
    train = {"max_steps": 1, "accelerator": "cpu"}
    run = cmid.pretrain(scenes.images, recipe="cmid-tiny", out=tmp_path / "run", train=train, report=False).run
    kept = prepare("pretrain", {}, config=run / "settings.yaml")
    given = {"data": scenes.images, "out": tmp_path / "run", "train": train, "report": False}
    assert kept == prepare("pretrain", given, recipe="cmid-tiny")
    assert cmid.extract(run, out=tmp_path / "backbone.pth") == tmp_path / "backbone.pth"


def test_recipes_are_looked_up():
    found = cmid.recipes()
    assert "cmid-small" in found
    assert found["cmid-small"].command.startswith("cmid pretrain IMAGES --recipe cmid-small")
    assert "backbone: resnet18" in found["cmid-small"].text


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'pretran'"):
        cmid.pretran  # noqa: B018
