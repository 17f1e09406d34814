import sys

import numpy as np
import pytest

from cmid.errors import UsageError
from cmid.report.features import nearest, principal_colours, project, similarity


def test_nearest_equals_a_reference_and_leaves_the_query_out():
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(30, 8))
    own = np.array([4, 11, -1])
    queries = np.stack((gallery[4], gallery[11], rng.normal(size=8)))
    order, distance = nearest(queries, gallery, 5, own)
    for q, query in enumerate(queries):
        cosine = np.array([g @ query / np.linalg.norm(g) / np.linalg.norm(query) for g in gallery])
        expected = [i for i in np.argsort(-cosine) if i != own[q]][:5]
        assert order[q].tolist() == expected
        np.testing.assert_allclose(distance[q], 1 - cosine[expected], atol=1e-12)


def test_nearest_gives_what_there_is_of_a_small_gallery():
    gallery = np.eye(3)
    order, distance = nearest(gallery, gallery, 6, np.arange(3))
    assert order.shape == (3, 2)
    assert np.allclose(distance, 1)
    assert nearest(gallery, gallery, 6)[0].shape == (3, 3)


def test_similarity_finds_the_same_vector_whatever_its_length():
    features = np.random.default_rng(1).normal(size=(6, 4, 5))
    heat = similarity(3 * features[:, 2, 3], features)
    assert np.unravel_index(heat.argmax(), heat.shape) == (2, 3)
    assert heat[2, 3] == pytest.approx(1)
    assert np.abs(heat).max() <= 1 + 1e-12


def test_colours_do_not_depend_on_scale_and_separate_two_kinds():
    rng = np.random.default_rng(2)
    maps = np.empty((2, 16, 6, 6))
    kinds = rng.normal(size=(2, 16))
    maps[:, :, :3], maps[:, :, 3:] = kinds[0][:, None, None], kinds[1][:, None, None]
    maps += 0.01 * rng.normal(size=maps.shape)
    colours = principal_colours(maps)
    assert colours.shape == (2, 6, 6, 3)
    assert np.abs(principal_colours(1000 * maps).astype(int) - colours).max() <= 1
    top, bottom = colours[:, :3, :, 0].astype(int), colours[:, 3:, :, 0].astype(int)
    assert abs(top.mean() - bottom.mean()) > 200
    assert top.std() < 20


def test_colours_of_constant_features_are_grey_not_noise():
    assert np.ptp(principal_colours(np.ones((1, 8, 4, 4)))) == 0


def test_one_outlier_does_not_decide_the_colours():
    maps = np.random.default_rng(3).normal(size=(2, 8, 10, 10))
    spiked = maps.copy()
    spiked[0, :, 0, 0] *= 1e6
    change = np.abs(principal_colours(spiked).astype(int) - principal_colours(maps))
    assert np.median(change) <= 5


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_map_is_fixed_by_its_seed_and_keeps_two_groups_apart(method):
    rng = np.random.default_rng(4)
    centre = np.repeat(3 * rng.normal(size=(2, 12)), 20, axis=0)
    features = centre + 0.2 * rng.normal(size=centre.shape)
    placed = project(features, method, 7)
    assert placed.shape == (40, 2)
    assert placed.min() == 0
    assert placed.max() == 1
    np.testing.assert_array_equal(placed, project(features, method, 7))
    within = np.linalg.norm(placed[:20] - placed[:20].mean(0), axis=1).mean()
    assert within < np.linalg.norm(placed[:20].mean(0) - placed[20:].mean(0)) / 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_few_images_still_make_a_map(method, count):
    placed = project(np.random.default_rng(5).normal(size=(count, 6)), method, 0)
    assert placed.shape == (count, 2)
    assert np.isfinite(placed).all()


def test_a_missing_umap_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UsageError, match=r"pip install 'cmid\[umap\]'"):
        project(np.ones((9, 4)), "umap", 0)


def test_umap_is_fixed_by_its_seed_and_keeps_two_groups_apart():
    pytest.importorskip("umap", reason="umap-learn is an extra: pip install 'cmid[umap]'")
    rng = np.random.default_rng(6)
    features = np.repeat(3 * rng.normal(size=(2, 12)), 12, axis=0) + 0.2 * rng.normal(size=(24, 12))
    placed = project(features, "umap", 7)
    np.testing.assert_array_equal(placed, project(features, "umap", 7))
    within = np.linalg.norm(placed[:12] - placed[:12].mean(0), axis=1).mean()
    assert within < np.linalg.norm(placed[:12].mean(0) - placed[12:].mean(0)) / 2


@pytest.mark.parametrize("count", [3, 6, 7, 36, 200])
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan, np.inf])
def test_features_that_are_one_point_are_placed_in_the_middle(count, value):
    """As after a collapse; scikit-learn's t-SNE alone takes the process with it."""
    rounding = 1e-8 * np.random.default_rng(0).normal(size=(count, 8))
    for features in (np.full((count, 8), value), np.full((count, 8), value) + rounding * (value == 1)):
        np.testing.assert_array_equal(project(features, "tsne", 0), np.full((count, 2), 0.5))
