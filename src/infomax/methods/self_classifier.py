"""Self-Classifier: "Self-Supervised Classification Network", Amrani, Karlinsky, Bronstein, arXiv 2103.10994.

Two views of an image are to be of the same class. The cross-entropy is taken with probabilities that assume classes of
equal size, in the target and in the prediction, so that images in one class would have no small loss.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from math import log

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infomax.functional import check_rows, full_precision
from infomax.methods.base import Loss, Method, Views
from infomax.models.encoders import Encoder
from infomax.nn.blocks import Prototypes, l2_normalize, mlp
from infomax.nn.queue import ImageQueue
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_logmeanexp, global_mean


def self_classifier_loss(
    logits: Sequence[Float[Tensor, "b c"]],
    *,
    full: int = 2,
    row_temperature: float = 0.1,
    column_temperature: float = 0.05,
) -> Float[Tensor, ""]:
    """Computes the loss of Self-Classifier: the cross-entropy of classes of two views under a uniform prior, in nats.

    It is the mean over ordered pairs (i, j) of different views, not both local, and over images of
    ``-sum_c T_c log(B/C P_c)``. T is the softmax of view i over the global **batch**, at ``column_temperature``, whose
    rows are then scaled to the sum 1. P is the softmax of view j over classes, at ``row_temperature``, whose columns
    are then scaled to the sum 1 over the batch (Eqs. 5 to 8 there). Gradients flow through both, as in the official
    code.

    Args:
        logits: The class logits of V >= 2 views, each [B, C], the full views first; in the paper they are cosines.
        full: The number of full views, from 1 to V.
        row_temperature: The temperature of the softmax over classes, above 0.
        column_temperature: The temperature of the softmax over the batch, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If there are fewer than 2 views, a matrix is not finite or has another shape than the first one, or
            a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.self_classifier import self_classifier_loss
        >>> round(self_classifier_loss([torch.eye(3), torch.eye(3)]).item(), 4)  # a class for each image
        0.0001
        >>> round(self_classifier_loss([torch.ones(3, 3), torch.ones(3, 3)]).item(), 4)  # log 3
        1.0986
    """
    views = len(logits)
    if isinstance(logits, Tensor) or views < 2:
        actual = f"a tensor {[*logits.shape]}" if isinstance(logits, Tensor) else f"one of {views}"
        raise ValueError(f"logits must be a list of at least 2 views, but is {actual}")
    check_count("full", full, low=1)
    if full > views:
        raise ValueError(f"full must be at most the number of views, {views}, but is {full}")
    _check_temperatures(row_temperature, column_temperature)
    for view, matrix in enumerate(logits):
        check_rows(f"logits[{view}]", matrix, like=logits[0] if view else None)
    return _self_classifier(logits, full, row_temperature, column_temperature)


def _check_temperatures(row_temperature: float, column_temperature: float) -> None:
    check_number("row_temperature", row_temperature, low=0, open_low=True)
    check_number("column_temperature", column_temperature, low=0, open_low=True)


@full_precision
def _self_classifier(logits: Sequence[Tensor], full: int, row_temperature: float, column_temperature: float) -> Tensor:
    stacked = torch.stack(list(logits), dim=1)  # [B, V, C]
    classes = stacked.shape[2]
    columns, rows = stacked / column_temperature, (stacked / row_temperature).log_softmax(2)
    # One collective for both softmaxes over the batch; log B of their means is in B/C too.
    over_batch, row_means = global_logmeanexp(torch.cat([columns, rows], dim=1)).chunk(2)
    targets = (columns - over_batch).softmax(2).unbind(1)
    predictions = (rows - row_means - log(classes)).unbind(1)
    losses, pairs = [], 0
    for view, prediction in enumerate(predictions):
        others = [t for i, t in enumerate(targets) if i != view and (i < full or view < full)]
        losses.append(-(reduce(torch.add, others) * prediction).sum(1))
        pairs += len(others)
    return global_mean(torch.stack(losses).sum(0)) / pairs


class SelfClassifier(Method):
    """A method that trains Self-Classifier's encoder, projector and several classifiers, whose losses are averaged.

    With a queue, the classifiers see the nearest neighbour of the first view's embedding in place of that embedding, as
    soon as the queue is full: of the first views of earlier images that of the largest cosine, but never of the same
    image. It is held constant. The embeddings of a step join the queue after it.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layer.
        dimension: The width of the projector's output.
        classes: The number of classes of each classifier.
        row_temperature: The temperature of the softmax over classes; see :func:`self_classifier_loss`.
        column_temperature: The temperature of the softmax over the batch, likewise.
        queue_size: The number of embeddings that neighbours are looked for in; 0 takes no neighbours.

    Raises:
        ValueError: If a width or a number is out of range, or there is no classifier.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        classes: tuple[int, ...],
        row_temperature: float,
        column_temperature: float,
        queue_size: int,
    ):
        super().__init__()
        if not classes:
            raise ValueError("classes must name the number of classes of one classifier or more, but is empty")
        for name, width in (("hidden", hidden), ("dimension", dimension), *(("classes", count) for count in classes)):
            check_count(name, width, low=1)
        check_count("queue_size", queue_size, low=0)
        _check_temperatures(row_temperature, column_temperature)
        self.row_temperature, self.column_temperature = row_temperature, column_temperature
        self.classes = list(classes)
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, dimension, norm=True, activation=nn.LeakyReLU)
        self.classifiers = nn.ModuleList(Prototypes(dimension, count) for count in classes)
        self.queue = ImageQueue(queue_size, dimension) if queue_size else None
        self.remembers_images = queue_size > 0

    def _classify(self, z: Tensor) -> Tensor:
        return torch.cat([classifier(z) for classifier in self.classifiers], dim=1)

    def cluster_logits(self, features: Tensor) -> Tensor:
        """Computes the logits of the first classifier."""
        return self.classifiers[0](self.projector(features))

    def online(self, views: Views) -> list[Tensor]:
        """Returns the logits of all classifiers side by side, one tensor a view.

        If there is a queue, the first view's embeddings follow its logits in further columns, for :meth:`remember`.
        """
        first, *others = self.forward_each(self.project, views.crops)
        logits = [self._classify(z) for z in others]
        if self.queue is None:
            return [self._classify(first), *logits]
        chosen = first if views.positions is None else self.queue.neighbours(first, views.positions)
        return [torch.cat([self._classify(chosen), first.detach()], dim=1), *logits]

    def target(self, views: Views) -> list[Tensor]:
        """Returns the positions of the images if there is a queue, which keeps them."""
        return [] if self.queue is None or views.positions is None else [views.positions]

    @full_precision
    def assignment_probabilities(self, online: list[Tensor]) -> list[Tensor]:
        """Computes the probabilities of the first classifier."""
        return [(logits[:, : self.classes[0]] / self.row_temperature).softmax(1) for logits in online]

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        count = sum(self.classes)
        by_classifier = zip(*(logits[:, :count].split(self.classes, dim=1) for logits in online), strict=True)
        settings = self.global_crop_count, self.row_temperature, self.column_temperature
        losses = [_self_classifier(logits, *settings) for logits in by_classifier]
        return Loss(torch.stack(losses).mean(), {})

    def remember(self, online: list[Tensor], target: list[Tensor]) -> None:
        """Lets the first view's embeddings join the queue."""
        if self.queue is not None:
            self.queue.enqueue(l2_normalize(online[0][:, sum(self.classes) :]), target[0])
