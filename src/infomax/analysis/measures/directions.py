"""Measures how the directions of the rows lie: their spread, cosines, alignment, uniformity and near-duplicates."""

from collections.abc import Iterator
from functools import partial
from math import ceil, log, sqrt

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from infomax.analysis.rows import THRESHOLD_ROUNDING, Rows, as_rows
from infomax.runtime.checks import check_number

BLOCK_ENTRIES = 2**21
"""The number of entries of a block of cosines, 16 MB."""


def feature_std(z: Float[Tensor, "n d"] | Rows) -> float:
    """Computes the mean over columns of the standard deviation of the unit rows, normalised by the number of rows.

    Source: Chen and He, "Exploring Simple Siamese Representation Learning" (SimSiam), 2020, section 4.1.

    Args:
        z: The samples, [N, D], or their rows.

    Returns:
        The deviation, from 0 of one direction to 1/sqrt(D).

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import feature_std
        >>> round(feature_std(torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 4)  # 1 / sqrt(2)
        0.7071
    """
    return float(as_rows(z).unit.std(0, correction=0).mean())


def collapse_level(z: Float[Tensor, "n d"] | Rows) -> float:
    """Computes how near the unit rows are to one point: ``max(0, 1 - sqrt(D) feature_std)``.

    Args:
        z: The samples, [N, D], or their rows.

    Returns:
        The level, from 0 of rows that spread evenly to 1 of a point. Untrained features may have 0.5.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import collapse_level
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> round(collapse_level(z), 4), round(collapse_level(z + 10), 4)
        (0.0, 0.9499)
    """
    rows = as_rows(z)
    return max(0.0, 1 - sqrt(rows.width) * feature_std(rows))


def mean_cosine(z: Float[Tensor, "n d"] | Rows) -> float:
    """Computes the mean cosine between different rows: the mean over i != j of ``u_i . u_j``.

    Args:
        z: The samples, [N, D] with N >= 2 over all ranks, or their rows.

    Returns:
        The mean, from -1/(N - 1) of rows that spread evenly to 1 of a point. A row of zeros has the cosine 0 to each.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 2 rows.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import mean_cosine
        >>> round(mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 3.0], [1.0, 1.0]])), 4)  # (0 + 2 sqrt(1/2)) / 3
        0.4714
    """
    unit = as_rows(z, min_rows=2).unit
    n, total = len(unit), unit.sum(0)
    return float((total @ total - (unit**2).sum()) / (n * (n - 1)))


def self_clustering(z: Float[Tensor, "n d"] | Rows) -> float:
    """Computes how much more the unit rows cluster than random ones would.

    ``(D |U U'|_F^2 - N (D + N - 1)) / ((D - 1) (N - 1) N)`` with the unit rows U.

    Source: Tsitsulin et al., "Unsupervised Embedding Quality Evaluation", 2023.

    Args:
        z: The samples, [N, D] with N >= 2 over all ranks, or their rows.

    Returns:
        The measure: about 0 of random directions, 1 of a point; 1 if D is 1, where all directions are on a line.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 2 rows.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import self_clustering
        >>> round(self_clustering(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])), 4)  # (2 x 5 - 3 x 4) / 6
        -0.3333
        >>> round(self_clustering(torch.ones(5, 3)), 4)
        1.0
    """
    unit = as_rows(z, min_rows=2).unit
    n, d = unit.shape
    if d == 1:
        return 1.0
    shorter = unit if n <= d else unit.T  # both have products of the same norm
    total = sum(float(((block @ shorter.T) ** 2).sum()) for block in _row_blocks(shorter))
    return (d * total - n * (d + n - 1)) / ((d - 1) * (n - 1) * n)


def alignment(z1: Float[Tensor, "n d"] | Rows, z2: Float[Tensor, "n d"] | Rows, *, power: float = 2) -> float:
    """Computes the mean distance between two views of each image: the mean of ``|u1 - u2|^power``.

    Source: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", 2020.

    Args:
        z1: The samples of the first view, [N, D], or their rows.
        z2: The samples of the second view, [N, D], row by row those that belong to ``z1``, or their rows.
        power: The power of the distance, above 0.

    Returns:
        The mean, from 0 of equal directions to 2^power of opposite ones.

    Raises:
        ValueError: If ``z1`` or ``z2`` is not a finite floating-point matrix with at least 1 row, if their shapes
            differ, or if ``power`` is not above 0.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import alignment
        >>> z1, z2 = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [2.0, 0.0]])
        >>> round(alignment(z1, z2), 4)  # (0 + 2) / 2
        1.0
    """
    first = as_rows(z1, name="z1", check=partial(check_number, "power", power, low=0, open_low=True))
    second = as_rows(z2, name="z2")
    if (first.counts, first.width) != (second.counts, second.width):
        shapes = [list(rows.values.shape) for rows in (first, second)]
        raise ValueError(f"z2 must have the shape of z1 on each rank, but they have {shapes[1]} and {shapes[0]}")
    return float(((first.unit - second.unit).norm(dim=1) ** power).mean())


def uniformity(z: Float[Tensor, "n d"] | Rows, *, temperature: float = 2.0) -> float:
    """Computes how evenly the unit rows cover the sphere: ``log mean_{i<j} exp(-temperature |u_i - u_j|^2)``.

    Source: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", 2020.

    Args:
        z: The samples, [N, D] with N >= 2 over all ranks, or their rows.
        temperature: The factor of the squared distance, above 0.

    Returns:
        The logarithm: 0 of a point, about -2 ``temperature`` of directions that spread evenly in many dimensions.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 2 rows, or ``temperature`` is not above
            0.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import uniformity
        >>> round(uniformity(torch.tensor([[1.0, 0.0], [0.0, 7.0]])), 4)  # one pair, of squared distance 2
        -4.0
    """
    unit = as_rows(z, min_rows=2, check=partial(check_number, "temperature", temperature, low=0, open_low=True)).unit
    n, squares = len(unit), (unit**2).sum(1)
    logs = torch.empty_like(squares)  # small tensors that outlived each block would keep memory in pieces
    for rows, products in _products_with_others(unit):
        distances = products.mul_(-2).add_(squares).add_(squares[rows, None]).clamp_(min=0)
        logs[rows] = distances.mul_(-temperature).logsumexp(1)
    return float(logs.logsumexp(0)) - log(n * (n - 1))


def near_duplicate_share(z: Float[Tensor, "n d"] | Rows, *, cosine: float = 0.99) -> float:
    """Computes the share of rows that have another row with at least this cosine, up to 1e-12.

    Args:
        z: The samples, [N, D] with N >= 2 over all ranks, or their rows.
        cosine: The least cosine of near-duplicates, in [-1, 1].

    Returns:
        The share, from 0 to 1. A row of zeros has the cosine 0 to each.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 2 rows, or ``cosine`` is out of range.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import near_duplicate_share
        >>> near_duplicate_share(torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [-1.0, 0.0]]))
        0.5
    """
    unit = as_rows(z, min_rows=2, check=partial(check_number, "cosine", cosine, low=-1, high=1, open_high=False)).unit
    largest = (products.amax(1) for _, products in _products_with_others(unit))
    count = sum(int((block >= cosine - THRESHOLD_ROUNDING).sum()) for block in largest)
    return count / len(unit)


def _row_blocks(x: Tensor) -> tuple[Tensor, ...]:
    """Returns blocks of rows whose products with all rows fit the memory."""
    return x.split(ceil(BLOCK_ENTRIES / len(x)))


def _products_with_others(x: Float64[Tensor, "n d"]) -> Iterator[tuple[slice, Float64[Tensor, "b n"]]]:
    """Yields the products of all rows with a block of them, and where that is; a row has -inf with itself."""
    start = 0
    for block in _row_blocks(x):
        rows = slice(start, start + len(block))
        products = block @ x.T
        products[:, rows].fill_diagonal_(-torch.inf)
        yield rows, products
        start = rows.stop
