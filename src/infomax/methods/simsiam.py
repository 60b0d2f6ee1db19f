"""SimSiam: "Exploring Simple Siamese Representation Learning", Chen, He, arXiv 2011.10566.

A predictor regresses the projection of another view by the same networks, through which no gradient flows (Eqs. 3 and 4
there). There are neither negative pairs nor a teacher; without the stop-gradient the embeddings would collapse.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from infomax.functional import check_rows
from infomax.methods.base import Loss, Method, Views, crossed_pairs
from infomax.methods.byol import mean_cosine
from infomax.models.encoders import Encoder
from infomax.nn.blocks import mlp
from infomax.runtime.checks import check_count


def negative_cosine(prediction: Float[Tensor, "b d"], target: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Computes SimSiam's loss of one direction: the mean negative cosine of predictions and targets.

    ``-mean_i cos(prediction_i, target_i)`` over the global batch (Eqs. 1 and 3). The loss of a step is half the sum of
    both directions (Eq. 4).

    Args:
        prediction: The predictor's outputs for one view, [B, D]; they are L2-normalised here. Gradients flow to them.
        target: The projections of the other view of the same images, [B, D], likewise; held constant.

    Returns:
        The loss, a scalar in [-1, 1].

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, or their shapes differ.

    Example:
        >>> import torch
        >>> from infomax.methods.simsiam import negative_cosine
        >>> prediction, target = torch.tensor([[3.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> negative_cosine(prediction, target).item()  # the mean of -1 and 0
        -0.5
    """
    check_rows("prediction", prediction)
    check_rows("target", target, like=prediction)
    return -mean_cosine([prediction], [target], [(0, 0)])


class SimSiam(Method):
    """A method that trains SimSiam's encoder, projector and predictor.

    The loss is the mean of :func:`negative_cosine` over all pairs of a global crop's projection and another crop's
    prediction; for two crops this is Eq. 4.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        dimension: The width of the outputs of projector and predictor.
        predictor_hidden: The width of the predictor's hidden layer.

    Raises:
        ValueError: If a width is out of range.
    """

    def __init__(self, encoder: Encoder, *, hidden: int, dimension: int, predictor_hidden: int):
        super().__init__()
        widths = {"hidden": hidden, "dimension": dimension, "predictor_hidden": predictor_hidden}
        for name, width in widths.items():
            check_count(name, width, low=1)
        self.encoder = encoder
        self.projector = mlp(
            *(encoder.width, hidden, hidden, dimension),
            norm=True,
            hidden_bias=False,
            output_bias=False,
            output_norm="plain",
        )
        self.predictor = mlp(dimension, predictor_hidden, dimension, norm=True, hidden_bias=False)

    def _predict(self, images: Tensor) -> Tensor:
        """Computes the predictions and the projections of images, side by side."""
        projections = self.project(images)
        return torch.cat([self.predictor(projections), projections], dim=1)

    def online(self, views: Views) -> list[Tensor]:
        """Returns the predictions of all views, and after them the projections of the global crops, held constant."""
        both = self.forward_each(self._predict, views.crops)
        predictions, projections = zip(*(x.chunk(2, dim=1) for x in both), strict=True)
        return [*predictions, *(z.detach() for z in projections[: len(views.global_crops)])]

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        views = len(online) - self.global_crop_count
        predictions, projections = online[:views], online[views:]
        return Loss(-mean_cosine(predictions, projections, crossed_pairs(views, len(projections))), {})
