"""What comes after the last batch of an epoch: probes, a row, a checkpoint; and what may go wrong there."""

import pytest

from cmid.train import read_checkpoint
from cmid.train.checkpoints import write_checkpoint
from cmid.train.plan import Plan

from .small_run import MemoryLoader, Probe, rows, run_fit


def twelve_images(batch_size):
    loader = MemoryLoader(12 // batch_size, batch_size)
    loader.images = MemoryLoader(3, 4).images
    return loader


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_that_goes_on_with_others_at_the_end_of_an_epoch_ends_that_epoch(tmp_path, epochs):
    """Two steps of four images are all that one step of eight has room for: nothing of the epoch is left to train."""
    how = {"epochs": epochs, "probes": [Probe(knn_top1=2.0)]}
    run_fit(tmp_path / "run", loader=twelve_images(4), train={"max_steps": 2}, **how)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    state = read_checkpoint(last, lazy=False).state
    state["fixed"] |= {"processes": 2, "images_per_batch": 2}  # as if two had begun it
    write_checkpoint(last, state)
    done = run_fit(tmp_path / "run", loader=twelve_images(8), images_per_batch=8, resume=True, **how)
    table = rows(tmp_path / "run" / "metrics.csv")
    assert [row["epoch"] for row in table] == [str(1 + epoch) for epoch in range(epochs)]
    assert all(float(row["total"]) and row["knn_top1"] == "2" for row in table)
    assert (done.epochs_done, done.steps_done) == (epochs, epochs)
    assert read_checkpoint(last).state["position"] == {"epoch": epochs, "batch": 0}
    assert read_checkpoint(done.best_checkpoint).progress.epoch == 1


def test_where_others_go_on():
    """By images that the epoch has had: never beyond them, at the start of a step, or at the epoch's end."""
    plan = Plan(epochs=2, batches_per_epoch=5, accumulate=2)
    expected = {0: (0, 0), 8: (0, 8), 16: (2, 0), 31: (2, 15), 32: (4, 0), 39: (4, 7), 40: (5, 0), 43: (5, 0)}
    assert {seen: plan.batch_among((2, 4), seen) for seen in expected} == expected
