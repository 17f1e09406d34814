"""Cosine k-nearest-neighbour classification: no training, no choice but k.

Everything is deterministic. Neighbours are ordered by similarity, and equally similar ones by their row in the
training set. Where classes share the most votes, the one with the nearest neighbour among them wins
(scikit-learn would take the smallest class number, which favours classes early in the alphabet).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cmid.errors import UsageError

_SIMILARITIES_AT_ONCE = 2**24  # float32: 64 MB, whatever the number of images


def knn_predict(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    ks: Sequence[int],
    temperature: float | None = None,
) -> dict[int, Tensor]:
    """Class of each test image by a vote of its nearest training images.

    Args:
        train: features `(N, D)` float.
        train_labels: class numbers `(N,)` int64, from 0.
        test: features `(M, D)` float.
        ks: numbers of neighbours, each from 1 to N.
        temperature: None counts each neighbour once; otherwise it weighs exp(cosine / temperature), as Wu et al.
            (arXiv 1805.01978, section 3.4) do with 0.07.

    Returns:
        For each k the classes `(M,)` int64.

    Raises:
        UsageError: where a k is outside 1 to N, or the temperature is not positive.
    """
    if not ks or min(ks) < 1 or max(ks) > len(train):
        found = ", ".join(map(str, ks)) or "nothing"
        raise UsageError(f"k must be from 1 to the {len(train)} training images, found {found}: give others by --k.")
    if temperature is not None and temperature <= 0:
        raise UsageError(f"The temperature must be positive, not {temperature:g}.")
    # in float32 at least: the least length that `normalize` divides by is 0 in float16
    train, test = (
        functional.normalize(each.to(torch.promote_types(each.dtype, torch.float32)), dim=1) for each in (train, test)
    )
    rows = max(1, _SIMILARITIES_AT_ONCE // len(train))
    classes = int(train_labels.max()) + 1
    predicted: dict[int, list[Tensor]] = {k: [] for k in ks}
    for chunk in test.split(rows):
        similarity, index = nearest_neighbours(chunk @ train.T, max(ks))
        for k in predicted:
            predicted[k].append(_vote(similarity[:, :k], train_labels[index[:, :k]], classes, temperature))
    return {k: torch.cat(parts) for k, parts in predicted.items()}


def nearest_neighbours(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k greatest of each row of `(M, N)`, greatest first and equals by column: values and columns `(M, k)`."""
    value, column = similarity.topk(k, dim=1)
    # topk may keep any of the columns equal to the k-th: rows where that is a choice are sorted in full.
    ambiguous = (similarity >= value[:, -1:]).sum(dim=1) > k
    if ambiguous.any():
        column[ambiguous] = similarity[ambiguous].argsort(dim=1, descending=True, stable=True)[:, :k]
    column = column.sort(dim=1).values
    value, order = similarity.gather(1, column).sort(dim=1, descending=True, stable=True)
    return value, column.gather(1, order)


def _vote(similarity: Tensor, labels: Tensor, classes: int, temperature: float | None) -> Tensor:
    """Winning class `(M,)` of neighbours `(M, k)`, nearest first."""
    if temperature is None:
        weight = torch.ones_like(similarity)
    else:
        weight = ((similarity - similarity[:, :1]) / temperature).exp()  # the nearest weighs 1: no overflow
    votes = similarity.new_zeros(len(labels), classes).scatter_add_(1, labels, weight)
    leads = votes.gather(1, labels) == votes.amax(dim=1, keepdim=True)
    rank = torch.arange(labels.shape[1], device=labels.device)
    first = torch.where(leads, rank, labels.shape[1]).amin(dim=1, keepdim=True)
    return labels.gather(1, first).squeeze(1)
