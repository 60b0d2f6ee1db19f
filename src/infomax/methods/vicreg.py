"""VICReg: "Variance-Invariance-Covariance Regularization for Self-Supervised Learning", Bardes, Ponce, LeCun, arXiv
2105.04906.

The embeddings of two views are to be near each other (invariance), each dimension is to vary over the batch (variance),
and no two dimensions are to vary together (covariance; Eqs. 1 to 6 there).
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.functional import check_rows, full_precision, off_diagonal_squares, scatter
from infomax.methods.base import Loss, Method, Views, crop_pairs
from infomax.models.encoders import Encoder
from infomax.nn.blocks import mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_means, global_quotient

EPSILON = 1e-4
"""The number that is added to the variances, in paper and code."""


def vicreg_loss(
    z1: Float[Tensor, "b d"],
    z2: Float[Tensor, "b d"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    epsilon: float = EPSILON,
) -> Float[Tensor, ""]:
    """Computes VICReg's loss: the weighted sum of its invariance, variance and covariance terms.

    ``invariance mean (z1 - z2)^2 + variance 1/2 sum_z mean_j max(0, 1 - sqrt(var_j + epsilon)) + covariance sum_z 1/D
    sum_{i != j} Cov_ij^2`` over the global batch, where the first mean is over rows and dimensions, and variances and
    covariances are over B - 1. The paper has neither the 1/2 nor the mean over dimensions; this is its official code
    (docs/decisions.md, vicreg-means).

    Args:
        z1: Embeddings of the first views, [B, D] with B >= 2 over all ranks. Gradients flow to them.
        z2: Embeddings of the second views of the same images, [B, D], likewise.
        invariance: The weight of the distance of the views, lambda, not negative.
        variance: The weight of the variance term, mu, not negative.
        covariance: The weight of the covariance term, nu, not negative.
        epsilon: The number above 0 that is added to the variances.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix with 2 rows or more, their shapes differ, or a
            number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.vicreg import vicreg_loss
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # of variance 4/3, uncorrelated
        >>> vicreg_loss(z, z).item()
        0.0
        >>> round(vicreg_loss(z, z[:, :1].repeat(1, 2), covariance=9.0).item(), 4)  # 25 * 2 / 2 + 9 * (4/3)^2
        41.0
        >>> round(vicreg_loss(0 * z, 0 * z).item(), 4)  # 25 times 1 - sqrt(1e-4)
        24.75
    """
    check_rows("z1", z1, min_rows=2)
    check_rows("z2", z2, like=z1)
    for name, weight in (("invariance", invariance), ("variance", variance), ("covariance", covariance)):
        check_number(name, weight, low=0)
    check_number("epsilon", epsilon, low=0, open_low=True)
    distance, hinge, squares = _terms([z1, z2], [(0, 1)], epsilon)
    return invariance * distance + variance * hinge + covariance * squares


@full_precision
def _terms(zs: list[Tensor], pairs: list[tuple[int, int]], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the invariance, the variance and the covariance term, each the mean over pairs of views."""
    distances = global_means([(zs[first] - zs[second]).square().mean(1) for first, second in pairs])
    hinges, squares = [], []
    for z, mean in zip(zs, global_means(zs), strict=True):
        covariance = global_quotient(scatter(z, mean), len(z), correction=1)
        hinges.append((1 - (covariance.diagonal() + epsilon).sqrt()).clamp_min(0).mean())
        squares.append(off_diagonal_squares(covariance) / len(covariance))
    hinge = torch.stack([(hinges[first] + hinges[second]) / 2 for first, second in pairs]).mean()
    return torch.stack(distances).mean(), hinge, torch.stack([squares[i] + squares[j] for i, j in pairs]).mean()


class VicReg(Method):
    """A method that trains VICReg's encoder and projector, which the paper calls expander.

    The loss is the mean of :func:`vicreg_loss` over all pairs of views of which one is a global crop.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the projector's output.
        invariance: The weight of the distance of the views; see :func:`vicreg_loss`.
        variance: The weight of the variance term; see there.
        covariance: The weight of the covariance term; see there.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(
        self, encoder: Encoder, *, hidden: int, dimension: int, invariance: float, variance: float, covariance: float
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension)):
            check_count(name, width, low=1)
        for name, weight in (("invariance", invariance), ("variance", variance), ("covariance", covariance)):
            check_number(name, weight, low=0)
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=True, output_bias=False)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.project, views.crops)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        pairs = crop_pairs(len(online), self.global_crop_count)
        distance, hinge, squares = _terms(online, pairs, EPSILON)
        total = self.invariance * distance + self.variance * hinge + self.covariance * squares
        terms = {"invariance": distance, "variance": hinge, "covariance": squares}
        return Loss(total, {name: term.detach() for name, term in terms.items()})
