"""What features say about images: neighbours, similarity, colours, places on a plane. All deterministic."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cmid.errors import UsageError

FEW = 4  # below so many images a t-SNE or UMAP map has nothing to arrange
ONE_POINT = 1e-6
"""Deviation along the widest axis, of vectors of length one, that is rounding."""


def unit(features: NDArray, axis: int = -1) -> NDArray[np.float64]:
    """`features` scaled to length one along `axis`; zero vectors stay zero, and what is not finite counts as zero."""
    features = np.nan_to_num(features.astype(np.float64), posinf=0.0, neginf=0.0)
    return features / np.maximum(np.linalg.norm(features, axis=axis, keepdims=True), 1e-12)


def nearest(queries: NDArray, gallery: NDArray, count: int, own: NDArray | None = None) -> tuple[NDArray, NDArray]:
    """The `count` images of the gallery nearest to each query by cosine distance.

    Args:
        queries: `(Q, C)` float.
        gallery: `(N, C)` float.
        count: neighbours; fewer come back where the gallery is smaller.
        own: `(Q,)` int, each query's own place in the gallery, left out of its neighbours; -1 where it has none.

    Returns:
        `(Q, count)` int64 places in the gallery and `(Q, count)` float distances 1 - cosine (0 to 2), ascending;
        ties in gallery order.
    """
    distance = 1 - unit(queries) @ unit(gallery).T
    if own is not None:
        with_own = np.flatnonzero(own >= 0)
        distance[with_own, own[with_own]] = np.inf
        count = min(count, gallery.shape[0] - (1 if len(with_own) else 0))
    order = np.argsort(distance, axis=1, kind="stable")[:, :count]
    return order, np.clip(np.take_along_axis(distance, order, 1), 0, 2)


def similarity(point: NDArray, features: NDArray) -> NDArray[np.float64]:
    """Cosine of one feature vector `(C,)` with each position of a map `(C, h, w)`: `(h, w)` in -1..1."""
    return np.einsum("c,chw->hw", unit(point), unit(features, axis=0))


def principal_colours(maps: NDArray) -> NDArray[np.uint8]:
    """The first three principal components of dense features as red, green and blue.

    Fitted over the positions of all images at once, so that a colour means the same in each; positions are
    scaled to length one first, and each component is stretched between its 2nd and 98th percentile, so that
    neither the features' scale nor a few extreme positions decide the colours.

    Args:
        maps: `(N, C, h, w)` float.

    Returns:
        `(N, h, w, 3)` uint8.
    """
    n, channels, height, width = maps.shape
    rows = unit(np.moveaxis(maps, 1, -1).reshape(-1, channels))
    components = _components(rows, 3, "randomized")
    low, high = np.percentile(components, (2, 98), axis=0)
    span = high - low
    scaled = np.where(span > 1e-9, (components - low) / np.maximum(span, 1e-9), 0.5)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8).reshape(n, height, width, 3)


def _components(rows: NDArray, count: int, solver: Literal["full", "randomized"]) -> NDArray[np.float64]:
    """The first `count` principal components of `rows` `(N, C)`; zeros where there are not so many."""
    from sklearn.decomposition import PCA  # here: it takes a second, which a run should not begin with

    kept = min(count, *rows.shape)
    if not np.ptp(rows, axis=0).any():  # one point: scikit-learn would divide by its variance of zero
        return np.zeros((len(rows), count))
    found = PCA(kept, svd_solver=solver, random_state=0).fit_transform(rows)
    return np.pad(found, ((0, 0), (0, count - kept)))


def project(features: NDArray, method: Literal["pca", "tsne", "umap"], seed: int) -> NDArray[np.float64]:
    """Features as points on a plane, near where they are alike.

    Args:
        features: `(N, C)` float; compared by cosine.
        method: PCA, t-SNE (scikit-learn) or UMAP (umap-learn, an extra).
        seed: fixes the map.

    Returns:
        `(N, 2)` float, each axis in 0..1. Fewer than 4 images are placed by PCA whatever the method, and so are
        features that are one point, as after a collapse.

    Raises:
        UsageError: where UMAP is asked for and not installed.
    """
    rows = unit(features)
    if method == "umap":
        try:
            from umap import UMAP
        except ImportError as error:
            raise UsageError(
                "projection umap needs umap-learn, which is not installed: "
                "pip install 'cmid[umap]', or choose projection tsne or pca"
            ) from error
    n, placed = len(rows), _components(rows, 2, "full")
    spread = placed[:, 0].std()
    if spread < ONE_POINT:  # scikit-learn divides by it, and on what comes out its t-SNE ends the process
        placed = np.zeros_like(placed)
    elif method == "tsne" and n >= FEW:
        from sklearn.manifold import TSNE

        start = (placed / spread * 1e-4).astype(np.float32)
        placed = TSNE(
            2, perplexity=min(30.0, (n - 1) / 3), init=start, metric="cosine", random_state=seed, n_jobs=1
        ).fit_transform(rows)
    elif method == "umap" and n >= FEW:
        neighbours = min(15, n - 1)
        begin = "spectral" if n > neighbours + 2 else "random"
        placed = UMAP(n_neighbors=neighbours, metric="cosine", init=begin, random_state=seed, n_jobs=1).fit_transform(
            rows
        )
    placed = placed.astype(np.float64)
    low, high = placed.min(0), placed.max(0)
    return np.where(high > low, (placed - low) / np.maximum(high - low, 1e-12), 0.5)
