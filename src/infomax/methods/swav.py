"""SwAV: "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", Caron, Misra, Mairal, Goyal,
Bojanowski, Joulin, arXiv 2006.09882.

Each view of an image predicts the cluster of the others. Clusters are assigned to a batch so that all are used evenly,
by three iterations of Sinkhorn-Knopp, which keeps images from sharing one cluster.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infomax.functional import check_rows, full_precision, swapped_cross_entropy
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.models.encoders import Encoder
from infomax.nn.balancing import LinearForm, LogForm, fits_linear_form, sinkhorn_knopp
from infomax.nn.blocks import l2_normalize, mlp
from infomax.nn.queue import Queue
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_max, global_sum, rank, world_size

QUEUES = 2  # one for each form of global crop


def sinkhorn(scores: Float[Tensor, "b k"], *, epsilon: float = 0.05, iterations: int = 3) -> Float[Tensor, "b k"]:
    """Computes the assignments of SwAV: Sinkhorn-Knopp's iteration on ``exp(scores / epsilon)``.

    Each iteration first scales the prototypes to the sum 1/K, then the samples of the global batch to 1/B (Eqs. 3 to 5
    and appendix A there); the result is times B. No gradient flows through it.

    Args:
        scores: The scores of each prototype for each sample, [B, K]; in the paper they are cosines, but any
            finite values will do.
        epsilon: The weight of the entropy, above 0.
        iterations: The number of iterations, at least 1.

    Returns:
        The assignments, [B, K]; each row sums to 1.

    Raises:
        ValueError: If ``scores`` is not a finite floating-point matrix, or a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.swav import sinkhorn
        >>> scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.4]])  # all prefer the first
        >>> sinkhorn(scores, epsilon=0.225, iterations=100).round(decimals=3)
        tensor([[0.8440, 0.1560],
                [0.6890, 0.3110],
                [0.2730, 0.7270],
                [0.1940, 0.8060]])
    """
    _check_sinkhorn(epsilon, iterations)
    largest = _largest_of_ranks([_check_scores("scores", scores, epsilon)])
    return _assignments([scores], [], None, epsilon, iterations, largest)[0]


def _check_sinkhorn(epsilon: float, iterations: int) -> None:
    check_number("epsilon", epsilon, low=0, open_low=True)
    check_count("iterations", iterations, low=1)


def _check_scores(name: str, scores: Tensor, epsilon: float, like: Tensor | None = None) -> Tensor:
    """Checks scores and returns their largest magnitude on this rank, a scalar."""
    low, high = check_rows(name, scores, like=like)
    largest = torch.maximum(-low, high).double()
    if float(largest) / epsilon > torch.finfo(torch.promote_types(scores.dtype, torch.float32)).max / 4:
        raise ValueError(f"epsilon={epsilon:.3g} is too small for {name} as large as {float(largest):.3g}")
    return largest


def _largest_of_ranks(magnitudes: list[Tensor]) -> float:
    """Returns the largest of some scalars of all ranks, which then choose the same form of the assignments."""
    return float(global_max(torch.stack(magnitudes).amax()))


@torch.no_grad()
@full_precision
def _assignments(
    scores: Sequence[Tensor],
    queued: Sequence[Tensor],
    queue_is_used: Tensor | None,
    epsilon: float,
    iterations: int,
    largest_score: float = 1.0,
) -> list[Tensor]:
    """Computes the assignments of several views, each view on its own, together with the scores of earlier images.

    Args:
        scores: This rank's scores of each view, [B, K].
        queued: The scores of earlier images for each view, [n, K], equal on all ranks; may be empty.
        queue_is_used: Whether the queued scores count, a scalar on the device; None if they do.
        epsilon: As in :func:`sinkhorn`.
        iterations: As there.
        largest_score: A bound of the magnitude of all scores, of all ranks: 1 of cosines. With epsilon it decides which
            of two equal forms is computed (docs/decisions.md, swav-two-forms).

    Returns:
        This rank's assignments of each view, [B, K].
    """
    form = LinearForm if fits_linear_form(2 * largest_score / epsilon, scores[0].dtype) else LogForm
    # Each rank takes its share of the queue, so that no row counts twice.
    earlier = [rows[rank() :: world_size()].to(scores[0].dtype) for rows in queued]
    return sinkhorn_knopp(form(scores, epsilon, earlier=earlier, earlier_count=queue_is_used), iterations)


def swapped_loss(
    scores: Sequence[Float[Tensor, "b k"]],
    *,
    full: int = 2,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    queued: Sequence[Float[Tensor, "n k"]] | None = None,
) -> Float[Tensor, ""]:
    """Computes the loss of SwAV: each view predicts the assignments of the full views but itself, in nats.

    ``1/M sum_{i < M} 1/(V-1) sum_{v != i} mean(-sum_k q_ik log softmax(scores[v] / temperature))``, where q_i is
    :func:`sinkhorn` of the full view i, computed together with ``queued[i]`` (Eqs. 1, 2 and 6 there). This is the mean
    of the official code, and not the paper's sum (docs/decisions.md, swav-mean).

    Args:
        scores: The scores of each prototype for V >= 2 views, each [B, K], the full views first. Gradients flow to
            them, but not through the assignments.
        full: The number of full views, M, from 1 to V.
        temperature: The temperature of the prediction, above 0.
        epsilon: As in :func:`sinkhorn`.
        iterations: As there.
        queued: The scores of earlier images, one matrix [n, K] for each full view; they are equal on all ranks. None
            assigns the batch alone.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If there are fewer than 2 views, a matrix is not finite or has another shape than its counterparts,
            or a number is out of range.

    Example:
        >>> import torch
        >>> from infomax.methods.swav import swapped_loss
        >>> view = torch.tensor([[0.2, 0.0], [0.0, 0.2]])
        >>> round(swapped_loss([view, view]).item(), 4)  # both views have the same clusters
        0.1629
        >>> round(swapped_loss([view, view.flip(0)]).item(), 4)
        2.091
    """
    views = len(scores)
    if isinstance(scores, Tensor) or views < 2:
        raise ValueError(f"scores must be a list of at least 2 views, but is {_described(scores)}")
    check_count("full", full, low=1)
    if full > views:
        raise ValueError(f"full must be at most the number of views, {views}, but is {full}")
    check_number("temperature", temperature, low=0, open_low=True)
    _check_sinkhorn(epsilon, iterations)
    magnitudes = [
        _check_scores(f"scores[{view}]", matrix, epsilon, like=scores[0] if view else None)
        for view, matrix in enumerate(scores)
    ]
    if queued is not None:
        magnitudes += _check_queued(queued, full, scores[0].shape[1], epsilon)
    largest = _largest_of_ranks(magnitudes)
    targets = _assignments(scores[:full], queued or [], None, epsilon, iterations, largest)
    return swapped_cross_entropy(scores, targets, temperature)


def _described(value: object) -> str:
    return f"a tensor {[*value.shape]}" if isinstance(value, Tensor) else f"one of {len(value)}"  # type: ignore


def _check_queued(queued: Sequence[Tensor], full: int, prototypes: int, epsilon: float) -> list[Tensor]:
    """Checks the scores of earlier images and returns the largest magnitude of each matrix."""
    if isinstance(queued, Tensor) or len(queued) != full:
        raise ValueError(f"queued must be a list of {full} matrices, one a full view, but is {_described(queued)}")
    magnitudes = []
    for view, matrix in enumerate(queued):
        magnitudes.append(_check_scores(f"queued[{view}]", matrix, epsilon, like=queued[0] if view else None))
        if matrix.shape[1] != prototypes:
            raise ValueError(f"queued[{view}] must have {prototypes} columns as the scores, but has {matrix.shape[1]}")
    return magnitudes


class Swav(Method):
    """A method that trains SwAV's encoder, projector and prototypes.

    A queue holds the embeddings of the last images, one for each of the first two global crops. From an epoch on, and
    once it is full, they are assigned together with the batch. Further global crops share these queues in turn.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layers.
        hidden_layers: The number of the projector's hidden layers.
        dimension: The width of the projector's output.
        prototypes: The number of prototypes, K.
        temperature: The temperature of the loss; see :func:`swapped_loss`.
        epsilon: The weight of the entropy in the assignments; see :func:`sinkhorn`.
        iterations: The number of iterations, likewise.
        queue: The number of images that a queue holds; 0 for none.
        queue_from_epoch: The first epoch, counted from 0, in which the queue is used.
        freeze_prototypes_steps: The number of steps at the start in which the prototypes stay as they were drawn.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    images_queued: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        hidden_layers: int,
        dimension: int,
        prototypes: int,
        temperature: float,
        epsilon: float,
        iterations: int,
        queue: int,
        queue_from_epoch: int,
        freeze_prototypes_steps: int,
    ):
        super().__init__()
        widths = {"hidden": hidden, "hidden_layers": hidden_layers, "dimension": dimension, "prototypes": prototypes}
        for name, width in widths.items():
            check_count(name, width, low=1)
        for name, number in (("queue", queue), ("queue_from_epoch", queue_from_epoch)):
            check_count(name, number, low=0)
        check_count("freeze_prototypes_steps", freeze_prototypes_steps, low=0)
        check_number("temperature", temperature, low=0, open_low=True)
        _check_sinkhorn(epsilon, iterations)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.queue_from_epoch, self.freeze_prototypes_steps = queue_from_epoch, freeze_prototypes_steps
        self.encoder = encoder
        self.projector = mlp(encoder.width, *[hidden] * hidden_layers, dimension, norm=True)
        self.prototypes = nn.Linear(dimension, prototypes, bias=False)
        self._normalize_prototypes()
        self.queues = nn.ModuleList(Queue(queue, dimension) for _ in range(QUEUES if queue else 0))
        self.register_buffer("images_queued", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def _normalize_prototypes(self) -> None:
        self.prototypes.weight.copy_(l2_normalize(self.prototypes.weight))

    def _embed(self, images: Tensor) -> Tensor:
        return l2_normalize(self.project(images))

    @full_precision  # as bfloat16 has steps of 0.004 near 1, which epsilon would magnify
    def _score(self, embeddings: Tensor) -> Tensor:
        return F.linear(embeddings, self.prototypes.weight.to(embeddings.device))  # the queue may be on another one

    def cluster_logits(self, features: Tensor) -> Tensor:
        return self._score(l2_normalize(self.projector(features)))

    def online(self, views: Views) -> list[Tensor]:
        """Returns the scores of each view; if there is a queue, a global crop's embeddings follow in further columns.

        The queue takes them. As an output of their own they would have no gradient.
        """
        embeddings = self.forward_each(self._embed, views.crops)
        queued = len(views.global_crops) if self.queues else 0
        with_embedding = [torch.cat([self._score(z), z], dim=1) for z in embeddings[:queued]]
        return with_embedding + [self._score(z) for z in embeddings[queued:]]

    def _scores(self, online: list[Tensor]) -> list[Tensor]:
        return [x[:, : self.prototypes.out_features] for x in online]

    @full_precision
    def assignment_probabilities(self, online: list[Tensor]) -> list[Tensor]:
        return [(scores / self.temperature).softmax(1) for scores in self._scores(online)]

    def schedule_values(self, progress: Progress) -> tuple[float, ...]:
        """Returns whether the queue is used in this epoch, as 1 or 0."""
        return (float(progress.epoch >= self.queue_from_epoch),)

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        (queue_epoch,) = schedule_values
        scores = self._scores(online)
        full, queued, is_used = scores[: self.global_crop_count], [], None
        if self.queues:
            is_used = (self.images_queued >= len(self.queues[0].rows)) & (queue_epoch > 0)  # pyrefly: ignore
            with torch.no_grad():
                earlier = [self._score(queue.rows) for queue in self.queues]  # pyrefly: ignore
            queued = [earlier[view % QUEUES] for view in range(len(full))]
        targets = _assignments(full, queued, is_used, self.epsilon, self.iterations)
        if self.queues and self.training and torch.is_grad_enabled():
            self._enqueue(online)
        return Loss(swapped_cross_entropy(scores, targets, self.temperature), {})

    @torch.no_grad()
    def _enqueue(self, online: list[Tensor]) -> None:
        for queue, outputs in zip(self.queues, online, strict=False):
            queue.enqueue(outputs[:, self.prototypes.out_features :])  # pyrefly: ignore
        self.images_queued.add_(global_sum(torch.full_like(self.images_queued, len(online[0]))))

    def after_backward(self, progress: Progress) -> None:
        if progress.step < self.freeze_prototypes_steps:
            self.prototypes.weight.grad = None

    def after_step(self, progress: Progress) -> None:
        """Gives the prototypes unit norm again; the gradient does not pass through this, as in the official code."""
        self._normalize_prototypes()
