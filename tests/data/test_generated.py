"""Scenes follow from (seed, index, size); their labels are what is to be seen."""

from random import Random

import numpy as np
import pytest
from shapely import contains_xy
from shapely.geometry import MultiPoint, Polygon

from cmid.data.generated import SCENE_CLASSES, SEMANTIC_CLASSES, class_of, draw_scene
from cmid.data.generated import buildings as b
from cmid.data.generated import surfaces as s
from cmid.data.generated import vehicles as v
from cmid.data.generated.canvas import Canvas, edges, rectangle
from cmid.data.generated.files import OBJECT_CLASSES
from cmid.data.generated.light import BRIGHTNESS, ONE, SHARE, Ground, Light, expose
from cmid.data.generated.materials import CHANGED, CODE, MATERIALS
from cmid.data.generated.plan import Layer, Plan
from cmid.data.generated.scene import _take, _visible
from cmid.data.generated.texture import CROWN_PX, TILE_PX, UNIT, crowns, sheets

NAMES = [name for name, _ in SEMANTIC_CLASSES]


def same(one, other):
    return (
        one.image.tobytes() == other.image.tobytes()
        and one.mask.tobytes() == other.mask.tobytes()
        and one.later.tobytes() == other.later.tobytes()
        and one.change.tobytes() == other.change.tobytes()
        and (one.boxes, one.name, one.gsd) == (other.boxes, other.name, other.gsd)
    )


@pytest.mark.parametrize("index", range(len(SCENE_CLASSES)), ids=SCENE_CLASSES)
def test_scene_is_whole_and_follows_from_its_arguments(index):
    size = 96
    scene = draw_scene(5, index, size)
    assert scene.name == class_of(index) == SCENE_CLASSES[index]
    assert scene.image.shape == scene.later.shape == (size, size, 3)
    assert scene.image.dtype == scene.later.dtype == scene.mask.dtype == scene.change.dtype == np.uint8
    assert scene.mask.shape == scene.change.shape == (size, size)
    assert scene.mask.max() < len(SEMANTIC_CLASSES)
    assert set(np.unique(scene.change)) <= {0, 255}
    assert scene.image.std() > 8, "hardly anything to see"
    assert {box.name for box in scene.boxes} <= set(OBJECT_CLASSES)
    draw_scene(6, index + 1, size)  # what is drawn in between must not matter
    assert same(scene, draw_scene(5, index, size))
    first_only = draw_scene(5, index, size, second_date=False)
    assert first_only.later is None and first_only.change is None
    assert first_only.image.tobytes() == scene.image.tobytes() and first_only.boxes == scene.boxes


def test_seed_index_and_size_make_another_scene():
    scene = draw_scene(0, 2, 64)
    assert not np.array_equal(scene.image, draw_scene(1, 2, 64).image)
    assert not np.array_equal(scene.image, draw_scene(0, 2 + len(SCENE_CLASSES), 64).image)
    assert not np.array_equal(scene.image, draw_scene(0, 2, 128).image[:64, :64])
    assert not np.array_equal(scene.image, scene.later)


def test_larger_than_the_noise_tiles():
    assert draw_scene(0, 4, TILE_PX + 32, second_date=False).image.shape == (TILE_PX + 32, TILE_PX + 32, 3)


def test_every_class_of_the_smallest_scenes_can_be_drawn_from_any_seed():
    """A place seen in 64 px may have room for one row of cars, or for one field."""
    for seed in range(24):
        for index in range(len(SCENE_CLASSES)):
            assert draw_scene(seed, index, 64, second_date=False).image.std() > 0, (seed, index)


@pytest.mark.parametrize(("size", "index"), [(63, 0), (0, 0), (64, -1)])
def test_refuses_what_cannot_be_drawn(size, index):
    with pytest.raises(ValueError, match="at least 64 px"):
        draw_scene(0, index, size)


HALLMARKS = {
    "airport": ("impervious_surface", 0.3, "plane"),
    "beach": ("water", 0.15, None),
    "dense_residential": ("building", 0.1, "small-vehicle"),
    "farmland": ("low_vegetation", 0.3, None),
    "forest": ("tree", 0.6, None),
    "harbour": ("water", 0.15, "ship"),
    "highway": ("impervious_surface", 0.1, "small-vehicle"),
    "industrial": ("building", 0.1, "large-vehicle"),
    "parking": ("car", 0.1, "small-vehicle"),
    "recreation": ("low_vegetation", 0.1, "tennis-court"),
    "river": ("water", 0.1, None),
    "sparse_residential": ("low_vegetation", 0.3, "small-vehicle"),
}


@pytest.mark.parametrize("name", SCENE_CLASSES)
def test_each_class_shows_what_it_is_called_for(name):
    cover, share, thing = HALLMARKS[name]
    first = SCENE_CLASSES.index(name)
    scenes = [draw_scene(2, first + k * len(SCENE_CLASSES), 192) for k in range(8)]
    assert np.mean([(scene.mask == NAMES.index(cover)).mean() for scene in scenes]) > share
    if thing is not None:
        assert sum(any(box.name == thing for box in scene.boxes) for scene in scenes) >= 3
    assert len({scene.gsd for scene in scenes}) == len(scenes)


def test_most_places_change_and_some_do_not():
    shares = np.array([(draw_scene(8, i, 128).change > 0).mean() for i in range(60)])
    assert 0.4 < (shares > 0).mean() < 0.98
    assert shares.max() < 0.7


def alone(draw, *args, turn_rad=0.4, gsd=0.2, size=512):
    canvas = Canvas(size, gsd, turn_rad, (100, 110, 80), "grass")
    draw(canvas, *args)
    return canvas


THINGS = [
    (v.car, (3.0, -2.0, 0.7, Random(1)), "car"),
    (v.truck, (3.0, -2.0, -1.2, Random(2)), "car"),
    (v.plane, (0.0, 5.0, 36.0, 2.2, True, Random(3)), "plane"),
    (v.plane, (0.0, 5.0, 14.0, -0.3, False, Random(3)), "plane"),
    (v.ship, (4.0, 0.0, 60.0, 0.9, 20.0, Random(4)), "ship"),
    (v.boat, (4.0, 0.0, 11.0, -2.0, 12.0, Random(5)), "ship"),
    (b.tank, (2.0, 3.0, 9.0, 8.0, (200, 200, 200), False), "tank"),
    (b.tank, (2.0, 3.0, 9.0, 8.0, (200, 200, 200), True), "tank"),
    (s.pool, (2.0, 3.0, 12.0, 5.0, 0.5, (80, 170, 200)), "pool"),
    (s.pier, (2.0, 3.0, 50.0, 4.0, 1.1, (180, 170, 150)), "pier"),
    (s.bridge, (2.0, 3.0, 60.0, 12.0, 1.1, 5.0), "bridge"),
]


@pytest.mark.parametrize("turn_rad", [0.0, 0.4, 2.9])
@pytest.mark.parametrize(
    ("draw", "args", "material"), THINGS, ids=[f"{t[0].__name__}{i}" for i, t in enumerate(THINGS)]
)
def test_box_is_tight_on_what_was_drawn(draw, args, material, turn_rad):
    canvas = alone(draw, *args, turn_rad=turn_rad)
    (_,), (corners,) = canvas.objects()
    box = Polygon(corners)
    rows, columns = np.nonzero(canvas.pixels()[1] == CODE[material])
    pixels = np.stack([columns, rows], 1) + 0.5
    assert box.buffer(0.75).covers(MultiPoint(pixels)), "pixels stick out of the box"
    for a, c in zip(corners, np.roll(corners, -1, 0), strict=True):
        along, side = (c - a) / np.linalg.norm(c - a), pixels - a
        outside = along[0] * side[:, 1] - along[1] * side[:, 0]  # positive inside, as corners run clockwise on screen
        assert outside.min() < 1.25, "a side of the box does not touch the object"


def test_boxes_are_rectangles_with_the_length_first():
    canvas = alone(v.truck, 0.0, 0.0, 0.3, Random(0))
    ((name, _),), (corners,) = canvas.objects()
    first, second = corners[1] - corners[0], corners[2] - corners[1]
    assert name == "large-vehicle"
    assert abs(first @ second) < 1e-9 and np.linalg.norm(first) > 3 * np.linalg.norm(second)
    assert np.allclose(corners[0] - corners[1], corners[3] - corners[2])
    assert first[0] * second[1] - first[1] * second[0] > 0, "clockwise on screen"
    assert np.arctan2(first[1], first[0]) == pytest.approx(0.3 + 0.4)


def test_hidden_objects_have_no_box_and_cut_ones_are_difficult():
    def boxes(x, with_tree):
        canvas = Canvas(128, 0.2, 0.0, (100, 110, 80), "grass")
        v.car(canvas, x, 0.0, 0.0, Random(0))
        if with_tree:
            b.tree(canvas, x, 0.0, 4.0, (60, 90, 50))
        return _visible(canvas, canvas.pixels()[1])

    assert [box.difficult for box in boxes(0.0, False)] == [False]
    assert boxes(0.0, True) == ()
    assert [box.difficult for box in boxes(12.8, False)] == [True]  # its middle on the image's edge
    assert boxes(15.0, False) == ()


def make_plan(size=128, gsd=0.4):
    plan = Plan(Random(0), size, gsd, 0.5)
    light = Light.draw(Random(1))
    return plan, light, Ground.draw(Random(2), size, gsd, 7.0, 2.5)


def test_change_is_the_visible_pixels_of_the_structure():
    plan, light, ground = make_plan()
    house = (2.0, -3.0, 16.0, 9.0, 0.3, 6.0, (150, 90, 70))
    plan.build(10, b.hipped, *house)
    plan.build(10, b.hipped, -15.0, 8.0, 12.0, 8.0, 0.0, 6.0, (120, 120, 120))
    plan.items[0].dates = (False, True)
    plan.plant(3.0, b.tree, 8.0, -3.0)
    plan.move(3, 1.0, v.car, 12.0, 12.0, 0.0)
    _, before, _ = _take(plan, light, ground, 0, Random(3))
    _, after, _ = _take(plan, light, ground, 1, Random(4))
    canvas = Canvas(128, 0.4, 0.5, plan.ground, plan.ground_material, light.sun)
    b.hipped(canvas, *house)
    alone_pixels = canvas.pixels()[1] == CODE["tiled_roof"]
    assert not (before >= CHANGED).any()
    covered = after % CHANGED == CODE["tree"]
    assert np.array_equal(after >= CHANGED, alone_pixels & ~covered)
    assert (alone_pixels & covered).any(), "the tree should hide a corner"


def test_cars_season_and_light_are_no_change():
    plan, light, ground = make_plan()
    for k in range(12):
        plan.move(3, 0.5, v.car, -20.0 + 4 * k, 0.0, 1.57)
    plan.choose_changes()
    first, before, _ = _take(plan, light, ground, 0, Random(3))
    second, after, _ = _take(plan, Light.draw(Random(9), light), ground, 1, Random(4))
    assert not np.array_equal(before, after), "other cars at another date"
    assert not np.array_equal(first, second)
    assert max(before.max(), after.max()) < CHANGED


def test_wings_of_a_house_change_together():
    for seed in range(20):
        plan = Plan(Random(seed), 256, 0.4, 0.0)
        for k in range(3):
            plan.build(5, b.gabled, 10.0 * k, 0.0, 8.0, 6.0, 0.0, 5.0, (150, 90, 70), group=k)
            plan.build(5, b.gabled, 10.0 * k, 3.0, 5.0, 4.0, 0.0, 5.0, (150, 90, 70), group=k)
        plan.choose_changes()
        for one, other in zip(plan.items[::2], plan.items[1::2], strict=True):
            assert one.dates == other.dates


def test_layers_are_drawn_from_the_ground_up():
    plan, _, _ = make_plan()
    plan.plant(4.0, b.tree, 0.0, 0.0)
    plan.add(Layer.ROAD, s.strip, [(-30.0, 0.0), (30.0, 0.0)], 6.0, (90, 90, 90), "asphalt")
    canvas = Canvas(128, 0.4, 0.5, plan.ground, plan.ground_material)
    plan.draw(canvas, 0, Random(0))
    assert canvas.pixels()[1][64, 64] == CODE["tree"]


@pytest.mark.parametrize("turn_rad", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("sun", [(1.0, 0.0), (-0.6, 0.8), (0.0, -1.5)])
@pytest.mark.parametrize("corners", [4, 16])
def test_shadows_fall_one_way_and_as_far_as_the_height_says(turn_rad, sun, corners):
    canvas = Canvas(256, 0.25, turn_rad, (100, 110, 80), "grass", sun)
    angles = np.arange(corners) * 2 * np.pi / corners
    footprint = [(4 * np.cos(a), 4 * np.sin(a)) for a in angles]
    canvas.cast(footprint, 10.0)
    rows, columns = np.nonzero(canvas.pixels()[2] > 127)
    points = (np.stack([columns, rows], 1) + 0.5 - 128) * 0.25
    expected = [
        np.array(p) + np.array(q) for p in turned(footprint, turn_rad) for q in ((0, 0), (10 * sun[0], 10 * sun[1]))
    ]
    shape = MultiPoint(expected).convex_hull
    drawn = MultiPoint(points).convex_hull
    assert len(points) * 0.25**2 == pytest.approx(shape.area, rel=0.06)
    assert drawn.symmetric_difference(shape).area < 0.06 * shape.area


def turned(points, angle):
    c, s_ = np.cos(angle), np.sin(angle)
    return [(c * x - s_ * y, s_ * x + c * y) for x, y in points]


def test_shadow_darkens_the_ground_but_not_the_roof_that_casts_it():
    _, light, ground = make_plan()
    canvas = Canvas(128, 0.4, 0.0, (100, 110, 80), "concrete", (0.0, 1.0))
    canvas.cast(rectangle(0, 0, 12, 12, 0), 8.0)
    canvas.quad(0, 0, 12, 12, 0, (100, 110, 80), "roof")
    image, material = expose(canvas, light, ground, Random(0))
    roof, shadow, lit = image[60:68, 60:68], image[82:94, 60:68], image[100:120, 10:50]
    assert (material[60:68, 60:68] == CODE["roof"]).all()
    assert shadow.mean() < 0.75 * lit.mean()
    assert roof.mean() > 0.9 * lit.mean()


def test_roof_planes_facing_the_sun_are_brighter():
    canvas = Canvas(128, 0.2, 0.0, (100, 110, 80), "grass", (0.0, 1.0))  # shadows fall down the image
    b.gabled(canvas, 0.0, 0.0, 16.0, 10.0, 0.0, 5.0, (120, 120, 120))
    colour = canvas.pixels()[0]
    assert colour[52, 64, 0] > 120 > colour[76, 64, 0]


def test_snow_whitens_fields_and_season_leaves_roads_alone():
    _, light, ground = make_plan()
    plain = Light(light.sun, 0.5, light.dark, (1, 1, 1), 0.0, (1, 1, 1), (0, 0, 0), 0.0, 0.0)
    autumn = Light(light.sun, 0.5, light.dark, (1.3, 1, 0.8), 0.0, (1, 1, 1), (0, 0, 0), 0.0, 0.0)
    snow = Light(light.sun, 0.5, light.dark, (1, 1, 1), 0.9, (1, 1, 1), (0, 0, 0), 0.0, 0.0)

    def look(day, material):
        canvas = Canvas(64, 0.4, 0.0, (100, 110, 80), material, tones=day.tones())
        return expose(canvas, day, ground, Random(0))[0].astype(float)

    assert look(autumn, "grass")[..., 0].mean() > 1.1 * look(plain, "grass")[..., 0].mean()
    assert np.array_equal(look(autumn, "asphalt"), look(plain, "asphalt"))
    assert look(snow, "grass").mean() > 190 > 120 > look(plain, "grass").mean()


@pytest.mark.parametrize("points", [2, 6, 40])
def test_a_band_drawn_in_pieces_has_no_gaps_and_no_bumps(points):
    canvas = Canvas(256, 0.25, 0.3, (100, 110, 80), "grass")
    xs = np.linspace(-26, 26, points)
    line = [(x, 5 * np.sin(x / 6)) for x in xs.tolist()]
    canvas.strip(line, 6.0, (90, 90, 90), "asphalt")
    left, right = edges(line, 6.0)
    outline = Polygon([*turned(left, 0.3), *turned(right, 0.3)[::-1]])
    drawn = canvas.pixels()[1] == CODE["asphalt"]
    rows, columns = (np.indices((256, 256)) + 0.5 - 128) * 0.25
    assert contains_xy(outline.buffer(0.3), columns[drawn], rows[drawn]).all()  # a pixel and a fifth
    assert drawn[contains_xy(outline.buffer(-0.3), columns, rows)].all()


def test_textures_at_their_strongest_stay_within_16_bits():
    largest = {name: int(np.abs(tile).max()) for name, tile in sheets().items()}
    canopy = max(sum(int(np.abs(tile).max()) for tile in crowns(which)) for which in range(len(CROWN_PX)))
    for material in MATERIALS.values():
        swing = (
            material.grain * largest["grain"]
            + material.mottle * largest["mottle"]
            + material.ripple * largest["ripple"]
            + material.canopy * 0.7 * canopy
            + (material.rows + material.across) * UNIT
        )
        assert SHARE * (UNIT + swing) < 2**15, material
        tint = material.tint * largest["tint"] / UNIT * ONE
        assert BRIGHTNESS[0] - tint >= 0 and BRIGHTNESS[1] + tint <= 255, material


def test_every_material_has_a_class_and_a_code_below_the_changed_bit():
    assert len(MATERIALS) < CHANGED
    assert {m.semantic for m in MATERIALS.values()} == set(range(len(SEMANTIC_CLASSES)))


def test_rectangles_drawn_together_or_held_up_are_those_drawn_as_polygons():
    middles = [(0.0, 0.0), (3.1, -4.0), (11.9, 12.0), (400.0, 0.0)]  # the last two at the edge and out of sight
    together, alone = (Canvas(96, 0.25, 0.7, (100, 110, 80), "grass", (0.5, -0.8)) for _ in range(2))
    together.quads(middles, 2.5, 1.2, 0.4, (90, 90, 90), "asphalt")
    together.cast_quad(1.0, 2.0, 4.0, 2.0, 1.1, 1.2)
    for x, y in middles:
        alone.polygon(rectangle(x, y, 2.5, 1.2, 0.4), (90, 90, 90), "asphalt")
    alone.cast_outline(rectangle(1.0, 2.0, 4.0, 2.0, 1.1), 1.2)
    assert (together.pixels()[1] == CODE["asphalt"]).sum() > 50 < (together.pixels()[2] > 127).sum()
    for one, other in zip(together.pixels(), alone.pixels(), strict=True):
        assert np.array_equal(one, other)
