"""Measures of embeddings, features and assignments without labels: rank, spread, collapse, uniformity, entropy.

Every function computes in float64 without gradient, whatever autocast says, and changes no argument. If a
torch.distributed process group is up, each rank passes its own rows, and all ranks return the value of the global
batch, or raise together. ``z`` may be a tensor, or the :class:`~infomax.analysis.rows.Rows` of a tensor, which share
the work of several measures of it.

Terms: ``unit rows`` are rows over their norm, or over 1e-12 if that is larger. ``Singular values`` are those of the
rows, and ``eigenvalues`` those of their covariance, which is normalised by the number of rows. A singular value of the
centred rows of at most 1e-10 of the norm of all rows is 0. Entropies are in nats, and 0 log 0 is 0.
"""

from collections.abc import Iterator
from functools import partial
from math import ceil, exp, log, nan, sqrt

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from infomax.analysis.rows import Rows, as_rows, gather_rows, svdvals
from infomax.functional import log_det_or_nan, scatter
from infomax.runtime.checks import check_count, check_number

TOLERANCE = 1e-12
"""The rounding that a comparison with a threshold allows for."""
EIGENVALUE_FLOOR = 1e-12
"""The share of the largest eigenvalue up to which one takes no part in a fit of their decay."""
LIDAR_FLOOR = 1e-20
"""The share of the mean squared norm up to which the variance between images is none."""
LARGEST_WITH_SQUARE = 1e150
"""The largest entry whose square, summed over a batch, float64 surely holds."""
BLOCK_ENTRIES = 2**21
"""The number of entries of a block of cosines, 16 MB."""


# ------------------------------------------------------------------------------------------------- rank and spectrum


def _shares(x: Tensor) -> Tensor:
    """Divides non-negative numbers by their sum; if that is 0, all are 0."""
    return x / total if (total := x.sum()) > 0 else torch.zeros_like(x)


def _entropy(p: Tensor) -> float:
    """Computes ``-sum p log p``, also if the sum of ``p`` is not 1."""
    return float(torch.special.entr(p).sum())


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
    return exp(_entropy(_shares(rows.singular_values) + epsilon))


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
    return exp(_entropy(_shares(values))) if values[0] > 0 else 0.0


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
    shares = _shares(as_rows(z).centred_singular_values ** 2)
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
    shares = _shares(as_rows(z).centred_singular_values ** 2)
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
    shares = _shares(rows.centred_singular_values**2)
    if shares[0] == 0:
        return 0
    return min(int((shares.cumsum(0) < energy - TOLERANCE).sum()) + 1, len(shares))


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
    _check_squares("z", rows.values)
    return (rows.centred_singular_values * rows.scale) ** 2 / len(rows)


def _check_squares(name: str, values: Tensor) -> None:
    """Raises a ValueError if squares of ``values`` may overflow."""
    if (largest := float(values.abs().max())) > LARGEST_WITH_SQUARE:
        raise ValueError(f"{name} must have entries up to {LARGEST_WITH_SQUARE:g}, but has one of size {largest:.3g}")


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
    return float(_shares(values).cumsum(0).mean()) if values[0] > 0 else 1.0


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
    return max(0.0, _entropy(_shares(svdvals(as_rows(z).unit) ** 2)))


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
    weights = _shares(1 / ranks)
    x, y = ranks.log(), eigenvalues[first - 1 : first - 1 + len(ranks)].log()
    x, y = x - weights @ x, y - weights @ y
    return -float((weights * x) @ y / ((weights * x) @ x))


def lidar(z: Float[Tensor, "n q d"], *, delta: float = 1e-4, epsilon: float = 1e-7) -> float:
    """Computes LiDAR: the effective rank of the linear discriminants that tell images from each other.

    With the mean ``mu_i`` of the views of image i and their mean ``mu``: ``S_b = mean_i (mu_i - mu)(mu_i - mu)'`` and
    ``S_w = sum_ij (z_ij - mu_i)(z_ij - mu_i)' / (N (Q - 1)) + delta I``. The value is ``exp(-sum_k p_k log p_k)`` with
    ``p_k = lambda_k / sum lambda + epsilon`` for the D eigenvalues of ``S_w^-1/2 S_b S_w^-1/2``.

    Source: Thilak et al., "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures", 2023. As
    published it takes 1,000 images with 50 views each.

    Args:
        z: The embeddings of Q views of each image, [N, Q, D], N >= 2 over all ranks, Q >= 2; a rank has all views of
            its images.
        delta: The number above 0 that is added to the diagonal of the covariance within images.
        epsilon: The number, not negative, that is added to each share.

    Returns:
        The rank, from 1 to min(D, N - 1). If the images' means differ by nothing but rounding, which is a variance of
        at most 1e-20 of the mean squared norm, each share is ``epsilon``, and the value is near 1.

    Raises:
        ValueError: If ``z`` is not a finite floating-point tensor with N, Q >= 2, or a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import lidar
        >>> images = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> noise = torch.tensor([0.1, -0.1])
        >>> z = torch.stack([images + noise, images - noise], dim=1)  # two views, [4, 2, 2]
        >>> round(lidar(z), 4)  # noise along (1, -1) hides that direction; (1, 1) tells the images
        1.0176
    """

    def check() -> None:
        check_number("delta", delta, low=0, open_low=True)
        check_number("epsilon", epsilon, low=0)

    z, _ = gather_rows("z", z, "n views d", check=check)
    n, views, d = z.shape
    if n < 2 or views < 2:
        raise ValueError(f"z needs at least 2 images and 2 views, but has the shape {[n, views, d]}")
    scale = max(float(z.abs().max()), torch.finfo(torch.float64).tiny)  # without it, squares may overflow
    z = z / scale
    means = z.mean(1, keepdim=True)
    within, between = (z - means).flatten(0, 1) / sqrt(n * (views - 1)), (means - means.mean(0)).flatten(0, 1) / sqrt(n)
    shares = z.new_zeros(d)
    if (between**2).sum() > LIDAR_FLOOR * (z**2).sum() / (n * views):
        # R of the rows' QR decomposition has R'R = S_w, without squares, in which a small delta would be lost.
        ridge = torch.eye(d, dtype=z.dtype, device=z.device) * (sqrt(delta) / scale)
        root = torch.linalg.qr(torch.cat([within, ridge]), mode="r").R
        discriminants = torch.linalg.solve_triangular(root, between, upper=True, left=False)
        eigenvalues = svdvals(discriminants / discriminants.abs().max()) ** 2
        shares[: len(eigenvalues)] = _shares(eigenvalues)
    return exp(_entropy(shares + epsilon))


# ------------------------------------------------------------------------------------------- spread of the unit rows


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
    count = sum(int((products.amax(1) >= cosine - TOLERANCE).sum()) for _, products in _products_with_others(unit))
    return count / len(unit)


# --------------------------------------------------------------------------------------- assignments to prototypes


def assignment_entropy(p: Float[Tensor, "n k"] | Rows) -> float:
    """Computes the mean entropy of the rows: how unsure the assignment of a sample is, in nats.

    Args:
        p: The probabilities of K prototypes, [N, K], one row a sample, or their rows.

    Returns:
        The entropy, from 0 to log K.

    Raises:
        ValueError: If ``p`` is not a finite floating-point matrix with at least 1 row, has a negative entry, or has a
            row whose sum is not within 1e-3 of 1.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import assignment_entropy
        >>> round(assignment_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])), 4)  # log(2) / 2
        0.3466
    """
    return float(torch.special.entr(as_rows(p, name="p").probabilities).sum(1).mean())


def marginal_entropy(p: Float[Tensor, "n k"] | Rows) -> float:
    """Computes the entropy of the mean row: how evenly the prototypes are used, in nats.

    Args:
        p: The probabilities of K prototypes, [N, K], one row a sample, or their rows.

    Returns:
        The entropy, from 0 of one prototype to log K.

    Raises:
        ValueError: If ``p`` is not a finite floating-point matrix with at least 1 row, has a negative entry, or has a
            row whose sum is not within 1e-3 of 1.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import marginal_entropy
        >>> round(marginal_entropy(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), 4)  # log 2
        0.6931
    """
    return _entropy(as_rows(p, name="p").probabilities.mean(0))


def mutual_information(p: Float[Tensor, "n k"] | Rows) -> float:
    """Computes the information that the assignment carries about the sample, in nats.

    It is the :func:`marginal_entropy` minus the :func:`assignment_entropy`.

    Args:
        p: The probabilities of K prototypes, [N, K], one row a sample, or their rows.

    Returns:
        The information, from 0 of equal rows to log K of sure and even assignments.

    Raises:
        ValueError: If ``p`` is not a finite floating-point matrix with at least 1 row, has a negative entry, or has a
            row whose sum is not within 1e-3 of 1.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import mutual_information
        >>> round(mutual_information(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), 4)  # log 2
        0.6931
        >>> mutual_information(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
        0.0
    """
    rows = as_rows(p, name="p")
    return max(0.0, marginal_entropy(rows) - assignment_entropy(rows))


def prototypes_in_use(p: Float[Tensor, "n k"] | Rows, *, share: float = 0.1) -> float:
    """Computes the share of the prototypes that are in use.

    A prototype is in use if it is the most probable one, the first of ties, of at least one row, and of at least
    ``share``/K of the rows, up to 1e-12. If N rows used K prototypes evenly, 1 - exp(-N/K) of them would be seen: with
    fewer than 10 K rows the value says little.

    Args:
        p: The probabilities of K prototypes, [N, K], one row a sample, or their rows.
        share: The least use of a prototype, not negative, as a share of its even use.

    Returns:
        The share of the prototypes, at most N/K and at most 1.

    Raises:
        ValueError: If ``p`` is not a finite floating-point matrix with at least 1 row, has a negative entry, or has a
            row whose sum is not within 1e-3 of 1; or if ``share`` is negative.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import prototypes_in_use
        >>> prototypes_in_use(torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.1, 0.8, 0.1, 0.0], [0.6, 0.4, 0.0, 0.0]]))
        0.5
    """
    rows = as_rows(p, name="p", check=partial(check_number, "share", share, low=0))
    return share_in_use(rows.largest_counts, share=share)


def share_in_use(counts: Tensor, *, share: float = 0.1) -> float:
    """Computes :func:`prototypes_in_use` from the number of rows of which each prototype is the most probable one.

    Such counts can be summed over batches. It checks nothing, and exchanges nothing between ranks.

    Args:
        counts: The number of rows of each prototype over all ranks, [K].
        share: The least use of a prototype, not negative, as a share of its even use.

    Returns:
        The share of the prototypes, from 0 to 1.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import share_in_use
        >>> share_in_use(torch.tensor([60, 36, 4, 0])), share_in_use(torch.tensor([60, 36, 4, 0]), share=0.5)
        (0.75, 0.5)
    """
    in_use = (counts > 0) & (counts / counts.sum() >= share / len(counts) - TOLERANCE)
    return int(in_use.sum()) / len(counts)


def effective_prototypes(p: Float[Tensor, "n k"] | Rows) -> float:
    """Computes the exponential of the entropy of how often each prototype is the most probable one of a row.

    Args:
        p: The probabilities of K prototypes, [N, K], one row a sample, or their rows.

    Returns:
        The number of prototypes, from 1 to K.

    Raises:
        ValueError: If ``p`` is not a finite floating-point matrix with at least 1 row, has a negative entry, or has a
            row whose sum is not within 1e-3 of 1.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import effective_prototypes
        >>> round(effective_prototypes(torch.tensor([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0]])), 4)
        2.0
    """
    return exp(_entropy(_shares(as_rows(p, name="p").largest_counts)))


# ---------------------------------------------------------------------------------------- information between views


def recursive_ldmi(
    z1: Float[Tensor, "steps n d"],
    z2: Float[Tensor, "steps n d"],
    *,
    forgetting: float = 0.01,
    epsilon: float = 1e-8,
) -> Float64[Tensor, " steps"]:
    """Computes the log-determinant mutual information between two views after each step of CorInfoMax Eq. 7, in nats.

    ``1/2 [log det(R1 + epsilon I) + log det(R2 + epsilon I) - log det(R12 + epsilon I)]`` with the recursive
    covariances R1 and R2 of the views and the joint one, R12, of both. They start from I, and the means from 0. Each
    step keeps ``forgetting`` of them, and centres its batch by the updated means.

    Source: CorInfoMax, Eqs. 1 and 7 and appendix L, whose plots show 4/D of it.

    Args:
        z1: The embeddings of the first view at each step, [steps, N, D].
        z2: The embeddings of the second view, [steps, N, D], row by row those that belong to ``z1``.
        forgetting: lambda in [0, 1): the share of the old statistics that is kept at each step.
        epsilon: The number above 0 that is added to the diagonals of the covariances.

    Returns:
        The information after each step, [steps], not negative.

    Raises:
        ValueError: If ``z1`` or ``z2`` is no finite floating-point tensor with at least 1 step, row and column, or has
            an entry beyond 1e150, if their shapes differ, or if a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.analysis.measures import recursive_ldmi
        >>> x = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
        >>> y = torch.tensor([[-2.0], [0.0], [0.0], [2.0]])  # squared correlation 1/2: the information is log(2) / 2
        >>> recursive_ldmi(x.expand(2, 4, 1), y.expand(2, 4, 1), forgetting=0)
        tensor([0.3466, 0.3466], dtype=torch.float64)
    """

    def check() -> None:
        check_number("forgetting", forgetting, low=0, high=1)
        check_number("epsilon", epsilon, low=0, open_low=True)

    z1, counts1 = gather_rows("z1", z1, "steps n d", check=check)
    z2, counts2 = gather_rows("z2", z2, "steps n d")
    if z1.shape != z2.shape or counts1 != counts2:
        shapes = f"{list(z2.shape)} and {list(z1.shape)}"
        raise ValueError(f"z2 must have the shape of z1 on each rank, but they have {shapes}")
    _check_squares("z1", z1)
    _check_squares("z2", z2)
    d = z1.shape[2]
    joint = torch.eye(2 * d, dtype=z1.dtype, device=z1.device)
    mean, information = joint.new_zeros(2 * d), joint.new_zeros(len(z1))
    for step, z in enumerate(torch.cat([z1, z2], dim=2)):
        mean = torch.lerp(z.mean(0), mean, forgetting)
        joint = torch.lerp(scatter(z, mean) / len(z), joint, forgetting)
        first, second, both = (_log_det(block, epsilon) for block in (joint[:d, :d], joint[d:, d:], joint))
        information[step] = (first + second - both) / 2
    return information.clamp(min=0)


def _log_det(covariance: Float64[Tensor, "d d"], epsilon: float) -> Float64[Tensor, ""]:
    """Computes ``log det(covariance + epsilon I)``, also if rounding makes an eigenvalue negative."""
    value = log_det_or_nan(covariance, epsilon)
    return torch.linalg.eigvalsh(covariance).clamp(min=0).add(epsilon).log().sum() if value.isnan() else value
