"""MoCo v2: "Improved Baselines with Momentum Contrastive Learning", Chen, Fan, Girshick, He, arXiv 2003.04297; and
MoCo v3: "An Empirical Study of Training Self-Supervised Vision Transformers", Chen, Xie, He, arXiv 2104.02057.

A query is to be more like the key of its own image, of an EMA teacher, than like the keys of other images. These come
from earlier batches, in a queue (v2, whose equation is Eq. 1 of MoCo, arXiv 1911.05722), or from the same batch (v3).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from infomax.functional import check_rows, full_precision, row_blocks
from infomax.methods.base import Loss, Method, Progress, Views
from infomax.methods.byol import crossed_pairs
from infomax.methods.simclr import info_nce
from infomax.models.encoders import Encoder
from infomax.nn.blocks import Teacher, l2_normalize, mlp
from infomax.nn.queue import Queue, check_queue, enqueue
from infomax.runtime.checks import check_count, check_number
from infomax.runtime.collectives import global_mean

__all__ = ["Moco", "MocoV3", "batch_loss", "enqueue", "queue_loss"]


def queue_loss(
    query: Float[Tensor, "b d"], key: Float[Tensor, "b d"], queue: Float[Tensor, "k d"], *, temperature: float = 0.2
) -> Float[Tensor, ""]:
    """Computes MoCo's loss: the mean cross-entropy of finding each query's key among it and a queue, in nats.

    ``-1/B sum_i log[exp(q_i k_i / t) / (exp(q_i k_i / t) + sum_n exp(q_i queue_n / t))]`` over the global batch (Eq. 1
    of MoCo's paper). Keys of other images of the batch are not compared with.

    Args:
        query: Embeddings of one view, [B, D]; they are L2-normalised here. Gradients flow to them.
        key: The teacher's embeddings of the other view of the same images, [B, D]; they are L2-normalised here, and
            held constant.
        queue: Keys of earlier batches, [K, D], of unit norm and the same on every rank; they are held constant.
        temperature: The temperature t, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, their shapes differ, or ``temperature`` is not
            above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.moco import queue_loss
        >>> z, queue = torch.eye(4)[:2], torch.eye(4)[2:]
        >>> round(queue_loss(z, z, queue, temperature=1.0).item(), 4)  # log(e + 2) - 1
        0.5514
    """
    check_rows("query", query)
    check_rows("key", key, like=query)
    check_queue(queue, query)
    check_number("temperature", temperature, low=0, open_low=True)
    return queue_cross_entropy(query, key, queue, temperature)


class _LogSumExp(torch.autograd.Function):
    """Computes ``log sum_n exp(<q_i, queue_n>)`` of each row with a gradient of its own, for a queue that is constant.

    The gradient of a row is the mean of the queue under its softmax. It is computed together with the value, so that no
    matrix as long as the queue is kept, and on a CPU none is made of all rows at once.
    """

    @staticmethod
    def forward(ctx, q: Tensor, queue: Tensor) -> Tensor:
        values, means = [], []
        # Of a longer queue, blocks of fewer rows would read it more often than they spare memory.
        for (rows,) in row_blocks(q, width=min(len(queue), 2**13)):
            logits = rows @ queue.T
            largest = logits.amax(1, keepdim=True)
            total = logits.sub_(largest).exp_().sum(1, keepdim=True)
            values.append((largest + total.log()).squeeze(1))
            if ctx.needs_input_grad[0]:
                means.append((logits @ queue).div_(total))
        ctx.save_for_backward(*means)
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:  # pyrefly: ignore[bad-override]
        return torch.cat(ctx.saved_tensors) * gradients[0].unsqueeze(1), None


@full_precision
def queue_cross_entropy(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Computes :func:`queue_loss` without its checks."""
    q, k = l2_normalize(query) / temperature, l2_normalize(key.detach())
    positive = (q * k).sum(1)
    negatives: Tensor = _LogSumExp.apply(q, queue.detach())  # pyrefly: ignore[bad-assignment]
    return global_mean(torch.logaddexp(positive, negatives) - positive)


def batch_loss(
    query: Float[Tensor, "b d"], key: Float[Tensor, "b d"], *, temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Computes MoCo v3's loss: 2t times the mean cross-entropy of finding each query's key among those of the batch.

    It is ``2t`` times :func:`infomax.methods.simclr.info_nce_loss`, with keys that are held constant (Algorithm 1 of
    MoCo v3's paper). The factor makes the gradient depend less on the temperature t.

    Args:
        query: Predictions from one view, [B, D]; they are L2-normalised here. Gradients flow to them.
        key: The teacher's embeddings of the other view of the same images, [B, D]; they are L2-normalised here, and
            held constant.
        temperature: The temperature t, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If an argument is not a finite floating-point matrix, their shapes differ, or ``temperature`` is not
            above 0.

    Example:
        >>> import torch
        >>> from infomax.methods.moco import batch_loss
        >>> z = torch.eye(4)
        >>> round(batch_loss(z, z).item(), 4)  # 2 (log(e + 3) - 1)
        1.4873
    """
    check_rows("query", query)
    check_rows("key", key, like=query)
    check_number("temperature", temperature, low=0, open_low=True)
    return _batch_loss(query, key, temperature)


def _batch_loss(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    return 2 * temperature * info_nce(query, key.detach(), temperature)


@dataclass(frozen=True)
class QueryPairs:
    """A frozen dataclass that says which views are queries, which ones are keys, and which query meets which key.

    Of two views, the first one queries the second one's key; if ``symmetric``, each queries the other's. Of more views,
    each queries the keys of all global crops but itself (docs/decisions.md, moco-symmetric).
    """

    symmetric: bool

    def _one_way(self, view_count: int) -> bool:
        """Returns whether the first view alone queries, and the last one alone is a key."""
        return not self.symmetric and view_count <= 2

    def queries(self, views: Views) -> list[Tensor]:
        """Returns the views that query."""
        return views.crops[:1] if self._one_way(len(views.crops)) else views.crops

    def keys(self, views: Views) -> list[Tensor]:
        """Returns the views whose embeddings are keys."""
        return views.global_crops[1:] if self._one_way(len(views.crops)) else views.global_crops

    def pairs(self, query_count: int, key_count: int) -> list[tuple[int, int]]:
        """Returns the positions of each query and each key that meet, among the queries and among the keys."""
        return [(0, key_count - 1)] if self._one_way(query_count) else crossed_pairs(query_count, key_count)


class Moco(Method):
    """A method that trains MoCo v2's encoder and projector, with keys of an EMA teacher and a queue.

    The loss is the mean of :func:`queue_loss` over the pairs of :class:`QueryPairs`, all with the queue before the
    step. The keys then join the queue.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the projector's hidden layer.
        dimension: The width of the projector's output.
        projector_norm: Whether the projector's hidden layer has BatchNorm, which the paper's has not.
        temperature: The temperature of the loss; see :func:`queue_loss`.
        queue_size: The number of keys in the queue.
        momentum: The EMA momentum of the teacher at the start of the run.
        momentum_end: Its EMA momentum at the end, to which a cosine leads.
        symmetric: Whether each of two views is query and key.

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
        temperature: float,
        queue_size: int,
        momentum: float,
        momentum_end: float,
        symmetric: bool,
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension), ("queue_size", queue_size)):
            check_count(name, width, low=1)
        check_number("temperature", temperature, low=0, open_low=True)
        self.temperature, self.query_pairs = temperature, QueryPairs(symmetric)
        self.encoder = encoder
        self.projector = mlp(encoder.width, hidden, dimension, norm=projector_norm)
        self.teacher = Teacher(self._student, momentum, momentum_end)
        self.queue = Queue(queue_size, dimension)

    @property
    def _student(self) -> nn.Sequential:
        return nn.Sequential(self.encoder, self.projector)

    def online(self, views: Views) -> list[Tensor]:
        return self.forward_each(self._student, self.query_pairs.queries(views))

    @torch.no_grad()
    def target(self, views: Views) -> list[Tensor]:
        return self.forward_each(self.teacher, self.query_pairs.keys(views))

    def compute_loss(
        self, online: list[Tensor], target: list[Tensor], schedule_values: Iterable[float | Tensor]
    ) -> Loss:
        pairs = self.query_pairs.pairs(len(online), len(target))
        keys = {number: l2_normalize(target[number]) for number in sorted({key for _, key in pairs})}
        queue = self.queue.before_step()
        losses = [queue_cross_entropy(online[query], keys[key], queue, self.temperature) for query, key in pairs]
        if self.training and torch.is_grad_enabled():
            for key in keys.values():
                self.queue.enqueue(key)
        return Loss(torch.stack(losses).mean(), {})

    def after_step(self, progress: Progress) -> None:
        self.teacher.ema_update(self._student, progress.fraction)


class MocoV3(Method):
    """A method that trains MoCo v3's encoder, projector and predictor, with keys of an EMA teacher.

    Each view's prediction queries the keys of all global crops but itself. The loss is twice the mean over these pairs
    of :func:`batch_loss`: of two views, the sum of both directions.

    Args:
        encoder: The encoder to train; it maps images to features.
        hidden: The width of the hidden layers of projector and predictor.
        dimension: The width of their outputs.
        projector_layers: The number of linear layers of the projector: 2 for a ResNet, 3 for a vision transformer.
        predictor_norm: Whether the predictor ends with BatchNorm, as for a vision transformer.
        temperature: The temperature of the loss; see :func:`batch_loss`.
        momentum: The EMA momentum of the teacher at the start of the run; a cosine raises it to 1.

    Raises:
        ValueError: If a width or a number is out of range.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        dimension: int,
        projector_layers: int,
        predictor_norm: bool,
        temperature: float,
        momentum: float,
    ):
        super().__init__()
        for name, width in (("hidden", hidden), ("dimension", dimension), ("projector_layers", projector_layers)):
            check_count(name, width, low=1)
        check_number("temperature", temperature, low=0, open_low=True)
        self.temperature = temperature
        self.encoder = encoder
        bias_free = {"norm": True, "hidden_bias": False, "output_bias": False}
        inner = [hidden] * (projector_layers - 1)
        self.projector = mlp(encoder.width, *inner, dimension, output_norm="plain", **bias_free)
        output_norm = "plain" if predictor_norm else "none"
        self.predictor = mlp(dimension, hidden, dimension, output_norm=output_norm, **bias_free)
        self.teacher = Teacher(self._student, momentum)

    @property
    def _student(self) -> nn.Sequential:
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
        losses = [_batch_loss(online[query], target[key], self.temperature) for query, key in pairs]
        return Loss(2 * torch.stack(losses).mean(), {})

    def after_step(self, progress: Progress) -> None:
        self.teacher.ema_update(self._student, progress.fraction)
