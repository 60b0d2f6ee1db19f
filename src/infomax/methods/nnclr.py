"""NNCLR: "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual Representations",
Dwibedi, Aytar, Tompson, Sermanet, Zisserman, arXiv 2104.14548.

A prediction from one view is to be more like the nearest neighbour of the other view, among embeddings of earlier
batches, than like the neighbours of other images (Eq. 3 there). So positives are not only views of the same image.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.functional import check_rows, full_precision
from infomax.methods.base import Loss, Method, Views
from infomax.methods.byol import crossed_pairs
from infomax.methods.simclr import info_nce
from infomax.models.encoders import Encoder
from infomax.nn.blocks import l2_normalize, mlp
from infomax.nn.queue import Queue, check_queue
from infomax.runtime.checks import check_count, check_number


def nearest_neighbour(z: Float[Tensor, "b d"], queue: Float[Tensor, "k d"]) -> Float[Tensor, "b d"]:
    """Returns the row of a queue that has the largest cosine to each embedding; of equal ones, the first.

    No gradient flows through the result (Eq. 2 of NNCLR's paper).

    Args:
        z: Embeddings, [B, D]; they are L2-normalised here.
        queue: Embeddings of earlier batches, [K, D], of unit norm.

    Returns:
        The neighbours, [B, D].

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, or their widths differ.

    Example:
        >>> import torch
        >>> from infomax.methods.nnclr import nearest_neighbour
        >>> queue = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> nearest_neighbour(torch.tensor([[3.0, 3.0], [0.1, 2.0]]), queue)
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000]])
    """
    check_rows("z", z)
    check_queue(queue, z)
    return _nearest_neighbour(z, queue)


@torch.no_grad()
@full_precision
def _nearest_neighbour(z: Tensor, queue: Tensor) -> Tensor:
    return queue[(l2_normalize(z) @ queue.T).argmax(1)]


def nnclr_loss(
    neighbour: Float[Tensor, "b d"], prediction: Float[Tensor, "b d"], *, temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Computes NNCLR's loss: the mean cross-entropy of finding each neighbour's prediction among B, in nats.

    It is :func:`infomax.methods.simclr.info_nce_loss` with neighbours that are held constant (Eq. 3 there, whose
    transposed term is left out: docs/decisions.md, nnclr-loss).

    Args:
        neighbour: The neighbours of one view's embeddings, [B, D]; they are L2-normalised here, and held constant.
        prediction: Predictions from the other view of the same images, [B, D]; they are L2-normalised here. Gradients
            flow to them.
        temperature: The temperature, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, their shapes differ, or ``temperature`` is not
            above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.nnclr import nnclr_loss
        >>> z = torch.eye(4)
        >>> round(nnclr_loss(z, z, temperature=1.0).item(), 4)  # log(e + 3) - 1
        0.7437
    """
    check_rows("neighbour", neighbour)
    check_rows("prediction", prediction, like=neighbour)
    check_number("temperature", temperature, low=0, open_low=True)
    return info_nce(neighbour.detach(), prediction, temperature)


class Nnclr(Method):
    """A method that trains NNCLR's encoder, projector and predictor, with a queue of embeddings.

    The loss is the mean of :func:`nnclr_loss` over the neighbours of each global crop and the predictions from each
    other view. The first global crop's embeddings then join the queue.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the outputs of projector and predictor.
        predictor_hidden: The width of the predictor's hidden layer.
        temperature: The temperature of the loss; see :func:`nnclr_loss`.
        queue_size: The number of embeddings that neighbours are looked for in.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        predictor_hidden: int,
        temperature: float,
        queue_size: int,
    ):
        super().__init__()
        widths = {"hidden": hidden, "dimension": dimension, "predictor_hidden": predictor_hidden}
        for name, width in (*widths.items(), ("queue_size", queue_size)):
            check_count(name, width, low=1)
        check_number("temperature", temperature, low=0, open_low=True)
        self.temperature = temperature
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, hidden, dimension, norm=True, output_norm="affine")
        self.predictor = mlp(dimension, predictor_hidden, dimension, norm=True)
        self.queue = Queue(queue_size, dimension)

    def _predict(self, images: Tensor) -> Tensor:
        z = self.project(images)
        return torch.stack([self.predictor(z), z], dim=1)

    def online(self, views: Views) -> list[Tensor]:
        """Returns the predictions from each view beside its embeddings, [B, 2, D] a view."""
        return self.forward_each(self._predict, views.crops)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        predictions, embeddings = zip(*(both.unbind(1) for both in online), strict=True)
        neighbours = [_nearest_neighbour(z, self.queue.rows) for z in embeddings[: self.global_crop_count]]
        pairs = crossed_pairs(len(predictions), len(neighbours))
        losses = [info_nce(neighbours[crop], predictions[view], self.temperature) for view, crop in pairs]
        if self.training and torch.is_grad_enabled():
            self.queue.enqueue(l2_normalize(embeddings[0]))
        return Loss(torch.stack(losses).mean(), {})
