"""Probes that the trainer calls while pre-training.

A probe has `name`, `every_epochs`, and `__call__(learner, device) -> {name: number}`. It is handed callables that
give fresh batches, since this room does not load images: each yields normalised images `(B, C, H, W)` float and
labels `(B,)`, the same ones in the same order at every call.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

import torch

from cmid.contracts import Learner
from cmid.evaluation.accuracy import overall_accuracy
from cmid.evaluation.features import Batch, extract_features
from cmid.evaluation.knn import knn_predict
from cmid.evaluation.spread import effective_rank, feature_std

Batches: TypeAlias = Callable[[], Iterable[Batch]]


class OnlineKnn:
    """Accuracy of cosine kNN in percent: `knn_top1`, and `knn_top1_teacher` where the learner exports a teacher.

    k is lowered to the number of neighbours there are.
    """

    name = "knn"

    def __init__(
        self,
        neighbours: Batches,
        queries: Batches,
        *,
        k: int = 5,
        every_epochs: int = 1,
        precision: Literal["32", "bf16", "16"] = "32",
    ) -> None:
        self.neighbours = neighbours
        self.queries = queries
        self.k = k
        self.every_epochs = every_epochs
        self.precision = precision

    def __call__(self, learner: Learner, device: torch.device | str) -> dict[str, float]:
        """Percent of the query images whose class the vote of their neighbours names."""
        scores = {}
        for which, backbone in learner.exported_backbones().items():
            train, train_labels = extract_features(backbone, self.neighbours(), device, self.precision)
            test, labels = extract_features(backbone, self.queries(), device, self.precision)
            k = min(self.k, len(train))
            predicted = knn_predict(train, train_labels, test, [k])[k]
            suffix = "" if backbone is learner.backbone else f"_{which}"
            scores[f"knn_top1{suffix}"] = 100 * overall_accuracy(predicted, labels)
        return scores


class FeatureSpread:
    """Whether features collapse: `feature_std` and `effective_rank` of the first `limit` images of `batches`."""

    name = "spread"

    def __init__(
        self,
        batches: Batches,
        *,
        limit: int = 512,
        every_epochs: int = 1,
        precision: Literal["32", "bf16", "16"] = "32",
    ) -> None:
        self.batches = batches
        self.limit = limit
        self.every_epochs = every_epochs
        self.precision = precision

    def __call__(self, learner: Learner, device: torch.device | str) -> dict[str, float]:
        """The spread of `learner.backbone`; see `cmid.evaluation.spread` for what is good."""
        features, _ = extract_features(learner.backbone, self._first(), device, self.precision)
        return {"feature_std": feature_std(features), "effective_rank": effective_rank(features)}

    def _first(self) -> Iterator[Batch]:
        left = self.limit
        for images, labels in self.batches():
            yield images[:left], labels[:left]
            left -= len(images)
            if left <= 0:
                return
