"""How any learner is trained: optimiser, machine, kNN that watches from outside."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class OptimizerConfig:
    """Optimiser and schedule."""

    name: Literal["adan", "adamw", "sgd", "lars"] = "adan"
    """Which optimiser, from timm."""
    lr: float = 1e-3
    """Learning rate for `lr_reference_batch` images a step."""
    lr_reference_batch: int = 64
    """The rate used is lr * (images per optimiser step over all processes) / this; 0 takes lr as it is."""
    betas: tuple[float, ...] = (0.98, 0.92, 0.99)
    """Adan takes three, AdamW the first two; SGD and LARS read the first as momentum."""
    eps: float = 1e-8
    """Added to the denominator."""
    weight_decay: float = 0.02
    """Decoupled decay; none on biases and one-dimensional weights."""
    undecayed: tuple[str, ...] = ()
    """Further parameters without decay: those whose names hold one of these words."""
    layer_decay: float = 1.0
    """The rate of each layer is this times that of the layer above it, the head's being whole; 1 is off."""
    min_lr: float = 1e-6
    """The cosine's end."""
    warmup_epochs: float = 10
    """Epochs of linear warm-up."""
    warmup_steps: int = 0
    """Optimiser steps of it, where above 0 in place of the epochs."""
    warmup_ratio: float = 0.01
    """Share of the rate at the first step."""
    clip_norm: float = 0.0
    """Gradient norm above which it is scaled down; 0 is off."""


@dataclass
class TrainConfig:
    """How the loop runs on the machine at hand."""

    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """auto: bf16 where the device computes it fast (GPU, CPU with bf16 matrix units), else 32."""
    channels_last: bool | None = None
    """Memory format; unset: on for GPUs and for convolutional backbones."""
    compile: bool = False
    """torch.compile the backbone."""
    accumulate: int = 1
    """Batches whose gradients are added up before each optimiser step."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Which device; auto takes a GPU where there is one."""
    devices: int = 1
    """Processes on each node, one a GPU; under torchrun and SLURM leave it out."""
    nodes: int = 1
    """Nodes that train together, started by SLURM or torchrun."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Several processes: ddp holds all in each; fsdp divides parameters, gradients and optimiser state among them."""
    sync_batch_norm: bool = True
    """Batch-norm over the batch of all processes, as one process would have it."""
    workers: int = -1
    """Loader processes; -1 chooses from the cores."""
    max_steps: int = 0
    """Stop after so many optimiser steps, for trials; 0 runs all epochs."""
    checkpoint_minutes: float = 10.0
    """A checkpoint at least this often, besides one every epoch; 0: only at the ends of epochs and of the run."""
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
    """Text file of paths under `data` used as neighbours; unset: a seeded 80 % of each class."""
    test_list: str | None = None
    """Text file of paths under `data` to classify; unset: the rest."""
    k: int = 5
    """Neighbours that vote."""
    every_epochs: int = 1
    """Epochs between evaluations."""
