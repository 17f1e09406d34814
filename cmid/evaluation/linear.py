"""Linear probe: multinomial logistic regression on standardised frozen features.

The strength of the regulariser is chosen on a validation part of the training images, the probe is then fitted
anew on all of them, and the test images are looked at once. scikit-learn's L-BFGS fits 1,680 x 2,048 features of
21 classes in about half a second on one core, as fast as torch's: there is nothing to gain from a solver of our own.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cmid.errors import UsageError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

_ITERATIONS = 2000
_TOLERANCE = 1e-6  # scikit-learn's 1e-4 stops at four times the minimum where C is 100


@dataclass(frozen=True)
class SweepPoint:
    """One inverse strength C and what it reached on the validation part."""

    regularisation: float
    validation_accuracy: float
    converged: bool


@dataclass(frozen=True)
class LinearProbe:
    """What a linear probe predicts, and how its regulariser was chosen.

    Attributes:
        predicted: classes `(M,)` int64 of the test images.
        chosen: the C used.
        sweep: every C tried; empty where there was only one.
        converged: whether the final fit did.
    """

    predicted: Tensor
    chosen: float
    sweep: tuple[SweepPoint, ...]
    converged: bool


def linear_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    regularisation: Sequence[float] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0),
    validation_share: float = 0.2,
    seed: int = 0,
) -> LinearProbe:
    """Fit on training features, choose C without the test images, predict the test images.

    Args:
        train: features `(N, D)` float.
        train_labels: class numbers `(N,)` int64.
        test: features `(M, D)` float.
        regularisation: inverse strengths C to try; of equally good ones the smallest (strongest) is taken.
        validation_share: part of each class of train held out while choosing.
        seed: fixes that part.

    Raises:
        UsageError: where train has fewer than two classes, C is not positive, or no class can spare an image.
    """
    if len(train_labels.unique()) < 2:
        raise UsageError("A linear probe needs training images of at least two classes.")
    strengths = sorted(set(regularisation))
    if not strengths or strengths[0] <= 0:
        raise UsageError(f"Inverse strengths C must be positive, not {list(regularisation)}.")
    x, y, unseen = train.double().numpy(), train_labels.numpy(), test.double().numpy()
    sweep: tuple[SweepPoint, ...] = ()
    if len(strengths) > 1:
        held_out = stratified_part(train_labels, validation_share, seed).numpy()
        sweep = tuple(_try(x[~held_out], y[~held_out], x[held_out], y[held_out], c) for c in strengths)
    chosen = max(sweep, key=lambda p: p.validation_accuracy).regularisation if sweep else strengths[0]
    probe, converged = _fit(x, y, chosen)
    return LinearProbe(torch.from_numpy(probe.predict(unseen)), chosen, sweep, converged)


def stratified_part(labels: Tensor, share: float, seed: int) -> Tensor:
    """Which of `(N,)` labels are held out, bool `(N,)`: `share` of each class, but at least 1 and never all.

    Raises:
        UsageError: where every class has a single image, or share is not inside 0 to 1.
    """
    if not 0 < share < 1:
        raise UsageError(f"The validation share must lie inside 0 to 1, not {share:g}.")
    random = np.random.default_rng(seed)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for number in labels.unique().tolist():
        members = random.permutation((labels == number).nonzero().squeeze(1).numpy())
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held_out[members[:count]] = True
    if not held_out.any():
        raise UsageError("No class has two training images, so that none can be held out to choose C: give one C.")
    return held_out


def _try(x: np.ndarray, y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray, strength: float) -> SweepPoint:
    probe, converged = _fit(x, y, strength)
    return SweepPoint(strength, float((probe.predict(held_x) == held_y).mean()), converged)


def _fit(x: np.ndarray, y: np.ndarray, strength: float) -> "tuple[Pipeline, bool]":
    from sklearn.exceptions import ConvergenceWarning  # here: it takes a second, which kNN need not wait for
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_ITERATIONS, tol=_TOLERANCE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported as `converged`
        # With one image a class, which is meant, every label is another: that is no regression.
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        probe.fit(x, y)
    return probe, bool(probe[-1].n_iter_.max() < _ITERATIONS)
