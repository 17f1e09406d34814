"""Percentile bootstrap over test images of a figure that is made of all their pixels together."""

import numpy as np

from cmid.errors import UsageError
from cmid.evaluation.bootstrap import Interval
from cmid.evaluation.segmentation import Protocol


def mean_iou_interval(
    counts: np.ndarray, protocol: Protocol, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """mIoU, 0 to 1, of the images' pixels together, and its interval over the draw of the images.

    Args:
        counts: `(N, K, K)` integer, the confusion matrix of each image, rows are the truth.
        protocol: which pixels and classes count.
        resamples: images are drawn with replacement so often.
        seed: of the draws.
        level: share of the resamples that the interval holds.

    Raises:
        UsageError: no images.
    """
    if not len(counts):
        raise UsageError("an interval over images needs images; found none")
    draws = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=resamples)
    times = np.concatenate((np.ones((1, len(counts))), draws))
    together = (times @ counts.reshape(len(counts), -1).astype(float)).reshape(-1, *counts.shape[1:])
    value, *found = _mean_iou(together, protocol).tolist()
    low, high = np.nanquantile(found, ((1 - level) / 2, (1 + level) / 2))
    return Interval(value, float(low), float(high), level)


def _mean_iou(counts: np.ndarray, protocol: Protocol) -> np.ndarray:
    """`(R,)` of `(R, K, K)`; a class that neither occurs nor is predicted is left out of the mean."""
    counts[:, list(protocol.unlabelled)] = 0
    right = np.diagonal(counts, axis1=1, axis2=2)
    union = counts.sum(2) + counts.sum(1) - right
    with np.errstate(invalid="ignore"):
        iou = right / union
    chosen = range(counts.shape[1]) if protocol.means_over is None else protocol.means_over
    return np.nanmean(iou[:, list(chosen)], axis=1)
