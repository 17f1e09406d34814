"""Run by torchrun in two processes: learners that are divided between them must be those of one process.

One process takes all of a batch; of the divided learner each takes half. What is compared is whole again.
"""

import copy
import sys
from functools import partial

import torch
import torch.distributed as dist

from cmid.backbones import create_backbone
from cmid.config import CMIDConfig, OptimizerConfig, TrainConfig
from cmid.contracts import Learner, Progress
from cmid.methods.cmid import CMID
from cmid.train import gather_team
from cmid.train.hardware import Sealed, choose_machine
from cmid.train.optimisers import build_optimiser
from cmid.train.sharding import WholeLearner, whole_tensor
from tests.methods import rivals, test_cmid

STEPS = 2
PLAIN = OptimizerConfig(name="sgd", betas=(0.9,), weight_decay=0.01)
"""Moves with the gradient: Adam's kind would make as much of a gradient of rounding alone as of any other."""


def cmid(backbone, **sizes):
    torch.manual_seed(0)
    config = CMIDConfig(**test_cmid.SMALL | {"queue_size": 20})
    return CMID(create_backbone(backbone, **sizes), config).train(), test_cmid.batch(seed=3)


def rival(name, backbone):
    return rivals.learner(name, backbone), rivals.batch(name, count=8, seed=3)


SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
CASES = {
    "cmid": {
        "cmid on a ResNet": partial(cmid, "test_resnet"),
        "cmid on a Swin": partial(cmid, "swin_tiny_patch4_window7_224", **SWIN),
    },
    "rivals": {
        name: partial(rival, name, "test_vit" if usual == "test_vit" else "test_resnet")
        for name, (_, usual, _) in rivals.RIVALS.items()
    },
}


def fix_masks(learner, views, share):
    """Masks drawn once for all images, of which `share` are taken: the same for one process and for two."""
    torch.manual_seed(7)
    if hasattr(learner, "_hide"):
        masks, masked = learner._hide(views)
        learner._hide = lambda _: (tuple(m[share] for m in masks), tuple(m[share] for m in masked))
    elif hasattr(learner, "draw_mask"):
        mask = learner.draw_mask(views[0].images)
        learner.draw_mask = lambda _: mask[share]


def train(learner, run, optimiser, views, state_of):
    """Some steps in all their parts; gives all losses, and gradients and `state_of()` after the first step.

    Later gradients are of weights that have parted by rounding, which batch-norm over few images magnifies.
    """
    losses, gradients, after = [], {}, None
    for step in range(STEPS):
        learner.before_step(Progress(step, 4, step, 4))
        for part in range(learner.parts):
            terms = run(views, part if learner.parts > 1 else None)
            sum(terms.values()).backward()
            losses += [value.detach() for value in terms.values()]
        if step == 0:
            gradients = {n: whole_tensor(p.grad).clone() for n, p in learner.named_parameters() if p.grad is not None}
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            learner.after_step(Progress(step + 1, 4, step + 1, 4))
        if step == 0:
            after = state_of()
    return torch.stack(losses), gradients, after


def own_share(learner, optimiser):
    """Share of this process in the elements of backbone and optimiser."""
    held = list(learner.backbone.parameters())
    held += [v for state in optimiser.state.values() for v in state.values() if v.ndim]
    assert len(held) > len(list(learner.backbone.parameters()))
    return sum(each.to_local().numel() for each in held) / sum(each.numel() for each in held)


def compare_methods(cases):
    """Those of one process first: once the processes have met, no method is alone."""
    alone = {}
    for name, build in cases.items():
        learner, views = build()
        begun = copy.deepcopy(learner.state_dict())
        fix_masks(learner, views, slice(None))
        optimiser = build_optimiser(learner, PLAIN, 0.005)
        state_of = lambda learner=learner: copy.deepcopy(learner.state_dict())  # noqa: E731
        alone[name] = begun, *train(learner, learner, optimiser, views, state_of)
    settings = TrainConfig(accelerator="cpu", precision="32", strategy="fsdp")
    team = gather_team(settings)
    for name, build in cases.items():
        begun, losses, gradients, state = alone[name]
        learner, views = build()
        half = slice(team.rank * len(views.indices) // 2, (team.rank + 1) * len(views.indices) // 2)
        fix_masks(learner, views, half)
        if team.leads:
            learner.load_state_dict(begun)
        else:  # what the leading process has goes
            with torch.no_grad():
                for tensor in (*learner.parameters(), *learner.buffers()):
                    tensor.zero_()
        whole = WholeLearner(learner, sharded=True, leads=True)  # in both, as both compare
        machine = choose_machine(settings, learner, team)
        module = machine.place(learner, compile_backbone=False)
        optimiser = build_optimiser(learner, PLAIN, 0.005)
        run = lambda views, part, module=module: module(Sealed(views), part)  # noqa: E731
        state_of = lambda whole=whole: whole.on("cpu")  # noqa: E731
        ours, our_gradients, one_piece = train(learner, run, optimiser, rivals.rows(views, half), state_of)
        dist.all_reduce(ours)
        torch.testing.assert_close(ours / 2, losses, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}, losses: {m}")
        assert our_gradients.keys() == gradients.keys(), name
        for key, theirs in gradients.items():
            # against the norm: a bias before batch-norm has a gradient of rounding alone
            away = (our_gradients[key] - theirs).norm()
            assert away <= 2e-4 * theirs.norm() + 1e-5, f"{name}, gradient of {key}: {away} of {theirs.norm()}"
        moved = 0
        assert type(one_piece) is type(learner) and list(one_piece.state_dict()) == list(state), name
        for key, value in one_piece.state_dict().items():
            moved += key.startswith("teacher_") and not torch.equal(value, begun[key])
            if value.is_floating_point() and not key.endswith("queue"):  # keys lie in another order
                away, way = (value - state[key]).norm(), (state[key] - begun[key]).norm()
                assert away <= 5e-4 * way + 1e-5, f"{name}, {key}: {away} after a way of {way}"
        assert moved or not hasattr(learner, "teacher_backbone"), name
        share = own_share(learner, optimiser)
        assert 0.4 < share < 0.6, f"{name} holds {share}"
        one_piece.backbone(views[0].images)  # runs without the other process


def compare_optimisers():
    """The same gradients by the same optimiser, on whole and on divided parameters: AdamW, Adan, SGD and LARS."""
    team = gather_team(settings := TrainConfig(accelerator="cpu", precision="32", strategy="fsdp"))
    for name in ("adamw", "adan", "sgd", "lars"):
        config = OptimizerConfig(name=name, weight_decay=0.02)
        one, two = (rivals.learner("byol", "test_resnet") for _ in range(2))
        machine = choose_machine(settings, two, team)
        machine.place(two, compile_backbone=False)
        optimisers = [build_optimiser(each, config, 0.05) for each in (one, two)]
        for step in range(3):
            torch.manual_seed(step)
            for whole, divided in zip(one.parameters(), two.parameters(), strict=True):
                if whole.requires_grad:
                    whole.grad = torch.randn_like(whole)
                    divided.grad = torch.distributed.tensor.distribute_tensor(
                        whole.grad, divided.device_mesh, divided.placements, src_data_rank=None
                    )
            for optimiser in optimisers:
                optimiser.step()
        for (key, whole), divided in zip(one.named_parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(
                divided.full_tensor(), whole, rtol=1e-5, atol=1e-6, msg=lambda m, n=name, k=key: f"{n}, {k}: {m}"
            )


FAMILIES = (
    "test_byobnet",
    "test_coatnet",
    "test_convnext",
    "test_efficientnet",
    "test_mambaout",
    "test_nfnet",
    "test_vit",
)


class OnlyBackbone(Learner):
    """Its loss is the size of what it sees."""

    def __init__(self, name):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = create_backbone(name, mask_stage=None, img_size=64).train()

    def forward(self, batch, part=None):
        torch.manual_seed(1)
        return {"size": self.backbone(batch[0].images).last.square().mean()}


def compare_backbones(names):
    """Backbones of many families: what is gathered by itself is all that its blocks need when they run."""
    settings = TrainConfig(accelerator="cpu", precision="32", strategy="fsdp")
    team, views = gather_team(settings), rivals.batch("supervised")
    for name in names:
        one, two = OnlyBackbone(name), OnlyBackbone(name)
        module = choose_machine(settings, two, team).place(two, compile_backbone=False, sync_batch_norm=False)
        losses = one(views)["size"], module(Sealed(views), None)["size"]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0, msg=lambda m, n=name: f"{n}: {m}")
        for loss in losses:
            loss.backward()
        for (key, whole), divided in zip(one.named_parameters(), two.parameters(), strict=True):
            assert (whole.grad is None) == (divided.grad is None), f"{name}, {key}"
            if whole.grad is not None:
                away = (divided.grad.full_tensor() - whole.grad).norm()
                assert away <= 1e-4 * whole.grad.norm() + 1e-5, f"{name}, {key}: {away}"


def main(case, *names):
    torch.set_num_threads(1)
    if case in CASES:
        compare_methods(CASES[case])
    elif case == "backbones":
        compare_backbones(names or FAMILIES)
    else:
        compare_optimisers()


if __name__ == "__main__":
    main(*sys.argv[1:])
