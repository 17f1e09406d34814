"""What must be true of CMID besides the published numbers."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cmid.backbones import create_backbone
from cmid.config import CMIDConfig
from cmid.contracts import Progress, View, Views
from cmid.methods.cmid import CMID

SMALL = {
    "queue_size": 24, "global_hidden": 32, "global_dim": 16, "predictor_hidden": 8, "local_hidden": 32,
    "local_bottleneck": 16, "local_prototypes": 24, "local_matches": 5, "mask_cell_px": 16,
}  # fmt: skip
SMALL_SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}


def learner(name="test_resnet", seed=0, **settings):
    torch.manual_seed(seed)
    backbone = create_backbone(name, **(SMALL_SWIN if name.startswith("swin") else {}))
    return CMID(backbone, CMIDConfig(**{**SMALL, **settings})).train()


def batch(size=64, count=4, seed=0, apart=False):
    g = torch.Generator().manual_seed(seed)
    views = []
    for k in range(2):
        start = torch.rand(count, 2, generator=g) * 30 + (500 * k if apart else 0)
        boxes = torch.cat((start, start + 60), 1)
        images = torch.randn(count, 3, size, size, generator=g)
        views.append(View(images, boxes, torch.rand(count, generator=g) < 0.5))
    return Views(tuple(views), torch.arange(count))


@pytest.mark.parametrize("mode", ["exact", "parity"])
@pytest.mark.parametrize("form", ["moco", "byol"])
def test_a_few_steps_lower_the_loss_and_teach_no_gradient(mode, form):
    model = learner(mode=mode, global_form=form)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, views, totals = torch.optim.AdamW(trained, lr=1e-3), batch(), []
    for step in range(12):
        torch.manual_seed(step)
        model.before_step(Progress(step, 12, step, 12))
        terms = model(views)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        assert all(p.grad is not None for p in trained), "every trained parameter gets a gradient, as DDP needs"
        optimizer.step()
        model.after_step(Progress(step + 1, 12, step + 1, 12))
        totals.append({k: v.item() for k, v in terms.items()})
    assert totals[-1]["reconstruction"] < totals[0]["reconstruction"]
    # From the fourth step on: until the queue is full, parity's badly scaled first keys make its loss too low.
    assert sum(totals[-1].values()) < sum(totals[3].values())
    teachers = [p for n, p in model.named_parameters() if n.startswith("teacher_")]
    assert teachers
    assert all(p.grad is None and not p.requires_grad for p in teachers)


@pytest.mark.parametrize("backbone", ["test_resnet", "swin_tiny_patch4_window7_224"])
def test_a_last_map_that_no_branch_reads_gets_a_gradient_of_zeros(backbone):
    """DDP waits for it; it must not come from what the map holds."""

    def spoil(module, images, pyramid):
        pyramid.last.data.fill_(float("inf"))

    model = learner(backbone, reconstruction_weight=0, global_weight=0, local_stage=2)
    model.backbone.register_forward_hook(spoil)
    terms = model(batch())
    assert list(terms) == ["local"] and terms["local"].isfinite()
    terms["local"].backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(g is not None for g in gradients.values())
    last = [g for name, g in gradients.items() if "layer4" in name or "layers.3" in name]
    assert last and not any(g.any() for g in last)
    assert sum(bool(g.any()) for g in gradients.values()) > len(last)


@pytest.mark.parametrize("mode", ["exact", "parity"])
def test_the_parts_are_the_whole(mode):
    """Taking one view's gradient after the other's changes neither loss, gradient, queue nor centre."""
    whole, views = learner(mode=mode), batch()
    parts = copy.deepcopy(whole)
    torch.manual_seed(2)
    terms = whole(views)
    sum(terms.values()).backward()
    torch.manual_seed(2)
    found = []
    for part in range(parts.parts):
        found.append(parts(views, part))
        sum(found[-1].values()).backward()
    for name, value in terms.items():
        torch.testing.assert_close(sum(f[name] for f in found), value)
    for (name, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(b.grad, a.grad, msg=name)
    for (name, a), b in zip(whole.named_buffers(), parts.buffers(), strict=True):
        torch.testing.assert_close(b, a, msg=name)


@pytest.mark.parametrize("off", ["reconstruction", "global", "local"])
def test_a_branch_switched_off_is_not_built(off):
    model = learner(**{f"{off}_weight": 0.0})
    terms = model(batch())
    assert set(terms) == {"reconstruction", "global", "local"} - {off}
    head = {"reconstruction": "pixel_head", "global": "projector", "local": "local_head"}[off]
    assert not any(name.startswith((head, f"teacher_{head}")) for name, _ in model.named_parameters())


def test_with_every_branch_off_there_is_nothing_to_learn():
    with pytest.raises(ValueError, match="all three branches"):
        learner(reconstruction_weight=0, global_weight=0, local_weight=0)


def test_weights_scale_their_terms():
    one, two = learner(), learner(local_weight=2.0, global_weight=3.0, reconstruction_weight=0.5)
    torch.manual_seed(5)
    plain = one(batch())
    torch.manual_seed(5)
    scaled = two(batch())
    for name, factor in (("reconstruction", 0.5), ("global", 3.0), ("local", 2.0)):
        torch.testing.assert_close(scaled[name], plain[name] * factor)


def test_swapping_the_views_changes_no_loss():
    """The total is symmetric; only the centre and the queue are touched in another order."""
    model, views = learner(), batch()
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    masks, masked = model._hide(views)
    terms = model.terms(views, masks, masked)
    swapped = other.terms(Views(views.crops[::-1], views.indices), masks[::-1], masked[::-1])
    torch.testing.assert_close(swapped["reconstruction"], terms["reconstruction"])
    torch.testing.assert_close(swapped["global"], terms["global"])


def test_a_pair_without_overlap_gives_no_local_term():
    model = learner()
    terms = model(batch(apart=True))
    assert terms["local"].item() == 0
    sum(terms.values()).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.local_head.parameters())
    assert not model.centre.any(), "nothing matched, so the centre stays"
    assert learner(mode="parity")(batch(apart=True))["local"].item() > 0, "the published code matches all the same"


@pytest.mark.parametrize("size", [2, 3, 5])
def test_any_batch_from_two_up_and_any_queue(size):
    model = learner(queue_size=7)
    for seed in range(3):
        sum(model(batch(count=size, seed=seed)).values()).backward()
    torch.testing.assert_close(model.queue.norm(dim=1), torch.ones(7))


def test_parity_asks_for_a_queue_that_divides():
    with pytest.raises(ValueError, match="multiple of the keys"):
        learner(mode="parity", queue_size=7)(batch())


def test_the_queue_holds_the_teachers_keys_strong_view_first():
    model, views = learner(), batch()
    expected = copy.deepcopy(model)
    model(views)
    keys = [
        F.normalize(expected.teacher_projector(expected.teacher_backbone(v.images).last.mean((2, 3))), dim=1)
        for v in views
    ]
    torch.testing.assert_close(model.queue[:8], torch.cat((keys[1], keys[0])))
    assert model.queue_pointer.item() == 8


def test_the_teacher_follows_after_the_step():
    exact = learner(momentum=0.5, momentum_end=0.5)
    with torch.no_grad():
        before = exact.teacher_backbone.model.conv1[0].weight.clone()
        exact.backbone.model.conv1[0].weight.add_(1.0)
    exact(batch())
    assert torch.equal(exact.teacher_backbone.model.conv1[0].weight, before)
    exact.after_step(Progress(1, 10))
    torch.testing.assert_close(exact.teacher_backbone.model.conv1[0].weight, before + 0.5)


def test_the_published_teacher_moves_after_all_of_its_forward():
    """Backbone and heads alike: what the local branch is given at step 1 is the teacher of step 0."""
    parity, views = learner(mode="parity", momentum=0.5, momentum_end=0.5), batch()
    before = parity.teacher_local_head.prototypes.weight.clone()
    with torch.no_grad():
        parity.local_head.prototypes.weight.add_(1.0)
    seen = []
    parity.teacher_local_head.register_forward_pre_hook(lambda head, _: seen.append(head.prototypes.weight.clone()))
    parity.before_step(Progress(1, 10))
    parity(views)
    assert len(seen) == 2
    assert all(torch.equal(weight, before) for weight in seen)
    torch.testing.assert_close(parity.teacher_local_head.prototypes.weight, before + 0.5)


def test_stochastic_depth_is_the_students_alone():
    torch.manual_seed(0)
    backbone = create_backbone("swin_tiny_patch4_window7_224", drop_path=0.5, **SMALL_SWIN)
    model = CMID(backbone, CMIDConfig(**SMALL)).train()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(model.backbone(image).last, model.backbone(image).last)
        assert torch.equal(model.teacher_backbone(image).last, model.teacher_backbone(image).last)


def test_parity_takes_a_crops_start_for_the_published_share(reference):
    """Boxes in pixels of the squashed image, as they are known here, give the published grid of cells."""
    r = reference("location_grid")
    height, width, row, column, flip = r["locations"].T
    y0, x0 = row * (224 - height), column * (224 - width)
    boxes = torch.stack((x0, y0, x0 + width, y0 + height), 1)
    view = View(torch.zeros(4, 3, 224, 224), boxes, flip.bool())
    for mode in ("parity", "exact"):
        found = replace(view, boxes=learner(mode=mode)._boxes(view)).centres((7, 7))
        far = (found - r["grid7"].flatten(1, 2).flip(-1)).abs().amax((1, 2))  # theirs is row, column
        moved = torch.stack((x0, y0), 1).amax(1) > 1
        assert (far < 1e-3).tolist() == ([True] * 4 if mode == "parity" else (~moved).tolist())


def test_initialisation_is_that_of_the_mode():
    exact, parity = learner(), learner(mode="parity")
    torch.testing.assert_close(exact.queue.norm(dim=1), torch.ones(24))
    torch.testing.assert_close(parity.queue.norm(dim=0), torch.ones(16))
    for model, spread in ((exact, 0.02), (parity, (1 / 3 / 96) ** 0.5)):  # truncated normal; uniform up to 96 ** -0.5
        assert model.local_head.mlp[0].weight.std().item() == pytest.approx(spread, rel=0.05)
    swins = [learner("swin_tiny_patch4_window7_224", mode=mode) for mode in ("exact", "parity")]
    tables = [swin.backbone.model.layers[0].blocks[0].attn.relative_position_bias_table for swin in swins]
    assert tables[0].any() and not tables[1].any()
    for swin, spread in zip(swins, (0.02, (1 / 3 / 192) ** 0.5), strict=True):
        weight = swin.backbone.model.layers[3].blocks[0].attn.qkv.weight
        assert weight.std().item() == pytest.approx(spread, rel=0.05)
        assert torch.equal(weight, swin.teacher_backbone.model.layers[3].blocks[0].attn.qkv.weight)


def test_before_its_first_epoch_the_local_branch_weighs_nothing():
    model = learner(local_start_epoch=2)
    model.before_step(Progress(epoch=1.5, total_epochs=10))
    terms = model(batch())
    assert terms["local"].item() == 0
    assert not model.centre.any()
    model.before_step(Progress(epoch=2.0, total_epochs=10))
    assert model.teacher_temperature == pytest.approx(0.04), "its temperature rises from there"
    assert model(batch())["local"].item() > 0


def test_cosines_are_float32_under_autocast():
    model = learner()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.local_head(torch.randn(4, 96)).dtype == torch.float32
        terms = model(batch())
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())


def test_the_published_teacher_waits_a_step():
    parity = learner(mode="parity", momentum=0.5, momentum_end=0.5)
    before = parity.teacher_backbone.model.conv1[0].weight.clone()
    with torch.no_grad():
        parity.backbone.model.conv1[0].weight.add_(1.0)
    parity.before_step(Progress(0, 10))
    parity(batch())
    parity.after_step(Progress(1, 10))
    assert torch.equal(parity.teacher_backbone.model.conv1[0].weight, before)
    parity.before_step(Progress(1, 10))
    parity(batch())
    torch.testing.assert_close(parity.teacher_backbone.model.conv1[0].weight, before + 0.5)


def test_the_local_loss_equals_the_published_code_over_five_calls(reference):
    r = reference("local_loss")
    model = learner(local_prototypes=32, local_temperature_epochs=50)
    for call in range(5):
        model.before_step(Progress(epoch=float(r[f"epoch{call}"]), total_epochs=400))
        online = r[f"online{call}"].requires_grad_()
        valid = torch.ones(4, 20, dtype=torch.bool)
        loss = model._distil(online.transpose(1, 2), r[f"branch{call}"].transpose(1, 2), valid)
        loss.backward()
        torch.testing.assert_close(loss, r[f"loss{call}"], rtol=1e-5, atol=0)
        torch.testing.assert_close(online.grad, r[f"grad_online{call}"], rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(model.centre, r[f"center{call}"].flatten(), rtol=1e-5, atol=1e-7)


def test_the_teachers_temperature_rises_as_published(reference):
    model, schedule = learner(), reference("local_loss")["temp_schedule"]
    ours = []
    for epoch in range(400):
        model.before_step(Progress(epoch=epoch + 0.5, total_epochs=400))
        ours.append(model.teacher_temperature)
    torch.testing.assert_close(torch.tensor(ours), schedule, rtol=1e-5, atol=0)


@pytest.mark.parametrize("mask_token", ["add", "replace"])
def test_hidden_pixels_do_not_reach_the_student(mask_token):
    """With every cell hidden the student sees nothing but the images' means."""
    model, views = learner(mask_ratio=1.0, mask_token=mask_token).eval(), batch()
    shuffled = Views(
        tuple(v.with_images(v.images.flip(2, 3)) for v in views), views.indices
    )  # other pixels, same means
    for a, b in zip(model.look(views).predictions, model.look(shuffled).predictions, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_reconstruction_equals_the_published_code(reference):
    r = reference("mim_loss")
    for mask, expected in ((r["mask"], "loss_cfg"), (r["mask_full"], "loss_cfg_fullres_mask")):
        prediction = r["x_rec"].clone().requires_grad_()
        model = learner(mask_cell_px=4)
        model.pixel_head = torch.nn.Identity()
        model._errors_by_position = model._errors_by_pixel  # these masks hide more of one image than of the other
        loss = model._reconstruction(prediction, r["x"], mask.bool())
        loss.backward()
        torch.testing.assert_close(loss, r[expected], rtol=1e-5, atol=0)
        if expected == "loss_cfg":
            torch.testing.assert_close(prediction.grad, r["grad_cfg"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("settings", [{}, {"mode": "parity"}, {"frequency_weight": 0.0}, {"mask_ratio": 1.0}])
@pytest.mark.parametrize("cell", [32, 64])
def test_painting_hidden_positions_alone_changes_nothing(cell, settings):
    """Loss and gradients are those of every pixel painted, its errors masked and averaged."""
    model = learner(mask_cell_px=cell, **settings)
    images = batch(128)[0].images
    mask = model._draw_mask(View(images, torch.zeros(4, 4), torch.zeros(4, dtype=torch.bool)))
    features = torch.randn(4, 96, 4, 4)

    def of(errors):
        model._errors_by_position = errors
        given = features.clone().requires_grad_()
        model.zero_grad()
        loss = model._reconstruction(given, images, mask)
        loss.backward()
        return loss, given.grad, *(p.grad for p in model.pixel_head.parameters())

    by_position, by_pixel = of(model._errors_by_position), of(model._errors_by_pixel)
    for ours, expected in zip(by_position, by_pixel, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    assert all(gradient.abs().max() > 0 for gradient in by_position)


def test_cells_smaller_than_a_position_are_painted_pixel_by_pixel():
    model, images = learner(mask_cell_px=16), batch()[0].images
    model._errors_by_position = None
    mask = model._draw_mask(View(images, torch.zeros(4, 4), torch.zeros(4, dtype=torch.bool)))
    assert model._reconstruction(torch.randn(4, 96, 2, 2), images, mask).isfinite()


def test_look_agrees_with_what_the_loss_uses():
    model, views = learner(), batch()
    torch.manual_seed(3)
    look = model.look(views)
    assert [p.shape for p in look.predictions] == [v.images.shape for v in views]
    assert look.grid == (2, 2)
    assert look.masks[0].float().mean() == pytest.approx(10 / 16)  # ceil(0.6 * 16) cells of 16 px
    hidden = look.masked[0] != views[0].images
    assert torch.equal(hidden.any(1), look.masks[0].repeat_interleave(16, 1).repeat_interleave(16, 2))


def test_without_the_local_branch_there_is_no_match_to_look_at():
    model, views = learner(local_weight=0.0), batch()
    assert model.look(views).matches is None


@pytest.mark.parametrize("bands", [1, 4])
def test_any_bands(bands):
    torch.manual_seed(0)
    model = CMID(create_backbone("resnet18", bands), CMIDConfig(**SMALL))
    views = batch()
    views = Views(tuple(v.with_images(v.images[:, :1].repeat(1, bands, 1, 1)) for v in views), views.indices)
    assert all(term.isfinite() for term in model(views).values())
    assert model.look(views).predictions[0].shape[1] == bands


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "test_resnet"])
def test_two_processes_equal_one(two_processes, backbone):
    """Loss, gradient, queue and centre of two processes with half a batch each are those of one with all of it."""
    two_processes("tests.methods.cmid_in_two_processes", backbone)
