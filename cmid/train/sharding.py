"""A learner whose parameters are divided over the processes, and how it is put together again.

What divides them is torch's `fully_shard` (FSDP2), by way of Lightning's `ModelParallelStrategy`. Of every parameter
each process holds the rows of its rank, and of its gradient and the optimiser's state the same rows; a teacher's lie
as its student's do, so that it follows without a word between processes. A block of the backbone is gathered when it
runs, forward and backward, and let go; all that is in no block (stem, mask token, heads) is gathered at the beginning
of a step's forward and kept to the end of its backward. Buffers (queue, centre, batch-norm) every process has whole.

What only the leading process does, saving and probing, it does with a copy in one piece. So nothing outside of this
file knows that a learner is divided, and checkpoints are those of any other run.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cmid.contracts import Backbone, Learner
from cmid.errors import UsageError
from cmid.train.checkpoints import load_learner

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

HOW = ("foreach", "fused", "capturable", "differentiable")
"""How torch's optimisers compute, not what: that follows from the machine at hand, not from the one before."""
SMALLEST_BLOCK = 0.01
"""Share of its backbone's parameters from which on a block is gathered by itself: each costs a round of messages."""


def shard(module: nn.Module, mesh: "DeviceMesh") -> nn.Module:
    """Divides the parameters of `module` over the processes of `mesh`, in place, and moves it to their device.

    Float32 is gathered, and autocast makes of it what it makes of whole parameters: so results are those of DDP.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # All processes in the group of batch-norm's exchanges rather than in one beside it: two that work at once might
    # wait for each other on GPUs.
    mesh = init_device_mesh(mesh.device_type, (mesh.size(),))
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()  # as `fully_shard` demands
    for backbone in (part for part in module.modules() if isinstance(part, Backbone)):
        for block in blocks(backbone):
            block.register_forward_hook(_no_view)
            fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def _no_view(module: nn.Module, args: object, output: Any) -> Any:
    """A view that were changed in place, as some blocks return one, would not call for its block in the backward."""
    is_view = isinstance(output, Tensor) and output.requires_grad and output._is_view()
    return output.clone() if is_view else None


def blocks(backbone: nn.Module) -> list[nn.Module]:
    """What is gathered by itself: large elements of its sequences and lists, which are called one by one; inner first.

    No larger unit would do: timm's `forward_intermediates` calls neither the model nor all of its stages, and a module
    that is not called is not gathered.
    """
    found: list[nn.Module] = []
    least = SMALLEST_BLOCK * sum(parameter.numel() for parameter in backbone.parameters())

    def parameters_left(module: nn.Module, *, called: bool) -> int:
        """Parameters of `module` that are in no block."""
        listed = isinstance(module, nn.Sequential | nn.ModuleList)
        left = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        left += sum(parameters_left(child, called=listed) for child in module.children())
        if called and left > least:
            found.append(module)
            return 0
        return left

    parameters_left(backbone, called=False)
    return found


def require_shardable(learner: Learner, *, compiled: bool) -> None:
    """Raises UsageError where `learner` cannot be divided.

    Torch divides no parameter without dimensions; with torch.compile it was never tried here.
    """
    if compiled:
        raise UsageError("train.strategy fsdp and train.compile were never tried together: leave out one of them")
    single = [name for name, parameter in learner.named_parameters() if parameter.ndim == 0]
    if single:
        raise UsageError(
            f"train.strategy fsdp divides parameters by their rows, and {single[0]} of {learner.backbone.name} is a "
            "single number without any; choose another backbone, or --train.strategy ddp"
        )


class WholeLearner:
    """The learner in one piece, for what only the leading process does.

    Made before the learner is divided. The methods are called by all processes, which give their parts; where the
    learner is not divided they hand over what is there.

    Args:
        learner: what is trained.
        sharded: whether its parameters will be divided.
        leads: whether this is the process that needs the whole.
    """

    def __init__(self, learner: Learner, *, sharded: bool, leads: bool) -> None:
        self._learner, self._leads = learner, leads
        self._hollow: Learner | None = None
        if sharded:  # a likeness without numbers, as a learner that is divided refuses to be copied
            empty = {id(each): _like(each, torch.empty_like(each, device="meta")) for each in _of(learner)}
            self._hollow = copy.deepcopy(learner, empty)

    def on(self, device: torch.device | str) -> Learner:
        """The learner itself, or a copy on `device` in one piece; of those that do not lead, the divided one.

        Beyond parameters and buffers the copy is as the learner was made.
        """
        if self._hollow is None:
            return self._learner
        memo: dict[int, Any] = {}
        for empty, divided in zip(_of(self._hollow), _of(self._learner), strict=True):
            whole = whole_tensor(divided.detach())
            if self._leads:
                memo[id(empty)] = _like(divided, whole.to(device, copy=not is_divided(divided)))
        if not self._leads:
            return self._learner
        return copy.deepcopy(self._hollow, memo)

    def optimiser_state(self, optimiser: Optimizer) -> dict[str, Any]:
        """The optimiser's `state_dict`; where its tensors were divided, whole on the leading process's CPU."""
        state = optimiser.state_dict()
        if self._hollow is None:
            return state
        return {**state, "state": {number: self._gathered(entries) for number, entries in state["state"].items()}}

    def _gathered(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        gathered = {}
        for name, value in entries.items():
            whole = whole_tensor(value) if isinstance(value, Tensor) else value
            if self._leads:  # the others let go of each tensor before the next
                gathered[name] = whole.cpu() if isinstance(whole, Tensor) else whole
        return gathered

    def load(
        self, learner_state: Mapping[str, Tensor], optimiser: Optimizer, state: dict[str, Any], path: Path
    ) -> None:
        """Continues from whole tensors as `on` and `optimiser_state` gave, of however many processes.

        Raises:
            CmidError: `path`, which they come from, is of another architecture.
        """
        if self._hollow is not None:
            own = self._learner.state_dict()
            learner_state = {name: _as(value, own.get(name)) for name, value in learner_state.items()}
        load_learner(self._learner, learner_state, path)
        parameters = [each for group in optimiser.param_groups for each in group["params"]]
        entries = {
            number: {name: _as(value, parameters[number]) for name, value in each.items()}
            for number, each in state["state"].items()
        }
        groups = [
            {**saved, **{name: own[name] for name in HOW if name in own}}
            for saved, own in zip(state["param_groups"], optimiser.param_groups, strict=True)
        ]
        optimiser.load_state_dict({**state, "state": entries, "param_groups": groups})


def _of(learner: Learner) -> list[Tensor]:
    return [*learner.parameters(), *learner.buffers()]


def _like(original: Tensor, values: Tensor) -> Tensor:
    """`values` as what `original` is: a parameter, trained or not, or a buffer."""
    is_parameter = isinstance(original, nn.Parameter)
    return nn.Parameter(values, requires_grad=original.requires_grad) if is_parameter else values


def whole_tensor(tensor: Tensor) -> Tensor:
    """All rows of what is divided; anything else as it is."""
    return tensor.full_tensor() if is_divided(tensor) else tensor


def is_divided(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether each process holds but some rows of `tensor`."""
    return hasattr(tensor, "full_tensor")  # a DTensor's, whose import takes a second


def _as(value: Any, like: Any) -> Any:
    """A whole tensor in the form of `like`, where it has its shape: this process's part of it, its memory format.

    Fused optimisers go through a parameter and its state number by number, in whatever order each of them lies.
    """
    if not isinstance(value, Tensor):
        return value
    if not isinstance(like, Tensor) or value.shape != like.shape:
        return value.clone()  # a file that is mapped would be kept for it
    if not is_divided(like):
        return value if value.stride() == like.stride() else torch.empty_like(like, dtype=value.dtype).copy_(value)
    from torch.distributed.tensor import distribute_tensor

    # Without a source each cuts its part from its own copy, which is the same in all; cloned, it lets go of the rest.
    whole = value.to(like.device).contiguous()
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None).clone()
