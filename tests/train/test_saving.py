"""The saver's word on what is best, where writing fails now and then."""

import pytest

from cmid.train import saving
from cmid.train.run_directory import RunDirectory

from .small_run import small_learner


@pytest.fixture
def disk(monkeypatch):
    """A disk that is full where `disk["full"]` is set; what would be written is put into it."""
    state = {"full": False}

    def write(path, content):
        if state["full"]:
            raise OSError(28, "No space left on device")
        state[path.name] = content

    monkeypatch.setattr(saving, "write_checkpoint", write)
    monkeypatch.setattr(saving, "keep_as", lambda path, other: state.update({other.name: state[path.name]}))
    return state


def at(epoch, batch=0):
    return {"position": {"epoch": epoch, "batch": batch}}


def test_a_best_epoch_is_kept_by_a_later_write_at_the_same_place_and_by_no_other(disk, tmp_path):
    saver, learner = saving.Saver(RunDirectory(tmp_path), 0, lambda line: None), small_learner()
    for epoch, accuracy in ((1, 3.0), (2, 9.0)):
        saver.note(epoch, {"knn_top1": accuracy})
        disk["full"] = epoch == 2
        assert saver.save(at(epoch), learner) == (epoch == 1)
    assert saver.best["epoch"] == 1
    disk["full"] = False
    assert saver.save(at(2, batch=1), learner)  # beyond the epoch that was best
    assert not disk["last.ckpt"]["is_best"] and disk["best.ckpt"]["position"]["epoch"] == 1
    saver.note(3, {"knn_top1": 4.0})
    disk["full"] = True
    assert not saver.save(at(3), learner)
    disk["full"] = False
    assert saver.save(at(3), learner)  # as at the end of a run
    assert disk["last.ckpt"]["is_best"] and disk["best.ckpt"]["best"]["epoch"] == 3
    assert saver.save(at(3), learner) and not disk["last.ckpt"]["is_best"]


def test_an_epoch_without_a_measure_is_not_the_best(disk, tmp_path):
    saver, learner = saving.Saver(RunDirectory(tmp_path), 0, lambda line: None), small_learner()
    for epoch, iou in enumerate((float("nan"), 41.0, float("nan"), 77.0, 60.0), 1):
        saver.note(epoch, {"validation_mean_iou": iou, "total": 1.0})
        assert saver.save(at(epoch), learner)
    assert saver.best == {"name": "validation_mean_iou", "value": 77.0, "epoch": 4}
    assert disk["best.ckpt"]["position"]["epoch"] == 4
