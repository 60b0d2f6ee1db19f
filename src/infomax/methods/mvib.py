"""MVIB: the multi-view information bottleneck of "Learning Robust Representations via Multi-View Information
Bottleneck", Federici, Dutta, Forré, Kushman, Akata, arXiv 2002.07017, as MVEB's paper states it (Eq. 2 there).

A view's representation is a Gaussian. Samples of both views' Gaussians are to say much of each other, as InfoNCE bounds
it, and the Gaussians are to be alike: what one of them says beyond the other is of one view alone.
"""

from collections.abc import Iterable, Sequence
from math import log

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.functional import check_rows, full_precision
from infomax.methods.base import Loss, Method, Views, crop_pairs
from infomax.methods.simclr import nt_xent
from infomax.models.encoders import Encoder
from infomax.nn.blocks import mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_mean, global_means


def gaussian_kl(
    mean1: Float[Tensor, "b d"],
    log_variance1: Float[Tensor, "b d"],
    mean2: Float[Tensor, "b d"],
    log_variance2: Float[Tensor, "b d"],
) -> Float[Tensor, ""]:
    """Computes the Kullback-Leibler divergence of two diagonal Gaussians, in nats, as the mean over images.

    ``mean_b sum_j 1/2 [v1/v2 + (m1 - m2)^2 / v2 - 1 - log(v1/v2)]`` with variances v, over the global batch.

    Args:
        mean1: Means of the Gaussians on the left, [B, D], one row an image. Gradients flow to all arguments.
        log_variance1: Natural logarithms of their variances, [B, D].
        mean2: Means of the Gaussians on the right, [B, D].
        log_variance2: Natural logarithms of their variances, [B, D].

    Returns:
        The divergence, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, or their shapes differ.

    Example:
        >>> import torch
        >>> from infomax.methods.mvib import gaussian_kl
        >>> zero, two = torch.zeros(1, 1), torch.full((1, 1), 2.0)
        >>> gaussian_kl(two, zero, zero, zero).item()  # means that are 2 apart, variances of 1
        2.0
        >>> round(gaussian_kl(zero, two, zero, zero).item(), 4)  # variance e^2 beside 1: (e^2 - 1 - 2) / 2
        2.1945
    """
    _check_gaussian("1", mean1, log_variance1, like=mean1)
    _check_gaussian("2", mean2, log_variance2, like=mean1)
    return global_mean(_kl_rows(mean1, log_variance1, mean2, log_variance2))


@full_precision
def _kl_rows(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """Computes the divergence of each row."""
    log_ratio = log_variance1 - log_variance2
    difference = mean1 - mean2
    # Equal means give 0 at any variance, of which the smallest have no finite inverse.
    distance = (difference * (-log_variance2 / 2).masked_fill(difference == 0, 0).exp()).square()
    return (log_ratio.expm1() - log_ratio + distance).sum(1) / 2


def _check_gaussian(number: str, mean: Tensor, log_variance: Tensor, *, like: Tensor) -> None:
    check_rows(f"mean{number}", mean, like=like)
    check_rows(f"log_variance{number}", log_variance, like=like)


def mvib_loss(
    mean1: Float[Tensor, "b d"],
    log_variance1: Float[Tensor, "b d"],
    mean2: Float[Tensor, "b d"],
    log_variance2: Float[Tensor, "b d"],
    noise1: Float[Tensor, "b d"],
    noise2: Float[Tensor, "b d"],
    *,
    weight: float = 1e-3,
    temperature: float = 0.5,
) -> Float[Tensor, ""]:
    """Computes MVIB's loss: the contrast of two samples, and the divergence of the Gaussians that they are from.

    ``weight/2 (KL12 + KL21) + NT-Xent(s1, s2)`` with the samples ``s = mean + exp(log_variance / 2) noise`` (Eq. 2 of
    MVEB's paper, for both views), KL as in :func:`gaussian_kl` and NT-Xent as
    :func:`infomax.methods.simclr.nt_xent_loss`.

    Args:
        mean1: Means of the first views' Gaussians, [B, D], one row an image. Gradients flow to all arguments.
        log_variance1: Natural logarithms of their variances, [B, D].
        mean2: Means of the second views' Gaussians, of the same images, [B, D].
        log_variance2: Natural logarithms of their variances, [B, D].
        noise1: Numbers from the standard normal distribution for the first views, [B, D].
        noise2: Such numbers for the second views, [B, D].
        weight: The weight of the divergence, not negative.
        temperature: The temperature of NT-Xent, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, their shapes differ, or a number is out of
            range.

    Example:
        >>> import torch
        >>> from infomax.methods.mvib import mvib_loss
        >>> from infomax.methods.simclr import nt_xent_loss
        >>> m1, m2, zero, noise = torch.eye(2), -torch.eye(2), torch.zeros(2, 2), torch.ones(2, 2)
        >>> contrast = nt_xent_loss(m1 + noise, m2 + noise, temperature=0.5)  # variance 1
        >>> loss = mvib_loss(m1, zero, m2, zero, noise, noise, weight=0.1)
        >>> round((loss - contrast).item(), 4)  # the divergence is 2^2 / 2
        0.2
    """
    _check_gaussian("1", mean1, log_variance1, like=mean1)
    _check_gaussian("2", mean2, log_variance2, like=mean1)
    check_rows("noise1", noise1, like=mean1)
    check_rows("noise2", noise2, like=mean1)
    check_number("weight", weight, low=0)
    check_number("temperature", temperature, low=0, open_low=True)
    samples = _sample(mean1, log_variance1, noise1), _sample(mean2, log_variance2, noise2)
    divergence = global_mean(_divergence((mean1, log_variance1), (mean2, log_variance2)))
    return weight * divergence + nt_xent(*samples, temperature)


@full_precision
def _sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    return mean + (log_variance / 2).exp() * noise


def _divergence(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Computes the mean of both directions' divergences for each image; a Gaussian is its mean and log-variance."""
    (mean1, log_variance1), (mean2, log_variance2) = first, second
    forward = _kl_rows(mean1, log_variance1, mean2, log_variance2)
    return (forward + _kl_rows(mean2, log_variance2, mean1, log_variance1)) / 2


class Mvib(Method):
    """A method that trains MVIB's encoder and projector.

    The encoder's features are the Gaussian's mean. A sample of it passes the projector, and is contrasted there, as in
    the code of the run that MVEB's paper quotes (docs/decisions.md, mvib-noise). The loss is the mean over all pairs of
    views of which one is a global crop. In evaluation mode the sample is the mean.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layer.
        dimension: The width of the projector's output.
        projector_norm: Whether the projector's hidden layer has BatchNorm.
        weight: The weight of the divergence, not negative; see :func:`mvib_loss`.
        deviation: The standard deviation of the Gaussian, above 0. None lets a linear layer of the features say the
            variance of each feature.
        temperature: The temperature of the contrast, above 0.

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
        weight: float,
        deviation: float | None,
        temperature: float,
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension)):
            check_count(name, width, low=1)
        check_number("weight", weight, low=0)
        check_number("temperature", temperature, low=0, open_low=True)
        if deviation is not None:
            check_number("deviation", deviation, low=0, open_low=True)
        self.weight, self.deviation, self.temperature, self.dimension = weight, deviation, temperature, dimension
        self.encoder = encoder
        self.log_variance = nn.Linear(encoder.width, encoder.width) if deviation is None else None
        self.projector = mlp(encoder.width, hidden, dimension, norm=projector_norm)

    def _embed(self, images: Tensor) -> Tensor:
        """Computes the projected sample, the mean and the log-variance of each image, side by side."""
        mean = self.encoder(images)
        if self.log_variance is None:
            assert self.deviation is not None
            log_variance = torch.full_like(mean, 2 * log(self.deviation))
        else:
            log_variance = self.log_variance(mean)
        sample = _sample(mean, log_variance, torch.randn_like(mean)) if self.training else mean
        return torch.cat([self.projector(sample), mean, log_variance], dim=1)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self._embed, views.crops)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        projections = [z[:, : self.dimension] for z in online]
        width = (online[0].shape[1] - self.dimension) // 2
        gaussians = [(z[:, self.dimension : -width], z[:, -width:]) for z in online]
        pairs = crop_pairs(len(online), self.global_crop_count)
        contrast = torch.stack([nt_xent(projections[i], projections[j], self.temperature) for i, j in pairs]).mean()
        divergence = torch.stack(global_means([_divergence(gaussians[i], gaussians[j]) for i, j in pairs])).mean()
        return Loss(contrast + self.weight * divergence, {"contrast": contrast.detach(), "kl": divergence.detach()})
