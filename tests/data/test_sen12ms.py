"""Labels of SEN12MS's scenes, on a tiny copy of the published layout."""

import numpy as np
import pytest

from cmid.data.sen12ms import SIMPLIFIED, SEN12MSScenes
from cmid.data.torchgeo_datasets import TorchgeoSource, labelled_sides, labelled_whole, parse_name
from cmid.errors import UsageError
from tests.data.sen12ms_on_disk import cover, draw_sen12ms

FOREST, SHRUB, SAVANNA, GRASS, WET, CROPS, URBAN, SNOW, BARREN, WATER = range(10)
COVERS = [
    cover((1, 10), (4, 10), (5, 10), (10, 34)),  # 30 of three kinds of forest, 34 of grass
    cover((2, 13), (3, 12), (5, 12), (13, 27)),  # 37 of three kinds of forest, though 27 of urban are the largest class
    cover((12, 20), (14, 20), (17, 24)),  # croplands and their mosaic are one
    cover((17, 58), (16, 6)),  # 6 of 64 are less than a tenth
    cover((17, 57), (16, 7)),  # 7 of 64 are more
    cover((0, 30), (255, 20), (15, 10), (6, 4)),  # what has no class does not count
]
SINGLE = [GRASS, FOREST, CROPS, WATER, WATER, SNOW]
SEVERAL = [{FOREST, GRASS}, {FOREST, URBAN}, {CROPS, WATER}, {WATER}, {WATER, BARREN}, {SNOW, SHRUB}]


def test_the_classes_are_the_authors_ten():
    assert len(SIMPLIFIED) == 10
    assert sorted(igbp for members in SIMPLIFIED.values() for igbp in members) == list(range(1, 18))


def test_one_label_a_scene(tmp_path):
    draw_sen12ms(tmp_path, COVERS, test=0)
    scenes = SEN12MSScenes(tmp_path)
    assert scenes.targets.tolist() == SINGLE
    for i, igbp in enumerate(COVERS):
        assert (scenes[i]["mask"].numpy() == igbp).all(), "the labels are those of torchgeo's own samples"


def test_several_labels_a_scene(tmp_path):
    draw_sen12ms(tmp_path, COVERS, test=0)
    targets = SEN12MSScenes(tmp_path, labels="several").targets
    assert targets.dtype == np.bool_ and targets.shape == (6, 10)
    assert [set(np.flatnonzero(row).tolist()) for row in targets] == SEVERAL


def test_the_rule_of_the_authors_toolbox(tmp_path):
    """On random covers: shares of the 17 classes, their sums in the toolbox's order, argmax and a tenth."""
    rng = np.random.default_rng(3)
    covers = [rng.choice(rng.integers(1, 18, 5), 64).astype(np.uint16).reshape(8, 8) for _ in range(8)]
    draw_sen12ms(tmp_path, covers, test=0)
    single, several = (SEN12MSScenes(tmp_path, labels=kind).targets for kind in ("single", "several"))
    for i, igbp in enumerate(covers):
        lc = np.bincount(igbp.ravel(), minlength=18)[1:] / 64
        ten = [*(lc[a:b].sum() for a, b in ((0, 5), (5, 7), (7, 9))), lc[9], lc[10], lc[11] + lc[13], lc[12], *lc[14:]]
        assert single[i] == np.argmax(ten)
        assert (several[i] == (np.array(ten) >= 0.1)).all()


def test_by_its_name(tmp_path):
    draw_sen12ms(tmp_path, COVERS, test=2)
    source = TorchgeoSource(parse_name(f"torchgeo:SEN12MS?root={tmp_path}&bands=B04,B03,B02&labels=several"))
    labelled = labelled_whole(source)
    assert (len(labelled), labelled.bands, labelled.classes) == (4, 3, tuple(SIMPLIFIED))
    assert [set(np.flatnonzero(row).tolist()) for row in labelled.labels] == SEVERAL[:4]
    train, test = labelled_sides(parse_name(f"torchgeo:SEN12MS?root={tmp_path}"), seed=0)
    assert (train.labels.tolist(), test.labels.tolist()) == (SINGLE[:4], SINGLE[4:])
    assert train.bands == 15


def test_what_is_wrong_is_named(tmp_path):
    names = draw_sen12ms(tmp_path, [*COVERS, cover((0, 64))], test=0)
    named = f"torchgeo:SEN12MS?root={tmp_path}"
    with pytest.raises(UsageError, match="labels must be single or several, found 'both'"):
        TorchgeoSource(parse_name(f"{named}&labels=both"))
    source = TorchgeoSource(parse_name(named))
    assert source.all_labels()[-1] == -1, "a scene without any class has no label"
    with pytest.raises(UsageError, match=r"gives no label to torchgeo:SEN12MS\[6\]"):
        source.label(6)
    several = TorchgeoSource(parse_name(f"{named}&labels=several"))
    assert several.label(0).tolist() == several.all_labels()[0].tolist() and several.all_labels().ndim == 2
    season, scene = "ROIs1158_spring", "lc_1"
    (tmp_path / season / scene / names[0].replace("_s2_", "_lc_")).unlink()
    scenes = SEN12MSScenes(tmp_path)
    with pytest.raises(UsageError, match=r"land cover of SEN12MS cannot be read: .*ROIs1158_spring_lc_1_p30"):
        _ = scenes.targets
