"""TWIST: "Self-Supervised Learning by Estimating Twin Class Distributions", Wang, Kong, Zhang, Liu, Li,
arXiv 2110.07402.

Two views of an image are to have the same distribution over classes. Each distribution is to be sharp, and their mean
over images even. This is without the paper's second stage, which trains on the labels that the classes then give.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.functional import check_rows, full_precision
from infomax.methods.base import Loss, Method, Views, crop_pairs
from infomax.models.encoders import Encoder
from infomax.nn.blocks import mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_logmeanexp, global_mean


def twist_loss(
    logits1: Float[Tensor, "b k"],
    logits2: Float[Tensor, "b k"],
    *,
    sharpness: float = 1.0,
    diversity: float = 1.0,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Computes the loss of TWIST: consistent, sharp and diverse class distributions of two views, in nats.

    ``(KL12 + KL21)/2 + sharpness (H1 + H2)/2 - diversity (H(m1) + H(m2))/2``, where KL12 is the mean over images of the
    divergence of the softmax of ``logits1`` from that of ``logits2``. H1 is the mean entropy of an image's distribution
    ``softmax(logits1 / temperature)``, and H(m1) the entropy of their mean over the global batch (Eqs. 1 to 3 there).
    Gradients flow through all of it. The official code adds 1e-5 in logarithms (docs/decisions.md, twist-exact).

    Args:
        logits1: The class logits of the first views, [B, K].
        logits2: The class logits of the second views of the same images, [B, K].
        sharpness: The weight of the entropy of each distribution.
        diversity: The weight of the entropy of their mean.
        temperature: The temperature of the distributions in both entropies, above 0; that in the divergence is 1.

    Returns:
        The loss, a scalar; it may be negative.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, their shapes differ, a weight is negative, or
            ``temperature`` is not above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.twist import twist_loss
        >>> view = 10 * torch.eye(3)
        >>> round(twist_loss(view, view).item(), 4)  # sharp and even: -log 3
        -1.0976
        >>> round(twist_loss(view, 0 * view).item(), 4)
        2.7841
    """
    check_rows("logits1", logits1)
    check_rows("logits2", logits2, like=logits1)
    _check_weights(sharpness, diversity, temperature)
    return _twist(logits1, logits2, sharpness, diversity, temperature)


def _check_weights(sharpness: float, diversity: float, temperature: float) -> None:
    check_number("sharpness", sharpness, low=0)
    check_number("diversity", diversity, low=0)
    check_number("temperature", temperature, low=0, open_low=True)


@full_precision
def _twist(logits1: Tensor, logits2: Tensor, sharpness: float, diversity: float, temperature: float) -> Tensor:
    log1, log2 = logits1.log_softmax(1), logits2.log_softmax(1)
    divergence = ((log1.exp() - log2.exp()) * (log1 - log2)).sum(1) / 2  # of both directions
    scaled = [(logits / temperature).log_softmax(1) for logits in (logits1, logits2)]
    entropy = (_entropy(scaled[0]) + _entropy(scaled[1])) / 2
    # In the log domain, as the gradient of p log p at a p that has underflowed to 0 would be NaN.
    means = global_logmeanexp(torch.cat(scaled, dim=1)).view(2, -1)
    return global_mean(divergence + sharpness * entropy) - diversity * _entropy(means).mean()


def _entropy(logs: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Computes the entropy of each row of logarithms of probabilities."""
    return -(logs.exp() * logs).sum(1)


class Twist(Method):
    """A method that trains TWIST's encoder and the network that gives the class logits.

    The loss is the mean of :func:`twist_loss` over all pairs of views of which one is a global crop.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's two hidden layers.
        classes: The number of classes, K: the width of the projector's output, which ends with BatchNorm.
        sharpness: The weight of the entropy of each distribution; see :func:`twist_loss`.
        diversity: The weight of the entropy of their mean, likewise.
        temperature: The temperature in both entropies, likewise.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        classes: int,
        sharpness: float,
        diversity: float,
        temperature: float,
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("classes", classes)):
            check_count(name, width, low=1)
        _check_weights(sharpness, diversity, temperature)
        self.sharpness, self.diversity, self.temperature = sharpness, diversity, temperature
        self.encoder = encoder
        widths = (encoder.width, hidden, hidden, classes)
        self.projector = mlp(*widths, norm=True, output_norm="plain", hidden_bias=False, output_bias=False)

    def cluster_logits(self, features: Tensor) -> Tensor:
        return self.projector(features)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.project, views.crops)

    @full_precision
    def assignment_probabilities(self, online: list[Tensor]) -> list[Tensor]:
        return [(logits / self.temperature).softmax(1) for logits in online]

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        weights = self.sharpness, self.diversity, self.temperature
        pairs = crop_pairs(len(online), self.global_crop_count)
        losses = [_twist(online[first], online[second], *weights) for first, second in pairs]
        return Loss(torch.stack(losses).mean(), {})
