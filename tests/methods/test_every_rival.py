"""What must be true of each method beside CMID; what is true of one alone stands in its own file."""

import pytest
import torch

from cmid.commands.learners import METHODS
from cmid.contracts import Progress
from tests.methods.rivals import RIVALS, batch, learner


def test_every_method_is_held_to_this():
    assert set(RIVALS) == set(METHODS) - {"cmid"}
    assert all(METHODS[name].crops == crops for name, (_, _, crops) in RIVALS.items())


@pytest.mark.parametrize("name", RIVALS)
def test_a_few_steps_lower_the_loss_and_teach_no_gradient(name):
    model, views = learner(name), batch(name, count=8)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, totals = torch.optim.AdamW(trained, lr=1e-3), []
    for step in range(12):
        torch.manual_seed(0)  # the same masks each time, where there are some
        model.before_step(Progress(step, 12, step, 12))
        terms = model(views)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        assert all(p.grad is not None for p in trained), "every trained parameter gets a gradient, as DDP needs"
        optimizer.step()
        model.after_step(Progress(step + 1, 12, step + 1, 12))
        totals.append(sum(v.item() for v in terms.values()))
    # A queue that fills with the images' own former keys makes a contrastive loss rise until it is full.
    full = 20 // 8 + 1 if name in ("moco_v2", "seco") else 0
    assert totals[-1] < totals[full]
    teachers = [p for n, p in model.named_parameters() if n.startswith("teacher_")]
    assert all(p.grad is None and not p.requires_grad for p in teachers)


@pytest.mark.parametrize("name", ["byol", "moco_v2", "seco", "indexnet"])
def test_all_of_the_teacher_follows_the_student(name):
    model = learner(name)
    students, before = dict(model.named_parameters()), {}
    with torch.no_grad():
        for key, parameter in students.items():
            before[key] = parameter.clone()
            if not key.startswith("teacher_"):
                parameter += 1
    model.after_step(Progress(1, 4, 1, 4))
    followed = {key: p for key, p in students.items() if key.startswith("teacher_")}
    assert {key.split(".")[0] for key in followed} == {n for n, _ in model.named_children() if n.startswith("teacher_")}
    for key, parameter in followed.items():
        m, student = model.config.momentum, students[key.removeprefix("teacher_")]
        torch.testing.assert_close(parameter, m * before[key] + (1 - m) * student, msg=lambda told, key=key: key + told)


@pytest.mark.parametrize("name", RIVALS)
def test_the_parts_are_the_whole(name):
    whole, cut, views = learner(name), learner(name), batch(name)
    for model in (whole, cut):
        model.before_step(Progress(total_steps=4))
    torch.manual_seed(1)
    expected = whole(views)
    sum(expected.values()).backward()
    torch.manual_seed(1)
    sums = dict.fromkeys(expected, 0.0)
    for part in range(cut.parts):
        terms = cut(views, part)
        sum(terms.values()).backward()
        for term, value in terms.items():
            sums[term] += value.detach()
    torch.testing.assert_close(sums, {k: v.detach() for k, v in expected.items()}, rtol=1e-5, atol=1e-6)
    gradients = dict(cut.named_parameters())
    for key, parameter in whole.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[key].grad, parameter.grad, rtol=1e-4, atol=1e-5)
    state = whole.state_dict()
    torch.testing.assert_close(dict(cut.state_dict()), dict(state), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["byol", "moco_v2", "seco", "barlow_twins", "swav", "indexnet"])
@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "convnext_atto", "vit_tiny_patch16_224"])
def test_methods_of_several_views_take_backbones_of_any_kind(name, backbone):
    model = learner(name, backbone)
    sum(model(batch(name, count=2)).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_two_processes_equal_one(two_processes):
    two_processes("tests.methods.rival_in_two_processes", *RIVALS)
