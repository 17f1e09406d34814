"""SimMIM against its formula, and what may not be seen of what is hidden."""

import pytest
import torch

from cmid.commands.learners import build_learner
from cmid.config import CMIDConfig, PretrainConfig
from cmid.contracts import Views
from cmid.errors import UsageError
from cmid.ops.masking import fill_with_mean, to_pixels
from tests.methods.rivals import batch, learner

BACKBONES = ["resnet18", "test_convnext", "test_vit", "swin_tiny_patch4_window7_224"]


def mask_of(count):
    mask = torch.zeros(count, 2, 2, dtype=torch.bool)
    mask[:, 0, 0] = mask[:, 1, 1] = True
    return mask


@pytest.mark.parametrize(("name", "cell"), [("resnet18", 32), ("test_vit", 32), ("resnet18", 16)])
def test_loss_and_gradient_are_those_of_the_formula(name, cell):
    """Whether positions of the last map are hidden whole, as in the paper, or, at the end, may be hidden in part."""
    model, views = learner("simmim", name), batch("simmim", seed=4)
    model.config.mask_cell_px = cell
    images, mask = views[0].images, mask_of(4).repeat_interleave(32 // cell, 1).repeat_interleave(32 // cell, 2)
    model.draw_mask = lambda images: mask
    found = model(views)["reconstruction"]
    found.backward()
    gradient = model.pixel_head[0].weight.grad.clone()
    model.zero_grad()

    prediction = model.predict(images, mask)
    total, count = 0.0, 0
    for i in range(4):  # cell by cell, as the paper writes it: the L1 distance over the hidden pixels, by their number
        for rows, columns in ((slice(0, 32), slice(0, 32)), (slice(32, 64), slice(32, 64))):
            total = total + (prediction[i, :, rows, columns] - images[i, :, rows, columns]).abs().sum()
            count += 3 * 32 * 32
    expected = total / count
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    expected.backward()
    torch.testing.assert_close(model.pixel_head[0].weight.grad, gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", BACKBONES)
def test_hidden_pixels_do_not_reach_the_network(name):
    model, images, mask = learner("simmim", name).eval(), batch("simmim", seed=5)[0].images, mask_of(4)
    other = images.clone()
    for cell in (other[:, :, :32, :32], other[:, :, 32:, 32:]):
        cell.copy_(cell.flip(-1))  # other pixels, the same mean
    assert not torch.equal(images, other)
    with torch.no_grad():
        seen, still = model.predict(images, mask), model.predict(other, mask)
        torch.testing.assert_close(seen, still, rtol=1e-4, atol=1e-4)
        shown = images.clone()
        shown[:, :, :32, 32:] += 1 * torch.randn(4, 3, 32, 32)
        assert (model.predict(shown, mask) - seen).abs().max() > 1e-3, "what is shown does count"


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_where_patches_are_embedded_one_by_one_the_token_is_all_that_is_left(name):
    """As in the paper: filling them first, or with what, changes nothing there."""
    model, images, mask = learner("simmim", name).eval(), batch("simmim", seed=6)[0].images, mask_of(4)
    filled = fill_with_mean(images, to_pixels(mask, images.shape[-2:]))
    assert not torch.allclose(filled, images)
    with torch.no_grad():
        for given in (images, filled):
            painted = model.pixel_head(model.backbone(given, mask).last)
            torch.testing.assert_close(model.predict(images, mask), painted, rtol=1e-5, atol=1e-5)


def test_visible_pixels_have_no_part_in_the_loss():
    model, views, mask = learner("simmim"), batch("simmim", seed=7), mask_of(4)
    images = views[0].images
    prediction = torch.randn_like(images, requires_grad=True)
    model._l1(prediction, images, mask).backward()
    hidden = torch.zeros(4, 1, 64, 64, dtype=torch.bool)
    hidden[..., :32, :32] = hidden[..., 32:, 32:] = True
    torch.testing.assert_close(prediction.grad.abs(), hidden.float().expand(4, 3, 64, 64) / (4 * 2 * 32 * 32 * 3))


def test_the_token_starts_as_published_and_learns():
    model = learner("simmim", "test_vit")
    token = model.backbone.mask_token
    assert 0.005 < token.std() < 0.04
    sum(model(batch("simmim")).values()).backward()
    assert token.grad.abs().max() > 0


def test_the_number_of_hidden_cells():
    model = learner("simmim")
    model.config.mask_ratio = 0.6
    masks = model.draw_mask(torch.zeros(5, 3, 192, 192))
    assert masks.shape == (5, 6, 6) and masks.flatten(1).sum(1).tolist() == [22] * 5  # the least number above 0.6 x 36


XCIT = "xcit_nano_12_p16_224"


@pytest.mark.parametrize(
    ("method", "backbone", "says", "not_said"),
    [
        (
            "simmim",
            XCIT,
            rf"SimMIM hides .*, and {XCIT} has no known place for it: name another --backbone",
            "mask_stage",
        ),
        (
            "cmid",
            XCIT,
            r"no known place for it at cmid\.mask_stage 0: set cmid\.mask_stage to one of 1, 2, 3, or name",
            "!",
        ),
        ("cmid", "twins_pcpvt_small", r"for it at cmid\.mask_stage 0: name another --backbone", "set "),
    ],
)
def test_a_backbone_without_a_place_for_the_token_is_refused_when_it_is_made(method, backbone, says, not_said):
    """With advice that is true of the method and of that backbone; CMID shares it."""
    with pytest.raises(UsageError, match=says) as caught:
        build_learner(PretrainConfig(method=method, backbone=backbone))
    assert not_said not in str(caught.value)


def test_the_stage_that_is_advised_takes_the_token():
    small = CMIDConfig(mask_stage=2, queue_size=4, local_hidden=8, local_bottleneck=8, local_prototypes=8)
    model = build_learner(PretrainConfig(backbone=XCIT, cmid=small))
    backbone, images, mask = model.backbone.eval(), torch.zeros(1, 3, 224, 224), torch.ones(1, 7, 7, dtype=torch.bool)
    with torch.no_grad():
        backbone.mask_token.normal_()  # it starts at 0
        assert (backbone(images, mask).last - backbone(images).last).abs().max() > 0.1


def test_it_looks_at_the_first_view_alone():
    model, one, two = learner("simmim").eval(), batch("simmim", seed=1), batch("byol", seed=2)
    torch.manual_seed(0)
    alone = model.look(one)
    torch.manual_seed(0)
    both = model.look(Views((one[0], two[0]), one.indices))
    assert [len(part) for part in (both.masks, both.masked, both.predictions)] == [1, 1, 1]
    torch.testing.assert_close(alone.predictions[0], both.predictions[0])
    assert both.predictions[0].shape == one[0].images.shape
