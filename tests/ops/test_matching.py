"""The geometry of views: which positions show the same ground."""

import numpy as np
import pytest
import torch

from cmid.ops.matching import cell_centres, cells_under, nearest_positions, places_on_crop, take_positions


@pytest.mark.parametrize("cells", [7, 5])
def test_cell_centres_equal_the_published_grid(reference, cells):
    r = reference("location_grid")
    h, w, y0, x0, flip = r["locations"].T
    boxes = torch.stack((x0, y0, x0 + w, y0 + h), 1)
    centres = cell_centres(boxes, flip.bool(), (cells, cells))
    published = r[f"grid{cells}"].flatten(1, 2).flip(-1)  # theirs is row, column
    torch.testing.assert_close(centres, published, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("count", [20, 5, 49])
def test_matches_equal_the_published_code(reference, count):
    r = reference("position_match")
    found = nearest_positions(r["loc1"], r["loc2"], count)
    assert torch.equal(found.first, r[f"filtered_idx_{count}"])
    assert torch.equal(found.second, r[f"nn_idx_{count}"])
    for maps, index, expected in (
        (r["map1"], found.first, f"filtered_{count}"),
        (r["map2"], found.second, f"nn_{count}"),
    ):
        taken = take_positions(maps.transpose(1, 2).unflatten(2, (7, 7)), index)
        assert torch.equal(taken, r[expected])


@pytest.mark.parametrize(("count", "name"), [(7, "7"), (1000, "all")])
def test_matches_of_any_two_sets_equal_the_published_code(reference, count, name):
    r = reference("position_match")
    found = nearest_positions(r["rnd_loc1"], r["rnd_loc2"], count)
    rows = torch.arange(2)[:, None]
    assert torch.equal(r["rnd_map1"][rows, found.first], r[f"rnd_filtered_{name}"])
    assert torch.equal(r["rnd_map2"][rows, found.second], r[f"rnd_nn_{name}"])


def random_crops(count, side=224, seed=0):
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.55, 1.0, (count, 2)) * side
    start = rng.uniform(0, 1, (count, 2)) * (side - size)
    return torch.from_numpy(np.concatenate([start, start + size], 1)).float(), torch.from_numpy(rng.random(count) < 0.5)


def test_matches_show_the_same_ground():
    """Each position is drawn as its own place on the ground; matched positions must agree to half a cell."""
    (boxes_a, flip_a), (boxes_b, flip_b) = random_crops(200, seed=1), random_crops(200, seed=2)
    a, b = cell_centres(boxes_a, flip_a, (7, 7)), cell_centres(boxes_b, flip_b, (7, 7))
    found = nearest_positions(a, b, 20, boxes_b)
    rows = torch.arange(200)[:, None]
    apart = (a[rows, found.first] - b[rows, found.second]).abs()
    half_cell = (boxes_b[:, 2:] - boxes_b[:, :2])[:, None] / 14
    assert found.valid.float().mean() > 0.8
    assert (apart <= half_cell + 1e-3)[found.valid].all()
    torch.testing.assert_close(found.distance[found.valid], apart.norm(dim=-1)[found.valid])


def test_mirroring_one_crop_matches_the_mirrored_columns():
    box = torch.tensor([[7.0, 14.0, 77.0, 84.0]])
    straight, mirrored = (cell_centres(box, torch.tensor([flip]), (7, 7)) for flip in (False, True))
    found = nearest_positions(straight, mirrored, 49, box)
    positions = torch.arange(49)
    assert torch.equal(found.second[0], positions // 7 * 7 + 6 - positions % 7)
    torch.testing.assert_close(found.distance, torch.zeros(1, 49), rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", [(7, 7), (4, 6)])
def test_turned_and_mirrored_cells_lie_where_a_picture_of_their_places_has_them(grid):
    """A crop whose pixels are their own place on the ground, turned by torch, says where each cell lies."""
    rows, columns = grid
    box = torch.tensor([[7.0, 14.0, 77.0, 63.0]])
    for turns in range(4):
        before = grid if turns % 2 == 0 else (columns, rows)
        places = cell_centres(box, torch.tensor([False]), before)[0].T.unflatten(1, before)
        for flipped in (False, True):
            shown = places.rot90(turns, (-2, -1))
            shown = shown.flip(-1) if flipped else shown
            here = torch.tensor([flipped]), torch.tensor([turns])
            centres = cell_centres(box, here[0], grid, here[1])
            torch.testing.assert_close(centres[0], shown.flatten(1).T)
            back = places_on_crop(centres, box, *here)[0]
            across, down = (torch.arange(columns) + 0.5) / columns, (torch.arange(rows) + 0.5) / rows
            torch.testing.assert_close(back, torch.cartesian_prod(down, across).flip(1))


def test_crops_without_overlap_match_nothing():
    a, b = torch.tensor([[0.0, 0, 50, 50]]), torch.tensor([[60.0, 60, 120, 120]])
    no = torch.tensor([False])
    found = nearest_positions(cell_centres(a, no, (3, 3)), cell_centres(b, no, (3, 3)), 5, b)
    assert not found.valid.any()
    assert found.distance.isinf().all()


def test_cells_under_points_of_a_grid_that_is_not_square():
    boxes = torch.tensor([[10.0, 20.0, 40.0, 30.0]])  # cells of 10 x 5 px
    points = torch.tensor([[[10.0, 20.0], [19.9, 24.9], [20.0, 20.0], [39.9, 29.9], [40.0, 30.0], [0.0, 99.0]]])
    assert cells_under(points, boxes, (2, 3)).tolist() == [[0, 0, 1, 5, 5, 3]]


def test_every_cell_lies_under_its_own_centre():
    boxes = torch.rand(5, 4) * 20 + torch.tensor([0.0, 0.0, 50.0, 50.0])
    centres = cell_centres(boxes, torch.zeros(5, dtype=torch.bool), (7, 6))
    assert torch.equal(cells_under(centres, boxes, (7, 6)), torch.arange(42).expand(5, -1))
