"""Spectral: "Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive Loss", HaoChen, Wei,
Gaidon, Ma, arXiv 2106.04156.

Two views of an image have a large inner product, and views of different images a small squared one (Eq. 6 there).
Embeddings that minimise this are eigenvectors of the graph that augmentation draws between images.
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
from infomax.runtime.collectives import gather_with_gradient, global_mean


def spectral_loss(z1: Float[Tensor, "b d"], z2: Float[Tensor, "b d"], *, mu: float = 1.0) -> Float[Tensor, ""]:
    """Computes the spectral contrastive loss of two views (Eq. 6), over mu.

    ``[-2 mean_i z1_i z2_i + 1/(B (B-1)) sum_{i != j} (z1_i z2_j)^2] / mu`` over the global batch. A row longer than
    ``sqrt(mu)`` is first scaled down to that length, as in the official code, which also divides by mu.

    Args:
        z1: Embeddings of the first views, [B, D] with B >= 2 over all ranks. Gradients flow to them.
        z2: Embeddings of the second views of the same images, [B, D], likewise.
        mu: The largest squared length of an embedding, above 0.

    Returns:
        The loss, a scalar of -2 or more.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, their shapes differ, there are fewer than 2
            rows, or ``mu`` is not above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.spectral import spectral_loss
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> spectral_loss(z, z).item()  # -2 + 0
        -2.0
        >>> spectral_loss(z, z.flip(0)).item()  # 0 + 1
        1.0
    """
    check_rows("z1", z1, min_rows=2)
    check_rows("z2", z2, min_rows=2, like=z1)
    check_number("mu", mu, low=0, open_low=True)
    return _spectral_loss(z1, z2, mu)


@full_precision
def _spectral_loss(z1: Tensor, z2: Tensor, mu: float) -> Tensor:
    z1, z2 = (_shortened(z, mu**0.5) for z in (z1, z2))
    all_z2, mine = gather_with_gradient(z2)
    itself = (
        torch.arange(len(all_z2), device=z1.device) == torch.arange(mine.start, mine.stop, device=z1.device)[:, None]
    )
    others = (z1 @ all_z2.T).masked_fill(itself, 0).square().sum(1) / (len(all_z2) - 1)
    return global_mean(others - 2 * (z1 * z2).sum(1)) / mu


def _shortened(z: Tensor, longest: float) -> Tensor:
    """Scales rows that are longer than ``longest`` down to that length."""
    return z * (longest / z.norm(dim=1, keepdim=True).clamp_min(longest))


class Spectral(Method):
    """A method that trains an encoder and a projector with the spectral contrastive loss.

    The loss is the mean of :func:`spectral_loss` over all pairs of views of which one is a global crop.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        hidden_layers: The number of the projector's hidden layers.
        dimension: The width of the projector's output, which ends with BatchNorm as in the official code.
        mu: The largest squared length of an embedding; see :func:`spectral_loss`.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(self, encoder: Encoder, *, hidden: int, hidden_layers: int, dimension: int, mu: float):
        super().__init__()
        for name, count in (("hidden", hidden), ("hidden_layers", hidden_layers), ("dimension", dimension)):
            check_count(name, count, low=1)
        check_number("mu", mu, low=0, open_low=True)
        self.mu = mu
        self.encoder = encoder
        widths = (encoder.width, *[hidden] * hidden_layers, dimension)
        self.projector = mlp(*widths, norm=True, hidden_bias=False, output_norm="affine", output_bias=False)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.project, views.crops)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        pairs = crop_pairs(len(online), self.global_crop_count)
        losses = [_spectral_loss(online[first], online[second], self.mu) for first, second in pairs]
        return Loss(torch.stack(losses).mean(), {})
