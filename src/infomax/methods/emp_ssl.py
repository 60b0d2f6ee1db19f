"""EMP-SSL: "EMP-SSL: Towards Self-Supervised Learning in One Training Epoch", Tong, Chen, Ma, LeCun, arXiv 2304.03977.

Each image gives many small crops, whose embeddings are drawn to their mean. The total coding rate of each crop's batch,
the volume that its embeddings fill, is maximised, so that the embeddings of all images stay apart.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.functional import check_rows, check_views, full_precision, log_det_or_nan, scatter
from infomax.methods.base import Loss, Method, Views
from infomax.models.encoders import Encoder
from infomax.nn.blocks import l2_normalize, mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_mean, global_quotient


def total_coding_rate(z: Float[Tensor, "b d"], *, epsilon: float = 0.2) -> Float[Tensor, ""]:
    """Computes the total coding rate of embeddings on the unit sphere, in nats.

    ``1/2 log det(I + D / (B epsilon) Z'Z)`` with the L2-normalised embeddings Z of the global batch of B images. The
    paper has the square of epsilon, the official code epsilon itself (docs/decisions.md, emp-ssl-epsilon). It is
    computed in float64.

    Args:
        z: Embeddings, [B, D]; they are L2-normalised here. Gradients flow to them.
        epsilon: The distortion, above 0.

    Returns:
        The rate, a scalar, not negative.

    Raises:
        ValueError: If ``z`` is not a finite floating-point matrix, or ``epsilon`` is not above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.emp_ssl import total_coding_rate
        >>> round(total_coding_rate(torch.eye(2)).item(), 4)  # log(1 + 1 / 0.2)
        1.7918
        >>> round(total_coding_rate(torch.ones(2, 2)).item(), 4)  # equal rows: log(1 + 2 / 0.2) / 2
        1.1989
    """
    check_rows("z", z)
    check_number("epsilon", epsilon, low=0, open_low=True)
    return _coding_rates([z], epsilon)[0]


@full_precision
def _coding_rates(views: list[Tensor], epsilon: float) -> Float[Tensor, " v"]:
    """Computes the rate of each view, with one collective for all of them."""
    dtype, (count, width) = views[0].dtype, views[0].shape
    origin = torch.zeros(width, dtype=torch.float64, device=views[0].device)
    scatters = torch.stack([scatter(l2_normalize(z.double()), origin) for z in views])
    return (log_det_or_nan(global_quotient(scatters, count) * (width / epsilon), ridge=1.0) / 2).to(dtype)


def emp_ssl_loss(
    views: Sequence[Float[Tensor, "b d"]], *, invariance: float = 200.0, epsilon: float = 0.2
) -> Float[Tensor, ""]:
    """Computes EMP-SSL's loss: the negative total coding rate, and the cosine of each view with the mean of all views.

    ``-mean_v rate(z_v) - invariance mean_v mean_b cos(z_v, c)``, where c is the mean of an image's L2-normalised
    embeddings over its views. Both terms are subtracted: more volume, and more agreement, lower the loss. lightly 1.6.0
    adds the rate (docs/decisions.md, emp-ssl-sign).

    Args:
        views: The embeddings of each view, [B, D]; they are L2-normalised here. Gradients flow to them, through the
            mean too.
        invariance: The weight of the cosine, not negative.
        epsilon: The distortion, above 0; see :func:`total_coding_rate`.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If ``views`` is not a list of finite floating-point matrices of one shape, or a number is out of
            range.

    Example:
        >>> import torch
        >>> from infomax.methods.emp_ssl import emp_ssl_loss
        >>> z = torch.eye(2)
        >>> round(emp_ssl_loss([z, z]).item(), 4)  # the rate is log 6, the cosine 1
        -201.7918
    """
    views = check_views("views", views)
    check_number("invariance", invariance, low=0)
    check_number("epsilon", epsilon, low=0, open_low=True)
    rate, cosine = _terms(views, epsilon)
    return -rate - invariance * cosine


@full_precision
def _terms(views: list[Tensor], epsilon: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Computes the mean rate and the mean cosine."""
    embeddings = [l2_normalize(z) for z in views]
    centre = l2_normalize(torch.stack(embeddings).mean(0))
    cosine = global_mean(torch.stack([(z * centre).sum(1) for z in embeddings]).mean(0))
    return _coding_rates(views, epsilon).mean(), cosine


class EmpSsl(Method):
    """A method that trains EMP-SSL's encoder and projector; local crops enter the loss as global ones do.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the projector's output.
        invariance: The weight of the cosine; see :func:`emp_ssl_loss`.
        epsilon: The distortion; see :func:`total_coding_rate`.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(self, encoder: Encoder, *, hidden: int, dimension: int, invariance: float, epsilon: float):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension)):
            check_count(name, width, low=1)
        check_number("invariance", invariance, low=0)
        check_number("epsilon", epsilon, low=0, open_low=True)
        self.invariance, self.epsilon = invariance, epsilon
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=True)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.project, views.crops)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        rate, cosine = _terms(online, self.epsilon)
        return Loss(-rate - self.invariance * cosine, {"coding_rate": rate.detach(), "cosine": cosine.detach()})
