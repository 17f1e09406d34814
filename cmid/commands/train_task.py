"""How a task is trained, whichever it is: from its settings to the weights that are scored."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from cmid.config import FinetuneConfig, FinetuneSegmentationConfig, as_plain
from cmid.contracts import Learner, Views
from cmid.train import FitResult, Loader, Probe, RunDirectory, Team, fit, load_learner, read_checkpoint

L = TypeVar("L", bound=Learner)


def train_task(
    learner: L,
    loader: Loader,
    config: FinetuneConfig | FinetuneSegmentationConfig,
    run: RunDirectory,
    team: Team,
    *,
    images_per_batch: int,
    prepare: Callable[[Views], Views],
    probes: Sequence[Probe],
    account: Mapping[str, Any],
) -> tuple[L, FitResult]:
    """Trains `learner`; arguments as those of `fit`, which says what is raised.

    Returns:
        The learner in one piece, on the leading process with the weights of the epoch that was best where that was
        measured, else of the last; and what `fit` gave.
    """
    done = fit(
        learner, loader, prepare=prepare, run=run, epochs=config.epochs, seed=config.seed, optimizer=config.optimizer,
        train=config.train, images_per_batch=images_per_batch, settings={"task": config.task, **as_plain(config)},
        probes=probes, account=account, resume=config.resume, team=team,
    )  # fmt: skip
    whole: L = done.learner()
    if team.leads and done.best_is_measured and done.best_checkpoint is not None:
        load_learner(whole, read_checkpoint(done.best_checkpoint).learner_state, done.best_checkpoint)
    return whole, done
