"""Device, precision and memory format: what is asked for, or what suits the machine.

Lightning is imported where it is first needed: it takes seconds, and `read_checkpoint` must not wait for it.
"""

import logging
import platform
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from cmid.config import TrainConfig
from cmid.contracts import Learner, Views
from cmid.errors import NotFinite, UsageError
from cmid.layers.batch_norm import synchronise
from cmid.layers.small_map_conv import use_matrix_products
from cmid.train.memory import keep_freed_memory
from cmid.train.sharding import require_shardable
from cmid.train.team import Team, start_team

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Precision = Literal["32", "bf16", "16"]
LEAST_SCALE = 1e-3
"""Of the gradients in precision 16, which begins at 65,536."""


def resolve_device(accelerator: str) -> torch.device:
    """The device for `accelerator` (auto, cpu, gpu, mps); auto takes a GPU where there is one.

    From then on a CUDA device's precision 32 is float32 in convolutions, too, which torch by default rounds to the 10
    bits of TF32 there, but not in matrix products: figures of one machine would not be those of another.

    Raises:
        UsageError: that device is not here.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    torch.backends.cudnn.allow_tf32 = False
    if accelerator == "auto":
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    if accelerator == "gpu" and not has_cuda:
        raise UsageError("accelerator is 'gpu', but torch sees no CUDA device. Use 'auto' or 'cpu'.")
    if accelerator == "mps" and not has_mps:
        raise UsageError("accelerator is 'mps', but torch sees no Apple GPU. Use 'auto' or 'cpu'.")
    if accelerator not in {"cpu", "gpu", "mps"}:
        raise UsageError(f"accelerator must be auto, cpu, gpu or mps, found '{accelerator}'.")
    return torch.device("cuda" if accelerator == "gpu" else accelerator)


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has matrix instructions for bfloat16; elsewhere it is emulated and slower than float32."""
    if any(_cpu_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16")):
        return True
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return False
    wanted = {"bf16"} if platform.machine() in {"aarch64", "arm64"} else {"avx512_bf16", "amx_bf16"}
    lines = cpuinfo.read_text(errors="replace").splitlines()
    return any(wanted & set(line.split()) for line in lines if line.lower().startswith(("flags", "features")))


def cpu_has_tiles() -> bool:
    """Whether this CPU multiplies bfloat16 in tiles (AMX)."""
    return bool(_cpu_capabilities().get("amx_bf16"))


def products_are_faster(precision: str) -> bool:
    """Whether on this CPU convolutions on small maps gain as matrix products: where that was measured."""
    if precision == "bf16":
        return cpu_has_tiles()
    return precision == "32" and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _cpu_capabilities() -> dict[str, Any]:
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def resolve_precision(requested: str, device: torch.device) -> Precision:
    """`auto` becomes bf16 where `device` computes it fast, else 32; others stay.

    Raises:
        UsageError: 16 on a CPU, or a name that is none.
    """
    if requested == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
        return "bf16" if device.type == "cpu" and cpu_multiplies_bf16() else "32"
    if requested == "16" and device.type == "cpu":
        raise UsageError("train.precision is 16, which needs a GPU; on a CPU use 32, or bf16 if it has such units.")
    if requested not in {"32", "bf16", "16"}:
        raise UsageError(f"train.precision must be auto, 32, bf16 or 16, found '{requested}'.")
    return requested  # type: ignore[return-value]


def device_name(device: torch.device) -> str:
    """The device with its model's name, and for a CPU how many threads torch uses."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type != "cpu":
        return str(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({models[0] if models else platform.processor() or 'unknown'}, {torch.get_num_threads()} threads)"


@dataclass(frozen=True)
class Machine:
    """Where a run computes.

    Attributes:
        fabric: Lightning's handle on device, precision and processes.
        device: where tensors go.
        precision: of forward and backward; parameters stay float32.
        channels_last: memory format of convolution weights and images.
        team: the processes of the run.
        strategy: how they share the work, ddp or fsdp.
    """

    fabric: "Fabric"
    device: torch.device
    precision: Precision
    channels_last: bool
    team: Team = field(default_factory=Team)
    strategy: str = "ddp"

    @property
    def sharded(self) -> bool:
        """Whether the processes divide parameters, gradients and optimiser state among them."""
        return self.strategy == "fsdp" and self.team.size > 1

    def words(self) -> str:
        """The machine in words."""
        slow = self.device.type == "cpu" and self.precision == "bf16" and not cpu_multiplies_bf16()
        parts = [
            device_name(self.device),
            f"precision {self.precision}{' (emulated here: 32 is faster)' if slow else ''}",
        ]
        parts += [f"{self.team.size} processes"] * (self.team.size > 1)
        if self.strategy == "fsdp":
            divided = "parameters divided among them (fsdp)"
            parts.append(divided if self.sharded else "one process, so train.strategy fsdp divides nothing")
        return ", ".join(parts + ["channels last"] * self.channels_last)

    def place(self, learner: Learner, *, compile_backbone: bool, sync_batch_norm: bool = True) -> Any:
        """Moves `learner` here, in place; gives the module to call, which computes in the chosen precision."""
        if self.sharded:  # block by block to the device, where whole it might not fit
            self.team.make_alike((*learner.parameters(), *learner.buffers()))  # as DDP does by itself
        else:
            learner.to(self.device)
        if sync_batch_norm and self.team.size > 1:
            synchronise(learner, self.device.type)
        if self.channels_last and not self.sharded:  # parts of parameters are gathered in torch's own order
            learner.to(memory_format=torch.channels_last)
        if compile_backbone:
            learner.backbone.compile()  # in place: the names in a checkpoint stay as they are
        elif self.device.type == "cpu" and products_are_faster(self.precision):
            use_matrix_products(learner)
        return self.fabric.setup_module(Stepped(learner), move_to_device=False)

    def seed(self, seed: int) -> None:
        """Seeds the generators that code on this device draws from.

        As `torch.manual_seed`, which on a machine without GPU also queues a call for every GPU there might be later:
        two milliseconds a step.
        """
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def precision_state(self) -> dict[str, Any]:
        """Plain values of the gradient scaler; empty but for precision 16."""
        return self.fabric.strategy.precision.state_dict()

    def load_precision_state(self, state: dict[str, Any]) -> None:
        """Continues from what `precision_state` gave, there with another precision perhaps."""
        if state:  # a scaler that is new to the run starts afresh: it refuses an empty state
            self.fabric.strategy.precision.load_state_dict(state)

    def require_scale(self) -> None:
        """Precision 16 leaves out steps whose gradients overflow, and halves their scale; that must come to an end.

        Raises:
            NotFinite: it has not: the gradients are infinite or NaN at any scale.
        """
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        if scaler is not None and (scale := scaler.get_scale()) < LEAST_SCALE:
            raise NotFinite(
                f"In precision 16 the gradients were infinite or NaN step after step, and their scale has fallen to "
                f"{scale:g}: take --train.precision bf16 or 32, or a lower --optimizer.lr."
            )

    def format(self, views: Views) -> Views:
        """`views` with images in the memory format the learner has."""
        if not self.channels_last:
            return views
        crops = tuple(v.with_images(v.images.contiguous(memory_format=torch.channels_last)) for v in views)
        return replace(views, crops=crops)


class Sealed:
    """Carries views through Lightning untouched: it would cast the boxes, too, to half precision."""

    def __init__(self, views: Views) -> None:
        self.views = views


class Stepped(nn.Module):
    """The learner as Lightning (and its DDP) calls it, with views still sealed."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, sealed: Sealed, part: int | None) -> dict[str, Tensor]:
        """The learner's loss terms."""
        return self.learner(sealed.views) if part is None else self.learner(sealed.views, part)


def quiet_lightning() -> None:
    """Keeps Lightning's tips and notices out of the user's terminal; its errors remain."""
    import lightning.fabric  # noqa: F401 - it sets the level of its logger when it is imported first

    for name in ("lightning", "lightning.fabric", "lightning.pytorch", "lightning_fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning(\.|_|$)")


def gather_team(train: TrainConfig) -> Team:
    """The processes that `train` asks for; where there are several they are started here, and each returns.

    Raises:
        UsageError: they cannot be had here.
    """
    device = resolve_device(train.accelerator)
    quiet_lightning()
    return start_team(train, device.type, resolve_precision(train.precision, device))


def choose_machine(train: TrainConfig, learner: Learner, team: Team | None = None) -> Machine:
    """The machine that `train` asks for, with the processes of `team` if they have been started.

    Raises:
        UsageError: it cannot be had here.
    """
    team = team or gather_team(train)
    device = resolve_device(train.accelerator)
    precision = resolve_precision(train.precision, device)
    channels_last = train.channels_last
    if channels_last is None:
        channels_last = device.type == "cuda" or learner.backbone.norm == "batch"
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # crops keep one size
    fabric = team.fabric
    assert fabric is not None
    machine = Machine(fabric, fabric.device, precision, channels_last, team, train.strategy)
    if machine.sharded:
        require_shardable(learner, compiled=train.compile)
    return machine
