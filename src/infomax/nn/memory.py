"""Provides what a method keeps of all training images: a row for each image, and the clusters that it belongs to.

Nothing here changes within a step. The engine therefore does not copy it before each step, as it does with other
buffers: copying a row of each of a million images would take longer than many a step.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from infomax.runtime.checks import check_count
from infomax.runtime.collectives import gather

UNVISITED = -100
"""The cluster of an image of which nothing is known yet."""


class Memory(nn.Module):
    """A module whose buffers change between steps alone, never within one; they are saved with the method."""


class ImageMemory(Memory):
    """A memory with some embeddings of each training image, equal on all ranks; each bank holds one of them.

    Args:
        banks: The number of embeddings of an image.
        images: The number of images, N; 0 before it is known.
        dimension: The width of an embedding, D.

    Raises:
        ValueError: If a number is out of range.
    """

    rows: Float[Tensor, "banks n d"]
    visited: Bool[Tensor, " n"]

    def __init__(self, banks: int, images: int, dimension: int):
        super().__init__()
        check_count("banks", banks, low=1)
        check_count("images", images, low=0)
        check_count("dimension", dimension, low=1)
        self.register_buffer("rows", torch.zeros(banks, images, dimension))
        self.register_buffer("visited", torch.zeros(images, dtype=torch.bool))

    @torch.no_grad()
    def store(self, positions: Int[Tensor, " b"], embeddings: list[Tensor]) -> None:
        """Replaces the rows of some images.

        Args:
            positions: The positions in the data set of the global batch's images, [B], each of them once.
            embeddings: Their embeddings, [B, D], one tensor a bank.
        """
        for bank, rows in zip(self.rows, embeddings, strict=True):
            bank.index_copy_(0, positions, rows.to(bank.dtype))
        self.visited.index_fill_(0, positions, True)

    def store_batch(self, positions: Int[Tensor, " b"], embeddings: list[Tensor]) -> None:
        """Replaces the rows of the global batch's images; each rank passes its own images to :meth:`store`."""
        self.store(gather(positions)[0], list(gather(torch.stack(embeddings, 1))[0].unbind(1)))


class Clusters(Memory):
    """A memory with one clustering of the training images, equal on all ranks.

    Args:
        count: The number of clusters, K.
        images: The number of images, N; 0 before it is known.
        dimension: The width of a centroid, D.

    Raises:
        ValueError: If a number is out of range.
    """

    centroids: Float[Tensor, "k d"]
    assignment: Int[Tensor, " n"]

    def __init__(self, count: int, images: int, dimension: int):
        super().__init__()
        check_count("clusters", count, low=1)
        check_count("images", images, low=0)
        check_count("dimension", dimension, low=1)
        self.register_buffer("centroids", torch.zeros(count, dimension))
        self.register_buffer("assignment", torch.full((images,), UNVISITED))

    def clear(self) -> None:
        """Forgets which images belong to which cluster."""
        self.assignment.fill_(UNVISITED)

    @torch.no_grad()
    def replace(self, centroids: Tensor, positions: Tensor, assignment: Tensor) -> None:
        """Replaces the clustering.

        Args:
            centroids: The new centroids, [K, D].
            positions: The positions in the data set of the images that belong to a cluster, [n].
            assignment: Their clusters, [n].
        """
        self.centroids.copy_(centroids)
        self.clear()
        self.assignment.index_copy_(0, positions, assignment)


def buffers_within_steps(module: nn.Module) -> list[Tensor]:
    """Returns the buffers that a step may change: all but those of a :class:`Memory`."""

    def of(part: nn.Module) -> Iterator[Tensor]:
        if not isinstance(part, Memory):
            yield from part.buffers(recurse=False)
            for child in part.children():
                yield from of(child)

    return list({id(buffer): buffer for buffer in of(module)}.values())
