"""Clusters beside classes: k-means on features, and whatever other assignment of images to clusters there is."""

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
    """k-means on the features at unit length, the best of 10 starts, against the classes; see :func:`compare`."""
    from sklearn.cluster import KMeans  # seconds to import

    if len(features) < clusters:
        raise ValueError(f"--clusters must be at most the number of test images, {len(features)}, but is {clusters}")
    x = F.normalize(features.float(), dim=1).numpy()
    found = KMeans(clusters, n_init=STARTS, random_state=seed).fit_predict(x)
    return {"clusters": clusters, "seed": seed, **compare(found, labels.numpy())}


def compare(found: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> dict[str, Any]:
    """How well clusters agree with classes.

    ``nmi`` is their mutual information over the mean of their entropies; ``ari`` the share of pairs of images on which
    they agree, adjusted so that chance gives 0; ``accuracy`` the share of images whose cluster is matched with their
    class, under the best one-to-one matching.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    table = np.zeros((found.max() + 1, labels.max() + 1), np.int64)
    np.add.at(table, (found, labels), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {
        "metric": "nmi",
        "nmi": float(normalized_mutual_info_score(labels, found)),
        "ari": float(adjusted_rand_score(labels, found)),
        "accuracy": float(table[rows, columns].sum() / len(labels)),
        "used_clusters": int((table.sum(1) > 0).sum()),
    }
