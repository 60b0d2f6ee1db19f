"""Groups images by k-means on their features."""

from collections import Counter
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch

from infomax.embeddings.feature_file import FeatureTable, open_table
from infomax.evaluation.clusters import cluster_lists, default_clusters
from infomax.runtime.checks import check_count
from infomax.runtime.threads import threads_within_quota


@dataclass(frozen=True)
class ClusterMember:
    """A frozen dataclass that holds an image of a cluster."""

    name: str
    label: str
    """The name of its class; empty without labels."""
    distance: float
    """Euclidean distance of its features, at unit length, to the cluster's centre."""
    row: int
    """Its row in the table of features."""


@dataclass(frozen=True)
class Cluster:
    """A frozen dataclass that holds the images of a cluster, the nearest to its centre first."""

    members: tuple[ClusterMember, ...]

    def describe_labels(self) -> str:
        """Returns the cluster's most frequent class and its share, as ``dress 84%``; empty without labels."""
        labels = [member.label for member in self.members if member.label]
        if not labels:
            return ""
        counts = Counter(labels)
        most = max(sorted(counts), key=counts.__getitem__)
        return f"{most} {counts[most] / len(self.members):.0%}"


@threads_within_quota()
def clusters(
    features: str | PathLike[str] | FeatureTable, *, k: int | None = None, seed: int = 0
) -> tuple[list[Cluster], float]:
    """Groups images by k-means on their features at unit length, the best of ten starts; labels are not used.

    Args:
        features: A file of features that ``infomax embed`` wrote, or its content.
        k: Number of clusters. Default: the root of half the number of images.
        seed: Seed of the starts.

    Returns:
        The clusters that have images, the largest first; and their silhouette, from -1 to 1: by how much an image is
        nearer to those of its own cluster than to those of the next one.

    Raises:
        ValueError: if there is no such file, there are fewer than two images, or fewer images than clusters.
    """
    table = open_table(features)
    count = len(table.names)
    if count < 2:
        raise ValueError(f"there are {count} features, and clusters are made of at least 2 images")
    if k is not None:
        check_count("--k", k, low=1)
    wanted = default_clusters(count) if k is None else k
    if wanted > count:
        raise ValueError(f"--k must be at most the number of images, {count}, but is {wanted}")
    rows = torch.from_numpy(np.array(table.features, np.float32))
    if not rows.isfinite().all():
        raise ValueError("some features are infinite or NaN, which k-means cannot group")
    fields = cluster_lists(rows, range(count), clusters=wanted, seed=seed)
    groups = [
        Cluster(
            tuple(
                ClusterMember(table.names[row], table.label(row), distance, row)
                for row, distance in zip(rows_of_cluster, distances, strict=True)
            )
        )
        for rows_of_cluster, distances in zip(fields["lists"], fields["distances"], strict=True)
    ]
    return groups, fields["silhouette"]
