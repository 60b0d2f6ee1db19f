"""CorInfoMax: "Self-Supervised Learning with an Information Maximization Criterion",
Ozsoy, Hamdan, Arik, Yuret, Erdogan, arXiv 2209.07999.

Two branches share their weights. The log-determinants of their covariances, estimated recursively over batches (Eq. 7),
keep the embeddings spread out, and the distance between the branches ties them together (Eq. 6).
"""

import warnings
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from infomax.functional import check_rows, full_precision, log_det_or_nan, scatter
from infomax.methods.base import Loss, Method, Views, others
from infomax.models.encoders import Encoder
from infomax.nn.blocks import l2_normalize, mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_count, global_mean, global_means, global_quotient


def recursive_statistics(
    z: Float64[Tensor, "n d"], mean: Float64[Tensor, " d"], covariance: Float64[Tensor, "d d"], forgetting: float
) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
    """One step of Eq. 7 over the global batch: the new mean, and the new covariance about the new mean.

    The old statistics are constants; gradients flow through the batch mean too, as in the official code.
    """
    mean = torch.lerp(global_mean(z), mean, forgetting)
    return mean, torch.lerp(global_quotient(scatter(z, mean), len(z)), covariance, forgetting)


class _SquaredDistance(torch.autograd.Function):
    """Of corresponding rows, over their width; autograd would go over the matrix twice as often."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        apart = a - b
        ctx.save_for_backward(apart)
        return (apart * apart).mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # pyrefly: ignore[bad-override]
        (apart,) = ctx.saved_tensors
        gradient = apart * (gradients[0] * (2 / apart.shape[1])).unsqueeze(1)
        return gradient, -gradient


class CorInfoMaxLoss(nn.Module):
    """``-1/D [log det(R1 + epsilon I) + log det(R2 + epsilon I)] + attraction / (N D) |Z1 - Z2|^2`` (Algorithm 1).

    Equal to -J/D of Eq. 6 with 2/epsilon there replaced by ``attraction`` (docs/decisions.md, corinfomax-attraction).
    The statistics R1, R2, mu1, mu2 of the two branches are float64 buffers: they move with the module, are saved with
    it, and advance only in training mode while gradients are enabled. All is computed in float64, because with fewer
    samples than dimensions the covariance's null space decays to epsilon, far below float32's rounding.

    Args:
        dim: D, the width of the embeddings.
        attraction: alpha, the weight of the mean squared distance between the branches.
        forgetting: lambda in [0, 1): the share of the old statistics that is kept at each step.
        epsilon: Added to the covariances' diagonal.
    """

    R1: Tensor
    R2: Tensor
    mu1: Tensor
    mu2: Tensor

    def __init__(self, dim: int, *, attraction: float, forgetting: float = 0.01, epsilon: float = 1e-8):
        super().__init__()
        check_count("dim", dim, low=1)
        check_number("attraction", attraction, low=0)
        check_number("forgetting", forgetting, low=0, high=1)
        check_number("epsilon", epsilon, low=0, open_low=True)
        self.dim, self.attraction, self.forgetting, self.epsilon = dim, attraction, forgetting, epsilon
        for branch in "12":
            self.register_buffer(f"R{branch}", torch.eye(dim, dtype=torch.float64))
            self.register_buffer(f"mu{branch}", torch.zeros(dim, dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CorInfoMaxLoss":
        """Follow the module to another device, but keep the statistics' precision when it changes its own."""
        kept = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def forward(self, z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        """The loss of one step, from the two branches' embeddings of the same images.

        Raises:
            ValueError: if ``z1`` or ``z2`` is not a finite [N, dim] matrix with N >= 2, or their shapes differ.
        """
        check_rows("z1", z1, minimum=2)
        check_rows("z2", z2, minimum=2, like=z1)
        if z1.shape[1] != self.dim:
            raise ValueError(f"z1 must have dim={self.dim} columns, but has {z1.shape[1]}")
        entropy, distance = self.terms(z1, z2)
        return (self.attraction * distance - entropy).to(z1.dtype)

    @full_precision
    def terms(self, z1: Tensor, z2: Tensor, pairs: Sequence[tuple[Tensor, Tensor]] = ()) -> tuple[Tensor, Tensor]:
        """``1/D`` of the sum of the log-determinants, and the mean squared distance; advances the statistics.

        Both are NaN where the embeddings are no numbers; an error would have to wait for the device.

        Args:
            pairs: Over which the distance is averaged, where there are more than ``z1`` and ``z2``.
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
        if self.training and torch.is_grad_enabled():
            new = {"mu1": mean1, "mu2": mean2, "R1": covariance1, "R2": covariance2}
            for name, value in new.items():
                getattr(self, name).copy_(value.detach())
        distances = global_means([_SquaredDistance.apply(a.double(), b.double()) for a, b in pairs or [(z1, z2)]])
        return entropy.to(dtype), torch.stack(distances).mean().to(dtype)


class CorInfoMax(Method):
    """CorInfoMax's shared branch and its loss.

    Of more than two full views, every other one belongs to the same branch, whose covariance is that of all their
    embeddings; local views are drawn to the full ones (docs/decisions.md, corinfomax-crops).

    Args:
        encoder: Images to features.
        hidden, dimension: Widths of the projector's hidden layers and of its output.
        projector_norm: Whether the hidden layers have BatchNorm, as the paper's ImageNet-1k run alone has.
        attraction, forgetting, epsilon: As in :class:`CorInfoMaxLoss`.
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
    ):
        super().__init__()
        check_count("hidden", hidden, low=1)
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=projector_norm, output_bias=False)
        self.criterion = CorInfoMaxLoss(dimension, attraction=attraction, forgetting=forgetting, epsilon=epsilon)

    @property
    def eval_encoder(self) -> Encoder:
        return self.encoder

    def online(self, views: Views) -> list[Tensor]:
        return [l2_normalize(z) for z in self.each(self._embed, [*views.global_crops, *views.local_crops])]

    def _embed(self, x: Tensor) -> Tensor:
        return self.projector(self.encoder(x))

    def compute_loss(self, online: list[Tensor], target: list[Tensor], numbers: Iterable[float | Tensor]) -> Loss:
        if len(online) == 2:
            entropy, distance = self.criterion.terms(online[0], online[1])
        else:
            full = online[: self.global_views]
            pairs = [(z, full[view]) for crop, z in enumerate(online) for view in others(crop, len(full))]
            entropy, distance = self.criterion.terms(torch.cat(full[0::2]), torch.cat(full[1::2]), pairs)
        total = self.criterion.attraction * distance - entropy
        return Loss(total, {"log_det": entropy.detach(), "distance": distance.detach()})
