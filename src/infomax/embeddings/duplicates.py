"""Groups images whose features are nearly the same, and chooses the image of each group to keep."""

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infomax.embeddings.feature_file import FeatureTable, open_table
from infomax.embeddings.shown_images import ImageSize, ShownImages
from infomax.runtime.progress import ProgressBar
from infomax.runtime.threads import threads_within_quota

BLOCK = 2048
"""Images whose cosines to as many others are computed at a time."""
MAX_PAIRS = 4_000_000
"""Pairs that are kept at a time; many equal images have far more, which say nothing new."""


@dataclass(frozen=True)
class Duplicate:
    """A frozen dataclass that holds an image of a group of duplicates."""

    name: str
    label: str
    """The name of its class; empty without labels."""
    cosine: float
    """The cosine of its features and those of the image to keep."""
    size: ImageSize | None
    """Its size; None if the images were not looked at."""
    row: int
    """Its row in the table of features."""


@dataclass(frozen=True)
class DuplicateGroup:
    """A frozen dataclass that holds images whose features are nearly the same: each image's to those of another one.

    Images of a large group are often not alike: chains of similar pairs join them.
    """

    kept: Duplicate
    """The image to keep."""
    reason: str
    """Why this one, as ``the most pixels``."""
    others: tuple[Duplicate, ...]
    """The other ones, the most similar to it first."""


@threads_within_quota()
def duplicates(
    features: str | PathLike[str] | FeatureTable,
    *,
    above: float = 0.98,
    images: ShownImages | None = None,
    quiet: bool = True,
) -> list[DuplicateGroup]:
    """Finds groups of images whose features are nearly the same; all pairs of images are compared.

    Two images belong to one group if the cosine of their features is at least ``above``, or if a chain of such pairs
    leads from one to the other. The image to keep has the most pixels; of equal ones the largest file, and then the
    first one.

    Args:
        features: A file of features that ``infomax embed`` wrote, or its content.
        above: Smallest cosine of two images that count as the same, above 0 and at most 1.
        images: The images themselves, which tell their sizes; None takes the first image of each group.
        quiet: Show no progress bar.

    Returns:
        The groups, the largest first.

    Raises:
        ValueError: if there is no such file, or ``above`` is no such number.
    """
    if not 0 < above <= 1:
        raise ValueError(f"--above must be a cosine above 0 and at most 1, but is {above}")
    table = open_table(features)
    rows = _unit_rows(table.features)
    groups = [
        _make_group(table, rows, members, images)
        for members in _connected(_similar_pairs(rows, above, quiet), len(rows))
    ]
    return sorted(groups, key=lambda group: -len(group.others))


def _unit_rows(features: Float[np.ndarray, "n d"]) -> Float[Tensor, "n d"]:
    """Returns the rows at unit length in float32; one that is 0 or not finite becomes 0, which is like no other."""
    rows = torch.from_numpy(np.array(features, np.float32))
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    rows.div_(length.clamp_min(1e-12))
    return rows.masked_fill_(~(length.isfinite() & (length > 0)), 0.0)


def _similar_pairs(
    rows: Float[Tensor, "n d"], above: float, quiet: bool
) -> Iterator[tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]]:
    """Yields pairs of rows whose cosine is at least ``above``, the first one before the second, block by block."""
    starts = range(0, len(rows), BLOCK)
    threshold = above - 4e-7  # equal rows have a cosine that rounding leaves a little below 1
    with ProgressBar("pairs of images", len(starts) * (len(starts) + 1) // 2, unit="blocks", quiet=quiet) as bar:
        for start in starts:
            block = rows[start : start + BLOCK]
            for other in range(start, len(rows), BLOCK):
                similar = block @ rows[other : other + BLOCK].T >= threshold
                if other == start:
                    similar = similar.triu(1)
                first, second = np.nonzero(similar.numpy())
                yield first + start, second + other
                bar.update()


def _connected(
    pairs: Iterator[tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]], count: int
) -> list[Int[np.ndarray, " m"]]:
    """Returns the groups of two or more rows that chains of pairs connect, each in rising order.

    Args:
        pairs: Pairs of rows, some at a time.
        count: Number of rows.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    def components(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
        return connected_components(graph, directed=False)[1]

    kept: list[tuple[np.ndarray, np.ndarray]] = []
    number = 0
    for first, second in pairs:
        kept.append((first, second))
        number += len(first)
        if number > MAX_PAIRS:  # each row with the first one of its group says the same
            labels = components(*map(np.concatenate, zip(*kept, strict=True)))
            _, leaders, inverse = np.unique(labels, return_index=True, return_inverse=True)
            is_other = leaders[inverse] != np.arange(count)
            kept = [(leaders[inverse][is_other], np.flatnonzero(is_other))]
            number = len(kept[0][0])
    if not number:
        return []
    labels = components(*map(np.concatenate, zip(*kept, strict=True)))
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [group for group in groups if len(group) > 1]


def _make_group(
    table: FeatureTable, rows: Float[Tensor, "n d"], members: Int[np.ndarray, " m"], images: ShownImages | None
) -> DuplicateGroup:
    """Chooses the image of a group to keep, and puts the others in the order of their cosines to it."""
    sizes = [None if images is None else images.size(int(row)) for row in members]
    ranks = [(0, 0) if size is None else (size.width * size.height, size.bytes or 0) for size in sizes]
    best = max(range(len(members)), key=lambda i: (ranks[i], -i))
    reason = "it is the first one"
    if any(rank[0] < ranks[best][0] for rank in ranks):
        reason = "it has the most pixels"
    elif any(rank[1] < ranks[best][1] for rank in ranks):
        reason = "its file is the largest"
    cosines = (rows[members] @ rows[members[best]]).clamp(-1, 1).tolist()
    images_of_group = [
        Duplicate(table.names[row], table.label(row), cosine, size, row)
        for row, cosine, size in zip(members.tolist(), cosines, sizes, strict=True)
    ]
    kept = images_of_group.pop(best)
    return DuplicateGroup(kept, reason, tuple(sorted(images_of_group, key=lambda duplicate: -duplicate.cosine)))
