"""Measures the eigenvalues of the covariance of the rows, and how they decay: spectrum, area, entropy, alpha-ReQ."""

from math import nan

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from infomax.analysis.measures.entropy import divide_by_sum, entropy
from infomax.analysis.rows import Rows, as_rows, check_squares, svdvals
from infomax.runtime.checks import check_count

EIGENVALUE_FLOOR = 1e-12
"""The share of the largest eigenvalue up to which one takes no part in a fit of their decay."""


def covariance_spectrum(z: Float[Tensor, "n d"] | Rows) -> Float64[Tensor, " d"]:
    """Computes the eigenvalues of the covariance of the rows, descending.

    Source: CorInfoMax, appendix K, shows them.

    Args:
        z: The samples, [N, D], or their rows.

    Returns:
        The D eigenvalues in squared units of ``z``, at most N - 1 of them above 0; all are 0 if all rows are equal.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row, or its entries are so large that
            their squares overflow.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import covariance_spectrum
        >>> z = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> covariance_spectrum(z)
        tensor([2.0000, 0.5000], dtype=torch.float64)
    """
    rows = as_rows(z)
    check_squares("z", rows.values)
    return (rows.centred_singular_values * rows.scale) ** 2 / len(rows)


def spectrum_auc(z: Float[Tensor, "n d"] | Rows) -> float:
    """Computes the area under the cumulative singular values of the centred rows.

    That is the mean over k = 1..D of ``sum of sigma_i, i <= k, over sum sigma``.

    Source: Li et al., "Understanding Collapse in Non-Contrastive Siamese Representation Learning", 2022, Eq. 2.

    Args:
        z: The samples, [N, D], or their rows.

    Returns:
        The area, from (D + 1) / 2D of an isotropic distribution to 1 of rows on a line; 1 if all rows are equal.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import spectrum_auc
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> round(spectrum_auc(z), 4), spectrum_auc(torch.ones(4, 2))
        (0.75, 1.0)
    """
    values = as_rows(z).centred_singular_values
    return float(divide_by_sum(values).cumsum(0).mean()) if values[0] > 0 else 1.0


def von_neumann_entropy(z: Float[Tensor, "n d"] | Rows) -> float:
    """Computes the von Neumann entropy of the unit rows, which are not centred, in nats.

    ``-sum_k p_k log p_k`` with the squared singular values of the unit rows, scaled to sum 1, as p.

    Args:
        z: The samples, [N, D], or their rows.

    Returns:
        The entropy, from 0 of rows on a line through the origin to log min(N, D); 0 if all rows are 0.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import von_neumann_entropy
        >>> round(von_neumann_entropy(torch.tensor([[3.0, 0.0], [0.0, 5.0]])), 4)  # log 2
        0.6931
    """
    return max(0.0, entropy(divide_by_sum(svdvals(as_rows(z).unit) ** 2)))


def alpha_req(z: Float[Tensor, "n d"] | Rows, *, first: int = 11, last: int = 100) -> float:
    """Computes alpha-ReQ: the exponent of the power law by which the eigenvalues decay.

    It is minus the slope of ``log lambda_k`` on ``log k`` for k = ``first``..min(``last``, r), by least squares with
    the weights 1/k, where r is the number of eigenvalues above 1e-12 of the largest.

    Source: Agrawal et al., "alpha-ReQ: Assessing Representation Quality in Self-Supervised Learning by Measuring
    Eigenspectrum Decay", 2022.

    Args:
        z: The samples, [N, D], or their rows.
        first: The first rank of the fit, from 1.
        last: The last rank of the fit, from 1; the paper's authors fit ranks 4 to 100, 6 to 50 or 11 to 100.

    Returns:
        The exponent; NaN if fewer than 3 ranks can be fitted.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 1 row, or a rank is no whole number
            above 0.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import alpha_req
        >>> k = torch.arange(1.0, 9)
        >>> z = torch.cat([k.rsqrt().diag(), -k.rsqrt().diag()])  # eigenvalue k is 1 / 8k
        >>> round(alpha_req(z, first=1), 4), alpha_req(z)
        (1.0, nan)
    """

    def check() -> None:
        check_count("first", first, low=1)
        check_count("last", last, low=1)

    eigenvalues = as_rows(z, check=check).centred_singular_values ** 2
    count = int((eigenvalues > EIGENVALUE_FLOOR * eigenvalues[0]).sum())
    ranks = torch.arange(first, max(first, min(last, count) + 1), dtype=torch.float64, device=eigenvalues.device)
    if len(ranks) < 3:
        return nan
    weights = divide_by_sum(1 / ranks)
    x, y = ranks.log(), eigenvalues[first - 1 : first - 1 + len(ranks)].log()
    x, y = x - weights @ x, y - weights @ y
    return -float((weights * x) @ y / ((weights * x) @ x))
