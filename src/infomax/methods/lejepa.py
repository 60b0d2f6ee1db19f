"""LeJEPA: "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics", Balestriero, LeCun,
arXiv 2511.08544.

The views of an image are predicted by the mean of its global views, and the embeddings are made to follow a standard
normal distribution: on random directions, their characteristic function is compared with that of a Gaussian.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from infomax.functional import centre_distance, check_rows, check_views, full_precision, row_blocks
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.models.encoders import Encoder
from infomax.nn.blocks import mlp
from infomax.nn.draws import check_directions, draw_directions
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_sum


class _WaveSums(torch.autograd.Function):
    """Sums ``cos(k step x)`` and ``sin(k step x)`` over rows, for k = 0, 1, ..., with a gradient of its own.

    Autograd would keep a matrix for each k until the backward pass. Here two waves are computed, and all others follow
    from the sum formulas of sine and cosine, in both passes.
    """

    @staticmethod
    def forward(ctx, x: Tensor, step: float, knots: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.step, ctx.knots = step, knots
        total = x.new_zeros(2, knots, x.shape[1])
        for (rows,) in row_blocks(x):
            first_cos, first_sin = (step * rows).cos(), (step * rows).sin()
            cos, sin = torch.ones_like(rows), torch.zeros_like(rows)
            sums = []
            for _ in range(knots):
                sums.append(torch.stack([cos.sum(0), sin.sum(0)]))
                cos, sin = cos * first_cos - sin * first_sin, sin * first_cos + cos * first_sin
            total = total + torch.stack(sums, dim=1)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyrefly: ignore[bad-override]
        (x,) = ctx.saved_tensors
        (of_cos, of_sin), blocks = gradients[0], []
        for (rows,) in row_blocks(x):
            first_cos, first_sin = (ctx.step * rows).cos(), (ctx.step * rows).sin()
            cos, sin, gradient = first_cos, first_sin, torch.zeros_like(rows)
            for k in range(1, ctx.knots):
                gradient = gradient + k * ctx.step * (of_sin[k] * cos - of_cos[k] * sin)
                cos, sin = cos * first_cos - sin * first_sin, sin * first_cos + cos * first_sin
            blocks.append(gradient)
        return torch.cat(blocks), None, None


def _statistics(samples: Sequence[Tensor], limit: float, knots: int) -> Float[Tensor, "v m"]:
    """Computes the Epps-Pulley statistic of each column of each matrix, with one collective for all of them."""
    sums = torch.stack([_WaveSums.apply(x, limit / (knots - 1), knots) for x in samples])
    totals = global_sum(torch.cat([sums.flatten(), sums.new_tensor([len(samples[0])])]))
    rows = totals[-1].detach()
    cos, sin = (totals[:-1] / rows).view_as(sums).unbind(1)
    t = torch.linspace(0, limit, knots, dtype=sums.dtype, device=sums.device)
    gaussian = (-t.square() / 2).exp()[:, None]
    error = ((cos - gaussian).square() + sin.square()) * gaussian
    return rows * 2 * torch.trapezoid(error, t, dim=1)


def epps_pulley(projections: Float[Tensor, "n m"], *, limit: float = 3.0, knots: int = 17) -> Float[Tensor, " m"]:
    """Computes the Epps-Pulley statistic of each column: how far its samples are from a standard normal distribution.

    ``N 2 int_0^limit [(mean cos(t x) - g)^2 + mean(sin(t x))^2] g dt`` with ``g = exp(-t^2 / 2)``, by the trapezoidal
    rule on evenly spaced knots; N is the number of rows of the global batch. The paper integrates from -5 to 5, the
    official library from 0 to 3 (docs/decisions.md, lejepa-knots).

    Args:
        projections: Samples, one column a direction, [N, M]; gradients flow to them.
        limit: The end of the integral, above 0.
        knots: The number of points of the trapezoidal rule, at least 2.

    Returns:
        The statistics, [M], not negative.

    Raises:
        ValueError: If ``projections`` is not a finite floating-point matrix, or a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.lejepa import epps_pulley
        >>> normal = torch.special.ndtri((torch.arange(100) + 0.5) / 100)
        >>> statistic = epps_pulley(torch.stack([normal, normal + 1], dim=1))
        >>> [round(x, 2) for x in statistic.tolist()]  # a normal distribution, and one with another mean
        [0.0, 44.4]
    """
    check_rows("projections", projections)
    _check_integral(limit, knots)
    return _epps_pulley(projections, limit, knots)


@full_precision
def _epps_pulley(projections: Tensor, limit: float, knots: int) -> Tensor:
    return _statistics([projections], limit, knots)[0]


def _check_integral(limit: float, knots: int) -> None:
    check_number("limit", limit, low=0, open_low=True)
    check_count("knots", knots, low=2)


def sigreg_loss(
    z: Float[Tensor, "b d"], directions: Float[Tensor, "d m"], *, limit: float = 3.0, knots: int = 17
) -> Float[Tensor, ""]:
    """Computes SIGReg: the mean of :func:`epps_pulley` over projections of the embeddings on random directions.

    Args:
        z: Embeddings, [B, D]; gradients flow to them.
        directions: Directions of unit norm, one a column, [D, M]; they are held constant, and are the same on all
            ranks.
        limit: The end of the integral, as in :func:`epps_pulley`.
        knots: The number of points of the trapezoidal rule, likewise.

    Returns:
        The loss, a scalar; of normal embeddings it does not depend on their number, of others it grows with it.

    Raises:
        ValueError: If a matrix is not finite, the directions do not fit the embeddings or have no unit norm, or a
            number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.lejepa import sigreg_loss
        >>> z = torch.zeros(4, 2)  # N equal points: 2 N times the integral of (1 - g)^2 g
        >>> round(sigreg_loss(z, torch.eye(2)).item(), 3), round(sigreg_loss(z[:2], torch.eye(2)).item(), 3)
        (1.608, 0.804)
    """
    check_rows("z", z)
    check_directions("directions", directions, z)
    _check_integral(limit, knots)
    return _sigreg_losses([z], directions, limit, knots)[0]


@full_precision
def _sigreg_losses(zs: list[Tensor], directions: Tensor, limit: float, knots: int) -> Float[Tensor, " v"]:
    """Computes :func:`sigreg_loss` of each of several views."""
    directions = directions.detach().to(zs[0].dtype)
    return _statistics([z @ directions for z in zs], limit, knots).mean(1)


def lejepa_loss(
    views: Sequence[Float[Tensor, "b d"]],
    directions: Float[Tensor, "d m"],
    *,
    full: int = 2,
    weight: float = 0.05,
    limit: float = 3.0,
    knots: int = 17,
) -> Float[Tensor, ""]:
    """Computes LeJEPA's loss of several views of the same images.

    ``(1 - weight) mean (z_v - c)^2 + weight mean_v sigreg(z_v)``, where the first mean is over views, images and
    dimensions, and c is the mean of an image's full views, with gradient. SIGReg is that of each view alone
    (docs/decisions.md, lejepa-views).

    Args:
        views: The embeddings of each view, [B, D], the full views first; gradients flow to them.
        directions: Directions of unit norm, one a column, [D, M], as in :func:`sigreg_loss`.
        full: The number of full views.
        weight: The share of SIGReg, from 0 to 1.
        limit: The end of the integral, as in :func:`epps_pulley`.
        knots: The number of points of the trapezoidal rule, likewise.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If there are fewer views than ``full``, a matrix is not finite or does not fit the others, the
            directions have no unit norm, or a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.lejepa import lejepa_loss
        >>> views = [torch.tensor([[1.0], [-1.0]]), torch.tensor([[3.0], [1.0]])]  # each is 1 from the mean of both
        >>> round(lejepa_loss(views, torch.eye(1), weight=0.0).item(), 4)
        1.0
    """
    check_count("full", full, low=1)
    matrices = check_views("views", views, full=full)
    check_directions("directions", directions, matrices[0])
    check_number("weight", weight, low=0, high=1, open_high=False)
    _check_integral(limit, knots)
    distance, sigreg = _terms(matrices, directions, full, limit, knots)
    return (1 - weight) * distance + weight * sigreg


@full_precision
def _terms(
    views: list[Tensor], directions: Tensor, full: int, limit: float, knots: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Computes the two terms of :func:`lejepa_loss` without its checks."""
    return centre_distance(views, full), _sigreg_losses(views, directions, limit, knots).mean()


@full_precision  # of embeddings in half precision the directions are those of single precision
def _directions(z: Tensor, count: int, seed: int, step: float | Tensor) -> Float[Tensor, "d m"]:
    return draw_directions(z.shape[1], count, seed=seed, step=step, like=z)


class LeJepa(Method):
    """A method that trains LeJEPA's encoder and projector; each step has new directions.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the projector's output.
        weight: The share of SIGReg in the loss; see :func:`lejepa_loss`.
        slices: The number of directions of a step.
        limit: The end of the integral; see :func:`epps_pulley`.
        knots: The number of points of the trapezoidal rule; see there.

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
        limit: float,
        knots: int,
    ):
        super().__init__()
        for name, count in (("hidden", hidden), ("dimension", dimension), ("slices", slices)):
            check_count(name, count, low=1)
        check_number("weight", weight, low=0, high=1, open_high=False)
        _check_integral(limit, knots)
        self.weight, self.slices, self.limit, self.knots = weight, slices, limit, knots
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=True, hidden_bias=False)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.project, views.crops)

    def schedule_values(self, progress: Progress) -> tuple[float, ...]:
        """Returns the step, from which the directions are drawn."""
        return (float(progress.step),)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        (step,) = schedule_values
        directions = _directions(online[0], self.slices, self.seed, step)
        distance, sigreg = _terms(online, directions, self.global_crop_count, self.limit, self.knots)
        total = (1 - self.weight) * distance + self.weight * sigreg
        return Loss(total, {"distance": distance.detach(), "sigreg": sigreg.detach()})
