"""Run by torchrun in two processes: a method on half a batch each must equal one process on all of it."""

import copy
import sys

import torch
import torch.distributed as dist

from cmid.contracts import Progress
from cmid.layers.batch_norm import synchronise
from tests.methods.rivals import batch, learner, rows


def step_together(name, rank):
    """One step of both processes: what `compare` needs of it."""
    model, views = learner(name), batch(name, count=8, seed=3)
    halves = [rows(views, slice(4 * r, 4 * r + 4)) for r in (0, 1)]
    alone = copy.deepcopy(model)
    together = torch.nn.parallel.DistributedDataParallel(synchronise(copy.deepcopy(model), "cpu"))
    module = together.module
    module.before_step(Progress(total_steps=4))
    torch.manual_seed(7)
    draws = fixed_masks(model, halves, views)
    terms = within(module, draws[rank], lambda: together(halves[rank]))
    sum(terms.values()).backward()
    module.after_step(Progress(1, 4, 1, 4))
    losses = {k: v.detach().clone() for k, v in terms.items()}
    for value in losses.values():
        dist.all_reduce(value)
    return module, losses, alone, views, draws[2]


def compare(name, module, losses, alone, views, mask):
    """The same step of one process, which is alone by now."""
    alone.before_step(Progress(total_steps=4))
    expected = within(alone, mask, lambda: alone(views))
    sum(expected.values()).backward()
    alone.after_step(Progress(1, 4, 1, 4))

    def close(value, other, what, rtol, atol):
        torch.testing.assert_close(value, other, rtol=rtol, atol=atol, msg=lambda m: f"{name}, {what}: {m}")

    for term, value in losses.items():
        close(value / 2, expected[term].detach(), term, 1e-5, 1e-6)
    gradients = dict(alone.named_parameters())
    for parameter_name, parameter in module.named_parameters():
        if parameter.requires_grad and gradients[parameter_name].grad is not None:
            theirs = gradients[parameter_name].grad
            # against the norm: a bias before batch-norm has a gradient of rounding alone
            away = (parameter.grad - theirs).norm()
            assert away <= 2e-4 * theirs.norm() + 1e-5, f"{name}, gradient of {parameter_name}: {away}"
    state = alone.state_dict()
    for key, value in module.state_dict().items():
        if value.is_floating_point():  # queues, centres, prototypes and what batch-norm remembers
            close(value, state[key], key, 1e-4, 1e-5)


def main(names):
    """All methods in one pair of processes: starting them takes longer than the steps."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    done = {name: step_together(name, dist.get_rank()) for name in names}
    dist.barrier()
    dist.destroy_process_group()  # from here on every process is alone
    for name, found in done.items():
        compare(name, *found)


def fixed_masks(model, halves, views):
    """Masks of both halves and of the whole batch that are the same; None for a method that draws none."""
    if not hasattr(model, "draw_mask"):
        return None, None, None
    first, second = (model.draw_mask(half[0].images) for half in halves)
    return first, second, torch.cat((first, second))


def within(module, mask, compute):
    """`compute()`, with the method's draw of a mask replaced by `mask`."""
    if mask is not None:
        module.draw_mask = lambda images: mask
    return compute()


if __name__ == "__main__":
    main(sys.argv[1:])
