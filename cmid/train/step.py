"""One optimiser step, in order: seeds, views, loss terms, backward, gradient norm, update, teacher."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from cmid.contracts import Learner, Progress, Views
from cmid.train.hardware import Machine, Sealed
from cmid.train.interrupts import undisturbed
from cmid.train.journal import Journal
from cmid.train.means import means_of
from cmid.train.plan import Plan, draw_seed
from cmid.train.schedules import CosineWithWarmup
from cmid.train.sharding import whole_tensor
from cmid.train.watch import FiniteWatch, Seen


class Stepper:
    """Trains by one optimiser step a call, wherever in the run it is told to.

    Args:
        learner: what is trained, already on the machine.
        machine: where.
        module: `learner` as the machine runs it.
        optimiser: of the learner's parameters.
        prepare: augments a batch on the device.
        plan: sizes of the run.
        schedule: rate of each optimiser step.
        seed: of all draws.
        clip_norm: gradient norm above which it is scaled down; 0 is off.
        journal: is told losses, images and times.
        watch: is shown every number that must be finite.
    """

    def __init__(
        self,
        learner: Learner,
        machine: Machine,
        module: Any,
        optimiser: Optimizer,
        prepare: Callable[[Views], Views],
        *,
        plan: Plan,
        schedule: CosineWithWarmup,
        seed: int,
        clip_norm: float,
        journal: Journal,
        watch: FiniteWatch,
    ) -> None:
        self.learner, self.machine, self.module, self.prepare = learner, machine, module, prepare
        self.plan, self.schedule, self.seed, self.clip_norm = plan, schedule, seed, clip_norm
        self.journal, self.watch = journal, watch
        self.optimiser: Any = machine.fabric.setup_optimizers(optimiser)
        self._kept: list[Tensor] = []
        self.can_undo = False
        """Whether a step that broke off can be taken back."""
        self.trained = [p for group in optimiser.param_groups for p in group["params"]]

    def __call__(self, batches: Iterator[Views], epoch: int, batch: int) -> Progress:
        """The step that begins at `batch` of `epoch`; gives what is completed after it."""
        before, window = self.plan.progress(epoch, batch), self.plan.window(batch)
        lr = self.schedule(before.step)
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        waited, seen = 0.0, []
        self._kept = [tensor.detach().clone() for tensor in self._untrained()] if window > 1 else []
        for i in range(batch, batch + window):
            self.can_undo = True
            began = time.perf_counter()
            views = self._next(batches)
            waited += time.perf_counter() - began
            self.can_undo = False
            with undisturbed():
                seen.append(self._forward_backward(views, before, epoch, i, window, lr))
        with undisturbed():
            norm = self._update(seen)
            done = self.plan.progress(epoch, batch + window)
            with torch.no_grad():
                self.learner.after_step(done)
            self._write_down(done, seen, waited, norm)
        return done

    def _next(self, batches: Iterator[Views]) -> Views:
        """The next batch; where one process cannot have its own, all stop."""
        with self.machine.team.as_one():
            views = next(batches)
        return views

    def undo(self) -> None:
        """Takes back a step that broke off for want of a batch: the optimiser has not stepped yet.

        Back to what they were go gradients, buffers, and parameters that the optimiser does not train, such as those of
        a teacher that moves in `forward`.
        """
        assert self.can_undo, "the step has gone too far"
        if self._kept:
            with torch.no_grad():
                for tensor, kept in zip(self._untrained(), self._kept, strict=True):
                    tensor.copy_(kept)
        self.optimiser.zero_grad(set_to_none=True)

    def _untrained(self) -> Iterator[Tensor]:
        """All that the learner holds and the optimiser does not change."""
        trained = {id(parameter) for parameter in self.trained}
        yield from (p for p in self.learner.parameters() if id(p) not in trained)
        yield from self.learner.buffers()

    def _update(self, losses: list[Seen]) -> Tensor | None:
        """Clipping and the optimiser's step, once all gradients are there; gives their norm `(1,)`."""
        norm = self._gradient_norm()  # gradients are means over the processes by now
        if norm is not None:
            batches = tuple(number for loss in losses for number in loss.batches)
            indices = tuple(each for loss in losses for each in loss.indices)
            whole = replace(losses[0], what="gradient", batches=batches, indices=indices)
            self.watch.see(replace(whole, names=("gradient norm",), values=norm))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return norm

    def _forward_backward(self, views: Views, before: Progress, epoch: int, batch: int, window: int, lr: float) -> Seen:
        """Adds the gradients of one batch, whose loss is its share of the window's mean; gives its loss terms.

        All batches of a window hear of the same progress, as the one big batch would that they stand for.
        """
        number = epoch * self.plan.batches_per_epoch + batch
        self.machine.seed(draw_seed(self.seed, number, self.machine.fabric.global_rank))
        self.learner.before_step(before)
        indices = views.indices
        with torch.no_grad():
            views = self.machine.format(self.prepare(views.to(self.machine.device)))
        more_to_come = (batch + 1) % self.plan.accumulate != 0 and batch + 1 < self.plan.batches_per_epoch
        summed = add_gradients(
            self.module, self.learner.parts, views, self.machine, window=window, last=not more_to_come
        )
        each = torch.stack(list(summed.values()))
        names, values = (*summed, "total"), torch.cat([each, each.sum()[None]])
        seen = Seen("loss", before.step, epoch, (batch,), (indices,), names, values, lr)
        self.watch.see(seen)
        return replace(seen, values=self.machine.team.mean(values))

    def check(self) -> None:
        """Makes sure that everything so far was finite, in every process; raises `CmidError`."""
        self.watch.check(self.machine.team)
        self.machine.require_scale()

    def _gradient_norm(self) -> Tensor | None:
        """Norm `(1,)` of all gradients, clipped if asked for; None in precision 16.

        There the scaler meets infinities as a matter of course, and leaves such steps out.
        """
        half = self.machine.precision == "16"
        if self.clip_norm > 0:
            norm = self.machine.fabric.clip_gradients(
                self.module, self.optimiser, max_norm=self.clip_norm, error_if_nonfinite=False
            )
        elif not half:
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        if half or norm is None:
            return None
        return whole_tensor(norm.detach()).reshape(1).to(self.machine.device, torch.float32)

    def _write_down(self, done: Progress, losses: list[Seen], waited: float, norm: Tensor | None) -> None:
        for loss in losses:
            self.journal.batch(loss.names, loss.values)
        images = sum(len(loss.indices[0]) for loss in losses)  # of each process as many
        self.journal.step(images * self.machine.team.size, waited, norm)
        due = self.journal.row_is_due(done.step)
        if due or self.machine.device.type == "cpu":  # a CPU does not run behind our back: looking costs nothing
            self.check()
        if due:
            self.journal.row(done, losses[0].lr, self._extra_logs)
        self.journal.show(done)

    def _extra_logs(self) -> dict[str, float]:
        """The learner's further numbers, each the mean over the processes; all of them write this row."""
        mine = {name: float(value) for name, value in self.learner.extra_logs().items()}
        return means_of(self.machine.team.gather(mine))


def add_gradients(
    module: Any, parts: int, views: Views, machine: Machine, *, window: int, last: bool
) -> dict[str, Tensor]:
    """Adds the gradients of one batch's loss to the parameters', part by part.

    Args:
        module: the learner as the machine runs it, and the number of its `parts`.
        views: augmented, on the device.
        machine: where.
        window: number of batches whose mean is the loss of the step.
        last: whether it is the last of them.

    Returns:
        The learner's loss terms, float32 scalars without gradient.
    """
    summed = dict[str, Tensor]()
    for part in range(parts):
        # Gradients of processes meet once, after the last part of the last batch; those that are divided after each
        # part, as each process would have to keep them whole until then.
        waits = not (last and part == parts - 1) and not machine.sharded
        with machine.fabric.no_backward_sync(module, enabled=waits):
            terms: dict[str, Tensor] = module(Sealed(views), part if parts > 1 else None)
            total = torch.stack([term.float() for term in terms.values()]).sum()
            machine.fabric.backward(total if window == 1 else total / window)
        for name, term in terms.items():
            summed[name] = summed[name] + term.detach().float() if name in summed else term.detach().float()
    return summed
