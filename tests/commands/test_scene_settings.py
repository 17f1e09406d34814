"""Settings of scenes where no scenes are read: refused, but for what is read all the same."""

import pytest
import yaml

import cmid
from cmid.cli import main
from cmid.commands.scene_settings import refuse_idle_scenes
from cmid.config import PretrainConfig, SceneConfig
from cmid.errors import UsageError
from tests.commands.test_pretrain import draw, one_line, run


@pytest.fixture
def images(tmp_path):
    return draw(tmp_path / "images", 8)


def test_images_have_no_windows_and_no_bands_to_choose(images, tmp_path, capsys):
    said = "settings of scenes are given (scenes.windows), but source is images: leave them out, or --source scenes"
    assert run(images, tmp_path / "run", "--scenes.windows", 50) == 2
    assert said in one_line(capsys) and not (tmp_path / "run").exists()
    assert main(["pack", str(images), "--out", str(tmp_path / "shards"), "--scenes.windows", "50"]) == 2
    assert said in one_line(capsys) and not (tmp_path / "shards").exists()
    with pytest.raises(UsageError, match=r"given \(scenes.bands\), but source is images"):
        cmid.pretrain(images, recipe="cmid-tiny", out=tmp_path / "run", scenes={"bands": ["nir"]})
    labelled = tmp_path / "labelled"
    for number, name in enumerate("ab"):
        draw(labelled / name, 4, seed=number)
    with pytest.raises(UsageError, match=r"given \(scenes.bands\), but source is images"):
        cmid.compare(images, labelled, methods=("byol",), out=tmp_path / "c", pretrain={"scenes": {"bands": ["nir"]}})
    assert not (tmp_path / "c").exists()


def test_shards_were_cut_when_they_were_packed(images, tmp_path, capsys):
    assert main(["pack", str(images), "--out", str(tmp_path / "shards")]) == 0
    capsys.readouterr()
    assert run(tmp_path / "shards", tmp_path / "run", "--scenes.bands", "NIR", "--scenes.window-px", 9) == 2
    said = one_line(capsys)
    assert "(scenes.window_px, scenes.bands)" in said and "were chosen when they were packed" in said


def test_what_changes_nothing_or_is_read_is_let_pass():
    named = "torchgeo:EuroSAT?root=x"
    refuse_idle_scenes(PretrainConfig(data="x", scenes=SceneConfig(statistics=256)))
    refuse_idle_scenes(PretrainConfig(data="x", source="scenes", scenes=SceneConfig(windows=9, bands=("1",))))
    refuse_idle_scenes(PretrainConfig(data=named, scenes=SceneConfig(statistics=4)))
    with pytest.raises(UsageError, match=r"\(scenes.windows\), but torchgeo:.* names a data set"):
        refuse_idle_scenes(PretrainConfig(data=named, scenes=SceneConfig(windows=9, statistics=4)))


@pytest.mark.parametrize("packed", [False, True])
def test_a_run_that_was_begun_with_them_goes_on(images, tmp_path, capsys, packed, monkeypatch):
    data = images
    if packed:
        data = tmp_path / "shards"
        assert main(["pack", str(images), "--out", str(data)]) == 0
    words = ("--epochs", 2, "--train.max-steps", 1)
    with monkeypatch.context() as earlier:
        earlier.setattr("cmid.commands.sources.refuse_idle_scenes", lambda config: None)
        assert run(data, tmp_path / "run", *words, "--scenes.windows", 50) == 0
    settings = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert settings["scenes"]["windows"] == 50
    resume = ["--out", str(tmp_path / "run"), "--resume", "--no-report", "--train.max-steps", "0"]
    assert main(["pretrain", str(data), *resume]) == 0
    capsys.readouterr()
    assert main(["pretrain", str(data), *resume, "--scenes.windows", "60"]) == 2
    assert "scenes.windows" in one_line(capsys)
