"""How any learner is trained: optimiser, machine, and online kNN."""

from dataclasses import dataclass
from typing import ClassVar, Literal

USUAL_BETAS: dict[str, tuple[float, ...]] = {
    "adan": (0.98, 0.92, 0.99), "adamw": (0.9, 0.999), "sgd": (0.9,), "lars": (0.9,),
}  # fmt: skip


@dataclass
class OptimizerConfig:
    """Optimiser and schedule."""

    name: Literal["adan", "adamw", "sgd", "lars"] = "adan"
    """Optimiser; adan and lars are timm's, adamw and sgd torch's."""
    lr: float = 1e-3
    """Learning rate for `lr_reference_batch` images per step."""
    lr_reference_batch: int = 64
    """The rate used is lr * (images per optimiser step over all processes) / this; 0: lr as it is."""
    betas: tuple[float, ...] = ()
    """Adan uses three, AdamW the first two; SGD and LARS use the first as momentum. Unset: usual ones of each."""
    eps: float = 1e-8
    """Added to the denominator."""
    weight_decay: float = 0.02
    """Decay, decoupled in Adan and AdamW, an L2 penalty in SGD and LARS; none on biases and one-dimensional weights."""
    undecayed: tuple[str, ...] = ()
    """Also exempt from decay: parameters whose names contain one of these words."""
    layer_decay: float = 1.0
    """Multiply the rate by this once more for each layer below the head; 1 is off."""
    min_lr: float = 1e-6
    """Rate at the end of the cosine."""
    warmup_epochs: float = 10
    """Epochs of linear warm-up."""
    warmup_steps: int = 0
    """Warm-up in steps; if above 0 it replaces `warmup_epochs`."""
    warmup_ratio: float = 0.01
    """Share of the rate at the first step of the warm-up."""
    clip_norm: float = 0.0
    """Scale gradients down to this norm if theirs is larger; 0 is off."""

    FOLLOWS: ClassVar[dict[str, str]] = {"betas": "name"}
    """Fields whose default is another where the one they follow is given."""

    def __post_init__(self) -> None:
        if not self.betas:
            self.betas = USUAL_BETAS.get(self.name, ())


@dataclass
class TrainConfig:
    """How the loop runs on the machine at hand."""

    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """auto: bf16 where the device computes it fast (GPU, CPU with bf16 matrix units), else 32."""
    channels_last: bool | None = None
    """Channels-last memory format; unset: on for GPUs and for convolutional backbones."""
    compile: bool = False
    """torch.compile the backbone."""
    accumulate: int = 1
    """Batches whose gradients are accumulated before each optimiser step."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Device; auto: a GPU if there is one."""
    devices: int = 1
    """Processes per node, one per GPU; omit it under torchrun and SLURM."""
    nodes: int = 1
    """Nodes that train together, started by SLURM or torchrun."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Several processes: ddp: each holds everything; fsdp: parameters, gradients and optimiser state are divided."""
    sync_batch_norm: bool = True
    """Batch-norm over the batch of all processes, as one process would compute it."""
    workers: int = -1
    """Loader processes; -1: chosen from the number of cores."""
    max_steps: int = 0
    """Stop after this many optimiser steps, for trials; 0: run all epochs."""
    checkpoint_minutes: float = 10.0
    """Write a checkpoint at least this often, besides one per epoch; 0: only at the ends of epochs and of the run."""
    log_every: int = 10
    """Steps between rows of steps.csv."""
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Loggers besides the CSV files that are always written."""


@dataclass
class KnnConfig:
    """Online kNN on a labelled folder while pre-training."""

    data: str | None = None
    """A folder with one folder per class, or torchgeo:NAME?root=DIR; unset: no online kNN."""
    train_list: str | None = None
    """Text file of paths under `data` to use as neighbours; unset: a seeded 80 % of each class."""
    test_list: str | None = None
    """Text file of paths under `data` to classify; unset: the rest."""
    k: int = 5
    """Number of voting neighbours."""
    every_epochs: int = 1
    """Epochs between evaluations."""
