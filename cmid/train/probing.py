"""Probes at the end of an epoch: one that fails is told of and leaves a gap in metrics.csv, and the run goes on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch

from cmid.contracts import Learner
from cmid.errors import CmidError, NotFinite
from cmid.train.hardware import Machine
from cmid.train.interrupts import Interrupts
from cmid.train.journal import Journal
from cmid.train.plan import draw_seed
from cmid.train.protocols import Probe
from cmid.train.sharding import WholeLearner


@dataclass
class Measured:
    """What probes gave.

    Attributes:
        values: numbers for metrics.csv, of those that did not fail.
        broken_off: the run was asked to stop, and some have not been heard.
    """

    values: dict[str, float] = field(default_factory=dict)
    broken_off: bool = False


class Probing:
    """Has the leading process measure the learner, in one piece, while the others wait.

    Args:
        probes: what measures.
        epochs: of the run; at the end of the last all measure.
        seed: of the run; with the probe and the epoch fixes every draw.
        machine: where.
        whole: gives the learner in one piece.
        journal: does not count the time, and says what failed.
        interrupts: whether the run was asked to stop.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        epochs: int,
        seed: int,
        machine: Machine,
        whole: WholeLearner,
        journal: Journal,
        interrupts: Interrupts,
    ) -> None:
        self._probes, self._epochs, self._seed, self._machine = probes, epochs, seed, machine
        self._whole, self._journal, self._interrupts = whole, journal, interrupts

    def is_due(self, epoch: int) -> bool:
        """Whether anything measures at the end of `epoch`, counted from 1."""
        return bool(self._due(epoch))

    def __call__(self, learner: Learner, epoch: int) -> Measured:
        """What the probes give that are due; afterwards `learner` is in the modes it was in.

        Raises:
            NotFinite: the learner has diverged, which is no failure of a probe.
        """
        measured, team = Measured(), self._machine.team
        modes = [(module, module.training) for module in learner.modules()]
        with self._journal.paused(), torch.no_grad():
            # One that is divided may not fit whole on the device beside its parts: then it is the probe that fails.
            whole = self._whole.on("cpu" if self._machine.sharded else self._machine.device)
            with team.as_one():
                if team.leads:
                    measured = self._measure(whole, epoch)
        for module, training in modes:
            module.training = training
        return Measured(**team.of_leader(asdict(measured)))

    def _due(self, epoch: int) -> list[Probe]:
        last = epoch == self._epochs
        return [probe for probe in self._probes if last or epoch % max(1, probe.every_epochs) == 0]

    def _measure(self, learner: Learner, epoch: int) -> Measured:
        measured = Measured()
        for probe in self._due(epoch):
            self._machine.seed(draw_seed(self._seed, "probe", probe.name, epoch))
            try:
                measured.values |= probe(learner.to(self._machine.device), self._machine.device)
            except NotFinite:
                raise
            except (CmidError, RuntimeError, MemoryError, OSError, EOFError) as error:
                if not self._interrupts.requested:  # a signal to the process group ends a probe's loader processes, too
                    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
                    self._journal.line.say(
                        f"Warning: {probe.name} could not be measured at the end of epoch {epoch}, and its place in "
                        f"metrics.csv stays empty: {reason}. Training goes on."
                    )
            if self._interrupts.requested:
                measured.broken_off = True
                break
        return measured
