import json
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from cmid.backbones import create_backbone
from cmid.commands.settings import resolve
from cmid.config import OptimizerConfig, PretrainConfig
from cmid.errors import UsageError
from cmid.tasks.classification import Classifier
from cmid.train.optimisers import build_optimiser, parameter_groups, scaled_lr
from cmid.train.sharding import WholeLearner


class TwoTensors(nn.Module):
    """`w` decays; `b` is one-dimensional, but the reference decays both, so its groups are set by hand."""

    def __init__(self, w, b):
        super().__init__()
        self.w, self.b = nn.Parameter(w.clone()), nn.Parameter(b.clone())


@pytest.mark.parametrize(
    ("tag", "lr", "decay", "no_prox"),
    [
        ("wd0", 1e-3, 0.0, False),
        ("wd002", 1e-3, 0.02, False),
        ("wd002_noprox", 1e-3, 0.02, True),
        ("lr01", 0.1, 0.02, False),
    ],
)
@pytest.mark.parametrize("foreach", [False, True])
def test_adan_follows_the_reference(reference, tag, lr, decay, no_prox, foreach):
    adan = reference("adan")
    module = TwoTensors(adan["w0"], adan["b0"])
    optimiser = build_optimiser(module, OptimizerConfig(weight_decay=decay), lr)
    for group in optimiser.param_groups:
        group.update(weight_decay=decay, no_prox=no_prox, foreach=foreach)
    for i in range(10):
        module.w.grad, module.b.grad = adan["grads_w"][i].clone(), adan["grads_b"][i].clone()
        optimiser.step()
        torch.testing.assert_close(module.w.data, adan[f"w_{tag}"][i], rtol=2e-7, atol=2e-7)
        torch.testing.assert_close(module.b.data, adan[f"b_{tag}"][i], rtol=2e-7, atol=2e-7)
    if tag == "wd002":
        state = optimiser.state[module.w]
        for ours, theirs in (
            ("exp_avg", "exp_avg"),
            ("exp_avg_sq", "exp_avg_diff"),  # the published names are swapped
            ("exp_avg_diff", "exp_avg_sq"),
        ):
            torch.testing.assert_close(state[ours], adan[f"state_{theirs}"], rtol=2e-6, atol=2e-7)


def test_adan_first_step_uses_no_gradient_difference():
    module = TwoTensors(torch.ones(2, 2), torch.ones(2))
    optimiser = build_optimiser(module, OptimizerConfig(weight_decay=0.0, eps=0.0), 0.1)
    (module.w.sum() * 3 + module.b.sum()).backward()
    optimiser.step()
    torch.testing.assert_close(module.w.data, torch.full((2, 2), 0.9))  # sign-like: g / |g|
    torch.testing.assert_close(module.b.data, torch.full((2,), 0.9))


@pytest.mark.parametrize("backbone", ["r50", "swin"])
def test_groups_are_those_of_the_published_code(reference, backbone):
    groups = json.loads((reference.folder / f"optim_groups_{backbone}.json").read_text())
    shapes = json.loads((reference.folder / f"moco_keys_{backbone}.json").read_text())
    frozen = set(groups["frozen"])
    trained = set(groups["no_decay"]) | set(groups["decay"])

    class Named(nn.Module):
        def named_parameters(self, *args, **kwargs):
            for name in [*groups["decay"], *groups["no_decay"], *frozen]:
                yield name, nn.Parameter(torch.empty(shapes[name][0], device="meta"), requires_grad=name not in frozen)

    decayed, plain = parameter_groups(Named(), 0.02)
    assert set(decayed["names"]) == set(groups["decay"])
    assert set(plain["names"]) == set(groups["no_decay"])
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.02, 0.0)
    assert len(decayed["names"]) + len(plain["names"]) == len(trained)
    assert any("mask_token" in name for name in decayed["names"])


def test_named_parameters_are_spared_decay():
    module = nn.ModuleDict({"attn": nn.Linear(3, 3), "table": nn.Linear(3, 3)})
    decayed, plain = parameter_groups(module, 0.02, ("table",))
    assert set(decayed["names"]) == {"attn.weight"}
    assert set(plain["names"]) == {"attn.bias", "table.weight", "table.bias"} and plain["weight_decay"] == 0


@pytest.mark.parametrize("name", ["adan", "adamw", "sgd", "lars"])
def test_each_optimiser_lowers_a_loss_and_leaves_the_frozen_alone(name):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Linear(1, 1))
    module[3].requires_grad_(False)
    before = module[3].weight.clone()
    x = torch.randn(16, 3)
    optimiser = build_optimiser(
        module, OptimizerConfig(name=name, betas=(0.9, 0.9, 0.99)), 0.5 if name == "lars" else 0.02
    )
    losses = []
    for _ in range(60):
        loss = (module(x) - x.sum(1, keepdim=True)).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]
    assert torch.equal(module[3].weight, before)


@pytest.mark.parametrize("settings", [{"weight_decay": 0.0}, {"weight_decay": 1e-6, "undecayed": ("0",)}])
def test_lars_adapts_to_weights_that_do_not_decay_and_to_no_biases(settings):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 4))
    weight, bias = module[0].weight.detach().clone(), module[0].bias.detach().clone()
    module(torch.randn(16, 8)).square().mean().backward()
    build_optimiser(module, OptimizerConfig(name="lars", betas=(0.9,), **settings), 4.8).step()
    moved = (module[0].weight.detach() - weight).norm() / weight.norm()
    assert float(moved) == pytest.approx(4.8 * 0.001, rel=1e-3)  # the trust coefficient of the paper
    torch.testing.assert_close(module[0].bias, bias - 4.8 * module[0].bias.grad)


def test_unset_betas_are_each_optimisers_usual_ones():
    module = nn.Linear(2, 2)
    usual = {"adan": (0.98, 0.92, 0.99), "adamw": (0.9, 0.999), "sgd": 0.9, "lars": 0.9}
    for name, expected in usual.items():
        group = build_optimiser(module, OptimizerConfig(name=name), 0.1).param_groups[0]
        assert (group["momentum"] if name in ("sgd", "lars") else group["betas"]) == expected
    assert resolve(PretrainConfig, {"optimizer.name": "adamw"}).optimizer.betas == (0.9, 0.999)
    assert resolve(PretrainConfig, {"optimizer": {"betas": [0.8, 0.9]}}).optimizer.betas == (0.8, 0.9)


def test_too_few_betas_and_unknown_names_are_explained():
    module = nn.Linear(2, 2)
    with pytest.raises(UsageError, match=r"must have 3 numbers for adan, found 2"):
        build_optimiser(module, OptimizerConfig(betas=(0.9, 0.99)), 0.1)
    with pytest.raises(UsageError, match="one of adan, adamw, sgd, lars, found 'adam'"):
        build_optimiser(module, OptimizerConfig(name="adam"), 0.1)
    with pytest.raises(UsageError, match="nothing to train"):
        build_optimiser(module.requires_grad_(False), OptimizerConfig(), 0.1)


def test_the_rate_scales_with_the_images_of_a_step():
    lr, words = scaled_lr(OptimizerConfig(lr=1e-3, lr_reference_batch=64), 256)
    assert lr == pytest.approx(4e-3)
    assert words == "learning rate 0.004 = 0.001 x 256 images a step / 64"
    lr, words = scaled_lr(OptimizerConfig(lr=1e-3, lr_reference_batch=0), 256)
    assert lr == 1e-3
    assert "as it is" in words


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet18", "convnext_atto"])
def test_layer_decay_gives_each_parameter_timms_factor(name):
    backbone = create_backbone(name, mask_stage=None)
    learner = Classifier(backbone, 5)
    optimiser = build_optimiser(learner, OptimizerConfig(name="adamw", layer_decay=0.7, weight_decay=0.05), 1e-3)
    ours = {n: (g["lr_scale"], g["weight_decay"]) for g in optimiser.param_groups for n in g["names"]}
    assert sum(len(g["params"]) for g in optimiser.param_groups) == len(list(learner.parameters()))
    whole = timm.create_model(name, num_classes=5)
    names = {id(p): n for n, p in whole.named_parameters()}
    theirs = {
        names[id(p)]: group["lr_scale"]
        for group in param_groups_layer_decay(whole, 0.05, layer_decay=0.7)
        for p in group["params"]
    }
    for n, _ in backbone.model.named_parameters():
        assert ours[f"backbone.model.{n}"][0] == pytest.approx(theirs[n]), n
    assert ours["head.weight"] == (1.0, 0.05) and ours["head.bias"] == (1.0, 0.0)
    assert min(scale for scale, _ in ours.values()) < 0.7


def test_layer_decay_needs_a_backbone_with_layers():
    module = TwoTensors(torch.ones(2, 2), torch.ones(2))
    with pytest.raises(UsageError, match="the layers of TwoTensors are not known"):
        build_optimiser(module, OptimizerConfig(layer_decay=0.5), 0.1)


def test_how_it_computes_is_the_machines_and_what_it_computes_the_files():
    """As where a run of one process goes on with divided parameters, which torch's fused SGD does not know."""
    before, now = (nn.Linear(3, 2) for _ in range(2))
    config = OptimizerConfig(name="sgd", betas=(0.9,))
    saved = build_optimiser(before, config, 0.1)
    saved.param_groups[0]["lr"] = 0.025
    here = build_optimiser(now, config, 0.1, scaled=True)
    assert all(group["fused"] for group in saved.param_groups) and not any(g["fused"] for g in here.param_groups)
    state = {"learner": before.state_dict(), "optimiser": saved.state_dict()}
    WholeLearner(now, sharded=False, leads=True).load(state["learner"], here, state["optimiser"], Path("x.ckpt"))
    assert not any(group["fused"] for group in here.param_groups) and here.param_groups[0]["lr"] == 0.025
