"""Provides queues of the embeddings of earlier batches, which several methods compare with."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.functional import check_precision, check_rows, full_precision
from infomax.nn.blocks import l2_normalize
from infomax.nn.memory import Memory
from infomax.runtime.checks import check_count
from infomax.runtime.collectives import gather


@torch.no_grad()
def enqueue(
    queue: Float[Tensor, "k d"], keys: Float[Tensor, "n d"], *, position: int
) -> tuple[Float[Tensor, "k d"], int]:
    """Replaces the oldest rows of a queue by keys: row ``(position + i) mod K`` becomes key i.

    Of more keys than the queue has rows, the last ones stay. A batch that passes the end of the queue goes on at its
    start; lightly's memory bank cuts such a batch (docs/decisions.md, queues).

    Args:
        queue: The queue, [K, D]; it is not changed.
        keys: The keys of the global batch in rank order, [n, D]; they are stored as they are.
        position: The row that the first key replaces.

    Returns:
        The new queue, [K, D], and the position for the next keys.

    Raises:
        ValueError: If a matrix is not finite, their widths differ, or the position is no row of the queue.

    Example:
        >>> import torch
        >>> from infomax.methods.moco import enqueue
        >>> queue, position = enqueue(torch.zeros(3, 1), torch.tensor([[1.0], [2.0]]), position=2)
        >>> queue.flatten(), position
        (tensor([2., 0., 1.]), 1)
    """
    check_rows("keys", keys)
    check_queue(queue, keys, are_stored=True)
    check_count("position", position, low=0)
    if position >= len(queue):
        raise ValueError(f"position must be below the queue's {len(queue)} rows, but is {position}")
    updated = queue.clone()
    _replace(updated, keys, position)
    return updated, (position + len(keys)) % len(queue)


def check_queue(queue: Tensor, rows: Tensor, *, are_stored: bool = False) -> None:
    """Checks that a queue is a finite matrix whose rows are as wide as others, and of float64 if these are.

    Args:
        queue: The queue, [K, D].
        rows: What is compared with it or put into it, [B, D].
        are_stored: Whether the rows are put into it, which converts them to its type.

    Raises:
        ValueError: If it is something else.
    """
    check_rows("queue", queue)
    if queue.shape[1] != rows.shape[1]:
        raise ValueError(f"queue must be as wide as what it is for, {rows.shape[1]}, but has {queue.shape[1]} columns")
    if not are_stored:
        check_precision("queue", queue, rows)


def _replace(queue: Tensor, keys: Tensor, position: int | Tensor) -> None:
    """Writes keys into a queue, in place."""
    kept = keys[-len(queue) :]  # the last ones, of more keys than rows
    rows = (position + torch.arange(len(keys) - len(kept), len(keys), device=queue.device)) % len(queue)
    queue.index_copy_(0, rows, kept.to(queue.dtype))


class Queue(nn.Module):
    """The embeddings of the last images, in buffers that are saved with the method and are equal on all ranks.

    It starts with random rows of unit norm, as MoCo's does.

    Args:
        size: The number of rows, K.
        dimension: The width of an embedding, D.

    Raises:
        ValueError: If a number is below 1.
    """

    rows: Tensor
    position: Tensor

    def __init__(self, size: int, dimension: int):
        super().__init__()
        check_count("size", size, low=1)
        check_count("dimension", dimension, low=1)
        self.register_buffer("rows", F.normalize(torch.randn(size, dimension)))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def before_step(self) -> Tensor:
        """Returns a copy of the rows, whose graph outlives that this step's keys replace some of them."""
        return self.rows.clone()

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replaces the oldest rows by those of the global batch.

        Args:
            keys: This rank's rows, [n, D].
        """
        keys, _ = gather(keys)
        _replace(self.rows, keys, self.position)
        self.position.copy_((self.position + len(keys)) % len(self.rows))


class ImageQueue(Memory):
    """The embeddings of the last images with the positions of these images, in which another image's is looked for.

    It changes between steps alone. Until it is full, no image has a neighbour in it.

    Args:
        size: The number of rows, K.
        dimension: The width of an embedding, D.

    Raises:
        ValueError: If a number is below 1.
    """

    rows: Tensor
    images: Tensor
    count: Tensor

    def __init__(self, size: int, dimension: int):
        super().__init__()
        check_count("size", size, low=1)
        check_count("dimension", dimension, low=1)
        self.register_buffer("rows", torch.zeros(size, dimension))
        self.register_buffer("images", torch.full((size,), -1))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def neighbours(self, z: Float[Tensor, "b d"], positions: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Returns the row of another image with the largest cosine to each embedding; of equal ones, the first.

        Args:
            z: Embeddings, [B, D].
            positions: The positions of their images in the data set, [B].

        Returns:
            The rows, held constant; the embeddings themselves until the queue is full.
        """
        is_full, nearest = self.count >= len(self.rows), self._nearest(z.to(self.rows.device), positions)
        return torch.where(is_full.to(z.device), nearest.to(z), z)

    @torch.no_grad()
    @full_precision
    def _nearest(self, z: Tensor, positions: Tensor) -> Tensor:
        cosines = l2_normalize(z) @ self.rows.T
        return self.rows[cosines.masked_fill(positions[:, None] == self.images, -torch.inf).argmax(1)]

    @torch.no_grad()
    def enqueue(self, rows: Tensor, positions: Tensor) -> None:
        """Replaces the oldest rows by those of the global batch.

        Args:
            rows: This rank's embeddings of unit norm, [n, D].
            positions: The positions of their images in the data set, [n].
        """
        rows, positions = gather(rows)[0], gather(positions)[0]
        _replace(self.rows, rows, self.count % len(self.rows))
        _replace(self.images, positions, self.count % len(self.rows))
        self.count.add_(len(rows))
