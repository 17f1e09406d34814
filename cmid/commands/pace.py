"""How fast a method trains on this machine, measured on noise before runs are laid out.

    python -m cmid.commands.pace SETTINGS.yaml PACE.json

A process of its own, as a run has, because several processes of a run are started by beginning the program again.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from cmid.commands.learners import build_learner, method_of, views_of
from cmid.commands.settings import resolve
from cmid.config import PretrainConfig
from cmid.contracts import Learner, Progress, View, Views
from cmid.data.augment import BatchAugment
from cmid.errors import CmidError
from cmid.train.hardware import Machine, choose_machine, gather_team
from cmid.train.optimisers import build_optimiser, scaled_lr
from cmid.train.step import add_gradients
from cmid.train.team import Team
from cmid.whole_files import write_whole


def main(settings: Path, result: Path) -> int:
    """Measures the pace of a run's settings; the leading process writes it to `result`."""
    try:
        config = resolve(PretrainConfig, config=settings)
        team = gather_team(config.train)
        torch.manual_seed(config.seed)
        pace = images_per_second(config, build_learner(config), team)
        if team.leads:
            said = json.dumps({"images_per_s": pace}) + "\n"
            write_whole(result, lambda part: part.write_text(said), advice="Make room, and run the same again.")
    except CmidError as error:
        print(f"cmid: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def images_per_second(settings: PretrainConfig, learner: Learner, team: Team | None = None, batches: int = 3) -> float:
    """The pace of all processes together, without their loaders, after a step that warms up; trains `learner`.

    At least so many batches are taken, and as many as a step of the optimiser adds up.
    """
    team = team or gather_team(settings.train)
    machine = choose_machine(settings.train, learner, team)
    module = machine.place(
        learner, compile_backbone=settings.train.compile, sync_batch_norm=settings.train.sync_batch_norm
    )
    count, accumulate = settings.batch_size, settings.train.accumulate
    lr, _ = scaled_lr(settings.optimizer, count * accumulate * team.size)
    built = build_optimiser(learner, settings.optimizer, lr, scaled=machine.precision == "16")
    optimiser: Any = machine.fabric.setup_optimizers(built)
    prepare, views = BatchAugment(views_of(settings)), _noise(settings)
    if machine.device.type == "cuda":
        views = views.pin_memory()  # as loaders do
    learner.train()
    batches = max(batches, accumulate)
    begin = 0.0
    for number in range(-1, batches):
        if number == 0:
            _finish(machine)
            begin = time.perf_counter()
        progress = Progress(number + 1, batches + 1)
        learner.before_step(progress)
        with torch.no_grad():
            prepared = machine.format(prepare(views.to(machine.device)))
        updates = number < 0 or (number + 1) % accumulate == 0 or number + 1 == batches
        add_gradients(module, learner.parts, prepared, machine, window=accumulate, last=updates)
        if updates:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            with torch.no_grad():
                learner.after_step(progress)
    _finish(machine)
    return count * team.size * batches / (time.perf_counter() - begin)


def _noise(settings: PretrainConfig) -> Views:
    """A batch as the workers cut it, of as many crops as the method takes."""
    count, v = settings.batch_size, settings.views
    crops = []
    for size in [v.size] * method_of(settings).crops + [v.small_size] * v.small_crops:
        pixels = torch.randint(0, 256, (count, settings.in_chans, size, size), dtype=torch.uint8)
        box = torch.tensor([[0.0, 0.0, size, size]]).repeat(count, 1)
        crops.append(View(pixels, box, torch.zeros(count, dtype=torch.bool)))
    return Views(tuple(crops), torch.arange(count), labels=torch.zeros(count, dtype=torch.int64))


def _finish(machine: Machine) -> None:
    """Waits for a device that computes behind our back."""
    if machine.device.type == "cuda":
        torch.cuda.synchronize(machine.device)
    elif machine.device.type == "mps":
        torch.mps.synchronize()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
