import pytest
import torch

from cmid.contracts import Views
from cmid.errors import UsageError
from cmid.train import read_checkpoint
from cmid.train.plan import Plan, draw_seed

from .small_run import MemoryLoader, Probe, SmallLearner, numbers, rows, run_fit, small_learner


def quiet(views):
    return Views(tuple(v.with_images(v.images.float() / 255 - 0.5) for v in views), views.indices, views.epoch)


def weights(learner):
    return torch.cat([p.detach().flatten() for p in learner.parameters() if p.requires_grad])


def test_accumulated_batches_equal_the_big_one(tmp_path):
    """For a loss without batch statistics and draws; an epoch whose last window is short, too."""
    how = {"norm": "layer", "hidden": False}
    got = []
    for batches, size, accumulate in ((3, 8, 1), (6, 4, 2), (3, 8, 5), (1, 24, 1)):
        learner = small_learner(**how)
        learner.after_step = lambda progress: None
        run_fit(
            tmp_path / f"{batches}-{accumulate}", epochs=2, learner=learner, loader=MemoryLoader(batches, size),
            prepare=quiet, train={"accumulate": accumulate}, optimizer={"warmup_epochs": 0},
        )  # fmt: skip
        got.append(weights(learner))
    start = weights(small_learner(**how))
    assert (got[0] - start).abs().max() > 0.01
    torch.testing.assert_close(got[1], got[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got[3], got[2], rtol=1e-4, atol=1e-6)


class InParts(SmallLearner):
    """The same loss in two parts, whose gradients the trainer takes one after the other."""

    parts = 2

    def forward(self, batch, part=None):
        terms = super().forward(batch)
        return terms if part is None else {name: terms[name] for name in (("agreement",), ("contrast",))[part]}


def test_a_loss_in_parts_equals_the_whole(tmp_path):
    got = []
    for kind in (SmallLearner, InParts):
        torch.manual_seed(5)
        learner = kind(norm="layer", hidden=False)
        out = tmp_path / kind.__name__
        run_fit(out, learner=learner, prepare=quiet, train={"accumulate": 2})
        got.append((weights(learner), rows(out / "steps.csv")))
        assert learner.forwards == 10 * learner.parts
    torch.testing.assert_close(got[1][0], got[0][0], rtol=1e-5, atol=1e-7)
    for ours, whole in zip(got[1][1], got[0][1], strict=True):
        for name in ("agreement", "contrast", "total", "grad_norm"):
            assert float(ours[name]) == pytest.approx(float(whole[name]), rel=1e-5)


def test_after_step_comes_once_an_optimiser_step(tmp_path):
    learner = small_learner()
    result = run_fit(tmp_path / "r", epochs=2, batches=5, learner=learner, train={"accumulate": 2})
    assert learner.steps_seen == [1, 2, 3, 4, 5, 6]
    assert learner.forwards == 10
    assert learner.seen_fractions == pytest.approx([0, 0, 0.4, 0.4, 0.8, 1, 1, 1.4, 1.4, 1.8])
    assert result.steps_done == 6
    assert [row["epoch"] for row in rows(tmp_path / "r" / "steps.csv")] == ["0.4", "0.8", "1", "1.4", "1.8", "2"]


def test_the_order_of_a_step(tmp_path):
    """before_step, then forward, then the update, then after_step on updated weights."""
    seen = []

    learner = small_learner()
    inner = learner.forward
    learner.before_step = lambda progress: seen.append(("before", progress.step, weights(learner)))
    learner.after_step = lambda progress: seen.append(("after", progress.step, weights(learner)))
    learner.forward = lambda batch: (seen.append(("forward", None, weights(learner))), inner(batch))[1]
    run_fit(tmp_path / "r", epochs=1, batches=2, learner=learner)
    assert [(what, step) for what, step, _ in seen] == [
        ("before", 0), ("forward", None), ("after", 1), ("before", 1), ("forward", None), ("after", 2),
    ]  # fmt: skip
    assert torch.equal(seen[0][2], seen[1][2])
    assert not torch.equal(seen[1][2], seen[2][2])
    assert torch.equal(seen[2][2], seen[3][2])


def test_gradients_are_clipped_by_their_norm(tmp_path):
    """With plain SGD at rate 1 the weights move by the gradient, whose norm may not pass the limit."""
    moved = {}
    plain_sgd = {"name": "sgd", "lr": 1.0, "warmup_epochs": 0, "weight_decay": 0.0, "betas": (0.0,)}
    for limit in (0.0, 0.25):
        learner = small_learner()
        before = weights(learner)
        run_fit(
            tmp_path / str(limit), epochs=1, batches=1, learner=learner, optimizer=plain_sgd | {"clip_norm": limit}
        )  # fmt: skip
        moved[limit] = (weights(learner) - before).norm().item()
        logged = float(rows(tmp_path / str(limit) / "steps.csv")[0]["grad_norm"])
    assert moved[0.0] == pytest.approx(logged, rel=1e-4)
    assert moved[0.0] > 0.5
    assert moved[0.25] == pytest.approx(0.25, rel=1e-4)


def test_two_runs_are_bitwise_equal_and_another_seed_differs(tmp_path):
    tables = []
    for name, seed, noise in (("a", 3, 1), ("b", 3, 2), ("c", 4, 1)):
        torch.manual_seed(noise)
        learner = small_learner()
        torch.manual_seed(noise)  # what ran before must not matter
        run_fit(tmp_path / name, learner=learner, seed=seed)
        tables.append(numbers(tmp_path / name / "steps.csv"))
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]


def test_probes_change_nothing(tmp_path):
    run_fit(tmp_path / "without", epochs=3)
    run_fit(tmp_path / "with", epochs=3, probes=[Probe(knn_top1=1.0)])
    assert numbers(tmp_path / "without" / "steps.csv") == numbers(tmp_path / "with" / "steps.csv")


def test_probes_run_when_due_and_at_the_end(tmp_path):
    probe = Probe(knn_top1=[10.0, 30.0, 20.0])
    probe.every_epochs = 2
    result = run_fit(tmp_path / "r", epochs=5, probes=[probe])
    assert [row["knn_top1"] for row in rows(tmp_path / "r" / "metrics.csv")] == ["", "10", "", "30", "20"]
    assert result.metrics["knn_top1"] == 20
    assert read_checkpoint(result.best_checkpoint).progress.epoch == 4
    assert read_checkpoint(result.last_checkpoint).progress.epoch == 5


def test_without_knn_the_lowest_loss_is_best(tmp_path):
    result = run_fit(tmp_path / "r", epochs=4)
    totals = [float(row["total"]) for row in rows(tmp_path / "r" / "metrics.csv")]
    assert read_checkpoint(result.best_checkpoint).progress.epoch == 1 + totals.index(min(totals))


def test_epoch_means_are_over_all_batches_and_rows_over_their_steps(tmp_path):
    run_fit(tmp_path / "each", epochs=2, batches=6)
    run_fit(tmp_path / "third", epochs=2, batches=6, train={"log_every": 4})
    each, some = rows(tmp_path / "each" / "steps.csv"), rows(tmp_path / "third" / "steps.csv")
    metrics = rows(tmp_path / "each" / "metrics.csv")
    total = [float(row["total"]) for row in each]
    assert float(metrics[1]["total"]) == pytest.approx(sum(total[6:]) / 6, rel=1e-6)
    assert [int(row["step"]) for row in some] == [1, 4, 8, 12]
    assert float(some[1]["total"]) == pytest.approx(sum(total[1:4]) / 3, rel=1e-6)
    assert float(some[3]["total"]) == pytest.approx(sum(total[8:]) / 4, rel=1e-6)
    assert float(each[3]["agreement"]) + float(each[3]["contrast"]) == pytest.approx(total[3], rel=1e-6)
    assert "temperature" in each[0]


@pytest.mark.parametrize("channels_last", [None, True, False])
def test_memory_format_reaches_model_and_images(tmp_path, channels_last):
    learner = small_learner()
    seen = []
    learner.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    run_fit(tmp_path / "r", epochs=1, batches=1, learner=learner, prepare=quiet, train={"channels_last": channels_last})
    expected = channels_last is not False  # a convolutional backbone has it unless told otherwise
    kinds = [seen[0], learner.backbone.conv2.weight, learner.teacher.conv2.weight]
    assert [t.is_contiguous(memory_format=torch.channels_last) for t in kinds] == [expected] * 3


def test_a_layer_norm_backbone_keeps_its_format_on_a_cpu(tmp_path):
    learner = small_learner(norm="layer")
    run_fit(tmp_path / "r", epochs=1, batches=1, learner=learner)
    assert learner.backbone.conv2.weight.is_contiguous()


def test_compiling_leaves_the_names_in_a_checkpoint(tmp_path):
    learner = small_learner()
    with torch.compiler.set_stance("force_eager"):
        result = run_fit(tmp_path / "r", epochs=1, batches=2, learner=learner, train={"compile": True})
    assert learner.backbone._compiled_call_impl is not None
    assert read_checkpoint(result.last_checkpoint).learner_state.keys() == small_learner().state_dict().keys()


def test_bf16_keeps_float32_weights_and_whole_boxes(tmp_path):
    learner = small_learner()
    boxes = []

    def boxed(views):
        views = quiet(views)
        boxes.append(views[0].boxes.dtype)
        return views

    inner = learner.forward
    kinds = []
    learner.forward = lambda batch: (
        kinds.append((batch[0].boxes.dtype, torch.is_autocast_enabled("cpu"))),
        inner(batch),
    )[1]
    run_fit(tmp_path / "r", epochs=1, batches=1, learner=learner, prepare=boxed, train={"precision": "bf16"})
    assert kinds == [(torch.float32, True)]
    assert learner.backbone.conv.weight.dtype == torch.float32


def test_the_batch_must_fit_the_data_and_counts_must_be_counts(tmp_path):
    with pytest.raises(UsageError, match="at least one batch of 4 images, found none"):
        run_fit(tmp_path / "r", batches=0)
    with pytest.raises(UsageError, match=r"train.accumulate must be at least 1, found 0"):
        run_fit(tmp_path / "r", train={"accumulate": 0})
    with pytest.raises(UsageError, match="start it with torchrun"):
        run_fit(tmp_path / "r", train={"devices": 2})
    assert not (tmp_path / "r").exists()


def test_plan():
    plan = Plan(epochs=3, batches_per_epoch=5, accumulate=2, max_steps=7)
    assert (plan.steps_per_epoch, plan.total_steps, plan.last_step) == (3, 9, 7)
    assert [plan.window(b) for b in (0, 2, 4)] == [2, 2, 1]
    assert [plan.progress(1, b).step for b in range(6)] == [3, 3, 4, 4, 5, 6]
    assert plan.progress(1, 5) == plan.progress(2, 0)


def test_draw_seeds_are_spread():
    seeds = {draw_seed(seed, number, rank) for seed in range(10) for number in range(100) for rank in range(2)}
    assert len(seeds) == 2000
    assert all(0 <= s < 2**63 for s in seeds)
