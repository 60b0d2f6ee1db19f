"""Measures the information between two views of the images over a training, as CorInfoMax does."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from infomax.analysis.rows import check_squares, gather_rows
from infomax.functional import log_det_or_nan, scatter
from infomax.runtime.checks import check_number


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
    check_squares("z1", z1)
    check_squares("z2", z2)
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
