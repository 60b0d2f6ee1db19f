"""Measures how many directions tell images apart beside the differences of their views: LiDAR."""

from math import exp, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.analysis.measures.entropy import divide_by_sum, entropy
from infomax.analysis.rows import gather_rows, svdvals
from infomax.runtime.checks import check_number

LIDAR_FLOOR = 1e-20
"""The share of the mean squared norm up to which the variance between images is none."""


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
        shares[: len(eigenvalues)] = divide_by_sum(eigenvalues)
    return exp(entropy(shares + epsilon))
