"""CorInfoMax: "Self-Supervised Learning with an Information Maximization Criterion",
Ozsoy, Hamdan, Arik, Yuret, Erdogan, arXiv 2209.07999.

Two branches share their weights. The log-determinants of their covariances, estimated recursively over batches (Eq. 7),
keep the embeddings spread out, and the distance between the branches ties them together (Eq. 6).
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from infomax.functional import check_rows, full_precision, log_det_or_nan, scatter
from infomax.methods.base import Loss, Method, Views, other_global_crops
from infomax.models.encoders import Encoder
from infomax.nn.blocks import l2_normalize, mlp
from infomax.runtime.checks import check_count, check_number, choose
from infomax.runtime.collectives import global_count, global_mean, global_means, global_quotient

ATTRACTION_PER_DIMENSION = 250 / 64
"""The attraction over the width of the embeddings: 250 over 64 in the paper's CIFAR-10, 500 over 128 in its Tiny
ImageNet and ImageNet-100, 2000 over 512 in its ImageNet. CIFAR-100 alone has 1000 over 128; 500 there costs 0.3
points."""


TAYLOR, LDMI = OBJECTIVES = ("taylor", "ldmi")
"""What is maximised: Eq. 6, which two Taylor series make of the mutual information; or that itself, Eq. 1."""


def recursive_statistics(
    z: Float64[Tensor, "n d"], mean: Float64[Tensor, " d"], covariance: Float64[Tensor, "d d"], forgetting: float
) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
    """Computes the new mean and covariance after one step of Eq. 7, over the global batch.

    ``mean' = forgetting mean + (1 - forgetting) batch mean``, and ``covariance' = forgetting covariance +
    (1 - forgetting) batch covariance``, where the batch covariance is that about the new mean. The old statistics are
    held constant; gradients flow through the batch mean too, as in the official code.

    Args:
        z: The embeddings, [N, D] in float64; gradients flow to them.
        mean: The mean after the step before, [D] in float64.
        covariance: The covariance after the step before, [D, D] in float64.
        forgetting: lambda in [0, 1]: the share of the old statistics that is kept.

    Returns:
        The new mean, [D], and the new covariance, [D, D].

    Example:
        >>> import torch
        >>> from infomax.methods.corinfomax import recursive_statistics
        >>> z = torch.tensor([[1.0], [3.0]]).double()
        >>> mean, covariance = torch.zeros(1).double(), torch.eye(1).double()
        >>> mean, covariance = recursive_statistics(z, mean, covariance, forgetting=0.5)
        >>> mean.item(), covariance.item()  # about the new mean, the batch has variance 2
        (1.0, 1.5)
    """
    mean = torch.lerp(global_mean(z), mean.detach(), forgetting)
    return mean, torch.lerp(global_quotient(scatter(z, mean), len(z)), covariance.detach(), forgetting)


class _SquaredDistance(torch.autograd.Function):
    """Computes the squared distance of corresponding rows over their width; autograd would read them twice as often."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        difference = a - b
        ctx.save_for_backward(difference)
        return (difference * difference).mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # pyrefly: ignore[bad-override]
        (difference,) = ctx.saved_tensors
        gradient = difference * (gradients[0] * (2 / difference.shape[1])).unsqueeze(1)
        return gradient, -gradient


class CorInfoMaxLoss(nn.Module):
    """A module that computes CorInfoMax's loss (Algorithm 1) and holds the statistics of both branches.

    ``-1/D [log det(R1 + epsilon I) + log det(R2 + epsilon I)] + attraction / (N D) |Z1 - Z2|^2``

    This is -J/D of Eq. 6 with 2/epsilon replaced by ``attraction`` (docs/decisions.md, corinfomax-attraction). The
    covariances R1, R2 [D, D] and means mu1, mu2 [D] of the two branches are float64 buffers: they move with the module
    and are saved with it. They change only in training mode while gradients are enabled. All is computed in float64,
    because with fewer samples than dimensions the smallest eigenvalues of a covariance decay to epsilon, far below
    float32's rounding.

    A further buffer, the cross-covariance R12 [D, D], follows the same recursion from 0. The loss does not depend on
    it; :meth:`mutual_information` does, and so does the loss with the objective ``ldmi``: ``-4/D`` times the mutual
    information itself (Eq. 1), of which Eq. 6 is an approximation (docs/decisions.md, corinfomax-ldmi-loss). There is
    then no attraction; epsilon has its place, as 2/epsilon is what alpha stands for.

    Args:
        dim: The width of the embeddings, D.
        attraction: The weight alpha of the mean squared distance between the branches, not negative. None takes
            250/64 ``dim``, which is the paper's on all its data sets but CIFAR-100 (docs/decisions.md,
            corinfomax-default-attraction). It grows with ``dim`` because the squared distance of unit vectors is
            divided by ``dim``, while the log-determinants over ``dim`` stay of one size.
        forgetting: lambda in [0, 1): the share of the old statistics that is kept at each step.
        epsilon: The number above 0 that is added to the covariances' diagonals.
        objective: ``taylor`` for the loss above, ``ldmi`` for the mutual information itself.

    Raises:
        ValueError: If an argument is out of range, or not finite.

    Example:
        >>> import torch
        >>> from infomax.methods.corinfomax import CorInfoMaxLoss
        >>> z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])  # covariance I / 2 about 0
        >>> z2 = torch.tensor([[0.6, 0.8], [-0.8, 0.6], [-0.6, -0.8], [0.8, -0.6]])  # the same, rotated
        >>> loss = CorInfoMaxLoss(dim=2, attraction=0.0, forgetting=0.0)
        >>> round(loss(z1, z2).item(), 4)  # 2 log 2, the least that unit vectors can have in 2 dimensions
        1.3863
        >>> loss = CorInfoMaxLoss(dim=2, attraction=10.0, forgetting=0.0)
        >>> round(loss(z1, z2).item(), 4)  # plus 10 / D times the mean squared distance of 0.8
        5.3863
        >>> [round(x, 4) for x in loss.R1.diagonal().tolist()]
        [0.5, 0.5]
    """

    R1: Tensor
    R2: Tensor
    R12: Tensor
    mu1: Tensor
    mu2: Tensor

    def __init__(
        self,
        dim: int,
        *,
        attraction: float | None = None,
        forgetting: float = 0.01,
        epsilon: float = 1e-8,
        objective: str = "taylor",
    ):
        super().__init__()
        check_count("dim", dim, low=1)
        self.objective = choose("objective", objective, OBJECTIVES)
        attraction = ATTRACTION_PER_DIMENSION * dim if attraction is None else attraction
        check_number("attraction", attraction, low=0)
        check_number("forgetting", forgetting, low=0, high=1)
        check_number("epsilon", epsilon, low=0, open_low=True)
        self.dim, self.forgetting, self.epsilon = dim, forgetting, epsilon
        self.attraction = 0.0 if objective == LDMI else attraction
        for branch in "12":
            self.register_buffer(f"R{branch}", torch.eye(dim, dtype=torch.float64))
            self.register_buffer(f"mu{branch}", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("R12", torch.zeros(dim, dim, dtype=torch.float64))

    def _load_from_state_dict(self, state_dict: Any, prefix: Any, *arguments: Any) -> None:  # pyrefly: ignore
        """Loads the statistics; states that were saved before there was R12 leave it at 0."""
        state_dict.setdefault(f"{prefix}R12", torch.zeros_like(self.R12))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CorInfoMaxLoss":
        """Moves the statistics to another device with the module, but keeps them in float64."""
        buffers_before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in buffers_before.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def forward(self, z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        """Computes the loss of one step from the two branches' embeddings of the same images.

        Args:
            z1: The embeddings of the first branch, [N, D] with N >= 2 over all ranks; gradients flow to them. They are
                taken as they are: the paper's have rows of unit norm, without which the loss has no least value.
            z2: The embeddings of the second branch, [N, D], row by row of the same images; gradients flow to them.

        Returns:
            The loss, a scalar of the type of ``z1``, but at least float32.

        Raises:
            ValueError: If ``z1`` or ``z2`` is not a finite [N, dim] matrix with N >= 2, or their shapes differ.
        """
        check_rows("z1", z1, min_rows=2)
        check_rows("z2", z2, min_rows=2, like=z1)
        if z1.shape[1] != self.dim:
            raise ValueError(f"z1 must have dim={self.dim} columns, but has {z1.shape[1]}")
        entropy, distance = self.terms(z1, z2)
        return (self.attraction * distance - entropy).to(torch.promote_types(z1.dtype, torch.float32))

    @full_precision
    def terms(self, z1: Tensor, z2: Tensor, pairs: Sequence[tuple[Tensor, Tensor]] = ()) -> tuple[Tensor, Tensor]:
        """Computes the two terms of the loss, and updates the statistics.

        Both terms are NaN if the embeddings contain NaN or infinity; an error would have to wait for the device.

        Args:
            z1: The embeddings of the first branch, [N, D].
            z2: The embeddings of the second branch, [N, D].
            pairs: The pairs of embeddings [B, D] over which the distance is averaged; if empty, ``z1`` and ``z2``.

        Returns:
            The sum of the log-determinants over D, or 4/D of the mutual information with the objective ``ldmi``; and
            the mean squared distance over samples and dimensions: two scalars.
        """
        # A compiled loss cannot warn.
        if not torch.compiler.is_compiling() and (samples := global_count(z1)) < 2 * self.dim:
            warnings.warn(
                f"a batch of {samples} gives a poor covariance in {self.dim} dimensions; "
                f"CorInfoMax wants at least {2 * self.dim} samples, or a smaller dim",
                stacklevel=3,
            )
        dtype, (z1, z2) = z1.dtype, (z1.double(), z2.double())
        mean1, covariance1 = recursive_statistics(z1, self.mu1, self.R1, self.forgetting)
        mean2, covariance2 = recursive_statistics(z2, self.mu2, self.R2, self.forgetting)
        entropy = log_det_or_nan(torch.stack([covariance1, covariance2]), self.epsilon).sum() / self.dim
        cross = None
        if self.objective == LDMI:
            cross = self._cross_covariance(z1, z2, mean1, mean2)
            joint = _joint_covariance(covariance1, covariance2, cross)
            entropy = 2 * (entropy - log_det_or_nan(joint, self.epsilon) / self.dim)
        if self.training and torch.is_grad_enabled():
            new = {"mu1": mean1, "mu2": mean2, "R1": covariance1, "R2": covariance2}
            detached = (z1.detach(), z2.detach(), mean1.detach(), mean2.detach())
            new["R12"] = self._cross_covariance(*detached) if cross is None else cross
            for name, value in new.items():
                getattr(self, name).copy_(value.detach())
        distances = global_means([_SquaredDistance.apply(a.double(), b.double()) for a, b in pairs or [(z1, z2)]])
        return entropy.to(dtype), torch.stack(distances).mean().to(dtype)

    def _cross_covariance(self, z1: Tensor, z2: Tensor, mean1: Tensor, mean2: Tensor) -> Tensor:
        """Computes R12 after one step of Eq. 7, over the global batch."""
        return torch.lerp(global_quotient((z1 - mean1).T @ (z2 - mean2), len(z1)), self.R12, self.forgetting)

    @torch.no_grad()
    def mutual_information(self) -> Float64[Tensor, ""]:
        """Computes the log-determinant mutual information of the two branches, in nats (Eq. 1 and appendix L).

        ``1/2 [log det(R1 + epsilon I) + log det(R2 + epsilon I) - log det(R + epsilon I)]`` of the running covariances
        as the last training step left them, where R is the joint covariance of R1, R2 and R12. The authors' figure
        shows 4/D of it (docs/decisions.md, corinfomax-ldmi).

        Returns:
            The mutual information, a scalar; 0 before the first step, and NaN if a matrix is not positive definite.

        Example:
            >>> import torch
            >>> from infomax.methods.corinfomax import CorInfoMaxLoss
            >>> loss = CorInfoMaxLoss(dim=1, attraction=1.0, forgetting=0.0)
            >>> _ = loss(torch.tensor([[-1.0], [-1.0], [1.0], [1.0]]), torch.tensor([[-2.0], [0.0], [0.0], [2.0]]))
            >>> round(loss.mutual_information().item(), 4)  # squared correlation 1/2: log(2) / 2
            0.3466
        """
        joint = _joint_covariance(self.R1, self.R2, self.R12)
        log_dets = log_det_or_nan(torch.stack([self.R1, self.R2]), self.epsilon)
        return (log_dets.sum() - log_det_or_nan(joint, self.epsilon)) / 2


def _joint_covariance(covariance1: Tensor, covariance2: Tensor, cross: Tensor) -> Tensor:
    """Returns the covariance [2D, 2D] of both branches together."""
    return torch.cat([torch.cat([covariance1, cross], 1), torch.cat([cross.T, covariance2], 1)])


class CorInfoMax(Method):
    """A method that trains CorInfoMax's encoder and projector, which both branches share in the paper's experiments.

    Sec. 4.1 allows each branch weights of its own. The second branch then begins with a copy of the encoder and another
    projector, and takes every other view; the first one's encoder is kept (docs/decisions.md, corinfomax-branches).

    If there are more than two global crops, every other one belongs to the same branch, whose covariance is that of all
    their embeddings. Local crops enter the distance alone (docs/decisions.md, corinfomax-crops).

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the projector's output, D.
        projector_norm: Whether the hidden layers have BatchNorm, as only the paper's ImageNet-1k run has.
        attraction: The weight of the distance, as in :class:`CorInfoMaxLoss`.
        forgetting: The share of the old statistics that is kept at each step, as there.
        epsilon: The number that is added to the covariances' diagonals, as there.
        objective: ``taylor`` or ``ldmi``, as there.
        shared_weights: Whether both branches have one encoder and one projector.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        projector_norm: bool,
        attraction: float,
        forgetting: float,
        epsilon: float,
        objective: str = "taylor",
        shared_weights: bool = True,
    ):
        super().__init__()
        check_count("hidden", hidden, low=1)
        widths = (encoder.width, hidden, hidden, dimension)
        self.encoder = encoder
        self.projector = mlp(*widths, norm=projector_norm, output_bias=False)
        self.second_branch: nn.Module | None = None
        if not shared_weights:
            projector = mlp(*widths, norm=projector_norm, output_bias=False)
            self.second_branch = nn.Sequential(deepcopy(encoder), projector)
        self.criterion = CorInfoMaxLoss(
            dimension, attraction=attraction, forgetting=forgetting, epsilon=epsilon, objective=objective
        )

    def own_measures(self, embeddings: Tensor) -> dict[str, float]:
        return {"ldmi": float(self.criterion.mutual_information())}

    def online(self, views: Views) -> list[Tensor]:
        if views.local_crops and self.criterion.objective == LDMI:
            raise ValueError("method.objective=ldmi has no attraction, in which alone local crops enter; use none")
        if self.second_branch is None:
            embeddings = self.forward_each(self.project, views.crops)
        else:
            embeddings = views.crops[:]  # of every other view by each branch
            embeddings[0::2] = self.forward_each(self.project, views.crops[0::2])
            embeddings[1::2] = self.forward_each(self.second_branch, views.crops[1::2])
        return [l2_normalize(z) for z in embeddings]

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        if len(online) == 2:
            entropy, distance = self.criterion.terms(online[0], online[1])
        else:
            global_crops = online[: self.global_crop_count]
            pairs = [
                (z, global_crops[crop])
                for view, z in enumerate(online)
                for crop in other_global_crops(view, len(global_crops))
            ]
            firsts, seconds = global_crops[0::2], global_crops[1::2]
            # The odd crop is paired with the first of the others, so that all covariances are of the same pairs.
            branch1, branch2 = torch.cat(firsts), torch.cat([*seconds, *seconds[: len(firsts) - len(seconds)]])
            entropy, distance = self.criterion.terms(branch1, branch2, pairs)
        total = self.criterion.attraction * distance - entropy
        name = "information" if self.criterion.objective == LDMI else "log_det"
        return Loss(total, {name: entropy.detach(), "distance": distance.detach()})
