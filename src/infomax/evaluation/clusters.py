"""Clusters beside classes: k-means on features, and measures of how well any clusters agree with classes."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

STARTS = 10


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
    from sklearn.cluster import KMeans  # seconds to import

    if len(features) < clusters:
        raise ValueError(f"--clusters must be at most the number of test images, {len(features)}, but is {clusters}")
    x = F.normalize(features.float(), dim=1).numpy()
    assigned = KMeans(clusters, n_init=STARTS, random_state=seed).fit_predict(x)
    return {"clusters": clusters, "seed": seed, **compare(assigned, labels.numpy())}


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
