"""How fast a method trains on this machine, measured on noise before a run is laid out."""

import time
from typing import Any

import torch

from cmid.commands.learners import method_of, views_of
from cmid.config import PretrainConfig
from cmid.contracts import Learner, Progress, View, Views
from cmid.data.augment import BatchAugment
from cmid.train.hardware import Machine, Sealed, choose_machine
from cmid.train.optimisers import build_optimiser, scaled_lr


def images_per_second(settings: PretrainConfig, learner: Learner, steps: int = 3) -> float:
    """The pace of whole training steps without the loader, after one that warms up; trains `learner`."""
    machine = choose_machine(settings.train, learner)
    module = machine.place(learner, compile_backbone=settings.train.compile)
    count = settings.batch_size
    built = build_optimiser(learner, settings.optimizer, scaled_lr(settings.optimizer, count)[0])
    optimiser: Any = machine.fabric.setup_optimizers(built)
    prepare, views = BatchAugment(views_of(settings)), _noise(settings)
    learner.train()
    begin = 0.0
    for step in range(steps + 1):
        if step == 1:
            _finish(machine)
            begin = time.perf_counter()
        learner.before_step(Progress(step, steps + 1))
        with torch.no_grad():
            prepared = machine.format(prepare(views.to(machine.device)))
        terms = module(Sealed(prepared), None)
        machine.fabric.backward(torch.stack([term.float() for term in terms.values()]).sum())
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            learner.after_step(Progress(step + 1, steps + 1))
    _finish(machine)
    return count * steps / (time.perf_counter() - begin)


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
