"""`cmid compare`."""

from dataclasses import dataclass, field

from cmid.config.pretraining import PretrainConfig


@dataclass
class CompareConfig:
    """Pre-train several methods on the same images and budget, and score them alike."""

    data: str | None = None
    """The images to learn from, as for `cmid pretrain`; unset, where nothing is trained (`methods` is empty)."""
    labelled: str = ""
    """What is scored on: a folder with one folder per class, or torchgeo:NAME?root=DIR."""
    out: str = "runs/compare"
    """The comparison's folder; the same command goes on where it stopped."""
    train_list: str | None = None
    """Text file of paths under `labelled`; unset: a seeded 80 % of each class."""
    test_list: str | None = None
    """Text file of paths under `labelled`; unset: the rest."""
    methods: tuple[str, ...] = ("cmid", "byol")
    """What is trained: methods, each perhaps with settings of its own, as in cmid?mode=parity&epochs=5."""
    external: tuple[str, ...] = ()
    """Backbones that others trained: FILE or FILE?backbone=NAME, or timm:NAME, whose weights are downloaded."""
    untrained: bool = True
    """Also score the backbone with random weights."""
    seeds: tuple[int, ...] = (0,)
    """Each method is trained once with each."""
    minutes_each: float = 0.0
    """Equal time: as many epochs for each method as take so long here; 0: equal epochs, those of `pretrain`."""
    reference: str = ""
    """The row that differences are taken to; unset: the first of `methods`."""
    labels: tuple[int, ...] = (1, 5, 10, 50)
    """Labels a class that linear probes are also fitted on."""
    draws: int = 5
    """Draws of those labels, the same for all."""
    k: int = 5
    """Neighbours that vote (kNN)."""
    bootstrap: int = 2000
    """Resamples of the test images behind each interval."""
    retry: bool = False
    """Train anew what diverged."""
    report: bool = True
    """Write report.html."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    """Settings of all methods alike; a method's own numbers are read by that method alone."""
