"""Clusters of features by k-means: lists of images, and measures of how well any clusters agree with classes."""

import warnings
from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from infomax.runtime.stages import Stage

STARTS = 10
SILHOUETTE_IMAGES = 2000
"""Images of which the silhouette is computed, as it compares each with each."""


def cluster_scores(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, clusters: int, seed: int = 0
) -> dict[str, Any]:
    """Clusters the features at unit length by k-means, the best of 10 starts, and compares the clusters with the
    classes.

    Args:
        features: Features of the images, one row each.
        labels: Their classes.
        clusters: Number of clusters.
        seed: Seed of the starts.

    Returns:
        The number of clusters, the seed, and the measures of :func:`compare`.

    Raises:
        ValueError: if there are fewer images than clusters.
    """
    if len(features) < clusters:
        raise ValueError(f"--clusters must be at most the number of test images, {len(features)}, but is {clusters}")
    assigned, _ = _k_means(F.normalize(features.float(), dim=1).numpy(), clusters, seed)
    return {"clusters": clusters, "seed": seed, **compare(assigned, labels.numpy())}


def _k_means(
    x: Float[np.ndarray, "n d"], clusters: int, seed: int
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns the cluster of each row, and its distance to the cluster's centre."""
    with Stage("importing scikit-learn", slow_only=True):
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

    k_means = KMeans(clusters, n_init=STARTS, random_state=seed)
    task = f"k-means: {STARTS} starts with {clusters} clusters of {len(x):,} images"
    with warnings.catch_warnings(), Stage(task, slow_only=True):
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct rows than clusters, which callers count
        assigned = k_means.fit_predict(x)
    return assigned, np.linalg.norm(x - k_means.cluster_centers_[assigned], axis=1)


def default_clusters(images: int) -> int:
    """Returns the number of clusters of images without labels, if none is said: the root of half their number.

    So the number of clusters and their size grow alike: 7 of 14 images for 100, 22 of 45 for 1,000, 71 of 141 for
    10,000.

    Args:
        images: The number of images, at least 2.
    """
    return max(2, round(sqrt(images / 2)))


def cluster_lists(
    features: Float[Tensor, "n d"], names: Sequence[Any], *, clusters: int, seed: int = 0
) -> dict[str, Any]:
    """Clusters the features at unit length by k-means, the best of 10 starts, and lists the images of each cluster.

    Args:
        features: Features of the images, one row each.
        names: A name or a number for each image.
        clusters: Number of clusters, at most that of the images.
        seed: Seed of the starts.

    Returns:
        ``lists``, the names of each cluster's images, the nearest to the centre first and the largest cluster first;
        ``distances``, their Euclidean distances to the centre; ``silhouette``, from -1 to 1, how much nearer an image
        is to those of its cluster than to those of the next one, on at most 2,000 images, and 0 if it is not defined;
        ``used_clusters``, the number of clusters with images; the number of clusters and the seed.
    """
    x = F.normalize(features.float(), dim=1).numpy()
    assigned, distances = _k_means(x, clusters, seed)
    sizes = np.bincount(assigned, minlength=clusters)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    members = [np.flatnonzero(assigned == cluster) for cluster in order]
    members = [index[np.argsort(distances[index], kind="stable")] for index in members]
    return {
        "metric": "silhouette",
        "silhouette": _silhouette(x, assigned),
        "clusters": clusters,
        "used_clusters": len(members),
        "seed": seed,
        "lists": tuple(tuple(names[i] for i in index) for index in members),
        "distances": tuple(tuple(float(distances[i]) for i in index) for index in members),
    }


def _silhouette(x: Float[np.ndarray, "n d"], assigned: Int[np.ndarray, " n"]) -> float:
    """Returns the mean silhouette of images at equal distances; 0 if each is alone, or all are in one cluster."""
    from sklearn.metrics import silhouette_score

    index = np.unique(np.linspace(0, len(x) - 1, min(len(x), SILHOUETTE_IMAGES)).astype(int))
    is_defined = 1 < len(np.unique(assigned[index])) < len(index)
    return float(silhouette_score(x[index], assigned[index])) if is_defined else 0.0


def compare(assigned: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> dict[str, Any]:
    """Measures how well clusters agree with classes.

    Args:
        assigned: The cluster of each image.
        labels: The class of each image.

    Returns:
        ``nmi``, their mutual information over the mean of their entropies; ``ari``, the share of pairs of images on
        which they agree, adjusted so that chance gives 0; ``accuracy``, the share of images whose cluster is matched
        with their class, under the best one-to-one matching; and ``used_clusters``, the number of clusters with images.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    table = np.zeros((assigned.max() + 1, labels.max() + 1), np.int64)
    np.add.at(table, (assigned, labels), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {
        "metric": "nmi",
        "nmi": float(normalized_mutual_info_score(labels, assigned)),
        "ari": float(adjusted_rand_score(labels, assigned)),
        "accuracy": float(table[rows, columns].sum() / len(labels)),
        "used_clusters": int((table.sum(1) > 0).sum()),
    }
