"""SimCLR: "A Simple Framework for Contrastive Learning of Visual Representations", Chen, Kornblith, Norouzi, Hinton,
arXiv 2002.05709.

Two views of an image are to be more alike than any other two views of the batch (Eq. 1 there). InfoNCE compares with
one view of each other image alone; it is Eq. 1 of CARL's paper and a bound on the mutual information of the two views.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.functional import check_rows, full_precision
from infomax.methods.base import Loss, Method, Views, crop_pairs
from infomax.models.encoders import Encoder
from infomax.nn.blocks import l2_normalize, mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import gather_with_gradient, global_mean


def nt_xent_loss(z1: Float[Tensor, "b d"], z2: Float[Tensor, "b d"], *, temperature: float = 0.1) -> Float[Tensor, ""]:
    """Computes SimCLR's NT-Xent loss: the mean cross-entropy of finding each view's twin among 2B - 1 views, in nats.

    ``-1/(2B) sum_i log[exp(s_ip / t) / sum_{j != i} exp(s_ij / t)]`` with cosines s over the 2B views of the global
    batch, and p the other view of i (Eq. 1 and Algorithm 1 there). Google's code has twice this
    (docs/decisions.md, simclr-mean).

    Args:
        z1: Embeddings of the first views, [B, D]; they are L2-normalised here. Gradients flow to them.
        z2: Embeddings of the second views of the same images, [B, D], likewise.
        temperature: The temperature t, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, their shapes differ, or ``temperature`` is not
            above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.simclr import nt_xent_loss
        >>> z = torch.eye(4)
        >>> round(nt_xent_loss(z[:2], z[:2]).item(), 4)  # each view finds its twin among two others: log(1 + 2 e^-10)
        0.0001
        >>> round(nt_xent_loss(z[:2], z[2:]).item(), 4)  # all are alike: log 3
        1.0986
    """
    check_rows("z1", z1)
    check_rows("z2", z2, like=z1)
    check_number("temperature", temperature, low=0, open_low=True)
    return nt_xent(z1, z2, temperature)


@full_precision
def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Computes :func:`nt_xent_loss` without its checks."""
    u1, u2 = l2_normalize(z1), l2_normalize(z2)
    everything, mine = gather_with_gradient(torch.cat([u1, u2], dim=1))
    all1, all2 = everything.chunk(2, dim=1)
    rows = torch.arange(mine.start, mine.stop, device=z1.device)[:, None]
    itself = torch.arange(2 * len(all1), device=z1.device) == rows
    losses = []
    for own, twin, same_view, other_view in ((u1, u2, all1, all2), (u2, u1, all2, all1)):
        scaled = own / temperature  # so that no operation is on a matrix of all pairs but those that must be
        logits = (scaled @ torch.cat([same_view, other_view]).T).masked_fill_(itself, -torch.inf)
        losses.append(logits.logsumexp(1) - (scaled * twin).sum(1))
    return global_mean(torch.stack(losses).mean(0))


def info_nce_loss(
    anchor: Float[Tensor, "b d"], positive: Float[Tensor, "b d"], *, temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Computes the InfoNCE loss: the mean cross-entropy of finding each anchor's positive among B, in nats.

    ``-1/B sum_i log[exp(a_i p_i / t) / sum_j exp(a_i p_j / t)]`` with cosines, over the global batch (Eq. 1 of CARL's
    paper). ``log B`` minus the loss is a lower bound of the mutual information of the two views.

    Args:
        anchor: Embeddings of one view, [B, D]; they are L2-normalised here. Gradients flow to them.
        positive: Embeddings of the other view of the same images, [B, D], likewise.
        temperature: The temperature t, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, their shapes differ, or ``temperature`` is not
            above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.simclr import info_nce_loss
        >>> z = torch.eye(4)
        >>> round(info_nce_loss(z, z, temperature=1.0).item(), 4)  # log(e + 3) - 1
        0.7437
    """
    check_rows("anchor", anchor)
    check_rows("positive", positive, like=anchor)
    check_number("temperature", temperature, low=0, open_low=True)
    return info_nce(anchor, positive, temperature)


@full_precision
def info_nce(anchor: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Computes :func:`info_nce_loss` without its checks."""
    a, p = l2_normalize(anchor), l2_normalize(positive)
    all_positives, _ = gather_with_gradient(p)
    return global_mean((a @ all_positives.T / temperature).logsumexp(1) - (a * p).sum(1) / temperature)


class SimClr(Method):
    """A method that trains SimCLR's encoder and projector.

    The loss is the mean of :func:`nt_xent_loss` over all pairs of views of which one is a global crop.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        hidden_layers: The number of the projector's hidden layers.
        dimension: The width of the projector's output.
        hidden_norm: Whether the projector's hidden layers have BatchNorm.
        output_norm: Whether the projector ends with BatchNorm, as in Google's code.
        temperature: The temperature of the loss; see :func:`nt_xent_loss`.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        hidden_layers: int,
        dimension: int,
        hidden_norm: bool,
        output_norm: bool,
        temperature: float,
    ):
        super().__init__()
        for name, count in (("hidden", hidden), ("hidden_layers", hidden_layers), ("dimension", dimension)):
            check_count(name, count, low=1)
        check_number("temperature", temperature, low=0, open_low=True)
        self.temperature = temperature
        self.encoder = encoder
        norm = "affine" if output_norm else "none"
        widths = (encoder.width, *[hidden] * hidden_layers, dimension)
        self.projector = mlp(*widths, norm=hidden_norm, output_norm=norm, output_bias=not output_norm)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.project, views.crops)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        pairs = crop_pairs(len(online), self.global_crop_count)
        losses = [nt_xent(online[first], online[second], self.temperature) for first, second in pairs]
        return Loss(torch.stack(losses).mean(), {})
