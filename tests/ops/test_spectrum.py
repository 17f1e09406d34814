"""Reconstruction losses against the published code's numbers."""

import pytest
import torch

from cmid.ops.spectrum import focal_frequency, focal_l1

FORMS = {
    "cfg": {},
    "gamma2": {"gamma": 2.0},
    "tanh": {"activation": "tanh"},
    "residual": {"residual": True},
}


@pytest.mark.parametrize("form", FORMS)
def test_focal_l1_equals_the_published_code(reference, form):
    r = reference("focal_l1")
    prediction = r["pred"].requires_grad_()
    loss = focal_l1(prediction - r["target"], **FORMS[form])
    torch.testing.assert_close(loss, r[f"none_{form}"], rtol=1e-5, atol=1e-7)
    loss.mean().backward()
    torch.testing.assert_close(loss.mean(), r[f"mean_{form}"], rtol=1e-5, atol=0)
    torch.testing.assert_close(prediction.grad, r[f"grad_of_mean_{form}"], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("form", "options"), [("cfg", {}), ("noave", {"average": False}), ("nolog", {"log": False})])
def test_focal_frequency_equals_the_published_code(reference, form, options):
    r = reference("focal_frequency")
    prediction = r["pred"].requires_grad_()
    loss = focal_frequency(prediction - r["target"], **options)
    torch.testing.assert_close(loss, r[f"loss_{form}"], rtol=1e-5, atol=0)
    loss.backward()
    torch.testing.assert_close(prediction.grad, r[f"grad_{form}"], rtol=1e-4, atol=1e-8)


def test_average_spectrum_is_the_spectrum_of_the_average():
    torch.manual_seed(0)
    a, b = torch.randn(2, 4, 3, 16, 16)
    slow = torch.fft.fft2(a, norm="ortho").mean(0) - torch.fft.fft2(b, norm="ortho").mean(0)
    weight = torch.log1p(slow.abs()) / torch.log1p(slow.abs()).max()
    torch.testing.assert_close(focal_frequency(a - b), (weight * slow.abs() ** 2).mean())


def test_equal_images_cost_nothing_and_have_a_gradient():
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    loss = focal_frequency(x - x.detach()) + focal_l1(x - x.detach()).mean()
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))
