"""Watches that losses and gradients stay finite, without making the device wait at every step."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cmid.errors import NotFinite
from cmid.train.run_directory import RunDirectory
from cmid.train.team import Team
from cmid.whole_files import replace_whole


@dataclass(frozen=True)
class Seen:
    """Numbers of one batch (its loss terms) or of one step (its gradient norm), still on the device.

    Attributes:
        what: `loss` or `gradient`.
        step: optimiser steps done before it.
        epoch: epochs done before it.
        batches: position in the epoch of the batches behind the numbers.
        indices: `(B,)` int64 of each of those batches.
        names: what the numbers are called.
        values: `(len(names),)` float.
        lr: learning rate of the step.
    """

    what: str
    step: int
    epoch: int
    batches: tuple[int, ...]
    indices: tuple[Tensor, ...]
    names: tuple[str, ...]
    values: Tensor
    lr: float


class FiniteWatch:
    """Keeps what was seen since the last check; `check` reads it all at once.

    The trainer checks at every row it logs and before every checkpoint, so no broken weights are saved and the
    batch named is the first whose numbers were not finite.

    Args:
        run: where `nonfinite.json` goes.
        names_of: file names of indices, as the loader gives them.
    """

    def __init__(self, run: RunDirectory, names_of: Callable[[Tensor], Sequence[str]]) -> None:
        self._run = run
        self._names_of = names_of
        self._seen: list[Seen] = []

    def see(self, seen: Seen) -> None:
        """Remembers numbers until the next check."""
        self._seen.append(seen)

    def check(self, team: Team | None = None) -> None:
        """Forgets what was seen if all of it is finite, in every process of `team`.

        A loss that is not spoils the gradients of all processes; the one that had it tells of it, with its files.

        Raises:
            NotFinite: something is not finite; the batch is written to `nonfinite.json`.
        """
        team = team or Team()
        broken = self._broken()
        some_loss, something = team.any(broken is not None and broken.what == "loss", broken is not None)
        if not something:
            return
        with team.as_one():
            if broken is not None and (broken.what == "loss" or (team.leads and not some_loss)):
                self._stop(broken)

    def _broken(self) -> Seen | None:
        """The first since the last call that is not finite."""
        seen, self._seen = self._seen, []
        if not seen or bool(torch.cat([s.values for s in seen]).isfinite().all()):
            return None
        return next(s for s in seen if not bool(s.values.isfinite().all()))

    def _stop(self, seen: Seen) -> None:
        files = [str(name) for indices in seen.indices for name in self._names_of(indices)]
        terms = dict(zip(seen.names, seen.values.tolist(), strict=True))
        report: dict[str, Any] = {
            "what": seen.what,
            "step": seen.step + 1,
            "epoch": seen.epoch + 1,
            "batches": list(seen.batches),
            "lr": seen.lr,
            "terms": {name: value if math.isfinite(value) else str(value) for name, value in terms.items()},
            "files": files,
        }
        broken = ", ".join(f"{name} {value}" for name, value in terms.items() if not math.isfinite(value))
        what = "The loss" if seen.what == "loss" else "The gradient"
        try:
            text = json.dumps(report, indent=1) + "\n"  # ASCII: names of files may be no UTF-8
            replace_whole(self._run.nonfinite, lambda part: part.write_text(text))
            where = f"The batch's {len(files)} files are listed in {self._run.nonfinite}."
        except OSError as error:
            where = f"(The list of its files could not be written: {error.strerror}.) It began with {files[:4]}."
        saved = self._run.last.is_file()
        kept, again = ("The last good checkpoint is kept. ", "go on with --resume") if saved else ("", "start again")
        raise NotFinite(
            f"{what} is not finite in step {seen.step + 1} (epoch {seen.epoch + 1}): {broken}. {where} {kept}Look at "
            f"those images; if they are sound, {again} with a lower --optimizer.lr, gradient clipping "
            "(--optimizer.clip_norm 1) or --train.precision 32."
        )
