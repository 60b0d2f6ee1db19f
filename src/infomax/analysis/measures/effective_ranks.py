"""Measures how many directions the rows use: RankMe, and ranks and dimensions of the centred rows."""

from functools import partial
from math import exp

from jaxtyping import Float
from torch import Tensor

from infomax.analysis.measures.entropy import divide_by_sum, entropy
from infomax.analysis.rows import THRESHOLD_ROUNDING, Rows, as_rows
from infomax.runtime.checks import check_number


def rankme(z: Float[Tensor, "n d"] | Rows, *, epsilon: float = 1e-7) -> float:
    """Computes RankMe: the exponential of the entropy of the singular values of the rows, which are not centred.

    ``exp(-sum_k p_k log p_k)`` with ``p_k = sigma_k / sum sigma + epsilon`` for the min(N, D) singular values; p is not
    normalised again. It depends on N, and a mean of the rows lowers it: compare values of equally many rows of one
    method alone.

    Source: Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations
    by Their Rank", 2023, Eqs. 1 and 2.

    Args:
        z: The samples, [N, D], or their rows; RankMe is defined on embeddings.
        epsilon: The number, not negative, that is added to each share.

    Returns:
        The rank, from 1 to min(N, D). If all rows are 0, each share is ``epsilon``, and the value is near 1.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row, or ``epsilon`` is negative.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import rankme
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> round(rankme(z), 4), round(rankme(z + 10), 4)  # the mean counts
        (2.0, 1.2108)
    """
    rows = as_rows(z, check=partial(check_number, "epsilon", epsilon, low=0))
    return exp(entropy(divide_by_sum(rows.singular_values) + epsilon))


def effective_rank(z: Float[Tensor, "n d"] | Rows) -> float:
    """Computes the effective rank: the exponential of the entropy of the singular values of the centred rows.

    ``exp(-sum_k p_k log p_k)`` with ``p_k = sigma_k / sum sigma``.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality", 2007.

    Args:
        z: The samples, [N, D], or their rows.

    Returns:
        The rank, from 1 to D; 0 if all rows are equal.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import effective_rank
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> round(effective_rank(z), 4), round(effective_rank(z + 10), 4), effective_rank(torch.ones(4, 2))
        (2.0, 2.0, 0.0)
    """
    values = as_rows(z).centred_singular_values
    return exp(entropy(divide_by_sum(values))) if values[0] > 0 else 0.0


def participation_ratio(z: Float[Tensor, "n d"] | Rows) -> float:
    """Computes the participation ratio of the eigenvalues: ``(sum lambda)^2 / sum lambda^2``.

    Args:
        z: The samples, [N, D], or their rows.

    Returns:
        The ratio, from 1 to D; 0 if all rows are equal.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import participation_ratio
        >>> z = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # eigenvalues 2 and 1/2
        >>> round(participation_ratio(z), 4)  # 2.5^2 / 4.25
        1.4706
    """
    shares = divide_by_sum(as_rows(z).centred_singular_values ** 2)
    return float(1 / (shares**2).sum()) if shares[0] > 0 else 0.0


def stable_rank(z: Float[Tensor, "n d"] | Rows) -> float:
    """Computes the stable rank of the centred rows: ``sum lambda / lambda_1``.

    Source: He and Ozay, "Exploring the Gap between Collapsed and Whitened Features in Self-Supervised Learning", 2022,
    who call it NESum.

    Args:
        z: The samples, [N, D], or their rows.

    Returns:
        The rank, from 1 to D; 0 if all rows are equal.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import stable_rank
        >>> z = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # eigenvalues 2 and 1/2
        >>> round(stable_rank(z), 4)
        1.25
    """
    shares = divide_by_sum(as_rows(z).centred_singular_values ** 2)
    return float(1 / shares[0]) if shares[0] > 0 else 0.0


def effective_dimension(z: Float[Tensor, "n d"] | Rows, *, energy: float = 0.99) -> int:
    """Computes the number of principal axes that hold a share of the variance.

    That is the least k whose ``sum of lambda_i, i <= k, over sum lambda`` reaches ``energy``, up to 1e-12.

    Args:
        z: The samples, [N, D], or their rows.
        energy: The share of the variance, in (0, 1].

    Returns:
        The number of axes, from 1 to D; 0 if all rows are equal.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row, or ``energy`` is out of range.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import effective_dimension
        >>> z = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # the first axis holds 0.8
        >>> effective_dimension(z), effective_dimension(z, energy=0.8)
        (2, 1)
    """
    rows = as_rows(z, check=partial(check_number, "energy", energy, low=0, high=1, open_low=True, open_high=False))
    shares = divide_by_sum(rows.centred_singular_values**2)
    if shares[0] == 0:
        return 0
    return min(int((shares.cumsum(0) < energy - THRESHOLD_ROUNDING).sum()) + 1, len(shares))
