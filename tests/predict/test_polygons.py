"""Polygons against the pixels they stand for, and against GDAL's own of the whole map."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.features import rasterize, shapes
from rasterio.warp import transform_geom
from scipy import ndimage
from shapely.geometry import shape

from cmid.errors import UsageError
from cmid.predict.polygons import areas, check_polygons, write_polygons
from cmid.predict.raster_output import Classes
from cmid.predict.scene import Georeference
from tests.predict.small_scenes import CRS, TRANSFORM, write_scene

NAMES = Classes(("water", "road", "tree", "roof"))
ROTATED = rasterio.Affine(8, 3, 500_000, 3, -8, 5_000_000)


def noise(seed=0, height=150, width=97):
    """Classes in clumps and single pixels, with nodata: holes, corners that touch, areas across every stripe."""
    generator = np.random.default_rng(seed)
    rough = np.kron(generator.integers(0, 4, (height // 10 + 1, width // 10 + 1)), np.ones((10, 10), int))
    found = rough[:height, :width].astype(np.uint8)
    speckle = generator.random(found.shape) < 0.25
    found[speckle] = generator.integers(0, 4, speckle.sum())
    found[generator.random(found.shape) < 0.05] = 255
    return found


def rings(height=140, width=140):
    """Squares within squares, of two classes in turn: each ring crosses the stripes twice and holds all others."""
    row, column = np.ogrid[:height, :width]
    depth = np.minimum(np.minimum(row, height - 1 - row), np.minimum(column, width - 1 - column))
    return (depth // 3 % 2).astype(np.uint8)


def comb():
    """Teeth that are one area only by the last row."""
    found = np.zeros((120, 61), np.uint8)
    found[:, ::2] = 1
    found[-1] = 1
    return found


def on_disk(tmp_path, values, place=None):
    transform, crs = (TRANSFORM, CRS) if place is None else place
    scene = write_scene(tmp_path / "tiled.tif", values[None], nodata=255, transform=transform, crs=crs)
    return tmp_path / "tiled.tif", scene.place


@pytest.mark.parametrize("stripe_px", [1, 97 * 7, 97 * 31, 1 << 25])
@pytest.mark.parametrize("values", [noise(0), noise(1), rings(), comb()], ids=["noise", "more noise", "rings", "comb"])
def test_areas_are_gdals_of_the_whole_map(tmp_path, values, stripe_px):
    path, _ = on_disk(tmp_path, values)
    with rasterio.open(path) as raster:
        found = list(areas(raster, stripe_px=stripe_px))
    assert all(polygon.is_valid and not polygon.is_empty for _, polygon in found)
    burnt = rasterize([(p, c) for c, p in found], values.shape, fill=255, dtype="uint8")
    assert np.array_equal(burnt, values)
    connected = sum(ndimage.label(values == c)[1] for c in range(4))
    assert len(found) == connected
    at_once = [(int(c), shape(g)) for g, c in shapes(values, mask=values != 255, connectivity=4)]
    by_place = {(c, tuple(p.bounds), p.area): p for c, p in found}
    for c, polygon in at_once:
        assert shapely.equals(by_place[c, tuple(polygon.bounds), polygon.area], shapely.make_valid(polygon))


def test_corners_are_not_left_where_stripes_meet(tmp_path):
    path, _ = on_disk(tmp_path, np.zeros((100, 40), np.uint8))
    with rasterio.open(path) as raster:
        ((_, square),) = areas(raster, stripe_px=40 * 7)
    assert len(shapely.get_coordinates(square)) <= 6 and square.area == 4000


def test_small_areas_are_left_out_by_their_whole_size(tmp_path):
    values = noise(2)
    path, _ = on_disk(tmp_path, values)
    sizes = []
    for c in range(4):
        sizes += np.bincount(ndimage.label(values == c)[0].ravel())[1:].tolist()
    with rasterio.open(path) as raster:
        found = [round(p.area) for _, p in areas(raster, 12, stripe_px=97 * 5)]
    assert sorted(found) == sorted(s for s in sizes if s >= 12) and len(found) < len(sizes)


@pytest.mark.parametrize("transform", [TRANSFORM, ROTATED], ids=["north up", "rotated"])
def test_a_geopackage_keeps_the_coordinate_system(tmp_path, transform):
    values = noise()
    path, place = on_disk(tmp_path, values, (transform, CRS))
    count = write_polygons(path, tmp_path / "p.gpkg", NAMES, place)
    frame = pyogrio.read_dataframe(tmp_path / "p.gpkg")
    assert len(frame) == count and frame.crs == CRS and set(frame["class"]) == set(NAMES.names)
    burnt = rasterize(zip(frame.geometry, frame.class_id, strict=True), values.shape, 255, transform=transform)
    assert np.array_equal(burnt, values)
    assert np.allclose(frame.area, frame.area_px * abs(transform.determinant))
    assert [NAMES.names[i] for i in frame.class_id] == list(frame["class"])


@pytest.mark.parametrize("transform", [TRANSFORM, ROTATED], ids=["north up", "rotated"])
def test_geojson_is_longitude_and_latitude(tmp_path, transform):
    values = noise()
    path, place = on_disk(tmp_path, values, (transform, CRS))
    count = write_polygons(path, tmp_path / "p.geojson", NAMES, place)
    said = json.loads((tmp_path / "p.geojson").read_text())
    assert "crs" not in said and len(said["features"]) == count  # by RFC 7946 it is always WGS 84
    back = [(transform_geom("EPSG:4326", CRS, f["geometry"]), f["properties"]["class_id"]) for f in said["features"]]
    assert np.array_equal(rasterize(back, values.shape, 255, transform=transform), values)
    x, y = shape(said["features"][0]["geometry"]).centroid.coords[0]
    assert 8 < x < 10 and 44 < y < 46  # zone 32, 500 km east, 5000 km north
    for feature in said["features"]:
        for polygon in shapely.get_parts(shape(feature["geometry"])):
            assert polygon.exterior.is_ccw


def test_a_geographic_scene_stays_in_its_degrees(tmp_path):
    values = noise()
    transform = rasterio.Affine(0.001, 0, 9, 0, -0.001, 45)
    path, place = on_disk(tmp_path, values, (transform, "EPSG:4258"))
    write_polygons(path, tmp_path / "p.gpkg", NAMES, place)
    write_polygons(path, tmp_path / "p.geojson", NAMES, place)
    for name, crs in (("p.gpkg", "EPSG:4258"), ("p.geojson", "EPSG:4326")):
        frame = pyogrio.read_dataframe(tmp_path / name)
        assert frame.crs == crs
        burnt = rasterize(zip(frame.geometry, frame.class_id, strict=True), values.shape, 255, transform=transform)
        assert np.array_equal(burnt, values)


@pytest.mark.parametrize("name", ["p.gpkg", "p.geojson"])
@pytest.mark.filterwarnings("ignore:.*no geotransform")
def test_without_a_coordinate_system_polygons_are_in_pixels(tmp_path, name):
    values = noise()
    path, place = on_disk(tmp_path, values, (rasterio.Affine.identity(), None))
    write_polygons(path, tmp_path / name, NAMES, place)
    frame = pyogrio.read_dataframe(tmp_path / name)
    assert np.array_equal(rasterize(zip(frame.geometry, frame.class_id, strict=True), values.shape, 255), values)
    assert any("polygons are in pixels" in note for note in place.notes())


def test_many_polygons_are_written_in_several_strokes(tmp_path, monkeypatch):
    values = noise()
    path, place = on_disk(tmp_path, values)
    monkeypatch.setattr("cmid.predict.polygons.AT_ONCE", 100)
    count = write_polygons(path, tmp_path / "p.gpkg", NAMES, place)
    assert count > 300 and pyogrio.read_info(tmp_path / "p.gpkg")["features"] == count


def test_a_map_without_polygons_is_an_empty_file_of_its_kind(tmp_path):
    path, place = on_disk(tmp_path, np.full((20, 20), 255, np.uint8))
    for name in ("p.gpkg", "p.geojson"):
        assert write_polygons(path, tmp_path / name, NAMES, place) == 0
        assert len(pyogrio.read_dataframe(tmp_path / name)) == 0


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(UsageError, match=r"expected a file ending in .gpkg, .geojson"):
        check_polygons(tmp_path / "p.shp", Georeference(), 9, 9)
    site = rasterio.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]').to_wkt()
    with pytest.raises(UsageError, match=r"choose a .gpkg"):
        check_polygons(tmp_path / "p.geojson", Georeference(site, (1, 0, 0, 0, -1, 0)), 9, 9)
    check_polygons(tmp_path / "p.gpkg", Georeference(site, (1, 0, 0, 0, -1, 0)), 9, 9)


@pytest.mark.parametrize(
    ("epsg", "transform", "told"),
    [
        (4326, (0.01, 0, 179.9, 0, -0.01, 10), True),  # over the antimeridian
        (4326, (0.01, 0, 350, 0, -0.01, 10), True),  # 0 to 360, as of models of the climate
        (32633, (10, 0, 5e5, 0, -10, 5e6), True),
        (4326, (1 / 60, 0, -180, 0, -1 / 60, 90), True),
        (4326, (0.01, 0, 500, 0, -0.01, 10), False),
        (4326, (1, 0, 100, 0, -1, 95), False),
        (4326, (0.01, 0, 359.8, 0, -0.01, 10), False),
        (4326, (1, 0, 1e300, 0, -1, 1e300), False),
        (4978, (0.5, 0, 5e5, 0, -0.5, 4e6), False),  # metres from the middle of the earth
    ],
)
def test_geojson_is_refused_where_a_corner_has_no_longitude_and_latitude(tmp_path, epsg, transform, told):
    place = Georeference(rasterio.CRS.from_epsg(epsg).to_wkt(), transform)
    if told:
        check_polygons(tmp_path / "p.geojson", place, 40, 40)
        return
    with pytest.raises(UsageError, match=r"longitude and latitude, which GeoJSON asks for: choose a .gpkg"):
        check_polygons(tmp_path / "p.geojson", place, 40, 40)
    check_polygons(tmp_path / "p.gpkg", place, 40, 40)
