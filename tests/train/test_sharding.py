"""Parameters divided over two real processes: the numbers, files and refusals are those of any other run."""

import pytest
import torch
from torch import nn

from cmid.backbones import create_backbone
from cmid.config import TrainConfig
from cmid.errors import UsageError
from cmid.train import read_checkpoint
from cmid.train.hardware import choose_machine
from cmid.train.sharding import blocks, require_shardable
from cmid.train.team import start_team
from tests.train.runs_in_processes import ALONE, TOGETHER, run, same_rows, same_weights
from tests.train.small_run import numbers, run_fit, small_learner


@pytest.mark.parametrize("case", ["cmid", "rivals", "backbones", "optimisers"])
def test_divided_learners_are_those_of_one_process(two_processes, case):
    two_processes("tests.train.sharded_in_two_processes", case)


def test_a_divided_run_has_the_numbers_and_the_files_of_one_process(alone, tmp_path):
    code, saved, errors = run(TOGETHER, tmp_path / "run", "fsdp", told="WROTE")
    assert code == 0, errors
    assert saved == ["5", "10", "15"] and "parameters divided among them (fsdp)" in errors
    same_rows(numbers(alone / "steps.csv"), numbers(tmp_path / "run" / "steps.csv"))
    same_rows(numbers(alone / "metrics.csv"), numbers(tmp_path / "run" / "metrics.csv"))
    same_weights(alone, tmp_path / "run")
    states = [read_checkpoint(path).state for path in (alone, tmp_path / "run")]
    assert list(states[0]) == list(states[1])
    for name in ("learner", "optimiser"):
        same_form(states[0][name], states[1][name], name)


def same_form(one, two, where):
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert list(one) == list(two), where
        for key in one:
            same_form(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        for i, (first, second) in enumerate(zip(one, two, strict=True)):
            same_form(first, second, f"{where}.{i}")
    elif isinstance(one, torch.Tensor):
        assert (one.shape, one.dtype, one.device, one.requires_grad) == (
            two.shape, two.dtype, two.device, two.requires_grad,
        ), where  # fmt: skip


@pytest.mark.parametrize(
    ("first", "then"),
    [((TOGETHER, "fsdp"), (ALONE,)), ((ALONE,), (TOGETHER, "fsdp")), ((TOGETHER, "fsdp"), (TOGETHER,))],
    ids=["fsdp then 1", "1 then fsdp", "fsdp then ddp"],
)
def test_a_run_goes_on_divided_or_not(alone, tmp_path, first, then):
    out = tmp_path / "run"
    code, _, errors = run(first[0], out, "steps=7", *first[1:])  # amid the second epoch
    assert code == 0, errors
    code, _, errors = run(then[0], out, "resume", *then[1:])
    assert code == 0, errors
    same_rows(numbers(alone / "steps.csv"), numbers(out / "steps.csv"))
    same_weights(alone, out)


def test_added_up_gradients_are_whole_and_their_norm_is_that_of_all_rows(tmp_path):
    """Without clipping, whose norm another function computes."""
    for name, words in (("one", (ALONE,)), ("two", (TOGETHER, "fsdp"))):
        code, _, errors = run(words[0], tmp_path / name, "accumulate=2", "clip=0", *words[1:])
        assert code == 0, errors
    same_rows(numbers(tmp_path / "one" / "steps.csv"), numbers(tmp_path / "two" / "steps.csv"))
    same_weights(tmp_path / "one", tmp_path / "two")


def test_in_bf16_it_is_ddp(tmp_path):
    for name, words in (("ddp", ()), ("fsdp", ("fsdp",))):
        code, _, errors = run(TOGETHER, tmp_path / name, "precision=bf16", *words)
        assert code == 0, errors
    rows = [numbers(tmp_path / name / "steps.csv") for name in ("ddp", "fsdp")]
    same_rows([row | {"grad_norm": 0} for row in rows[0]], [row | {"grad_norm": 0} for row in rows[1]], 1e-2)


def test_a_loss_that_is_not_finite_stops_divided_processes_once(tmp_path):
    code, said, errors = run(TOGETHER, tmp_path / "run", "fsdp", "nan=1")
    assert code != 0 and len(said) == 1, errors
    assert "Process 1 of 2 has stopped: The loss is not finite in step 4" in said[0]


def test_one_process_has_nothing_to_divide(tmp_path):
    one, two = ({"strategy": strategy, "accelerator": "cpu"} for strategy in ("ddp", "fsdp"))
    for name, how in (("one", one), ("two", two)):
        run_fit(tmp_path / name, train=how)
    assert numbers(tmp_path / "one" / "steps.csv") == numbers(tmp_path / "two" / "steps.csv")
    machine = choose_machine(TrainConfig(**two), small_learner())
    assert not machine.sharded and "one process, so train.strategy fsdp divides nothing" in machine.words()


@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [("resnet50", 12, 0.3), ("swin_tiny_patch4_window7_224", 8, 0.3), ("vit_tiny_patch16_224", 12, 0.1)],
)
def test_no_block_is_most_of_the_backbone_and_little_is_left_outside(name, smallest, largest):
    backbone = create_backbone(name)
    found = blocks(backbone)
    inside, held = set(), []
    for block in found:  # an outer one gathers what its inner ones, which come before it, have left
        own = {id(p): p.numel() for p in block.parameters() if id(p) not in inside}
        inside |= own.keys()
        held.append(sum(own.values()))
    whole = sum(p.numel() for p in backbone.parameters())
    outside = sum(p.numel() for p in backbone.parameters() if id(p) not in inside)
    assert len(found) >= smallest and max(held) < largest * whole and outside < 0.1 * whole
    assert id(backbone.mask_token) not in inside  # a hook of the backbone reads it, wherever it runs


def test_what_cannot_be_divided_is_refused_before_the_start():
    with pytest.raises(UsageError, match="computes in bf16 or 32"):
        start_team(TrainConfig(strategy="fsdp"), "mps", "16")
    learner = small_learner()
    with pytest.raises(UsageError, match=r"train\.strategy fsdp and train\.compile"):
        require_shardable(learner, compiled=True)
    learner.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(UsageError, match="scale of small is a single number"):
        require_shardable(learner, compiled=False)
