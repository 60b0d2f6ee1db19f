"""W-MSE: "Whitening for Self-Supervised Representation Learning", Ermolov, Siarohin, Sangineto, Sebe,
arXiv 2007.06346.

The embeddings of each view are whitened over the batch, which keeps them from collapsing, and the two views of an image
are then drawn together. The batch is cut at random into parts, each of which is whitened by itself.
"""

import warnings
from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from infomax.functional import check_rows, full_precision, scatter
from infomax.methods.base import Loss, Method, Progress, Views, crop_pairs
from infomax.models.encoders import Encoder
from infomax.nn.blocks import mlp
from infomax.nn.draws import draw_order
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import gather_with_gradient, global_count, global_mean, global_sum


@full_precision
def whiten(z: Float[Tensor, "b d"], *, epsilon: float = 0.0) -> Float[Tensor, "b d"]:
    """Whitens embeddings over the global batch: their mean becomes 0, and their covariance the identity.

    ``(z - mean) L^-T`` with the Cholesky factor L of ``(1 - epsilon) cov(z) + epsilon I``, where the covariance is
    divided by B - 1. It is computed in float64, and gradients flow through mean and covariance.

    Args:
        z: Embeddings, [B, D] with B >= 2 over all ranks; gradients flow to them.
        epsilon: The share of the identity in the covariance, in [0, 1).

    Returns:
        The whitened embeddings of this rank, [B, D]; NaN if the covariance is singular, as that of B <= D rows is
        without an ``epsilon``.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix with at least 2 rows, or ``epsilon`` is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.wmse import whiten
        >>> z = torch.tensor([[1.0, 2.0], [3.0, 3.0], [5.0, 1.0], [3.0, 6.0]])
        >>> whitened = whiten(z)
        >>> torch.allclose(whitened.mean(0), torch.zeros(2), atol=1e-6), torch.allclose(whitened.T.cov(), torch.eye(2))
        (True, True)
    """
    check_rows("z", z, min_rows=2)
    check_number("epsilon", epsilon, low=0, high=1)
    rows, mean, count = z.double(), global_mean(z.double()), global_count(z)
    covariance = global_sum(scatter(rows, mean)) / (count - 1)
    return _whitened(rows - mean, mean, covariance, count, epsilon).to(z.dtype)


def _whitened(
    centred: Float64[Tensor, "... n d"],
    mean: Float64[Tensor, "... d"],
    covariance: Float64[Tensor, "... d d"],
    count: int,
    epsilon: float,
) -> Float64[Tensor, "... n d"]:
    """Whitens rows about their mean by the covariance of ``count`` samples; NaN if it is singular but for rounding."""
    dimension = centred.shape[-1]
    identity = torch.eye(dimension, dtype=centred.dtype, device=centred.device)
    matrix = (1 - epsilon) * covariance + epsilon * identity
    # cholesky_ex does not wait for a GPU, to raise an error.
    factor, failed = torch.linalg.cholesky_ex(matrix)
    # A singular matrix may have a factor too, of rounding errors: of the columns before, or of a column's own mean.
    variances, rounding = matrix.diagonal(dim1=-2, dim2=-1), torch.finfo(matrix.dtype).eps
    left = factor.diagonal(dim1=-2, dim2=-1).square()
    is_regular = (left > dimension * rounding * variances) & (variances > (8 * rounding * mean).square())
    possible = (failed == 0) & is_regular.all(-1) & (count > dimension or epsilon > 0)
    factor = torch.where(possible[..., None, None], factor, torch.nan)
    return torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT


def wmse_loss(
    z1: Float[Tensor, "b d"],
    z2: Float[Tensor, "b d"],
    *,
    size: int = 128,
    epsilon: float = 0.0,
    order: Int64[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Computes the W-MSE loss: the mean squared distance of the two views' whitened embeddings on the unit sphere.

    The images of the global batch, in the order given, are cut into parts of ``size``; the last one may have fewer. In
    each part each view is whitened by itself as by :func:`whiten`, and its rows are L2-normalised.

    Args:
        z1: Embeddings of the first views, [B, D] with B >= 2 over all ranks. Gradients flow to them.
        z2: Embeddings of the second views of the same images, [B, D], likewise.
        size: The number of images that are whitened together, at least 2; more than D without an ``epsilon``.
        epsilon: The share of the identity in the covariance, as in :func:`whiten`.
        order: The order of the images of the global batch, a permutation of their positions that is the same on all
            ranks; None leaves them as they are.

    Returns:
        The loss, a scalar from 0 to 4; NaN if a part's covariance is singular.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, their shapes differ, a part would have one
            row, ``order`` is no permutation of the images, or a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.wmse import wmse_loss
        >>> z = torch.tensor([[1.0, 2.0], [3.0, 3.0], [5.0, 1.0], [3.0, 6.0]])
        >>> round(wmse_loss(z, z @ torch.tensor([[2.0, 1.0], [0.0, 3.0]])).item(), 4)  # whitening undoes such a map
        0.0
    """
    check_rows("z1", z1, min_rows=2)
    check_rows("z2", z2, min_rows=2, like=z1)
    check_count("size", size, low=2)
    check_number("epsilon", epsilon, low=0, high=1)
    count = global_count(z1)
    if count % size == 1:
        raise ValueError(f"size must leave no part of a single row, but is {size} for {count} rows")
    if order is not None:
        _check_order(order, count)
    return _part_loss(_gathered([z1, z2]), [(0, 1)], size, epsilon, order).to(_single(z1.dtype))


def _check_order(order: Tensor, count: int) -> None:
    if not isinstance(order, Tensor) or order.dtype != torch.int64 or order.shape != (count,):
        actual = f"{order.dtype} {list(order.shape)}" if isinstance(order, Tensor) else type(order).__name__
        raise ValueError(f"order must be an int64 tensor [{count}], one position an image, but is {actual}")
    if not torch.equal(order.sort().values, torch.arange(count, device=order.device)):
        raise ValueError(f"order must hold each position from 0 to {count - 1} once")


def _single(dtype: torch.dtype) -> torch.dtype:
    """Returns the type of the loss of embeddings of a type: float32 for those in half precision."""
    return torch.promote_types(dtype, torch.float32)


def _gathered(zs: list[Tensor]) -> Float64[Tensor, "v n d"]:
    """Gathers the embeddings of all views of the global batch, with gradient."""
    rows, _ = gather_with_gradient(torch.cat(zs, dim=1).double())
    return rows.unflatten(1, (len(zs), -1)).transpose(0, 1)


@full_precision
def _part_loss(
    views: Float64[Tensor, "v n d"], pairs: list[tuple[int, int]], size: int, epsilon: float, order: Tensor | None
) -> Float64[Tensor, ""]:
    """Computes the mean of :func:`wmse_loss` over pairs of views."""
    parts = []
    for part in (views if order is None else views[:, order]).split(size, dim=1):
        mean, count = part.mean(1), part.shape[1]
        centred = part - mean.unsqueeze(1)
        white = _whitened(centred, mean, centred.mT @ centred / (count - 1), count, epsilon)
        parts.append(F.normalize(white, dim=2))
    whole = torch.cat(parts, dim=1).unbind()
    return torch.stack([(whole[i] - whole[j]).square().sum(1).mean() for i, j in pairs]).mean()


class Wmse(Method):
    """A method that trains an encoder and a projector with the W-MSE loss; each step has an order of its own.

    The loss is the mean of :func:`wmse_loss` over all pairs of views of which one is a global crop.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layer.
        dimension: The width of the projector's output.
        size: The number of images that are whitened together; see :func:`wmse_loss`.
        epsilon: The share of the identity in the covariance; see there.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(self, encoder: Encoder, *, hidden: int, dimension: int, size: int, epsilon: float):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension)):
            check_count(name, width, low=1)
        check_number("epsilon", epsilon, low=0, high=1)
        check_count("size", size, low=2)
        if size <= dimension and not epsilon:
            raise ValueError(f"size must be above dimension, {dimension}, without an epsilon, but is {size}")
        self.size, self.epsilon = size, epsilon
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, dimension, norm=True, hidden_bias=False)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.project, views.crops)

    def schedule_values(self, progress: Progress) -> tuple[float, ...]:
        """Returns the step, from which the order of the images is drawn."""
        return (float(progress.step),)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        (step,) = schedule_values
        views = _gathered(online)
        _, count, dimension = views.shape
        smallest = count % self.size or self.size
        # A compiled loss cannot warn.
        is_too_small = smallest == 1 or (smallest <= dimension and not self.epsilon)
        if is_too_small and not torch.compiler.is_compiling():
            warnings.warn(
                f"{smallest} images cannot be whitened in {dimension} dimensions; choose a batch of a multiple of "
                f"{self.size}, the method's size{', or set method.epsilon above 0' if smallest > 1 else ''}",
                stacklevel=2,
            )
        order = draw_order(count, seed=self.seed, step=step, device=views.device)
        pairs = crop_pairs(len(online), self.global_crop_count)
        return Loss(_part_loss(views, pairs, self.size, self.epsilon, order).to(_single(online[0].dtype)), {})
