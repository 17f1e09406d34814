"""IndexNet against its formulas written out, and the ground that its positions share."""

import copy

import torch
import torch.nn.functional as F

from cmid.contracts import Progress, View, Views
from tests.methods.rivals import batch, learner


def cell(view, other, i, row, column, side, grid):
    """Row and column of the cell under a position, counted by hand on the rectangle around both crops of image i."""
    x0, y0, x1, y1 = view.boxes[i].tolist()
    across = (column + 0.5) / side
    across = 1 - across if view.flipped[i] else across
    x, y = x0 + across * (x1 - x0), y0 + (row + 0.5) / side * (y1 - y0)
    a, b = view.boxes[i].tolist(), other.boxes[i].tolist()
    left, top, right, bottom = min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
    return int((y - top) / (bottom - top) * grid), int((x - left) / (right - left) * grid)


def expected_terms(model, views):
    """Both terms pair by pair; heads take all positions of a view at once, for their batch-norm."""
    students = [model.backbone(v.images).last for v in views]
    with torch.no_grad():
        teachers = [model.teacher_backbone(v.images).last for v in views]
    whole, index = 0, 0
    for here, there in ((0, 1), (1, 0)):
        p = model.predictor(model.projector(students[here].mean((2, 3))))
        with torch.no_grad():
            z = model.teacher_projector(teachers[there].mean((2, 3)))
        whole = whole + 2 - 2 * F.cosine_similarity(p, z).mean()
        side = students[here].shape[-1]
        rows = students[here].permute(0, 2, 3, 1).reshape(-1, students[here].shape[1])
        p = model.index_predictor(model.index_projector(rows)).unflatten(0, (-1, side, side))
        with torch.no_grad():
            rows = teachers[there].permute(0, 2, 3, 1).reshape(-1, rows.shape[1])
            z = model.teacher_index_projector(rows).unflatten(0, (-1, side, side))
        grid, distances = model.config.index_grid, []
        places = [(r, c) for r in range(side) for c in range(side)]
        for i in range(len(p)):
            for a in places:
                for b in places:
                    if cell(views[here], views[there], i, *a, side, grid) == cell(
                        views[there], views[here], i, *b, side, grid
                    ):
                        distances.append(2 - 2 * F.cosine_similarity(p[i][a], z[i][b], dim=0))
        index = index + torch.stack(distances).mean()
    return {"global": whole, "index": model.config.index_weight * index}


def test_terms_and_gradient_are_those_of_the_published_formulas():
    model, views = learner("indexnet", index_weight=0.5), batch("indexnet", size=96, seed=4)
    other = copy.deepcopy(model)
    found = model(views)
    sum(found.values()).backward()
    expected = expected_terms(other, views)
    sum(expected.values()).backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        if theirs.requires_grad:
            # a bias before batch-norm has a gradient of rounding alone
            assert (ours.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm() + 1e-5
        else:
            assert ours.grad is None


def test_swapping_the_views_and_moving_both_crops_change_no_loss():
    model, views = learner("indexnet"), batch("indexnet", seed=5)
    there = copy.deepcopy(model)(views)
    swapped = Views(views.crops[::-1], views.indices)
    torch.testing.assert_close(copy.deepcopy(model)(swapped), there, rtol=1e-5, atol=1e-6)
    moved = tuple(View(v.images, v.boxes * 2 + 64, v.flipped) for v in views)
    torch.testing.assert_close(copy.deepcopy(model)(Views(moved, views.indices)), there, rtol=1e-5, atol=1e-6)


def pair(first, second, flipped=(False, False)):
    views = batch("indexnet", seed=6)
    boxes = [torch.tensor([box] * 4, dtype=torch.float32) for box in (first, second)]
    sides = [torch.full((4,), mirrored) for mirrored in flipped]
    crops = zip(views, boxes, sides, strict=True)
    return Views(tuple(View(v.images, b, f) for v, b, f in crops), views.indices)


def test_the_same_crop_shares_every_position_and_a_mirrored_one_too():
    model = learner("indexnet", index_grid=2)  # as many cells as positions of a 64 px crop
    box = (10, 20, 70, 80)
    same = model._cells(pair(box, box), (2, 2))
    assert torch.equal(same[0], same[1]) and same[0][0].tolist() == [0, 1, 2, 3]
    mirrored = model._cells(pair(box, box, (False, True)), (2, 2))
    assert mirrored[1][0].tolist() == [1, 0, 3, 2]
    model(pair(box, box))
    assert model.extra_logs()["matched_share"] == 1


def test_crops_that_do_not_meet_give_no_positions_to_learn_from():
    model = learner("indexnet", index_grid=7)
    terms = model(pair((0, 0, 60, 60), (100, 100, 160, 160)))
    sum(terms.values()).backward()
    assert terms["index"].item() == 0 and terms["global"].item() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert model.extra_logs()["matched_share"] == 0
    assert not model.look(pair((0, 0, 60, 60), (100, 100, 160, 160))).matches.valid.any()


def test_look_shows_pairs_that_are_learned_from():
    model, views = learner("indexnet").eval(), batch("indexnet", size=128, seed=7)
    seen = model.look(views)
    assert seen.grid == (4, 4) and seen.matches.valid.any()
    first, second = model._cells(views, seen.grid)
    for i in range(4):
        for a, b, valid in zip(seen.matches.first[i], seen.matches.second[i], seen.matches.valid[i], strict=True):
            assert not valid or first[i, a] == second[i, b]


def test_the_teacher_follows_along_a_cosine():
    model = learner("indexnet")
    with torch.no_grad():
        for p in (*model.backbone.parameters(), *model.projector.parameters(), *model.index_projector.parameters()):
            p.add_(1.0)
    before = {n: p.clone() for n, p in model.named_parameters() if n.startswith("teacher_")}
    model.after_step(Progress(1, 100, 0.1, 10))
    now = dict(model.named_parameters())
    for name, old in before.items():
        expected = 0.9 * old + 0.1 * now[name.removeprefix("teacher_")]
        torch.testing.assert_close(now[name], expected, rtol=1e-5, atol=1e-6)
    last = {name: now[name].clone() for name in before}
    model.after_step(Progress(101, 100, 10, 10))  # at the end the momentum is 1
    assert all(torch.equal(now[name], value) for name, value in last.items())
