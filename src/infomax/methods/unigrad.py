"""UniGrad: "Exploring the Equivalence of Siamese Self-Supervised Learning via A Unified Gradient Framework", Tao, Wang,
Zhu, Dong, Song, Huang, Dai, arXiv 2112.05141.

The gradients of contrastive, asymmetric and decorrelating methods are of one form: towards the other view, and away
from the directions that embeddings have in common. This loss has that gradient, with a running correlation matrix.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.functional import check_rows, full_precision
from infomax.methods.base import Loss, Method, Progress, Views, other_global_crops
from infomax.models.encoders import Encoder
from infomax.nn.blocks import Teacher, l2_normalize, mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_mean, global_quotient


@torch.no_grad()
def update_correlation(
    correlation: Float[Tensor, "d d"] | None,
    target1: Float[Tensor, "b d"],
    target2: Float[Tensor, "b d"],
    *,
    momentum: float = 0.99,
) -> Float[Tensor, "d d"]:
    """Computes the running correlation matrix of the teacher's embeddings after one step.

    ``momentum F + (1 - momentum) (T1' T1 + T2' T2) / 2B`` with rows of unit norm, over the global batch. A step's loss
    takes the matrix that its own batch has updated.

    Args:
        correlation: The matrix F after the step before, [D, D]; None at the first step, whose matrix is that of its
            batch alone.
        target1: Embeddings of the first views by the teacher, [B, D]; they are L2-normalised here.
        target2: Embeddings of the second views of the same images, [B, D], likewise.
        momentum: The share of the old matrix, from 0 to 1.

    Returns:
        The new matrix, [D, D], without gradient; the old one is not changed.

    Raises:
        ValueError: If a matrix is not finite, their shapes do not fit, or ``momentum`` is not from 0 to 1.

    Example:
        >>> import torch
        >>> from infomax.methods.unigrad import update_correlation
        >>> correlation = update_correlation(None, torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]]))
        >>> correlation.diagonal().tolist()
        [0.5, 0.5]
        >>> update_correlation(correlation, torch.eye(2)[:1], torch.eye(2)[:1], momentum=0.5).diagonal().tolist()
        [0.75, 0.25]
    """
    check_rows("target1", target1)
    check_rows("target2", target2, like=target1)
    check_number("momentum", momentum, low=0, high=1, open_high=False)
    new = _batch_correlation([target1, target2])
    if correlation is None:
        return new
    check_rows("correlation", correlation, like=new)
    return torch.lerp(new, correlation.to(new.dtype), momentum)


@torch.no_grad()
@full_precision
def _batch_correlation(targets: list[Tensor]) -> Float[Tensor, "d d"]:
    units = torch.cat([l2_normalize(t) for t in targets])
    return global_quotient(units.T @ units, len(units))


def unigrad_loss(
    z1: Float[Tensor, "b d"],
    z2: Float[Tensor, "b d"],
    target1: Float[Tensor, "b d"],
    target2: Float[Tensor, "b d"],
    correlation: Float[Tensor, "d d"],
    *,
    weight: float = 100.0,
) -> Float[Tensor, ""]:
    """Computes UniGrad's loss, whose gradient is that of the paper's unified form.

    ``1/2 sum over (a, b) = (1, 2), (2, 1) of mean[-z_a t_b + weight/2 z_a' F z_a]`` with rows of unit norm. The
    official code has another value with the same gradient (docs/decisions.md, unigrad-value).

    Args:
        z1: Embeddings of the first views, [B, D]; they are L2-normalised here. Gradients flow to them.
        z2: Embeddings of the second views of the same images, [B, D], likewise.
        target1: Embeddings of the first views by the teacher, [B, D]; they are L2-normalised here, and held constant.
        target2: Embeddings of the second views by the teacher, [B, D], likewise.
        correlation: The matrix F that :func:`update_correlation` returned for these targets, [D, D]; held constant.
        weight: The weight of the second term, not negative.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If a matrix is not finite, their shapes do not fit, or ``weight`` is negative.

    Example:
        >>> import torch
        >>> from infomax.methods.unigrad import unigrad_loss, update_correlation
        >>> z = torch.eye(2)
        >>> unigrad_loss(z, z, z, z, update_correlation(None, z, z), weight=4.0).item()  # -1 + 4/2 of 1/2
        0.0
    """
    check_rows("z1", z1)
    for name, x in (("z2", z2), ("target1", target1), ("target2", target2)):
        check_rows(name, x, like=z1)
    check_rows("correlation", correlation)
    if correlation.shape != (z1.shape[1], z1.shape[1]):
        raise ValueError(f"correlation must be [{z1.shape[1]}, {z1.shape[1]}], but is {list(correlation.shape)}")
    check_number("weight", weight, low=0)
    return _unigrad_loss([z1, z2], [target1, target2], correlation, weight)


@full_precision
def _unigrad_loss(online: list[Tensor], targets: list[Tensor], correlation: Tensor, weight: float) -> Tensor:
    """Computes the mean of the loss over all pairs of a view and another view's target."""
    units, targets = [l2_normalize(z) for z in online], [l2_normalize(t.detach()) for t in targets]
    correlation = correlation.detach().to(units[0].dtype)
    losses = []
    for view, z in enumerate(units):
        common = weight / 2 * (z @ correlation * z).sum(1)
        losses += [common - (z * targets[crop]).sum(1) for crop in other_global_crops(view, len(targets))]
    return global_mean(torch.stack(losses).mean(0))


class UniGrad(Method):
    """A method that trains UniGrad's encoder and projector towards an EMA teacher.

    The loss is the mean over all pairs of a view and the teacher's output for another global crop. The correlation
    matrix is that of all global crops.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the projector's output.
        weight: The weight of the second term; see :func:`unigrad_loss`.
        correlation_momentum: The share of the old correlation matrix at a step; see :func:`update_correlation`.
        momentum: The EMA momentum of the teacher at the start; a cosine raises it to 1.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    correlation: Tensor
    has_correlation: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        weight: float,
        correlation_momentum: float,
        momentum: float,
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension)):
            check_count(name, width, low=1)
        check_number("weight", weight, low=0)
        check_number("correlation_momentum", correlation_momentum, low=0, high=1, open_high=False)
        self.weight, self.correlation_momentum = weight, correlation_momentum
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=True, hidden_bias=False)
        self.teacher = Teacher(self._online, momentum)
        self.register_buffer("correlation", torch.zeros(dimension, dimension))
        self.register_buffer("has_correlation", torch.zeros((), dtype=torch.bool))

    @property
    def _online(self) -> nn.Sequential:
        return nn.Sequential(self.encoder, self.projector)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self._online, views.crops)

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.teacher, views.global_crops)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        new = _batch_correlation(target).to(self.correlation.dtype)
        running = torch.lerp(new, self.correlation, self.correlation_momentum)
        correlation = torch.where(self.has_correlation, running, new)
        if self.training and torch.is_grad_enabled():
            self.correlation.copy_(correlation)
            self.has_correlation.fill_(True)
        return Loss(_unigrad_loss(online, target, correlation, self.weight), {})

    def after_step(self, progress: Progress) -> None:
        # The official code moves the teacher before its forward pass: that of the next step, whose progress this is.
        self.teacher.ema_update(self._online, progress.fraction)
