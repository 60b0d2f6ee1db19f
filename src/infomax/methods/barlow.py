"""Barlow Twins: "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", Zbontar, Jing, Misra, LeCun, Deny,
arXiv 2103.03230.

The cross-correlation matrix of two views' embeddings is to be the identity (Eq. 1 there): each dimension says the same
of both views, and no two dimensions say the same.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from infomax.functional import check_rows, full_precision, row_blocks, split_diagonal
from infomax.methods.base import Loss, Method, Views, crop_pairs
from infomax.models.encoders import Encoder
from infomax.nn.blocks import mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_means, global_sum

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


class _Correlations(torch.autograd.Function):
    """Computes the diagonals of views' cross-correlation matrices, and the sums of the squares off the diagonals.

    It has a gradient of its own (docs/decisions.md, barlow-gradient). With the standardised columns Z1 and Z2,
    ``C = Z1' Z2 / B``, and the gradient G of C, the gradient of z1 is ``(Z2 G' - Z1 diag(G C')) / (B deviation)``: its
    mean over the batch is zero as that of Z1 and Z2 is, so that nothing has to be subtracted for the mean. G is a
    multiple of C off the diagonal. Beside the embeddings, only the matrices C are kept; autograd would keep each view
    twice, centred and standardised.
    """

    @staticmethod
    def forward(ctx, pairs: list[tuple[int, int]], epsilon: float, *zs: Tensor) -> tuple[Tensor, Tensor]:
        means = global_means(list(zs))
        sums = torch.stack([_sums_around(z, mean) for z, mean in zip(zs, means, strict=True)])
        sums = global_sum(torch.cat([sums.flatten(), sums.new_tensor([len(zs[0])])]))
        count, (remainders, variances) = sums[-1], (sums[:-1] / sums[-1]).view(len(zs), 2, -1).unbind(1)
        # What rounding of a large mean leaves is no part of the variance.
        scales = ((variances - remainders.square()).clamp_min(0) + epsilon).rsqrt()
        remainders = remainders * scales
        standardised = [_standardise(*view) for view in zip(zs, means, scales, remainders, strict=True)]
        correlations = [global_sum(standardised[i].T @ standardised[j]).div_(count) for i, j in pairs]
        diagonals, of_rows, of_columns = map(torch.stack, zip(*map(split_diagonal, correlations), strict=True))
        ctx.pairs = pairs
        ctx.save_for_backward(*zs, *means, *correlations, scales, remainders, diagonals, of_rows, of_columns, count)
        return diagonals, of_rows.sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        *tensors, scales, remainders, diagonals, of_rows, of_columns, count = ctx.saved_tensors
        views = len(scales)
        zs, means, correlations = tensors[:views], tensors[views : 2 * views], tensors[2 * views :]
        of_diagonal, of_squares = global_sum(torch.cat([gradients[0], gradients[1].unsqueeze(1)], dim=1)).split(
            [diagonals.shape[1], 1], dim=1
        )
        of_squares = 2 * of_squares
        results = [
            torch.zeros_like(z) if needed else None for z, needed in zip(zs, ctx.needs_input_grad[2:], strict=True)
        ]
        for pair, (i, j) in enumerate(ctx.pairs):
            matrix, weighted = correlations[pair], of_diagonal[pair] * diagonals[pair]
            for own, other, product, squares in ((i, j, matrix.T, of_rows), (j, i, matrix, of_columns)):
                if results[own] is None:
                    continue
                along, factor = of_squares[pair] * squares[pair] + weighted, scales[own] / count
                for out, own_rows, other_rows in row_blocks(results[own], zs[own], zs[other]):
                    z_own = _standardise(own_rows, means[own], scales[own], remainders[own])
                    z_other = _standardise(other_rows, means[other], scales[other], remainders[other])
                    gradient = (z_other * of_squares[pair]) @ product
                    out += gradient.add_(z_other.mul_(of_diagonal[pair])).sub_(z_own.mul_(along)).mul_(factor)
        return None, None, *results


def _sums_around(z: Float[Tensor, "b d"], mean: Float[Tensor, " d"]) -> Float[Tensor, "2 d"]:
    """Returns each column's sums of distances from a mean and of their squares, over this rank's rows."""
    sums = mean.new_zeros(2, len(mean))
    for (rows,) in row_blocks(z):
        centred = rows - mean
        sums[0] += centred.sum(0)
        sums[1] += centred.square_().sum(0)
    return sums


def _standardise(z: Tensor, mean: Tensor, scale: Tensor, remainder: Tensor) -> Tensor:
    """Returns ``(z - mean) * scale - remainder``; the remainder is what rounding of a large mean leaves."""
    return (z - mean).mul_(scale).sub_(remainder)


@full_precision
def _terms(zs: list[Tensor], pairs: list[tuple[int, int]], epsilon: float) -> tuple[Tensor, Tensor]:
    """Computes ``sum_i (1 - C_ii)^2`` and ``sum_{i != j} C_ij^2``, each the mean over pairs of views."""
    diagonals, redundancies = _Correlations.apply(pairs, epsilon, *zs)  # pyrefly: ignore[not-iterable]
    return (1 - diagonals).square().sum(1).mean(), redundancies.mean()


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
