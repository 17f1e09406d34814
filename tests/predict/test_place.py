"""Where a map lies: exactly where its scene does, or nowhere, and then that is told."""

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC

from cmid.predict.raster_output import Classes
from cmid.predict.scene_to_map import Outputs, scene_to_map
from cmid.predict.windows import Tiling
from tests.predict.small_scenes import CRS, Exact, FileScene, patchy, write_scene

FOUR = Classes(("a", "b", "c", "d"))
SMALL = Tiling(window=64, overlap=32, margin=8, batch=4)


def mapped(tmp_path, scene):
    result = scene_to_map(
        scene, Exact(4), FOUR, Outputs(tmp_path / "map.tif", probabilities=tmp_path / "p.tif"), tiling=SMALL
    )
    found = []
    for path in (result.outputs.map, result.outputs.probabilities):
        with rasterio.open(path) as raster:
            found.append((raster.crs, raster.transform, raster.gcps, raster.rpcs))
    return found, result.notes


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (rasterio.Affine(8, 3, 500_000, 3, -8, 5_000_000), CRS),
        (rasterio.Affine(0, 10, 500_000, 10, 0, 5_000_000), CRS),
        (rasterio.Affine(10, 0, 500_000, 0, 10, 5_000_000), CRS),
        (rasterio.Affine(0.0001, 0, 9.5, 0, -0.0002, 45.5), "EPSG:4326"),
        (rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000), "ESRI:102001"),
    ],
    ids=["rotated", "turned by 90", "south up", "geographic", "not of EPSG"],
)
def test_map_and_probabilities_lie_where_the_scene_does(tmp_path, transform, crs):
    found, notes = mapped(tmp_path, write_scene(tmp_path / "a.tif", patchy(1, 80, 90), transform=transform, crs=crs))
    for crs_found, transform_found, _, _ in found:
        assert crs_found == rasterio.CRS.from_string(crs) and transform_found.almost_equals(transform, 1e-9)
    assert notes == []


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_from_nowhere_gives_a_map_from_nowhere(tmp_path, recwarn):
    found, notes = mapped(tmp_path, write_scene(tmp_path / "a.tif", patchy(1, 80, 90), crs=None, transform=None))
    assert all(crs is None and transform.is_identity for crs, transform, _, _ in found)
    assert len(notes) == 1 and "no coordinate reference system" in notes[0]


def test_a_transform_without_a_system_is_kept_and_told(tmp_path):
    transform = rasterio.Affine(2, 0, 100, 0, -2, 900)
    found, notes = mapped(tmp_path, write_scene(tmp_path / "a.tif", patchy(1, 80, 90), crs=None, transform=transform))
    assert all(crs is None and kept == transform for crs, kept, _, _ in found)
    assert "keep the coordinates of its transform" in notes[0]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_ground_control_points_are_carried_over_and_nothing_is_warped(tmp_path):
    points = [GroundControlPoint(r, c, 9 + c / 1000, 45 - r / 1000) for r, c in ((0, 0), (0, 90), (80, 0), (80, 90))]
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=90, height=80, count=1, dtype="uint8", gcps=points, crs="EPSG:4326"
    ) as raster:
        raster.write(patchy(1, 80, 90))
    found, notes = mapped(tmp_path, FileScene(path))
    for crs, transform, (kept, system), _ in found:
        assert crs is None and transform.is_identity and system == rasterio.CRS.from_epsg(4326)
        assert [(p.row, p.col, p.x, p.y) for p in kept] == [(p.row, p.col, p.x, p.y) for p in points]
    assert "ground control points alone" in notes[0] and "not warped" in notes[0]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rational_polynomials_are_carried_over(tmp_path):
    ones = np.linspace(0.1, 1, 20).tolist()
    rpc = RPC(
        height_off=10, height_scale=500, lat_off=45, lat_scale=0.1, line_den_coeff=ones, line_num_coeff=ones,
        line_off=40, line_scale=80, long_off=9, long_scale=0.1, samp_den_coeff=ones, samp_num_coeff=ones,
        samp_off=45, samp_scale=90, err_bias=0, err_rand=0,
    )  # fmt: skip
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", width=90, height=80, count=1, dtype="uint8", rpcs=rpc) as raster:
        raster.write(patchy(1, 80, 90))
    found, notes = mapped(tmp_path, FileScene(path))
    for _, transform, _, kept in found:
        assert transform.is_identity and kept.line_num_coeff == pytest.approx(ones) and kept.lat_off == 45
    assert "RPC" in notes[0]


def test_a_map_of_no_place_warns_of_nothing(tmp_path, recwarn):
    with pytest.warns(NotGeoreferencedWarning):
        scene = write_scene(tmp_path / "a.tif", patchy(1, 80, 90), crs=None, transform=None)
    recwarn.clear()
    scene_to_map(scene, Exact(4), FOUR, Outputs(tmp_path / "map.tif", polygons=tmp_path / "p.gpkg"), tiling=SMALL)
    assert not recwarn.list
