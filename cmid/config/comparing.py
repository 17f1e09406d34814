"""`cmid compare`."""

from dataclasses import dataclass, field

from cmid.config.pretraining import PretrainConfig


@dataclass
class CompareConfig:
    """Pre-train several methods on the same images and budget, and score them alike."""

    data: str | None = None
    """Images to pre-train on, as for `cmid pretrain`; leave unset if nothing is trained (`methods` is empty)."""
    labelled: str = ""
    """Images to score on: a folder with one folder per class, or torchgeo:NAME?root=DIR."""
    out: str = "runs/compare"
    """The comparison's folder; the same command resumes where it stopped."""
    train_list: str | None = None
    """Text file of paths under `labelled`; unset: a seeded 80 % of each class."""
    test_list: str | None = None
    """Text file of paths under `labelled`; unset: the rest."""
    methods: tuple[str, ...] = ("cmid", "byol")
    """Methods to train, optionally with settings of their own, as in cmid?mode=parity&epochs=5."""
    external: tuple[str, ...] = ()
    """Backbones trained elsewhere: FILE, FILE?backbone=NAME, or timm:NAME (timm downloads the weights)."""
    untrained: bool = True
    """Also score the backbone with random weights."""
    seeds: tuple[int, ...] = (0,)
    """Train each method once with each seed."""
    minutes_each: float = 0.0
    """Equal time: each method gets as many epochs as fit into these minutes here; 0: equal epochs, from `pretrain`."""
    reference: str = ""
    """Row that the others are compared with; unset: the first of `methods`."""
    labels: tuple[int, ...] = (1, 5, 10, 50)
    """Also fit linear probes on this many labels per class."""
    draws: int = 5
    """Random draws of those labels, the same for every row."""
    k: int = 5
    """Number of voting neighbours (kNN)."""
    bootstrap: int = 2000
    """Bootstrap resamples of the test images for each interval."""
    retry: bool = False
    """Train diverged runs again."""
    report: bool = True
    """Write report.html."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    """Settings for every method; a method's own group is read by that method only."""
