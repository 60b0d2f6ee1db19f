"""Provides k-means over the rows of all ranks, with the same result each time."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.functional import full_precision
from infomax.nn.blocks import l2_normalize
from infomax.runtime.collectives import global_sum

BLOCK = 2**24  # scores that are in memory at once


@torch.no_grad()
@full_precision
def kmeans(
    rows: Float[Tensor, "n d"], centroids: Float[Tensor, "k d"], iterations: int, *, spherical: bool
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " n"]]:
    """Assigns each row to its nearest centroid and moves each centroid to the mean of its rows, in turn.

    A centroid without rows stays where it is. Of equally near centroids the first one is taken. Sums are products with
    matrices of zeros and ones, as a GPU adds rows by their indices in an order of its own. Checks nothing.

    Args:
        rows: This rank's rows, [n, D]; there may be none.
        centroids: The centroids to start from, [K, D], the same on all ranks.
        iterations: The number of times that the centroids move.
        spherical: Whether near means a large dot product instead of a small distance, and centroids get unit norm.

    Returns:
        The centroids, and at last the nearest of them for each of this rank's rows, [n].
    """
    for _ in range(iterations):
        sums = centroids.new_zeros(len(centroids), centroids.shape[1] + 1)
        for block, nearest in _blocks(rows, centroids, spherical):
            members = torch.zeros(len(block), len(centroids), dtype=rows.dtype, device=rows.device)
            members.scatter_(1, nearest.unsqueeze(1), 1)
            sums += members.T @ torch.cat([block, block.new_ones(len(block), 1)], dim=1)
        sums = global_sum(sums)
        totals, counts = sums[:, :-1], sums[:, -1:]
        centroids = torch.where(counts > 0, totals / counts.clamp_min(1), centroids)
        if spherical:
            centroids = l2_normalize(centroids)
    return centroids, torch.cat([nearest for _, nearest in _blocks(rows, centroids, spherical)])


def _blocks(rows: Tensor, centroids: Tensor, spherical: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields blocks of rows, and the nearest centroid of each row."""
    offset = 0 if spherical else centroids.square().sum(1) / 2
    for block in rows.split(BLOCK // len(centroids) + 1):
        yield block, (block @ centroids.T - offset).argmax(1)
