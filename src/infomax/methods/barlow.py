"""Barlow Twins: "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", Zbontar, Jing, Misra, LeCun, Deny,
arXiv 2103.03230.

The cross-correlation matrix of two views' embeddings is to be the identity (Eq. 1 there): each dimension says the same
of both views, and no two dimensions say the same.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.functional import check_rows, full_precision, off_diagonal_squares
from infomax.methods.base import Loss, Method, Views, crop_pairs
from infomax.models.encoders import Encoder
from infomax.nn.blocks import mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_means, global_quotient

EPSILON = 1e-5
"""The number that is added to the variances; that of BatchNorm in the official code."""


def redundancy_loss(
    z1: Float[Tensor, "b d"], z2: Float[Tensor, "b d"], *, off_diagonal: float = 0.005, epsilon: float = EPSILON
) -> Float[Tensor, ""]:
    """Computes Barlow Twins' loss: the distance of the views' cross-correlation matrix from the identity.

    ``sum_i (1 - C_ii)^2 + off_diagonal sum_{i != j} C_ij^2`` with ``C = Z1' Z2 / B`` over the global batch (Eqs. 1 and
    2), where a column of Z is ``(z - mean) / sqrt(variance + epsilon)`` with the variance over B.

    Args:
        z1: Embeddings of the first views, [B, D] with B >= 2 over all ranks. Gradients flow to them.
        z2: Embeddings of the second views of the same images, [B, D], likewise.
        off_diagonal: The weight of the elements off the diagonal, lambda, not negative. The official code has 0.0051.
        epsilon: The number above 0 that is added to the variances.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix with 2 rows or more, their shapes differ, or a
            number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.barlow import redundancy_loss
        >>> z1 = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> round(redundancy_loss(z1, z1).item(), 4)  # two dimensions that say different things
        0.0
        >>> z2 = z1[:, :1].repeat(1, 2)  # both say what the first one of the other view says
        >>> round(redundancy_loss(z1, z2, off_diagonal=0.1).item(), 4)  # (1 - 0)^2 and 0.1 times 1
        1.1
    """
    check_rows("z1", z1, min_rows=2)
    check_rows("z2", z2, like=z1)
    check_number("off_diagonal", off_diagonal, low=0)
    check_number("epsilon", epsilon, low=0, open_low=True)
    invariance, redundancy = _terms([z1, z2], [(0, 1)], epsilon)
    return invariance + off_diagonal * redundancy


@full_precision
def _terms(zs: list[Tensor], pairs: list[tuple[int, int]], epsilon: float) -> tuple[Tensor, Tensor]:
    """Computes ``sum_i (1 - C_ii)^2`` and ``sum_{i != j} C_ij^2``, each the mean over pairs of views."""
    centred = [z - mean for z, mean in zip(zs, global_means(zs), strict=True)]
    variances = global_means([z.square() for z in centred])
    standardised = [z * (variance + epsilon).rsqrt() for z, variance in zip(centred, variances, strict=True)]
    invariances, redundancies = [], []
    for first, second in pairs:
        correlation = global_quotient(standardised[first].T @ standardised[second], len(zs[first]))
        invariances.append((1 - correlation.diagonal()).square().sum())
        redundancies.append(off_diagonal_squares(correlation))
    return torch.stack(invariances).mean(), torch.stack(redundancies).mean()


class Barlow(Method):
    """A method that trains Barlow Twins' encoder and projector.

    The loss is the mean of :func:`redundancy_loss` over all pairs of views of which one is a global crop, times a
    factor.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the projector's output.
        off_diagonal: The weight of the elements off the diagonal; see :func:`redundancy_loss`.
        loss_scale: The factor of the loss, above 0.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(self, encoder: Encoder, *, hidden: int, dimension: int, off_diagonal: float, loss_scale: float):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension)):
            check_count(name, width, low=1)
        check_number("off_diagonal", off_diagonal, low=0)
        check_number("loss_scale", loss_scale, low=0, open_low=True)
        self.off_diagonal, self.loss_scale = off_diagonal, loss_scale
        self.encoder = encoder
        # The loss subtracts what a bias adds to the outputs, and BatchNorm what it adds before it.
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=True, hidden_bias=False, output_bias=False)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.project, views.crops)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        invariance, redundancy = _terms(online, crop_pairs(len(online), self.global_crop_count), EPSILON)
        total = self.loss_scale * (invariance + self.off_diagonal * redundancy)
        return Loss(total, {"invariance": invariance.detach(), "redundancy": redundancy.detach()})
