import json
import resource
import signal

import pytest
import torch

from cmid.errors import CmidError, NotFinite, UsageError
from cmid.train import RunDirectory, read_checkpoint
from cmid.train.watch import FiniteWatch, Seen

from .small_run import MemoryLoader, _generator, rows, run_fit, small_learner


def files_of(loader, epoch, batches):
    order = torch.randperm(len(loader.images), generator=_generator(1000 * loader.seed + epoch))
    size = loader.batch_size
    return [f"image{i:03d}.png" for b in batches for i in order[b * size : (b + 1) * size].tolist()]


def test_what_stopped_an_earlier_session_is_not_told_of_the_run_that_went_on(tmp_path, capsys):
    run = RunDirectory(tmp_path / "r")
    for stops in (8, 3):  # forwards of each session
        learner = small_learner()
        learner.fail_at = (stops, float("nan"))
        with pytest.raises(CmidError, match="not finite"):
            run_fit(run.path, learner=learner, resume=run.last.is_file())
        assert run.nonfinite.is_file()
    assert run_fit(run.path, resume=True).epochs_done == 2
    assert not run.nonfinite.exists(), "the run has passed that point"
    kept = [json.loads((run.path / f"nonfinite-{n}.json").read_text()) for n in (1, 2)]
    assert [each["step"] for each in kept] == [8, 8] and all(each["files"] for each in kept)
    assert "nonfinite.json of an earlier session is kept as nonfinite-2.json." in capsys.readouterr().err


def test_a_session_that_fails_otherwise_did_not_diverge(tmp_path):
    """What `cmid compare` asks of a run that failed: whether its file is there."""
    run, learner = RunDirectory(tmp_path / "r"), small_learner()
    learner.fail_at = (8, float("nan"))
    with pytest.raises(CmidError, match="not finite"):
        run_fit(run.path, learner=learner)
    told = run.nonfinite.read_text()
    with pytest.raises(UsageError, match="started with other settings"):
        run_fit(run.path, resume=True, settings={"method": "other"})
    assert run.nonfinite.read_text() == told, "refused: no session began"
    run.last.write_bytes(run.last.read_bytes()[:-100])
    with pytest.raises(CmidError, match="cut short"):
        run_fit(run.path, resume=True)
    assert not run.nonfinite.exists() and (run.path / "nonfinite-1.json").read_text() == told


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "nan"), (float("inf"), "inf")])
@pytest.mark.parametrize("log_every", [1, 50])
def test_a_loss_that_is_not_finite_stops_and_names_its_batch(tmp_path, value, word, log_every):
    learner = small_learner()
    learner.fail_at = (8, value)  # the third batch of the second epoch
    loader = MemoryLoader(5)
    with pytest.raises(CmidError) as caught:
        run_fit(tmp_path / "r", learner=learner, loader=loader, train={"log_every": log_every})
    assert f"The loss is not finite in step 8 (epoch 2): contrast {word}" in str(caught.value)
    assert "nonfinite.json" in str(caught.value)
    report = json.loads((tmp_path / "r" / "nonfinite.json").read_text())
    assert report["files"] == files_of(loader, 1, [2])
    assert (report["what"], report["step"], report["epoch"], report["batches"]) == ("loss", 8, 2, [2])
    assert report["terms"]["contrast"] == word
    assert isinstance(report["terms"]["agreement"], float)
    kept = read_checkpoint(tmp_path / "r", lazy=False)
    assert kept.progress.epoch == 1
    assert all(t.isfinite().all() for t in kept.learner_state.values())


def test_names_that_are_no_utf_8_are_written_down(tmp_path):
    run = RunDirectory(tmp_path)
    watch = FiniteWatch(run, lambda indices: [f"caf\udce9 {i}.jpg" for i in indices.tolist()])
    indices = (torch.tensor([3, 5]),)
    watch.see(Seen("loss", 0, 0, (0,), indices, ("contrast",), torch.tensor([float("nan")]), 0.1))
    with pytest.raises(NotFinite, match="2 files are listed"):
        watch.check()
    assert json.loads(run.nonfinite.read_text())["files"] == ["caf\udce9 3.jpg", "caf\udce9 5.jpg"]
    run.write_account({"left_out": ["caf\udce9.tif"]})
    assert json.loads(run.account.read_text()) == {"left_out": ["caf\udce9.tif"]}


def test_found_late_the_first_batch_is_named(tmp_path):
    """As on a GPU, where numbers are read only now and then."""
    loader = MemoryLoader(5)
    watch = FiniteWatch(RunDirectory(tmp_path), loader.names)

    def see(batch, value):
        indices = torch.arange(4 * batch, 4 * batch + 4)
        watch.see(Seen("loss", batch, 0, (batch,), (indices,), ("a", "total"), torch.tensor([1.0, value]), 0.1))

    see(0, 1.0)
    watch.check()
    for batch, value in ((1, 2.0), (2, float("nan")), (3, float("inf"))):
        see(batch, value)
    with pytest.raises(CmidError, match=r"in step 3 \(epoch 1\): total nan"):
        watch.check()
    assert json.loads((tmp_path / "nonfinite.json").read_text())["files"] == [f"image{i:03d}.png" for i in range(8, 12)]


def test_a_gradient_that_is_not_finite_names_the_batches_of_its_step(tmp_path):
    """The loss is finite; its gradient, that of a square root at nought, is not."""
    learner = small_learner()
    inner = learner.forward

    def forward(batch):
        terms = inner(batch)
        if learner.forwards == 3:
            terms["contrast"] = terms["contrast"] + (learner.head.weight.sum() * 0).sqrt()
        return terms

    learner.forward = forward
    loader = MemoryLoader(6)
    for clip in (0.0, 1.0):
        learner.forwards = 0
        out = tmp_path / str(clip)
        with pytest.raises(CmidError, match=r"The gradient is not finite in step 2 \(epoch 1\): gradient norm nan"):
            run_fit(out, learner=learner, loader=loader, train={"accumulate": 2}, optimizer={"clip_norm": clip})
        assert json.loads((out / "nonfinite.json").read_text())["files"] == files_of(loader, 0, [2, 3])
        learner = small_learner()
        inner, learner.forward = learner.forward, forward


def test_weights_that_overflow_are_not_saved(tmp_path):
    learner = small_learner()
    learner.after_step = lambda progress: progress.step == 8 and learner.head.weight.fill_(float("inf"))
    with pytest.raises(NotFinite, match="weights are no longer finite"):
        run_fit(tmp_path / "r", learner=learner, batches=4)
    assert read_checkpoint(tmp_path / "r").progress.epoch == 1


def test_a_full_disk_does_not_stop_the_run_but_is_said_at_its_end(tmp_path, capsys):
    """The kernel's own limit on file sizes stands in for a full disk; checkpoints pass it, tables do not."""
    run_fit(tmp_path / "r", epochs=3, train={"max_steps": 5})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
        with pytest.raises(CmidError, match=r"The run has ended, but its last checkpoint .* could not be written"):
            run_fit(tmp_path / "r", epochs=3, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert capsys.readouterr().err.count("could not be written") == 3
    assert read_checkpoint(tmp_path / "r", lazy=False).progress.epoch == 1
    assert sorted(p.name for p in (tmp_path / "r" / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert len(rows(tmp_path / "r" / "steps.csv")) == 15
    assert run_fit(tmp_path / "r", epochs=3, resume=True).epochs_done == 3
    assert len(rows(tmp_path / "r" / "steps.csv")) == 15
