import shutil

import numpy as np
from PIL import Image

from cmid.commands.fingerprint import fingerprint
from cmid.config import SceneConfig
from cmid.data.folder import FolderSource
from cmid.data.scenes import SceneSource, open_scenes
from cmid.data.statistics import Stretch
from tests.data.rasters_on_disk import numbered, write_raster


def test_names_and_their_order_count_and_the_folder_does_not(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "images" / name)
    first = fingerprint(FolderSource(tmp_path / "images"))
    shutil.copytree(tmp_path / "images", tmp_path / "elsewhere" / "deep")
    assert fingerprint(FolderSource(tmp_path / "elsewhere" / "deep")) == first
    (tmp_path / "elsewhere" / "deep" / "b" / "1.png").rename(tmp_path / "elsewhere" / "deep" / "b" / "3.png")
    assert fingerprint(FolderSource(tmp_path / "elsewhere" / "deep")) != first
    for order, same in ((("a/1.png", "a/2.png", "b/1.png"), True), (("a/2.png", "a/1.png", "b/1.png"), False)):
        (tmp_path / "images" / "list.txt").write_text("\n".join(order))
        assert (fingerprint(FolderSource(tmp_path / "images" / "list.txt")) == first) == same


def test_a_scene_that_is_missing_or_of_another_size_is_noticed(tmp_path):
    def of(folder):
        scenes = open_scenes(folder, SceneConfig())
        stretch = Stretch((), (), (0.0,))
        return fingerprint(SceneSource(scenes, window=16, windows=8, seed=0, stretch=stretch))

    for name in ("a.tif", "b.tif"):
        write_raster(tmp_path / "one" / name, numbered(1, 32, 48))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert of(tmp_path / "one") == of(tmp_path / "two")
    write_raster(tmp_path / "two" / "b.tif", numbered(1, 32, 64))
    assert of(tmp_path / "one") != of(tmp_path / "two")
    (tmp_path / "two" / "b.tif").unlink()
    assert of(tmp_path / "one") != of(tmp_path / "two")
