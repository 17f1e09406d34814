"""The loop that turns any Learner: epochs, probes, checkpoints, interruptions; `step.py` holds what a step does.

Lightning is used through Fabric (device, precision, gradient scaling, later several processes) with a loop of our
own, instead of its Trainer, for three reasons. A run has to continue bit by bit from the middle of an epoch, with
rows of its tables cut back to the checkpoint, and the Trainer's own mid-epoch state would have to be worked around.
A checkpoint has to be written whole or not at all and to load without unpickling. And what happens in a step, in
which order, is to be read on one page.

Every batch seeds torch from (seed, its number in the run, rank), so no state of a random generator is saved.
"""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from cmid.config import OptimizerConfig, TrainConfig
from cmid.contracts import Learner, Progress, Views
from cmid.errors import CmidError, NotFinite, UsageError
from cmid.train.checkpoints import FORMAT
from cmid.train.collapse import collapse_warning, warn_of_collapse
from cmid.train.failures import in_words
from cmid.train.hardware import choose_machine
from cmid.train.interrupts import Interrupted, Interrupts, undisturbed
from cmid.train.journal import Journal
from cmid.train.loggers import Loggers, require_loggers
from cmid.train.optimisers import build_optimiser, scaled_lr
from cmid.train.plan import Plan, differing_numbers, draw_seed, fixed_numbers
from cmid.train.probing import Probing
from cmid.train.progress_line import ProgressLine
from cmid.train.protocols import Loader, Probe
from cmid.train.result import FitResult
from cmid.train.run_directory import RunDirectory
from cmid.train.saving import BY_PROBE, Saver
from cmid.train.schedules import CosineWithWarmup
from cmid.train.sharding import WholeLearner
from cmid.train.step import Stepper
from cmid.train.team import Team
from cmid.train.watch import FiniteWatch


def fit(
    learner: Learner,
    loader: Loader,
    *,
    prepare: Callable[[Views], Views],
    run: RunDirectory,
    epochs: int,
    seed: int,
    optimizer: OptimizerConfig,
    train: TrainConfig,
    images_per_batch: int,
    settings: dict[str, Any],
    probes: Sequence[Probe] = (),
    account: Mapping[str, Any] | None = None,
    resume: bool = False,
    team: Team | None = None,
) -> FitResult:
    """Trains `learner` in place and writes the run to its directory.

    Args:
        learner: a method or a task.
        loader: batches of uint8 views.
        prepare: augments and normalises a batch on the device, drawing from torch's default generator.
        run: where to write; opened here (guarded and locked) unless it is open.
        epochs: passes over the data.
        seed: with the position in the run, fixes every draw of `prepare` and `learner`.
        optimizer: optimiser and schedule.
        train: how to run on this machine.
        images_per_batch: images that one process takes at once.
        settings: resolved settings, plain values; kept in the run and in its checkpoints.
        probes: measurements at the ends of epochs; they choose their own precision.
        account: what the data are, plain values; kept in the run as `data.json`.
        resume: go on from the run's last checkpoint; one that was stopped before its first begins anew.
        team: the processes of the run, where they have been started; else they are started here.

    Raises:
        UsageError: the request cannot be carried out here.
        CmidError: a loss became infinite or NaN, or the last checkpoint could not be written.
        Interrupted: Ctrl-C or SIGTERM; the run is saved.
    """
    counts = {"epochs": epochs, "train.accumulate": train.accumulate, "train.log_every": train.log_every}
    for name, value in counts.items():
        if value < 1:
            raise UsageError(f"{name} must be at least 1, found {value}.")
    if len(loader) < 1:
        raise UsageError(f"Expected at least one batch of {images_per_batch} images, found none. Lower --batch_size.")
    require_loggers(train.loggers)
    machine = choose_machine(train, learner, team)
    team = machine.team
    team.note_failure(None)
    was_open = run.is_open
    with team.as_one():
        if team.leads:
            run.open(settings, resume=resume)
            if account:
                run.write_account(account)
    resume = team.of_leader(run.goes_on)  # a run that never came to a checkpoint is begun anew
    # Only the leading process writes the run; the others keep their books where nobody looks.
    aside = None if team.leads else TemporaryDirectory(prefix="cmid-")
    books = run if aside is None else RunDirectory(aside.name)
    try:
        plan = Plan(epochs, len(loader), train.accumulate, train.max_steps)
        line = ProgressLine(None if team.leads else Console(quiet=True))
        journal = Journal(books, plan, train.log_every, machine.device, line)
        watch = FiniteWatch(run, loader.names)
        whole = WholeLearner(learner, sharded=machine.sharded, leads=team.leads)
        module = machine.place(learner, compile_backbone=train.compile, sync_batch_norm=train.sync_batch_norm)
        images_per_step = images_per_batch * min(train.accumulate, len(loader)) * team.size
        lr, how = scaled_lr(optimizer, images_per_step)
        warmup = optimizer.warmup_steps or optimizer.warmup_epochs * plan.steps_per_epoch
        schedule = CosineWithWarmup(lr, optimizer.min_lr, plan.total_steps, warmup, optimizer.warmup_ratio)
        built = build_optimiser(learner, optimizer, lr, scaled=machine.precision == "16")
        stepper = Stepper(
            learner, machine, module, built, prepare,
            plan=plan, schedule=schedule, seed=seed, clip_norm=optimizer.clip_norm, journal=journal, watch=watch,
        )  # fmt: skip
        fixed = fixed_numbers(plan, seed, images_per_batch, team.size, loader.state_dict())
        identity, saver = {"settings": settings, "fixed": fixed}, Saver(books, train.checkpoint_minutes, line.say)
        doing = _Run(stepper, built, whole, loader, run, saver, identity, probes, seed)
        line.say(f"{machine.words()}; {how}")
        line.say(f"{epochs} epochs of {len(loader)} batches, {plan.total_steps} optimiser steps; the run is {run.path}")
        for note in run.notes:
            line.say(note)
        if resume:
            with team.as_one():
                doing.restore()
                if team.leads:
                    run.write_settings(settings)
        with team.as_one():
            loggers = Loggers(train.loggers if team.leads else (), books, settings, doing.progress.step, line.say)
        journal.attach(loggers)
        return doing.to_the_end()
    except BaseException as error:
        team.note_failure(error)
        raise
    finally:
        if aside is not None:
            aside.cleanup()
        if not was_open and team.leads:
            run.close()


class _Run:
    """One call of `fit`; its position is `epoch`, those done, and `batch`, those done of the next epoch."""

    def __init__(
        self,
        stepper: Stepper,
        optimiser: torch.optim.Optimizer,
        whole: WholeLearner,
        loader: Loader,
        run: RunDirectory,
        saver: Saver,
        identity: dict[str, Any],
        probes: Sequence[Probe],
        seed: int,
    ) -> None:
        self.stepper, self.optimiser, self.whole = stepper, optimiser, whole
        self.loader, self.run, self.saver = loader, run, saver
        self.identity, self.seed = identity, seed
        self.learner, self.plan, self.journal = stepper.learner, stepper.plan, stepper.journal
        self.team = stepper.machine.team
        self.epoch, self.batch = 0, 0
        self.saved_at: int | None = None
        self.interrupts = Interrupts()
        self.probing = Probing(probes, self.plan.epochs, seed, stepper.machine, whole, self.journal, self.interrupts)

    @property
    def progress(self) -> Progress:
        """What is completed."""
        return self.plan.progress(self.epoch, self.batch)

    def to_the_end(self) -> FitResult:
        """All epochs, or up to `max_steps`."""
        status = "failed"
        try:
            with self.interrupts:
                self.learner.train()
                self.journal.start(self.progress.step)
                if self.batch == self.plan.batches_per_epoch:  # where a resumed run may stand
                    self._end_of_epoch()
                while self.epoch < self.plan.epochs and self.progress.step < self.plan.last_step:
                    self._epoch()
                if self.team.any(self.saved_at != self.progress.step or self.saver.failure is not None)[0]:
                    self.save()
            with self.team.as_one():
                self.saver.require_saved()
            status = "success"
        except (Interrupted, KeyboardInterrupt):
            status = "aborted"
            raise
        except (RuntimeError, MemoryError) as error:
            if (told := in_words(error)) is None:
                raise
            raise told from error
        finally:
            self._write_skipped()
            self.journal.close(status)
        self.team.any(False)  # loggers may take long to close, longer than nccl would wait for what follows
        return self._result()

    def _epoch(self) -> None:
        """The rest of an epoch, and its end."""
        self.loader.resume_at(self.epoch, self.batch)
        self.stepper.machine.seed(draw_seed(self.seed, "epoch", self.epoch))  # a DataLoader draws its workers' seeds
        batches = self._promised(iter(self.loader))
        while self.batch < self.plan.batches_per_epoch and self.progress.step < self.plan.last_step:
            try:
                self.stepper(batches, self.epoch, self.batch)
            except (CmidError, RuntimeError, MemoryError, OSError, EOFError) as error:  # the latter where a worker died
                if not self.stepper.can_undo:
                    raise
                # Only where a batch failed to come are all processes here together, and can be asked.
                asked, unsaved = self.team.any(bool(self.interrupts.requested), self.saved_at != self.progress.step > 0)
                self.stepper.undo()
                self._share_skipped()
                if asked or unsaved:
                    self.save()
                if asked:  # the signal reached the loader's workers, too, and they are gone
                    self._leave(error)
                if self.saved_at:
                    self.journal.line.say(f"The run is saved after step {self.saved_at}; go on with --resume.")
                raise
            self.batch += self.plan.window(self.batch)
            ended = self.batch == self.plan.batches_per_epoch
            # The leading process's clock counts: the others write nothing, and theirs is never set back.
            with undisturbed():
                asked, due = self.team.any(bool(self.interrupts.requested), self.team.leads and self.saver.is_due())
            if asked or (due and not ended):
                self.save()
            if asked:
                self._leave(None)
        if self.batch == self.plan.batches_per_epoch:
            self._end_of_epoch()

    def _end_of_epoch(self) -> None:
        """Probes, a row, a checkpoint, after the last batch of an epoch; a run that goes on may begin here, too."""
        with undisturbed():
            self.stepper.check()
            self._require_readable()
            probed = self._probe()
            self.epoch, self.batch = self.epoch + 1, 0
            step, earlier = self.progress.step, self.journal.past_metrics()
            numbers = self.journal.epoch(self.epoch, step, self.stepper.schedule(step - 1), probed)
            if probed:
                found = "  ".join(f"{name} {value:.4g}" for name, value in probed.items())
                self.journal.line.say(f"epoch {self.epoch}/{self.plan.epochs}  total {numbers['total']:.4g}  {found}")
                if not earlier or collapse_warning(earlier[-1], earlier[:-1]) is None:  # once, not at every epoch
                    warn_of_collapse(probed, earlier, self.journal.line.say)
            self._write_skipped()
            self.saver.note(self.epoch, numbers)
            self.save()
            if self.team.any(self.interrupts.requested is not None)[0]:
                self._leave(None)

    def _probe(self) -> dict[str, float]:
        """What the probes give that are due; a run that is stopped meanwhile begins with them when it goes on."""
        epoch = self.epoch + 1
        if not self.probing.is_due(epoch):
            return {}
        if self.saved_at != self.progress.step and self.team.of_leader(self.saver.much_is_unsaved()):
            self.save(for_now=True)
        try:
            measured = self.probing(self.learner, epoch)
        except NotFinite:
            self.saver.take_back()
            raise
        if measured.broken_off:  # what was written for now stays so, also for the next session
            if self.saved_at != self.progress.step:
                self.save()
            self._leave(None)
        self.saver.settle()
        return measured.values

    def save(self, *, for_now: bool = False) -> None:
        """Writes a checkpoint (see `Saver.save`), after making sure that everything so far was finite."""
        self.stepper.check()
        self._share_skipped()
        with undisturbed(), self.journal.paused():
            learner, optimiser = self.whole.on("cpu"), self.whole.optimiser_state(self.optimiser)
            with self.team.as_one():
                written = self.team.leads and self.saver.save(self._state(learner, optimiser), learner, for_now=for_now)
            if self.team.any(written)[0]:  # what the leading process has saved all have saved
                self.saved_at = self.progress.step

    def _state(self, learner: Learner, optimiser: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "format": FORMAT,
            "cmid": version("cmid"),
            "machine": self.stepper.machine.words(),
            **self.identity,
            "learner": dict(learner.state_dict()),
            "optimiser": optimiser,
            "progress": asdict(self.progress),
            "position": {"epoch": self.epoch, "batch": self.batch},
            "loader": self.loader.state_dict(),
            "journal": self.journal.state(),
            "precision": self.stepper.machine.precision_state(),
        }

    def restore(self) -> None:
        """Continues from `last`.

        Raises:
            UsageError: the run was started with another seed, batch size, number of epochs or amount of data.
            CmidError: the checkpoint cannot be used.
        """
        # Each takes but its rows where these are divided: one looks at the check sums, the others map the file.
        state = self.run.checkpoint(lazy=self.stepper.machine.sharded and not self.team.leads).state
        now, before = self.identity["fixed"], {"processes": 1, **state["fixed"]}
        moved = now["processes"] != before["processes"]
        if differing := differing_numbers(before, now):
            raise UsageError(
                f"The run in {self.run.path} was started with other numbers: {'; '.join(differing)}. Resume with its "
                "own settings and data, or start a new run in another --out."
            )
        self.whole.load(state["learner"], self.optimiser, state["optimiser"], self.run.last)
        self.stepper.machine.load_precision_state(state["precision"])
        self.loader.load_state_dict(state["loader"])
        self.epoch, self.batch = state["position"]["epoch"], state["position"]["batch"]
        if moved:
            self._translate(before, now)
        self.journal.restore(state["journal"], self.progress, self.epoch, moved=moved)
        self.saver.best, self.saved_at = state["best"], self.progress.step
        if state["is_best"]:
            self.saver.keep_best()  # a kill may have come between the two files
        where = f"Resuming after step {self.progress.step}, epoch {self.progress.epoch:.2f}."
        self.journal.line.say(f"{where} {self.plan.why_over(self.progress.step)}".rstrip())

    def _translate(self, before: Mapping[str, int], now: Mapping[str, int]) -> None:
        """The position of other processes in batches of these."""
        seen = self.batch * before["images_per_batch"] * before["processes"]
        self.batch, again = self.plan.batch_among((now["processes"], now["images_per_batch"]), seen)
        self.journal.line.say(
            f"The run was begun by {before['processes']} processes of {before['images_per_batch']} images and goes on "
            f"with {now['processes']} of {now['images_per_batch']}"
            + ("" if (adds := now["accumulate"]) == before["accumulate"] else f", train.accumulate {adds}")
            + (f"; {again} images of this epoch are seen again." if again else "; no image is seen twice.")
        )

    def _require_readable(self) -> None:
        """Stops where the processes together had too many images that cannot be read; each has looked at its own."""
        self._share_skipped()
        try:
            with self.team.as_one():
                self.loader.require_readable()
        except CmidError:
            if self.saved_at != self.progress.step:
                self.save()
            raise

    def _share_skipped(self) -> None:
        for skipped in self.team.gather(dict(self.loader.skipped)):
            self.loader.skipped.update(skipped)

    def _write_skipped(self) -> None:
        if len(self.loader.skipped) and self.team.leads:
            try:
                self.loader.write_skipped(self.run.skipped)
            except OSError as error:
                self.journal.line.say(f"Warning: {self.run.skipped} cannot be written ({error.strerror or error}).")

    def _promised(self, batches: Iterator[Views]) -> Iterator[Views]:
        yield from batches
        raise ValueError(f"The loader promised {self.plan.batches_per_epoch} batches an epoch and ended before.")

    def _leave(self, cause: BaseException | None) -> None:
        number = self.interrupts.requested or signal.SIGINT
        if self.saved_at is None:
            kept = "No checkpoint could be saved."
        else:
            kept = f"The run is saved after step {self.saved_at} in {self.run.last}; go on with --resume."
        stopped = Interrupted(f"Stopped by {signal.Signals(number).name}. {kept}", number)
        stopped.quiet = not self.team.leads
        raise stopped from cause

    def _result(self) -> FitResult:
        past, best = self.journal.past_metrics(), self.saver.best if self.run.best.is_file() else None
        return FitResult(
            run=self.run.path,
            last_checkpoint=self.run.last,
            best_checkpoint=self.run.best if self.run.best.is_file() else None,
            best_is_measured=best is not None and best["name"] in BY_PROBE,
            epochs_done=self.progress.epoch,
            steps_done=self.progress.step,
            metrics=past[-1] if past else self.journal.unfinished_epoch(),
            images_per_s=self.journal.median_images_per_s,
            learner=partial(self.whole.on, self.stepper.machine.device),
        )
