"""The settings of each pre-training method; the published values are the defaults."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class CMIDConfig:
    """CMID's own numbers (arXiv 2304.09670; the published values are the defaults)."""

    mode: Literal["exact", "parity"] = "exact"
    """exact: what the paper asks for; parity: what the published code does, faults included."""
    mask_ratio: float = 0.6
    """Share of cells to hide, rounded up to whole cells."""
    mask_cell_px: int = 32
    """Side of a mask cell in pixels."""
    mask_stage: int = 0
    """Where the mask token enters: 0: after the stem or patch embedding; k: after the k-th stage."""
    mask_token: Literal["add", "replace"] = "add"
    """Add the token to hidden positions, or put it in their place."""
    reconstruction_weight: float = 1.0
    """Weight of the reconstruction branch; 0 switches it off."""
    frequency_weight: float = 1.0
    """Weight of the focal frequency loss inside the reconstruction branch."""
    global_weight: float = 1.0
    """Weight of the global branch; 0 switches it off."""
    global_form: Literal["moco", "byol"] = "moco"
    """moco: InfoNCE with a queue; byol: predictor, no negatives."""
    global_hidden: int = 2048
    """Width of the global projection's hidden layer."""
    global_dim: int = 256
    """Dimension of the global embedding."""
    predictor_hidden: int = 512
    """Width of the predictor (byol form only)."""
    temperature: float = 0.2
    """Temperature of InfoNCE."""
    queue_size: int = 65536
    """Number of negatives kept; any size (in parity mode a multiple of batch_size x processes x processes)."""
    momentum: float = 0.996
    """Teacher momentum at the start."""
    momentum_end: float = 1.0
    """Teacher momentum at the end, reached along a cosine."""
    local_weight: float = 1.0
    """Weight of the local branch; 0 switches it off."""
    local_stage: int = -1
    """Which map of the backbone feeds the local branch; -1 is the coarsest."""
    local_hidden: int = 2048
    """Width of the local head's hidden layers."""
    local_bottleneck: int = 256
    """Dimension before the weight-normed layer of the local head."""
    local_prototypes: int = 2048
    """Dimension of the local head's output."""
    local_matches: int = 20
    """Matched positions per image that the local loss uses."""
    local_temperature: float = 0.1
    """Student temperature of the local branch."""
    local_teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """Teacher temperature at the start and after its warm-up."""
    local_temperature_epochs: int = 50
    """Epochs over which the teacher temperature rises."""
    local_start_epoch: int = 0
    """First epoch of the local branch; its temperature rises from there. Published for ResNet-50: -1."""
    centre_momentum: float = 0.9
    """Momentum of the local teacher's centre."""


@dataclass
class BYOLConfig:
    """BYOL's own numbers (arXiv 2006.07733)."""

    hidden: int = 4096
    """Width of the hidden layer of projector and predictor."""
    dim: int = 256
    """Dimension of the embedding."""
    momentum: float = 0.996
    """Teacher momentum at the start."""
    momentum_end: float = 1.0
    """Teacher momentum at the end, reached along a cosine."""


@dataclass
class MoCoV2Config:
    """MoCo v2's own numbers (arXiv 2003.04297)."""

    hidden: int = 2048
    """Width of the projector's hidden layer."""
    dim: int = 128
    """Dimension of the embedding."""
    queue_size: int = 65536
    """Number of negatives kept; any size."""
    temperature: float = 0.2
    """Temperature of InfoNCE."""
    momentum: float = 0.999
    """Teacher momentum, constant."""
    symmetric: bool = False
    """Also match view 1 to the key of view 0, and add both losses."""
    batch_norm_groups: int = 1
    """Normalise the batch in this many groups; shuffle the keys' groups. The paper's groups have 32 images."""


@dataclass
class SeCoConfig:
    """SeCo's own numbers (arXiv 2103.16607)."""

    dates: Literal["seen", "artificial"] = "seen"
    """seen: the data show places at several dates; artificial: make up further dates from single images."""
    hidden: int = 2048
    """Width of each projector's hidden layer."""
    dim: int = 128
    """Dimension of each embedding sub-space."""
    queue_size: int = 16384
    """Number of negatives kept for each sub-space; any size."""
    temperature: float = 0.07
    """Temperature of InfoNCE."""
    momentum: float = 0.999
    """Teacher momentum, constant."""
    batch_norm_groups: int = 1
    """Normalise the batch in this many groups; shuffle the keys' groups."""


@dataclass
class BarlowTwinsConfig:
    """Barlow Twins' own numbers (arXiv 2103.03230)."""

    hidden: int = 8192
    """Width of the projector's two hidden layers."""
    dim: int = 8192
    """Dimension of the embedding."""
    redundancy_weight: float = 0.0051
    """Weight of the off-diagonal term, the paper's lambda."""
    loss_scale: float = 1.0
    """Multiplies the loss; with LARS 0.024 gives biases and batch-norm the paper's rate."""


@dataclass
class SwAVConfig:
    """SwAV's own numbers (arXiv 2006.09882)."""

    hidden: int = 2048
    """Width of the projector's hidden layer."""
    dim: int = 128
    """Dimension of the embedding."""
    prototypes: int = 3000
    """Number of prototypes."""
    temperature: float = 0.1
    """Temperature of the prediction."""
    sinkhorn_iterations: int = 3
    """Sinkhorn iterations."""
    sinkhorn_epsilon: float = 0.05
    """Sinkhorn temperature (epsilon) of the assignment."""
    freeze_epochs: int = 1
    """Epochs at the start during which the prototypes are frozen."""
    queue_size: int = 0
    """Earlier images, over all processes, that are assigned together with the batch; 0: none; published: 3840."""
    queue_start_epoch: int = 15
    """First epoch that fills the queue; it is used once it is full."""


@dataclass
class SimMIMConfig:
    """SimMIM's own numbers (arXiv 2111.09886)."""

    mask_ratio: float = 0.6
    """Share of cells to hide, rounded up to whole cells."""
    mask_cell_px: int = 32
    """Side of a mask cell in pixels."""


@dataclass
class IndexNetConfig:
    """IndexNet's own numbers (IEEE TGRS 2022; from its published code)."""

    index_grid: int = 7
    """Rows and columns of the grid of numbered cells on the ground."""
    index_weight: float = 1.0
    """Weight of the term on positions; the term on whole crops has weight 1."""
    hidden: int = 4096
    """Width of the projectors' hidden layer."""
    dim: int = 256
    """Dimension of the embeddings."""
    predictor_hidden: int = 512
    """Width of the predictors' hidden layer."""
    momentum: float = 0.996
    """Teacher momentum at the start."""
    momentum_end: float = 1.0
    """Teacher momentum at the end, reached along a cosine."""


@dataclass
class MAEConfig:
    """MAE's own numbers (arXiv 2111.06377)."""

    mask_ratio: float = 0.75
    """Share of patches to leave out, rounded up to whole patches."""
    decoder_width: int = 512
    """Width of the decoder."""
    decoder_depth: int = 8
    """Number of decoder blocks."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""
    normalise_pixels: bool = True
    """Normalise the target of each patch by its own mean and deviation."""


@dataclass
class SupervisedConfig:
    """Supervised pre-training's own numbers (as on SEN12MS, arXiv 1906.07789)."""

    classes: int = 0
    """Number of classes; 0: read from the data."""
