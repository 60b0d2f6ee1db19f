"""VISReg: "VISReg: Variance-Invariance-Sketching Regularization for JEPA training", Wu, Balestriero, Levine,
arXiv 2606.02572.

The views of an image are predicted by the mean of its global views, as in LeJEPA. The embeddings are made to have the
mean 0 and the deviation 1 in each dimension, and a normal distribution on random directions: their sorted projections
are to be its quantiles.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.functional import centre_distance, check_rows, full_precision
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.models.encoders import Encoder
from infomax.nn.blocks import mlp
from infomax.nn.draws import check_directions, draw_directions
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import gather_with_gradient


def regulariser(
    z: Float[Tensor, "b d"],
    directions: Float[Tensor, "d m"],
    *,
    scale: float = 1.0,
    shape: float = 1.0,
    centre: float = 1.0,
    epsilon: float = 1e-6,
) -> Float[Tensor, ""]:
    """Computes VISReg's regulariser: how far embeddings are from a standard normal distribution.

    ``scale mean (s - 1)^2 + shape mean (sort((z - m) / s A) - quantiles)^2 + centre mean m^2``, where m is the mean and
    s the deviation of each dimension over the B images of the global batch, plus epsilon; A holds the directions, and
    each projection is sorted and compared with the normal quantiles of i / (B + 1). In the second term s is held
    constant (docs/decisions.md, visreg-epsilon).

    Args:
        z: Embeddings, [B, D]; gradients flow to them.
        directions: Directions of unit norm, one a column, [D, M]; they are held constant, and are the same on all
            ranks.
        scale: The weight of the deviations, not negative.
        shape: The weight of the sorted projections, not negative.
        centre: The weight of the means, not negative.
        epsilon: The number that is added to each deviation, above 0.

    Returns:
        The regulariser, a scalar, not negative.

    Raises:
        ValueError: If a matrix is not finite, the directions do not fit the embeddings or have no unit norm, or a
            number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.visreg import regulariser
        >>> z = torch.tensor([[-1.0], [1.0]])  # mean 0, deviation 1; the quantiles of 1/3 and 2/3 are 0.4307 from 0
        >>> round(regulariser(z, torch.eye(1)).item(), 4)  # (1 - 0.4307)^2
        0.3241
        >>> round(regulariser(3 * z, torch.eye(1)).item(), 4)  # another (3 - 1)^2
        4.3241
    """
    check_rows("z", z)
    check_directions("directions", directions, z)
    for name, value in (("scale", scale), ("shape", shape), ("centre", centre)):
        check_number(name, value, low=0)
    check_number("epsilon", epsilon, low=0, open_low=True)
    return _regulariser(z, directions, scale, shape, centre, epsilon)


@full_precision
def _regulariser(
    z: Tensor, directions: Tensor, scale: float, shape: float, centre: float, epsilon: float
) -> Float[Tensor, ""]:
    rows, _ = gather_with_gradient(z)
    mean = rows.mean(0)
    centred = rows - mean
    centred = centred - centred.mean(0)  # what rounding of a large mean leaves
    deviation = _deviation(centred) + epsilon
    projections = (centred / deviation.detach()) @ directions.detach().to(rows.dtype)
    # A stable sort gives equal projections the order of their rows, and so one gradient.
    distance = projections.sort(dim=0, stable=True).values - _normal_quantiles(rows)
    return scale * (deviation - 1).square().mean() + shape * distance.square().mean() + centre * mean.square().mean()


def _deviation(centred: Tensor) -> Float[Tensor, " d"]:
    """Computes the deviation of each column of mean 0, with a gradient of 0 where the deviation is 0."""
    variance = centred.square().mean(0)
    is_zero = variance == 0
    return variance.masked_fill(is_zero, 1).sqrt().masked_fill(is_zero, 0)


def _normal_quantiles(rows: Tensor) -> Float[Tensor, "b 1"]:
    """Returns the quantiles of ``i / (B + 1)``, i from 1 to B, of the standard normal distribution, as a column."""
    share = torch.arange(1, len(rows) + 1, dtype=torch.float64, device=rows.device) / (len(rows) + 1)
    return torch.special.ndtri(share).to(rows.dtype).unsqueeze(1)


@full_precision
def _terms(
    views: list[Tensor], full: int, weights: tuple[float, float, float], slices: int, seed: int, step: float | Tensor
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Computes the distance of all views from the mean of the full ones, and the mean of the regularisers."""
    directions = draw_directions(views[0].shape[1], slices, seed=seed, step=step, like=views[0])
    regularisers = [_regulariser(z, directions, *weights, epsilon=1e-6) for z in views]
    return centre_distance(views, full), torch.stack(regularisers).mean()


class VisReg(Method):
    """A method that trains VISReg's encoder and projector; each step has new directions, which are equal on all ranks.

    The loss is ``(1 - weight) distance + weight mean_v regulariser(z_v)``, where the distance is the mean squared one
    of all views from the mean of the global ones, as in LeJEPA (docs/decisions.md, visreg-draws).

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the projector's output.
        weight: The share of the regulariser in the loss, from 0 to 1.
        slices: The number of directions of a step.
        scale: The weight of the deviations; see :func:`regulariser`.
        shape: The weight of the sorted projections, likewise.
        centre: The weight of the means, likewise.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        weight: float,
        slices: int,
        scale: float,
        shape: float,
        centre: float,
    ):
        super().__init__()
        for name, count in (("hidden", hidden), ("dimension", dimension), ("slices", slices)):
            check_count(name, count, low=1)
        check_number("weight", weight, low=0, high=1, open_high=False)
        for name, value in (("scale", scale), ("shape", shape), ("centre", centre)):
            check_number(name, value, low=0)
        self.weight, self.slices, self.weights = weight, slices, (scale, shape, centre)
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=True, activation=nn.GELU)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.project, views.crops)

    def schedule_values(self, progress: Progress) -> tuple[float, ...]:
        """Returns the step, from which the directions are drawn."""
        return (float(progress.step),)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        (step,) = schedule_values
        distance, penalty = _terms(online, self.global_crop_count, self.weights, self.slices, self.seed, step)
        total = (1 - self.weight) * distance + self.weight * penalty
        return Loss(total, {"distance": distance.detach(), "regulariser": penalty.detach()})
