"""BYOL: "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", Grill, Strub, Altché and others, arXiv
2006.07733.

A predictor on top of the online branch regresses the teacher's projection of another view (Eq. 2 there). There are no
negative pairs; the moving average and the predictor keep the embeddings from collapsing.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.functional import check_rows, full_precision
from infomax.methods.base import Loss, Method, Progress, Views, crossed_pairs
from infomax.models.encoders import Encoder
from infomax.nn.blocks import Teacher, l2_normalize, mlp
from infomax.runtime.checks import check_count
from infomax.runtime.collectives import global_means


def regression_loss(prediction: Float[Tensor, "b d"], target: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Computes BYOL's loss of one direction: the mean squared distance of L2-normalised predictions and targets.

    ``mean_i (2 - 2 cos(prediction_i, target_i))`` over the global batch (Eq. 2). The loss of a step is the sum of both
    directions (docs/decisions.md, byol-sum).

    Args:
        prediction: The predictor's outputs for one view, [B, D]; they are L2-normalised here. Gradients flow to them.
        target: The teacher's projections of the other view of the same images, [B, D], likewise; held constant.

    Returns:
        The loss, a scalar in [0, 4].

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, or their shapes differ.

    Example:
        >>> import torch
        >>> from infomax.methods.byol import regression_loss
        >>> prediction, target = torch.tensor([[3.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> regression_loss(prediction, target).item()  # the mean of 0 and 2
        1.0
    """
    check_rows("prediction", prediction)
    check_rows("target", target, like=prediction)
    return 2 - 2 * mean_cosine([prediction], [target], [(0, 0)])


@full_precision
def mean_cosine(
    predictions: Sequence[Float[Tensor, "b d"]], targets: Sequence[Float[Tensor, "b d"]], pairs: list[tuple[int, int]]
) -> Float[Tensor, ""]:
    """Computes the mean cosine of predictions and targets over the global batch, without any check.

    Args:
        predictions: Matrices [B, D]; gradients flow to them. A row of zeros has the cosine 0.
        targets: Matrices [B, D], which are held constant.
        pairs: The positions of a prediction and of a target that are compared, as those of
            :func:`infomax.methods.base.crossed_pairs`.

    Returns:
        The mean over all pairs and rows, a scalar.
    """
    p, t = [l2_normalize(x) for x in predictions], [l2_normalize(x.detach()) for x in targets]
    return torch.stack(global_means([(p[i] * t[j]).sum(1) for i, j in pairs])).mean()


class Byol(Method):
    """A method that trains BYOL's online branch and its predictor, to predict the projections of an EMA teacher.

    The loss is twice the mean of :func:`regression_loss` over all pairs of a global crop's target and another crop's
    prediction; for two crops this is the paper's sum of both directions.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layer.
        dimension: The width of the outputs of projector and predictor.
        predictor_hidden: The width of the predictor's hidden layer.
        momentum: The EMA momentum of the teacher at the start; a cosine raises it to 1.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(self, encoder: Encoder, *, hidden: int, dimension: int, predictor_hidden: int, momentum: float):
        super().__init__()
        widths = {"hidden": hidden, "dimension": dimension, "predictor_hidden": predictor_hidden}
        for name, width in widths.items():
            check_count(name, width, low=1)
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, dimension, norm=True, output_bias=False)
        self.predictor = mlp(dimension, predictor_hidden, dimension, norm=True, output_bias=False)
        self.teacher = Teacher(self._projecting, momentum)

    @property
    def _projecting(self) -> nn.Sequential:
        return nn.Sequential(self.encoder, self.projector)

    def _predict(self, images: Tensor) -> Tensor:
        return self.predictor(self.project(images))

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self._predict, views.crops)

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.teacher, views.global_crops)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        pairs = crossed_pairs(len(online), len(target))
        return Loss(4 - 4 * mean_cosine(online, target, pairs), {})

    def after_step(self, progress: Progress) -> None:
        self.teacher.ema_update(self._projecting, progress.fraction)
