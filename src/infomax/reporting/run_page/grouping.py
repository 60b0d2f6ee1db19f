"""Groups images by the prototypes of the method that trained their encoder, and by k-means on their features."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from infomax.evaluation.clusters import cluster_lists, default_clusters
from infomax.methods.base import Method

MOST_CLUSTERED = 5_000
"""Images that k-means is fitted to; the others are put to the nearest centre."""
BLOCK = 8192  # rows that pass a network at once


@dataclass(frozen=True)
class Groups:
    """A frozen dataclass that holds the group of each image."""

    kind: str
    """What a group is: ``prototype`` or ``cluster``."""
    count: int
    """Number of groups, also of those without images."""
    assigned: Int[np.ndarray, " n"]
    """The group of each image, from 0."""
    closeness: Float[np.ndarray, " n"]
    """A number that is larger for an image nearer to the middle of its group."""
    words: str
    """Says how the groups were made."""

    @property
    def sizes(self) -> Int[np.ndarray, " count"]:
        """The number of images of each group."""
        return np.bincount(self.assigned, minlength=self.count)

    def members(self, group: int) -> list[int]:
        """Returns the images of a group, those in its middle first."""
        index = np.flatnonzero(self.assigned == group)
        return index[np.argsort(-self.closeness[index], kind="stable")].tolist()


@torch.no_grad()
def by_prototypes(method: Method, features: Float[Tensor, "n d"]) -> Groups | None:
    """Groups images by the prototype with the highest probability; None if the method has no prototypes.

    Args:
        method: The method as it was trained.
        features: Features of ``method.eval_encoder``.
    """
    dtype, parts = next(method.parameters()).dtype, []
    for part in features.split(BLOCK):
        logits = method.cluster_logits(part.to(dtype))
        if logits is None:
            return None
        parts.append(logits.float())
    logits = torch.cat(parts)
    closeness, assigned = logits.softmax(1).max(1)
    words = "Each image belongs to the prototype with the highest probability, as the trained networks assign it."
    return Groups("prototype", logits.shape[1], assigned.numpy(), closeness.numpy(), words)


def by_k_means(features: Float[Tensor, "n d"], seed: int) -> Groups:
    """Groups images by k-means on a sample of their features at unit length; the others join the nearest centre.

    Args:
        features: One row an image, at least two.
        seed: Seed of the sample and of the starts.
    """
    rows = F.normalize(features, dim=1)
    index = np.arange(len(rows))
    if len(rows) > MOST_CLUSTERED:
        index = np.sort(np.random.default_rng(seed).choice(len(rows), MOST_CLUSTERED, replace=False))
    count = default_clusters(len(index))
    lists = cluster_lists(rows[index], range(len(index)), clusters=count, seed=seed)["lists"]
    centres = torch.stack([rows[index[list(members)]].mean(0) for members in lists])
    half_squares = centres.square().sum(1) / 2
    scores = torch.cat([part @ centres.T - half_squares for part in rows.split(BLOCK)])
    closeness, assigned = scores.max(1)
    sample = "" if len(index) == len(rows) else f", fitted to {len(index):,} of them drawn with seed {seed}"
    words = f"k-means on features at unit length makes {count} clusters{sample}: the root of half the number of images."
    return Groups("cluster", count, assigned.numpy(), closeness.numpy(), words)
