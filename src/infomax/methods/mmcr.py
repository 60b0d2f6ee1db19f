"""MMCR: "Learning Efficient Coding of Natural Images with Maximum Manifold Capacity Representations", Yerxa, Kuang,
Simoncelli, Chung, arXiv 2303.03307.

The mean of an image's embeddings is its centroid. The nuclear norm of the matrix of centroids is maximised: it is
large if the views of an image agree, as long centroids, and if the images fill all dimensions alike.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from infomax.functional import check_views, full_precision
from infomax.methods.base import Loss, Method, Views
from infomax.models.encoders import Encoder
from infomax.nn.blocks import l2_normalize, mlp
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import gather_with_gradient, global_mean


class _NuclearNorm(torch.autograd.Function):
    """Computes the sum of singular values of a matrix, or of each of a stack, with the gradient of least norm.

    At a matrix of less than full rank the norm has many subgradients. Autograd would return the one that the singular
    vectors of zeros happen to give, which differs between machines.
    """

    @staticmethod
    def forward(ctx, matrix: Tensor) -> Tensor:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        rounding = torch.finfo(matrix.dtype).eps * max(matrix.shape[-2:])
        above_zero = values > rounding * values.amax(-1, keepdim=True)
        ctx.save_for_backward((left * above_zero.unsqueeze(-2)) @ right)
        return values.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        (direction,) = ctx.saved_tensors
        return gradients[0][..., None, None] * direction


def mmcr_loss(views: Sequence[Float[Tensor, "b d"]], *, weight: float = 0.0) -> Float[Tensor, ""]:
    """Computes MMCR's loss: the negative nuclear norm of the images' centroids.

    ``-|C|_* + weight mean_b |Z_b|_*``, where a row of C [B, D] is the mean of an image's L2-normalised embeddings over
    its views, B is the number of images of the global batch, Z_b [V, D] holds the embeddings of one image, and
    ``|.|_*`` is the sum of singular values. The first term grows with the batch (docs/decisions.md, mmcr-sum).

    Args:
        views: The embeddings of each of V views, [B, D]; they are L2-normalised here. Gradients flow to them.
        weight: The weight of the images' own nuclear norms, not negative.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If ``views`` is not a list of finite floating-point matrices of one shape, or ``weight`` is
            negative.

    Example:
        >>> import torch
        >>> from infomax.methods.mmcr import mmcr_loss
        >>> z = torch.eye(4)
        >>> round(mmcr_loss([z, z]).item(), 4)  # four singular values of 1
        -4.0
        >>> round(mmcr_loss([z, -z]).item(), 4)  # views that contradict each other have no centroid
        0.0
        >>> round(mmcr_loss([z, z], weight=0.1).item(), 4)  # two equal rows: one singular value, the root of 2
        -3.8586
    """
    views = check_views("views", views)
    check_number("weight", weight, low=0)
    centroids, images = _terms(views, weight)
    return images - centroids


@full_precision
def _terms(views: list[Tensor], weight: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Computes the nuclear norm of the centroids, and the weighted mean of the images' own; 0 if the weight is 0."""
    embeddings = torch.stack([l2_normalize(z) for z in views], dim=1)
    centroids, _ = gather_with_gradient(embeddings.mean(1))
    of_centroids: Tensor = _NuclearNorm.apply(centroids)  # pyrefly: ignore[bad-assignment]
    if weight == 0:
        return of_centroids, torch.zeros_like(of_centroids)
    of_images: Tensor = _NuclearNorm.apply(embeddings)  # pyrefly: ignore[bad-assignment]
    return of_centroids, weight * global_mean(of_images)


class Mmcr(Method):
    """A method that trains MMCR's encoder and projector; local crops enter the centroids as global ones do.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the projector's output.
        weight: The weight of the images' own nuclear norms; see :func:`mmcr_loss`.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(self, encoder: Encoder, *, hidden: int, dimension: int, weight: float):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension)):
            check_count(name, width, low=1)
        check_number("weight", weight, low=0)
        self.weight = weight
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=True)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.project, views.crops)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        centroids, images = _terms(online, self.weight)
        return Loss(images - centroids, {"nuclear_norm": centroids.detach()})
