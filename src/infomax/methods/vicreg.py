"""VICReg: "Variance-Invariance-Covariance Regularization for Self-Supervised Learning", Bardes, Ponce, LeCun, arXiv
2105.04906.

The embeddings of two views are to be near each other (invariance), each dimension is to vary over the batch (variance),
and no two dimensions are to vary together (covariance; Eqs. 1 to 6 there).
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


class _Statistics(torch.autograd.Function):
    """Computes the mean squared distances of pairs of views, and each view's variances and squared covariances.

    It has a gradient of its own (docs/decisions.md, barlow-gradient). With the centred embeddings Z and the gradient G
    of the covariance matrix, that of an embedding is ``2 Z G / (B - 1)``, whose mean over the batch is zero as that
    of Z is. G is a multiple of the covariance off the diagonal. Beside the embeddings, only covariances are kept;
    autograd would keep each view centred, too.
    """

    @staticmethod
    def forward(ctx, pairs: list[tuple[int, int]], *zs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        means = global_means(list(zs))
        sums, scatters, remainders = [_squared_distance(zs[i], zs[j]) for i, j in pairs], [], []
        for z, mean in zip(zs, means, strict=True):
            centred = z - mean
            scatters.append(global_sum(centred.T @ centred))
            # What rounding of a large mean leaves, which covariance and gradient would feel.
            remainders.append(centred.sum(0))
        flat = torch.cat([torch.stack([*sums, sums[0].new_tensor(len(zs[0]))]), *remainders])
        sums, remainders = global_sum(flat).split([len(pairs) + 1, len(flat) - len(pairs) - 1])
        count, entries = sums[-1], sums[-1] * zs[0].shape[1]
        remainders = (remainders / count).view(len(zs), -1)
        left = remainders * count.sqrt()
        covariances = [x.sub_(torch.outer(y, y)).div_(count - 1) for x, y in zip(scatters, left, strict=True)]
        variances, of_rows, _ = map(torch.stack, zip(*map(split_diagonal, covariances), strict=True))
        ctx.pairs = pairs
        ctx.save_for_backward(*zs, *means, *covariances, remainders, count, entries)
        return sums[:-1] / entries, variances, of_rows.sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        *tensors, remainders, count, entries = ctx.saved_tensors
        views = len(tensors) // 3
        zs, means, covariances = (tensors[start : start + views] for start in (0, views, 2 * views))
        sizes = [len(ctx.pairs), gradients[1].numel(), views]
        flat = global_sum(torch.cat([x.flatten() for x in gradients])).split(sizes)
        of_distances, of_variances, of_squares = flat[0] * 2 / entries, flat[1].view_as(gradients[1]), flat[2] * 2
        results: list[Tensor | None] = [None] * views
        for view in range(views):
            if not ctx.needs_input_grad[1 + view]:
                continue
            results[view] = gradient = torch.empty_like(zs[view])
            others = [(of_distances[p], j if i == view else i) for p, (i, j) in enumerate(ctx.pairs) if view in (i, j)]
            for out, rows, *other_rows in row_blocks(gradient, zs[view], *[zs[other] for _, other in others]):
                centred = (rows - means[view]).sub_(remainders[view]).mul_(2 / (count - 1))
                torch.mm(centred * of_squares[view], covariances[view], out=out)
                out += centred.mul_(of_variances[view])
                for (weight, _), x in zip(others, other_rows, strict=True):
                    out += (rows - x).mul_(weight)
        return None, *results


def _squared_distance(z1: Tensor, z2: Tensor) -> Tensor:
    """Returns the sum of all squared differences of two views, over this rank's rows."""
    return torch.stack([(x - y).square_().sum() for x, y in row_blocks(z1, z2)]).sum()


@full_precision
def _terms(zs: list[Tensor], pairs: list[tuple[int, int]], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the invariance, the variance and the covariance term, each the mean over pairs of views."""
    distances, variances, squares = _Statistics.apply(pairs, *zs)  # pyrefly: ignore[not-iterable]
    hinges, squares = (1 - (variances + epsilon).sqrt()).clamp_min(0).mean(1), squares / zs[0].shape[1]
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return distances.mean(), ((hinges[first] + hinges[second]) / 2).mean(), (squares[first] + squares[second]).mean()


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
